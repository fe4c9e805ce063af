"""A policy's learned state, made ready for one catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from arbitration.catalog.compile import CompiledCatalog
from arbitration.policy.posterior import Posterior, posterior_of
from arbitration.policy.state import State

PRIOR = "prior"
"""Version of a policy that has learned nothing yet (or nothing under its present features)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable, versioned posterior over the arms of a catalog, in its arm order."""

    version: str
    posterior: Posterior


Snapshots = Mapping[str, Snapshot]
"""By policy id."""


def fingerprint(catalog: CompiledCatalog, policy: str) -> str:
    """What learned sums depend on: the encoding of x and the reward of each outcome."""
    rewards = sorted((channel.id, sorted(channel.rewards.items())) for channel in catalog.model.channels)
    spelled = f"{catalog.encoders[policy].fingerprint} {rewards!r}"
    return hashlib.sha256(spelled.encode()).hexdigest()[:16]


def lineage(catalog: CompiledCatalog, policy: str) -> str:
    """What a learned state is a state of: a policy under its present encoding and rewards. States of one
    lineage replace one another; a catalog that goes back finds its lineage again."""
    return f"{policy}-{fingerprint(catalog, policy)}"


def serve(catalog: CompiledCatalog, policy: str, state: State | None, version: str) -> Snapshot:
    """The snapshot that `catalog` decides with. A state learned under another encoding is not used:
    until the learner has relearned it from the ledger, the policy stands at its prior."""
    size = catalog.encoders[policy].size
    if state is None or state.fingerprint != fingerprint(catalog, policy) or state.size != size:
        state, version = None, PRIOR
    return Snapshot(version, posterior_of(catalog.policies[policy], catalog.arm_ids, size, state))

"""A policy's learned state, made ready for one catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.scalars import duration
from arbitration.errors import SnapshotError
from arbitration.policy.posterior import posterior_of
from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]

PRIOR = "prior"
"""Version of a policy that has learned nothing yet (or nothing under its present features)."""


class Belief(Protocol):
    """What is believed of every arm of a catalog, in its arm order."""

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the reward at x (d,) of arms first..stop: two float64 arrays."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable, versioned belief over the arms of a catalog, in its arm order. `learned`: how many
    outcomes it rests on (where it forgets, as many as they count for)."""

    version: str
    posterior: Belief
    learned: float = 0.0


Snapshots = Mapping[str, Snapshot]
"""By policy id."""


def fingerprint(catalog: CompiledCatalog, policy: str) -> str:
    """What learned sums depend on: the encoding of x, the reward of each outcome, how several combine, and
    how it forgets."""
    rewards = sorted((channel.id, sorted(channel.rewards.items())) for channel in catalog.model.channels)
    spelled = f"{catalog.encoders[policy].fingerprint} {rewards!r}"
    # Only what was chosen: with the defaults of today it is what it was before there was a choice.
    combining = sorted((each.id, each.combine) for each in catalog.model.channels if each.combine != "max")
    learns = catalog.policies[policy]
    if combining:
        spelled += f" {combining!r}"
    if learns.value_scale is not None:
        spelled += f" value {learns.value_scale!r}"
    if learns.half_life is not None:
        spelled += f" half-life {duration(learns.half_life).total_seconds()!r}"
    return hashlib.sha256(spelled.encode()).hexdigest()[:16]


def lineage(catalog: CompiledCatalog, policy: str) -> str:
    """What a learned state is a state of: a policy under its present encoding and rewards. States of one
    lineage replace one another; a catalog that goes back finds its lineage again."""
    return f"{policy}-{fingerprint(catalog, policy)}"


def empty_state(catalog: CompiledCatalog, policy: str) -> State:
    """The state of a policy that has learned nothing yet."""
    text = catalog.policies[policy].half_life
    half_life = None if text is None else duration(text).total_seconds()
    return State(fingerprint(catalog, policy), catalog.encoders[policy].size, half_life)


def serve(catalog: CompiledCatalog, policy: str, state: State | None, version: str) -> Snapshot:
    """The snapshot that `catalog` decides with; without a state, the policy stands at its prior. Raises
    SnapshotError for a state of anything else: of another encoding, other rewards, another half-life."""
    size = catalog.encoders[policy].size
    if state is None:
        version = PRIOR
    elif state.fingerprint != fingerprint(catalog, policy) or state.size != size:
        raise SnapshotError(f"the state {version} is not one of policy '{policy}' in this catalog")
    kin = [((arm.action.id, arm.treatment.channel), arm.action.id) for arm in catalog.arms]
    posterior = posterior_of(catalog.policies[policy], catalog.arm_ids, size, state, kin)
    return Snapshot(version, posterior, 0.0 if state is None else float(state.count.sum()))

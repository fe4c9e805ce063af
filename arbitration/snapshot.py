"""A policy's learned state, made ready for one catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.learning import Mabwiser, Policy
from arbitration.catalog.scalars import duration
from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser import artifact
from arbitration.policy.mabwiser.belief import belief_of
from arbitration.policy.mabwiser.history import History
from arbitration.policy.mabwiser.neighbourhood import believe
from arbitration.policy.mabwiser.training import Trained, train, training
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
    """What learned states depend on: the encoding of x, the reward of each outcome, how several combine, how
    it forgets, and, where it is not a sum, what it is trained by."""
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
    if trained_by := training(learns):
        spelled += f" {trained_by}"
    return hashlib.sha256(spelled.encode()).hexdigest()[:16]


def lineage(catalog: CompiledCatalog, policy: str) -> str:
    """What a learned state is a state of: a policy under its present encoding and rewards. States of one
    lineage replace one another; a catalog that goes back finds its lineage again."""
    return f"{policy}-{fingerprint(catalog, policy)}"


def empty_state(catalog: CompiledCatalog, policy: str) -> State | History:
    """What a policy learns into, with nothing in it yet: sums, or, where it looks for neighbours, events."""
    declared, size = catalog.policies[policy], catalog.encoders[policy].size
    if _has_neighbours(declared):
        return History(fingerprint(catalog, policy), size, declared.history)
    half_life = None if declared.half_life is None else duration(declared.half_life).total_seconds()
    return State(fingerprint(catalog, policy), size, half_life)


def save(
    catalog: CompiledCatalog, policy: str, learned: State | History, key: bytes = b""
) -> tuple[str, bytes]:
    """(version, content) of a snapshot of what a policy has learned. `key` signs what cannot be kept without
    a pickle: SnapshotError where it is needed and too short. Training may take seconds."""
    if isinstance(learned, State):
        return learned.to_bytes()
    declared = catalog.policies[policy]
    assert _has_neighbours(declared), policy
    return artifact.to_bytes(train(declared, learned), key)


def load(
    catalog: CompiledCatalog,
    policy: str,
    version: str,
    content: bytes,
    hashed: str | None = None,
    key: bytes = b"",
) -> Snapshot:
    """The snapshot that `content` holds. `hashed`: the version that the content must have; `key`: what it
    was signed with. Raises SnapshotError for whatever is wrong with it."""
    if _has_neighbours(catalog.policies[policy]):
        trained = artifact.from_bytes(content, key, fingerprint(catalog, policy), hashed)
        return serve(catalog, policy, trained, version)
    return serve(catalog, policy, State.from_bytes(content, hashed), version)


def serve(catalog: CompiledCatalog, policy: str, learned: State | Trained | None, version: str) -> Snapshot:
    """The snapshot that `catalog` decides with; without a state, the policy stands at its prior. Raises
    SnapshotError for a state of anything else: of another encoding, other rewards, another half-life."""
    declared, size = catalog.policies[policy], catalog.encoders[policy].size
    if learned is None:
        version = PRIOR
    elif learned.fingerprint != fingerprint(catalog, policy) or _size(learned) != size:
        raise SnapshotError(f"the state {version} is not one of policy '{policy}' in this catalog")
    belief: Belief
    match declared:
        case Mabwiser(neighborhood_policy=None):
            assert not isinstance(learned, Trained), policy
            belief = belief_of(declared, catalog.arm_ids, size, learned)
        case Mabwiser():
            assert not isinstance(learned, State), policy
            belief = believe(declared, learned, catalog.arm_ids, size)
        case _:
            assert not isinstance(learned, Trained), policy
            kin = [
                ((arm.action.id, arm.treatment.channel), arm.action.id, arm.treatment.channel)
                for arm in catalog.arms
            ]
            belief = posterior_of(declared, catalog.arm_ids, size, learned, kin)
    return Snapshot(version, belief, _outcomes(learned))


def _has_neighbours(policy: Policy) -> TypeGuard[Mabwiser]:
    return isinstance(policy, Mabwiser) and policy.neighborhood_policy is not None


def _outcomes(learned: State | Trained | None) -> float:
    match learned:
        case State():
            return float(learned.count.sum())
        case Trained():
            return float(len(learned.events.arm))
    return 0.0


def _size(learned: State | Trained) -> int:
    return learned.size if isinstance(learned, State) else learned.events.x.shape[1]

"""How likely another procedure would have made the picks that were made.

Importance weighting needs, for every logged pick, the exact selection probability that the procedure to be
judged gives it: rules, limits, arbitration, exploration and slots included. A slot's probability depends on
the picks above it, so these are taken as they were logged, one after the other, and probabilities multiply
along the way (the reward-interaction estimator for slates: McInerney, Brost, Chandar, Mehrotra, Carterette,
KDD 2020, "Counterfactual evaluation of slate recommendations with sequential reward interactions").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.decide import Decision, Field, Floats, Indices, Slot, decide_by
from arbitration.inputs import Inputs
from arbitration.snapshot import Snapshots

Chances = Mapping[tuple[str, str], float]
"""Selection probabilities of a draw, by (placement, treatment)."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One pick of a decision. `rank` counts from 1 within the placement. `chances`: the selection probability
    of every arm that could have been picked by that draw."""

    placement: str
    rank: int
    treatment: str
    chances: Chances = field(repr=False)

    @property
    def probability(self) -> float:
        """The selection probability of this pick, given those before it."""
        return self.chances[self.placement, self.treatment]


@dataclass(frozen=True, slots=True)
class Followed:
    """Another procedure along the picks of a decision. float64 (n,) for the n picks, in the order drawn.

    `logging`, `target`: with what probability the logging procedure and the other one pick this and all
    before it. `target` is 0 from the first pick on that the other could not make; where it leaves that slot
    empty only of this pick and the rest of its placement: what comes in other placements is followed on, as
    if the pick did not matter to them. `supported`: how much of what the other would do at this draw, given
    the picks before, the logging procedure might have done as well; nan where it does not get there.
    `chances`: per pick, the other's selection probability of every arm it could pick at this draw, as in
    `Pick`; None where it does not get there. `more`: the same of each placement it would go on to fill where
    the log ends: nothing is known of what comes of that.
    """

    logging: Floats
    target: Floats
    supported: Floats
    chances: tuple[Chances | None, ...]
    more: tuple[Chances, ...]


def picks(decision: Decision) -> list[Pick]:
    """The picks of a decision, in the order they were drawn in."""
    found = [
        (not slot.chose_channel, number, rank, _pick(slate.candidates, slot, rank, decision))
        for number, slate in enumerate(decision.slates)
        for rank, slot in enumerate(slate.slots, start=1)
    ]
    return [pick for *_, pick in sorted(found, key=lambda each: each[:3])]


def _pick(candidates: Candidates, slot: Slot, rank: int, decision: Decision) -> Pick:
    arms = {slate.candidates.placement.id: slate.candidates.arms for slate in decision.slates}
    here = candidates.placement.id
    parts = {here: (slot.pool, slot.probabilities)}
    parts |= {placement: (pool, probabilities) for placement, pool, probabilities in slot.rivals}
    chances = {
        (placement, of[arm].treatment.id): float(chance)
        for placement, of in arms.items()
        if placement in parts
        for arm, chance in zip(*parts[placement], strict=True)
    }
    return Pick(here, rank, candidates.arms[int(slot.pool[slot.picked])].treatment.id, chances)


def follow(
    logged: Sequence[Pick], inputs: Inputs, catalog: CompiledCatalog, snapshots: Snapshots
) -> Followed:
    """`catalog` and `snapshots` along the logged picks, from `inputs`, which may differ from those of then.
    Raises InputsError as `decide` does."""
    follower = _Follower(logged, joint=len(inputs.channels) > 1)
    decide_by(follower.choose, inputs, catalog, snapshots)
    return follower.followed()


class _Follower:
    def __init__(self, logged: Sequence[Pick], *, joint: bool) -> None:
        self._logged = logged
        self._joint = joint
        self._at = {(pick.placement, pick.rank): number for number, pick in enumerate(logged)}
        self._own = np.zeros(len(logged))
        self._supported = np.full(len(logged), np.nan)
        self._reached = np.zeros(len(logged), dtype=np.bool_)
        self._chances: list[Chances | None] = [None] * len(logged)
        self._lost = False
        self._more: list[Chances] = []

    def choose(
        self, draw: float, fields: Sequence[Field], pools: Sequence[Indices], chances: Floats
    ) -> int | None:
        """Picks what was picked, and notes how likely that is here."""
        if self._lost:
            return None
        if self._joint:  # the channel is chosen first, with what was logged first
            self._joint, number = False, 0 if self._logged else None
        else:
            number = self._number(fields[0])
        possible = dict(zip(_names(fields, pools), chances.tolist(), strict=True))
        if number is None:
            self._more.append(possible)
            return None
        pick = self._logged[number]
        self._reached[number] = True
        self._chances[number] = possible
        shared = (chance for name, chance in possible.items() if pick.chances.get(name))
        self._supported[number] = min(sum(shared), 1.0)
        named = (pick.placement, pick.treatment)
        if named not in possible:
            self._lost = True
            return None
        self._own[number] = possible[named]
        return list(possible).index(named)

    def _number(self, where: Field) -> int | None:
        return self._at.get((where.candidates.placement.id, len(where.slots) + 1))

    def followed(self) -> Followed:
        """What was noted."""
        own: Floats = np.array([pick.probability for pick in self._logged], dtype=np.float64)
        # A slot left empty says nothing of those after it.
        logging = np.multiply.accumulate(np.where(self._reached, own, 1.0)) * np.where(
            self._reached, 1.0, own
        )
        target = np.multiply.accumulate(np.where(self._reached, self._own, 1.0)) * self._reached
        return Followed(logging, target, self._supported, tuple(self._chances), tuple(self._more))


def _names(fields: Sequence[Field], pools: Sequence[Indices]) -> Iterator[tuple[str, str]]:
    for where, pool in zip(fields, pools, strict=True):
        for arm in pool:
            yield where.candidates.placement.id, where.candidates.arms[arm].treatment.id

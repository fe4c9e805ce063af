"""The decision: a pure function of inputs, catalog and snapshots.

Candidates → screening → tiers and priorities → exact selection probabilities → one draw per slot,
without replacement. The same arguments give the same decision, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import Arm, Candidates, CompiledCatalog
from arbitration.catalog.scalars import LARGEST
from arbitration.errors import InputsError
from arbitration.inputs import Inputs
from arbitration.policy.strategies import propensity, selection_probabilities
from arbitration.randomness import uniform
from arbitration.screening import NoAction, Screening, screen
from arbitration.snapshot import Snapshots

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_DIGITS = 12  # what is logged is rounded beyond what another machine's linear algebra may change


@dataclass(frozen=True, slots=True)
class Item:
    """One pick. `selection_probability`: of this arm in this slot, given the picks above it."""

    arm: Arm
    rank: int
    propensity: float
    priority: float
    selection_probability: float


@dataclass(frozen=True, slots=True)
class Slot:
    """How one slot was filled: the arms that could be (`pool`), their probabilities, the uniform number
    drawn, and the position in the pool it fell on."""

    pool: Indices
    probabilities: Floats
    draw: float
    picked: int


@dataclass(frozen=True, slots=True)
class Slate:
    """What one placement shows, and all it came from. Arrays have an entry per candidate (K,)."""

    candidates: Candidates
    items: tuple[Item, ...]
    no_action: NoAction | None
    screening: Screening
    mean: Floats
    sd: Floats
    weight: Floats
    slots: tuple[Slot, ...]

    @property
    def priority(self) -> Floats:
        """propensity × context weight × value × lever."""
        return propensity(self.mean) * self.weight


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered request. `snapshots`: the version each policy that took part decided with."""

    inputs: Inputs
    catalog_version: str
    snapshots: dict[str, str]
    slates: tuple[Slate, ...]


def decide(inputs: Inputs, catalog: CompiledCatalog, snapshots: Snapshots) -> Decision:
    """Decides every placement of the request, in its order.

    An action is shown at most once in a decision. Raises InputsError where the inputs name a channel or
    placement that the catalog does not have.
    """
    asked = tuple(requested(inputs, catalog))
    activation = catalog.rules.language.activation(inputs.facts, inputs.now)
    clauses = sorted({clause for candidates, _ in asked for clause in candidates.needed})
    status = catalog.rules.evaluate(inputs.facts, activation, clauses)
    contexts: dict[str, Floats] = {}
    versions: dict[str, str] = {}
    shown: set[int] = set()
    slates = []
    drawn = 0
    for candidates, limit in asked:
        policy = candidates.policy.id
        if policy not in contexts:
            contexts[policy] = catalog.encoders[policy].encode(inputs.facts, inputs.now)
            versions[policy] = snapshots[policy].version
        screening = screen(inputs, catalog, candidates, activation, status)
        mean, sd = snapshots[policy].posterior.score(
            contexts[policy], candidates.first, candidates.first + len(candidates)
        )
        weight = np.minimum(screening.context_weight * screening.value * candidates.lever, LARGEST)
        slots = _fill(inputs.decision_id, drawn, candidates, limit, screening, (mean, sd, weight), shown)
        drawn += limit
        items = tuple(_items(candidates, slots, mean, weight))
        slates.append(
            Slate(candidates, items, _no_action(items, screening), screening, mean, sd, weight, slots)
        )
    return Decision(inputs, catalog.version, versions, tuple(slates))


def requested(inputs: Inputs, catalog: CompiledCatalog) -> Iterator[tuple[Candidates, int]]:
    """The candidates of each requested placement and how many items it may hold."""
    if inputs.channel not in catalog.channels:
        raise InputsError("channel", f"unknown channel '{inputs.channel}'")
    for number, (name, limit) in enumerate(inputs.placements):
        candidates = catalog.candidates.get(name)
        if candidates is None or candidates.channel.id != inputs.channel:
            message = f"the channel '{inputs.channel}' has no placement '{name}'"
            raise InputsError(f"placements[{number}].id", message)
        yield candidates, limit


def _fill(
    decision_id: str,
    drawn: int,
    candidates: Candidates,
    limit: int,
    screening: Screening,
    beliefs: tuple[Floats, Floats, Floats],
    shown: set[int],
) -> tuple[Slot, ...]:
    """Fills the slots in turn, marking the actions shown. `drawn`: uniform numbers used before."""
    mean, sd, weight = beliefs
    most = candidates.placement.max_per_group
    in_group: dict[int, int] = {}
    left = np.flatnonzero(screening.alive)
    for action in shown:
        left = left[candidates.action[left] != action]
    slots: list[Slot] = []
    for number in range(limit):
        if left.size == 0:
            break
        tier = candidates.tier[left]
        pool = left[tier == tier.min()]
        chances = selection_probabilities(candidates.policy, mean[pool], sd[pool], weight[pool])
        draw = uniform(decision_id, drawn + number)
        picked = _draw(chances, draw)
        slots.append(Slot(pool, chances, draw, picked))
        arm = pool[picked]
        action, group = int(candidates.action[arm]), int(candidates.group[arm])
        shown.add(action)
        in_group[group] = in_group.get(group, 0) + 1
        left = left[candidates.action[left] != action]
        if in_group[group] == most:
            left = left[candidates.group[left] != group]
    return tuple(slots)


def _draw(chances: Floats, draw: float) -> int:
    """The index that `draw` in [0, 1) falls on; never one whose probability is 0."""
    steps = np.cumsum(chances)
    index = int(np.searchsorted(steps, draw * steps[-1], side="right"))
    return min(index, int(np.flatnonzero(chances)[-1]))


def _items(candidates: Candidates, slots: tuple[Slot, ...], mean: Floats, weight: Floats) -> Iterator[Item]:
    for rank, slot in enumerate(slots, start=1):
        arm = int(slot.pool[slot.picked])
        chance = round(float(slot.probabilities[slot.picked]), _DIGITS)
        belief = min(max(float(mean[arm]), 0.0), 1.0)
        yield Item(
            candidates.arms[arm],
            rank,
            round(belief, _DIGITS),
            round(belief * float(weight[arm]), _DIGITS),
            chance,
        )


def _no_action(items: tuple[Item, ...], screening: Screening) -> NoAction | None:
    if items:
        return None
    return NoAction.SLATE_CONSTRAINTS if screening.alive.any() else screening.emptied_by()

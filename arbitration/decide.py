"""The decision: a pure function of inputs, catalog and snapshots.

Candidates → screening → tiers and priorities → exact selection probabilities → one draw per slot,
without replacement. The same arguments give the same decision, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import Arm, Candidates, CompiledCatalog
from arbitration.catalog.learning import EpsilonGreedy, Policy
from arbitration.catalog.limits import ControlGroup
from arbitration.catalog.scalars import LARGEST
from arbitration.control import REDISTRIBUTING, redistributed
from arbitration.errors import InputsError
from arbitration.inputs import Inputs
from arbitration.policy.strategies import Choosing, propensity, selection_probabilities
from arbitration.randomness import uniform
from arbitration.rules import Case
from arbitration.screening import NoAction, Screening, screen
from arbitration.snapshot import Snapshots

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

# What several slots have in common is worked out once, unless that many arms may be gone by the last of them.
_MOST_REMOVED = 8
_DIGITS = 12  # what is logged is rounded beyond what another machine's linear algebra may change


# What a decision is made of is never changed afterwards; to have that checked (`frozen`) would make each of
# these objects four times as slow to make.
@dataclass(slots=True)
class Item:
    """One pick. `selection_probability`: of this arm in this slot, given the picks above it. Where the
    customer objects to profiling nothing is estimated: `propensity` and `priority` are None. Where the policy
    learns values, no propensity is estimated, and it is None."""

    arm: Arm
    rank: int
    propensity: float | None
    priority: float | None
    selection_probability: float


@dataclass(slots=True)
class Slot:
    """How one slot was filled: the arms that could be (`pool`), their probabilities, the uniform number
    drawn, and the position in the pool it fell on. `chose_channel`: the channel was chosen by this draw, and
    `rivals` are the arms of other placements in it: (placement, arms, probabilities)."""

    pool: Indices
    probabilities: Floats
    draw: float
    picked: int
    chose_channel: bool = False
    rivals: tuple[tuple[str, Indices, Floats], ...] = ()


@dataclass(slots=True)
class Slate:
    """What one placement shows, and all it came from. Arrays have an entry per candidate (K,); `mean` and
    `sd` are nan where nothing was estimated. `policy`: the one that decided; `apprentice`: it imitated the
    rules, as it has not learned enough yet."""

    candidates: Candidates
    policy: Policy
    apprentice: bool
    items: tuple[Item, ...]
    no_action: NoAction | None
    screening: Screening
    mean: Floats
    sd: Floats
    lever: Floats
    weight: Floats
    slots: tuple[Slot, ...]

    @property
    def priority(self) -> Floats:
        """propensity × context weight × value × lever."""
        return propensity(self.mean) * self.weight


@dataclass(slots=True)
class Decision:
    """One answered request. `channel`: the one that was chosen, or asked for; None where none of several can
    be used. `snapshots`: the version each policy that took part decided with, or, as a shadow, would have.
    `control_group`: the first one
    of the catalog that the customer is in. `not_before`: where only quiet hours kept all from being shown,
    when the first of them end, as RFC 3339 text."""

    inputs: Inputs
    catalog_version: str
    channel: str | None
    snapshots: dict[str, str]
    slates: tuple[Slate, ...]
    control_group: str | None = None
    not_before: str | None = None


@dataclass(slots=True)
class Field:
    """The arms of one placement and what is known of them, while its slots are filled."""

    candidates: Candidates
    policy: Policy
    apprentice: bool
    limit: int
    screening: Screening
    mean: Floats
    sd: Floats
    lever: Floats
    weight: Floats
    slots: list[Slot] = dataclass_field(default_factory=list)
    among: Indices | None = None
    choosing: Choosing | None = None


Choose = Callable[[float, Sequence[Field], Sequence[Indices], Floats], int | None]
"""How a draw is made: (the uniform number drawn, the placements it is among, the arms of each that can be
picked, the selection probability of all of these, one placement after the other) → which of all is picked.
None ends the decision there."""


def decide(inputs: Inputs, catalog: CompiledCatalog, snapshots: Snapshots) -> Decision:
    """Decides every placement of the request, in its order.

    An action is shown at most once in a decision. Of several channels, the first draw is made among the arms
    of all; the channel it falls on is the one whose placements are filled. Who objects to profiling is
    decided for by what the situation alone allows, each arm being as likely. Raises InputsError where the
    inputs name a channel or placement that the catalog does not have.
    """
    return decide_by(_draw, inputs, catalog, snapshots)


def decide_by(choose: Choose, inputs: Inputs, catalog: CompiledCatalog, snapshots: Snapshots) -> Decision:
    """As `decide`, with another way to pick."""
    asked = tuple(requested(inputs, catalog))
    case = Case(catalog.rules, inputs.facts, inputs.now, inputs.objects)
    facts = case.facts
    contexts: dict[str, Floats] = {}
    versions: dict[str, str] = {}
    fields = []
    for candidates, limit in asked:
        screening = screen(inputs, candidates, case)
        champion = candidates.policy
        policy = catalog.policies[inputs.assigned.get(champion.id, champion.id)]
        apprentice = False
        if inputs.objects:
            mean = sd = np.full(len(candidates), np.nan)
        else:
            if policy.id not in contexts:
                contexts[policy.id] = catalog.encoders[policy.id].encode(facts, inputs.now)
            taking_part = (policy.id, *(each.policy for each in champion.challengers if each.shadow))
            versions |= {id: snapshots[id].version for id in taking_part}
            snapshot = snapshots[policy.id]
            mean, sd = snapshot.posterior.score(
                contexts[policy.id], candidates.first, candidates.first + len(candidates)
            )
            apprentice = snapshot.learned < policy.apprentice
        lever = _lever(inputs, candidates)
        value = screening.value if policy.value_scale is None else policy.value_scale
        weight = np.minimum(screening.context_weight * value * lever, LARGEST)
        fields.append(Field(candidates, policy, apprentice, limit, screening, mean, sd, lever, weight))
    channel = inputs.channels[0] if len(inputs.channels) == 1 else _choose_channel(choose, inputs, fields)
    # What the channel was chosen with is shown, whichever placement's turn comes first.
    shown = {int(f.candidates.action[f.slots[0].pool[f.slots[0].picked]]) for f in fields if f.slots}
    drawn = 0 if len(inputs.channels) == 1 else 1
    for field in fields:
        if field.candidates.channel.id == channel:
            _fill(choose, inputs, field, drawn, shown)
        drawn += field.limit
    slates = tuple(_slate(inputs, field, channel) for field in fields)
    controls = (control.id for control in catalog.model.control_groups if inputs.controls.get(control.id))
    return Decision(
        inputs,
        catalog.version,
        channel,
        versions,
        slates,
        next(controls, None),
        _not_before(inputs, fields),
    )


def requested(inputs: Inputs, catalog: CompiledCatalog) -> Iterator[tuple[Candidates, int]]:
    """The candidates of each requested placement and how many items it may hold."""
    for channel in inputs.channels:
        if channel not in catalog.channels:
            raise InputsError("channel", f"unknown channel '{channel}'")
    for number, (name, limit) in enumerate(inputs.placements):
        candidates = catalog.candidates.get(name)
        if candidates is None or candidates.channel.id not in inputs.channels:
            message = f"the channel '{', '.join(inputs.channels)}' has no placement '{name}'"
            raise InputsError(f"placements[{number}].id", message)
        yield candidates, limit


def _lever(inputs: Inputs, candidates: Candidates) -> Floats:
    lever = candidates.lever
    if inputs.objects:
        return np.ones(len(candidates))
    for control, covered in candidates.controls:
        if control.behaviour == "no_levers" and inputs.controls.get(control.id):
            lever = np.where(covered, 1.0, lever)
    return lever


def _choose_channel(choose: Choose, inputs: Inputs, fields: Sequence[Field]) -> str | None:
    """Makes the first draw among the arms of all placements; it fills the first slot of the placement it
    falls on, and its channel is the one chosen."""
    alive = [np.flatnonzero(field.screening.alive) for field in fields]
    tiers = [field.candidates.tier[left] for field, left in zip(fields, alive, strict=True)]
    lowest = min((int(tier.min()) for tier in tiers if tier.size), default=None)
    if lowest is None:
        return None
    pools = [left[tier == lowest] for left, tier in zip(alive, tiers, strict=True)]
    chances = _chances(inputs, fields, pools)
    ends = np.cumsum([len(pool) for pool in pools])
    parts = np.split(chances, ends[:-1])
    draw = uniform(inputs.decision_id, 0)
    picked = choose(draw, fields, pools, chances)
    if picked is None:
        return None
    number = int(np.searchsorted(ends, picked, side="right"))
    rivals = tuple(
        (other.candidates.placement.id, pool, part)
        for index, (other, pool, part) in enumerate(zip(fields, pools, parts, strict=True))
        if index != number and len(pool)
    )
    before = int(ends[number]) - len(pools[number])
    fields[number].slots.append(Slot(pools[number], parts[number], draw, picked - before, True, rivals))
    return fields[number].candidates.channel.id


def _fill(choose: Choose, inputs: Inputs, field: Field, drawn: int, shown: set[int]) -> None:
    """Fills the slots in turn, marking the actions shown. `drawn`: uniform numbers used before."""
    candidates = field.candidates
    in_group: dict[int, int] = {}
    left = field.screening.alive.nonzero()[0]
    for action in shown:
        left = left.compress(candidates.action.take(left) != action)
    for number in range(field.limit):
        if number == len(field.slots):
            if left.size == 0:
                break
            pool = left
            if candidates.tiered:
                tier = candidates.tier.take(left)
                pool = left.compress(tier == tier.min())
            chances = _own_chances(inputs, field, pool, field.limit - number - 1)
            draw = uniform(inputs.decision_id, drawn + number)
            picked = choose(draw, [field], [pool], chances)
            if picked is None:
                break
            field.slots.append(Slot(pool, chances, draw, picked))
        slot = field.slots[number]
        arm = slot.pool[slot.picked]
        action, group = int(candidates.action[arm]), int(candidates.group[arm])
        shown.add(action)
        in_group[group] = in_group.get(group, 0) + 1
        if number + 1 < field.limit:
            left = left.compress(candidates.action.take(left) != action)
            if in_group[group] == candidates.placement.max_per_group:
                left = left.compress(candidates.group.take(left) != group)


def _own_chances(inputs: Inputs, field: Field, pool: Indices, more: int) -> Floats:
    """The selection probabilities of arms of one placement. `more`: so many slots may follow."""
    if inputs.objects or field.apprentice or _redistributing(inputs, field):
        return _chances(inputs, [field], [pool])
    removed = more * field.candidates.together
    if field.among is None or field.choosing is None or not _within(pool, field.among):
        mean, sd, weight = field.mean.take(pool), field.sd.take(pool), field.weight.take(pool)
        if removed > _MOST_REMOVED:
            return Choosing(field.policy, mean, sd, weight, 0).chances(np.arange(len(pool)))
        field.among, field.choosing = pool, Choosing(field.policy, mean, sd, weight, removed)
    return field.choosing.chances(field.among.searchsorted(pool))


def _within(pool: Indices, among: Indices) -> bool:
    """Whether a pool has come of another by taking arms away: both are of one tier, or of two."""
    return bool(among.take(among.searchsorted(pool[0]), mode="clip") == pool[0])


def _redistributing(inputs: Inputs, field: Field) -> bool:
    return any(
        inputs.controls.get(control.id) and control.behaviour in REDISTRIBUTING
        for control, _ in field.candidates.controls
    )


def _chances(inputs: Inputs, fields: Sequence[Field], pools: Sequence[Indices]) -> Floats:
    """The selection probabilities of the arms of all pools together, one pool after the other."""
    count = sum(len(pool) for pool in pools)
    if inputs.objects:
        return np.full(count, 1 / count)
    mean = _joined([field.mean for field in fields], pools)
    sd = _joined([field.sd for field in fields], pools)
    weight = _joined([field.weight for field in fields], pools)
    policy = fields[0].policy
    if fields[0].apprentice:
        # As if all were as likely to be accepted: value, lever and context weight alone decide.
        policy = EpsilonGreedy(id=policy.id, strategy="epsilon_greedy", epsilon=0.0, floor=policy.floor)
        mean, sd = np.ones(count), np.zeros(count)
    groups: dict[str, tuple[ControlGroup, list[Bools]]] = {}
    if any(inputs.controls.values()):
        for number, (field, pool) in enumerate(zip(fields, pools, strict=True)):
            for control, covered in field.candidates.controls:
                if inputs.controls.get(control.id) and control.behaviour in REDISTRIBUTING:
                    blank = [np.zeros(len(each), dtype=np.bool_) for each in pools]
                    groups.setdefault(control.id, (control, blank))[1][number] = covered[pool]
    if not groups:
        return selection_probabilities(policy, mean, sd, weight)
    controls = [(control.behaviour, np.concatenate(parts)) for control, parts in groups.values()]
    return redistributed(policy, mean, sd, weight, controls)


def _joined(arrays: Sequence[Floats], pools: Sequence[Indices]) -> Floats:
    if len(pools) == 1:
        return arrays[0][pools[0]]
    return np.concatenate([array[pool] for array, pool in zip(arrays, pools, strict=True)])


def _draw(draw: float, fields: Sequence[Field], pools: Sequence[Indices], chances: Floats) -> int:
    """The index that `draw` in [0, 1) falls on; never one whose probability is 0."""
    steps = chances.cumsum()
    index = int(steps.searchsorted(draw * steps[-1], side="right"))
    if index < len(chances):
        return index
    return int(chances.nonzero()[0][-1])


def _slate(inputs: Inputs, field: Field, channel: str | None) -> Slate:
    screening = field.screening
    items = tuple(_items(field))
    no_action = None
    if not items:
        if ("channel", field.candidates.channel.id) in inputs.halts:
            no_action = NoAction.HALTED  # whether or not there was anything to halt
        elif not screening.alive.any():
            no_action = screening.emptied_by()
        elif field.candidates.channel.id != channel:
            no_action = NoAction.OTHER_CHANNEL
        else:
            no_action = NoAction.SLATE_CONSTRAINTS
    return Slate(
        field.candidates,
        field.policy,
        field.apprentice,
        items,
        no_action,
        screening,
        field.mean,
        field.sd,
        field.lever,
        field.weight,
        tuple(field.slots),
    )


def _items(field: Field) -> Iterator[Item]:
    for rank, slot in enumerate(field.slots, start=1):
        arm = int(slot.pool[slot.picked])
        chance = round(float(slot.probabilities[slot.picked]), _DIGITS)
        mean = float(field.mean[arm])
        belief = None if math.isnan(mean) else min(max(mean, 0.0), 1.0)
        yield Item(
            field.candidates.arms[arm],
            rank,
            None if belief is None or field.policy.value_scale is not None else round(belief, _DIGITS),
            None if belief is None else round(belief * float(field.weight[arm]), _DIGITS),
            chance,
        )


def _not_before(inputs: Inputs, fields: Sequence[Field]) -> str | None:
    if not inputs.quiet or any(field.slots for field in fields):
        return None
    ends = [
        inputs.quiet[field.candidates.channel.id]
        for field in fields
        if field.candidates.channel.id in inputs.quiet and field.screening.only_quiet
    ]
    return min(ends, key=datetime.fromisoformat, default=None)

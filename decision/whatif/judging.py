"""One logged decision, and what another catalog would have made of it. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arbitration.catalog.compile import CompiledCatalog
from arbitration.decide import Decision, decide
from arbitration.explain import explain
from arbitration.following import Chances, Followed, Pick, follow, picks
from arbitration.inputs import Inputs
from arbitration.screening import counted
from arbitration.snapshot import Snapshots
from decision.whatif.evidence import Arm, Belief, Earned, Evidence, beliefs

_SAME = 1e-9  # probabilities that differ by less are the same
_SHOWN = 3  # arms of an example

Place = tuple[str, int]
"""A draw: the placement (none where a channel is chosen by it) and its rank there."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision of the log, made again by `catalog`. `customer`: the key it is recorded by; `picks`, what
    each of them `earned`, and what was `believed` of all arms."""

    decision: Decision
    catalog: CompiledCatalog
    customer: str
    picks: tuple[Pick, ...]
    earned: tuple[Earned, ...]
    believed: Mapping[Arm, Belief]

    @property
    def channel(self) -> str:
        """The channel it was asked for, or all it could choose from."""
        return " or ".join(self.decision.inputs.channels)


def logged(
    decision: Decision,
    catalog: CompiledCatalog,
    customer: str,
    heard: Mapping[str, tuple[float, float]],
) -> Logged:
    """`heard`: the (reward, money reported) of each treatment that something came back for."""
    drawn = tuple(picks(decision))
    earned = tuple(_earned(decision, drawn, heard))
    return Logged(decision, catalog, customer, drawn, earned, beliefs(decision.slates))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the other procedure decides with. `inputs` of None: it has nothing to decide here."""

    inputs: Inputs | None
    catalog: CompiledCatalog
    snapshots: Snapshots


@dataclass(slots=True)
class Share:
    """Of a class of decisions: how many, how many of these differ in any draw, and the sum of the
    probabilities that the first pick is another one."""

    decisions: int = 0
    changed: int = 0
    other_pick: float = 0.0


@dataclass(slots=True)
class Shift:
    """Expected items, as logged and for the target; `unsupported`: those of the latter that the log could
    not show."""

    today: float = 0.0
    target: float = 0.0
    unsupported: float = 0.0

    def add(self, other: Shift) -> None:
        """Adds those of another."""
        self.today += other.today
        self.target += other.target
        self.unsupported += other.unsupported


@dataclass(slots=True)
class Load:
    """What a contact policy holds back, today and for the target: arms, whether or not something else would
    too, and decisions in which it holds back any."""

    arms: list[int] = field(default_factory=lambda: [0, 0])
    decisions: list[int] = field(default_factory=lambda: [0, 0])


@dataclass(frozen=True, slots=True)
class Example:
    """A decision that would have come out otherwise. `why`: of each arm that comes or goes, its reason."""

    decision_id: str
    channel: str
    other_pick: float
    before: dict[str, float]
    after: dict[str, float]
    why: dict[str, str]


@dataclass(slots=True)
class Judgement:
    """All that is found out about one target."""

    wanted: int
    evidence: Evidence = field(default_factory=Evidence)
    channels: defaultdict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    contacts: defaultdict[str, Shift] = field(default_factory=lambda: defaultdict(Shift))
    load: defaultdict[str, Load] = field(default_factory=lambda: defaultdict(Load))
    _shifts: dict[tuple[Place, Arm], Shift] = field(default_factory=dict)
    # Of each draw: the weights of the picks above it, and how often the target makes it.
    _draws: defaultdict[Place, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    _catalogs: dict[Arm, CompiledCatalog] = field(default_factory=dict)
    _examples: dict[tuple[str, Arm | None, Arm | None], tuple[float, Logged, Asked]] = field(
        default_factory=dict
    )

    def add(self, logged: Logged, asked: Asked) -> Followed:
        """One more decision. Returns the target along its picks."""
        followed = _nowhere(logged.picks)
        if asked.inputs is not None:
            followed = follow(logged.picks, asked.inputs, asked.catalog, asked.snapshots)
        slots = sum(limit for _, limit in logged.decision.inputs.placements)
        self.evidence.add(
            logged.customer, logged.channel, slots, logged.picks, logged.earned, followed, logged.believed
        )
        self._shift(logged, asked, followed)
        self._load(logged, asked)
        self._change(logged, asked, followed)
        return followed

    def _change(self, logged: Logged, asked: Asked, followed: Followed) -> None:
        before, after = _first(logged.picks, followed)
        other = distance(before, after)
        share = self.channels[logged.channel]
        share.decisions += 1
        share.other_pick += other
        along = zip(logged.picks, followed.chances, strict=True)
        if (
            bool(followed.more)
            or other > _SAME
            or any(distance(pick.chances, of or {}) > _SAME for pick, of in along)
        ):
            share.changed += 1
        if other > _SAME and self.wanted:
            self._keep((logged.channel, _top(before), _top(after)), other, logged, asked)

    def _keep(
        self, kind: tuple[str, Arm | None, Arm | None], other: float, logged: Logged, asked: Asked
    ) -> None:
        """Keeps the examples that change most, one of each kind, and of these the first."""
        kept = self._examples
        if kind in kept or len(kept) < self.wanted:
            if kind not in kept or other > kept[kind][0]:
                kept[kind] = other, logged, asked
            return
        least = min(kept, key=lambda each: kept[each][0])
        if other > kept[least][0]:
            del kept[least]
            kept[kind] = other, logged, asked

    def _shift(self, logged: Logged, asked: Asked, followed: Followed) -> None:
        before = 1.0
        joint = len(logged.decision.inputs.channels) > 1
        reached = zip(logged.picks, followed.chances, followed.target, followed.logging, strict=True)
        for pick, chances, target, logging in reached:
            place = ("" if joint else pick.placement, pick.rank)
            for name, chance in pick.chances.items():
                self._arm(place, name, logged.catalog).today += chance
            if chances is None:
                self._draws[place][1] += before == 0  # it went elsewhere: it would have made this draw too
                continue
            self._expect(place, chances, before, asked.catalog, pick.chances)
            before = float(target) / float(logging)
        for chances in followed.more:
            placement = next(iter(chances))[0]
            self._expect(("" if joint else placement, 0), chances, before, asked.catalog, {})
        first = _first(logged.picks, followed)
        for channel, chance in _by_channel(first[0], logged.catalog).items():
            self.contacts[channel].today += chance
        for channel, chance in _by_channel(first[1], asked.catalog).items():
            self.contacts[channel].target += chance

    def _expect(
        self, place: Place, chances: Chances, before: float, catalog: CompiledCatalog, known: Chances
    ) -> None:
        """One draw of the target. `before`: the weight of the picks above; `known`: the log's own."""
        draws = self._draws[place]
        draws[0] += before
        draws[1] += 1
        for name, chance in chances.items():
            shift = self._arm(place, name, catalog)
            shift.target += before * chance
            if not known.get(name):
                shift.unsupported += before * chance

    def _arm(self, place: Place, name: Arm, catalog: CompiledCatalog) -> Shift:
        """Of one arm in one draw; `catalog`: one that has it."""
        shift = self._shifts.get((place, name))
        if shift is None:
            shift = self._shifts[place, name] = Shift()
            self._catalogs[name] = catalog
        return shift

    @property
    def arms(self) -> dict[Arm, Shift]:
        """Expected items of each arm. Of draws below others they are weighted means, as many as there are
        draws: so that all arms together are as many as are shown."""
        found: defaultdict[Arm, Shift] = defaultdict(Shift)
        for (place, name), shift in self._shifts.items():
            weight, count = self._draws[place]
            scale = count / weight if weight > 0 else 0.0
            found[name].add(Shift(shift.today, scale * shift.target, scale * shift.unsupported))
        return dict(found)

    @property
    def groups(self) -> dict[str, Shift]:
        """Expected items of each group."""
        found: defaultdict[str, Shift] = defaultdict(Shift)
        for name, shift in self.arms.items():
            found[self._catalogs[name].arm_of[name[1]].group.id].add(shift)
        return dict(found)

    def counted(self, catalog: CompiledCatalog) -> dict[str, Shift]:
        """The expected items that each contact policy of a catalog counts, or would where it is one of the
        target."""
        found: defaultdict[str, Shift] = defaultdict(Shift)
        for name, shift in self.arms.items():
            where = self._catalogs[name]
            arm, channel = where.arm_of[name[1]], where.candidates[name[0]].channel.id
            for policy, limit in catalog.limits.limits.items():
                if limit.target(name[1], arm.action.id, arm.group.id, channel) is not None:
                    found[policy].add(shift)
        return dict(found)

    def _load(self, logged: Logged, asked: Asked) -> None:
        sides = ((logged.decision.inputs, logged.catalog), (asked.inputs, asked.catalog))
        for side, (inputs, catalog) in enumerate(sides):
            if inputs is None:
                continue
            for policy, targets in inputs.holds.items():
                arms = 0
                for id, _ in inputs.placements:
                    candidates = catalog.candidates[id]
                    if (held := candidates.held.get(policy)) is not None:
                        arms += int((held.covered & counted(candidates, policy, targets)).sum())
                if arms:
                    self.load[policy].arms[side] += arms
                    self.load[policy].decisions[side] += 1

    def examples(self) -> list[Example]:
        """The decisions that change most, and why."""
        return [_example(*each) for each in sorted(self._examples.values(), key=lambda each: -each[0])]


def distance(before: Chances, after: Chances) -> float:
    """Total variation: how likely two draws differ at least, however they go together; what is left of the
    probabilities of each is that nothing is shown."""
    if not before or not after:
        return float(bool(before) != bool(after))
    names = {**before, **after}
    return sum(abs(before.get(name, 0.0) - after.get(name, 0.0)) for name in names) / 2


def _first(drawn: Sequence[Pick], followed: Followed) -> tuple[Chances, Chances]:
    """The first draw of each; without any arm where nothing is shown."""
    before = drawn[0].chances if drawn else {}
    reached = [chances for chances in followed.chances if chances is not None]
    after = (reached[:1] or list(followed.more[:1]) or [{}])[0]
    return before, after


def _top(chances: Chances) -> Arm | None:
    return max(chances, key=lambda name: chances[name]) if chances else None


def _by_channel(chances: Chances, catalog: CompiledCatalog) -> dict[str, float]:
    found: dict[str, float] = {}
    for (placement, _), chance in chances.items():
        channel = catalog.candidates[placement].channel.id
        found[channel] = found.get(channel, 0.0) + chance
    return found


def _nowhere(drawn: Sequence[Pick]) -> Followed:
    """Of a procedure that has none of the placements."""

    own = np.array([pick.probability for pick in drawn], dtype=np.float64)
    return Followed(own, np.zeros(len(own)), np.full(len(own), np.nan), (None,) * len(own), ())


def _earned(
    decision: Decision, drawn: Sequence[Pick], heard: Mapping[str, tuple[float, float]]
) -> Iterator[Earned]:
    """What each pick came to. Where nothing may be estimated, an action is worth what it is worth for all."""
    worth: dict[str, float] = {}
    for slate in decision.slates:
        of = slate.candidates.value if decision.inputs.objects else slate.screening.value
        for slot in slate.slots:
            arm = int(slot.pool[slot.picked])
            value = float(of[arm])
            worth[slate.candidates.arms[arm].treatment.id] = 0.0 if math.isnan(value) else value
    for pick in drawn:
        reward, money = heard.get(pick.treatment, (0.0, 0.0))
        yield Earned(reward, reward * worth[pick.treatment], money)


def _example(other: float, logged: Logged, asked: Asked) -> Example:
    drawn = logged.picks
    after: Chances = {}
    explained: dict[str, Any] = {"placements": []}
    if asked.inputs is not None:
        after = _first(drawn, follow(drawn, asked.inputs, asked.catalog, asked.snapshots))[1]
        explained = explain(decide(asked.inputs, asked.catalog, asked.snapshots), asked.catalog)
    before = drawn[0].chances if drawn else {}
    was = explain(logged.decision, logged.catalog)
    return Example(
        logged.decision.inputs.decision_id,
        logged.channel,
        other,
        _likeliest(before),
        _likeliest(after),
        dict(_reasons(before, after, was, explained)),
    )


def _likeliest(chances: Chances) -> dict[str, float]:
    best = sorted(chances.items(), key=lambda each: (-each[1], each[0]))[:_SHOWN]
    return {treatment: chance for (_, treatment), chance in best}


def _reasons(
    before: Chances, after: Chances, was: dict[str, Any], will: dict[str, Any]
) -> list[tuple[str, str]]:
    """Why the arms that come and go do so, and what moves those that stay most."""
    found: list[tuple[str, str]] = []
    for name in sorted(before, key=lambda each: -before[each]):
        if name not in after:
            found.append((name[1], f"goes: {_removal(will, name)}"))
    for name in sorted(after, key=lambda each: -after[each]):
        if name not in before:
            found.append((name[1], f"comes: {_removal(was, name)} before"))
    stay = sorted(
        (name for name in before if name in after), key=lambda name: -abs(after[name] - before[name])
    )
    old, new = _ranked(was), _ranked(will)
    for name in stay[:_SHOWN]:
        moved = [
            f"{factor.replace('_', ' ')} {_short(old[name][factor])} → {_short(new[name][factor])}"
            for factor in ("tier", "propensity", "posterior_sd", "context_weight", "value", "lever")
            if name in old and name in new and old[name][factor] != new[name][factor]
        ]
        if moved:
            found.append((name[1], ", ".join(moved)))
    return found[: 2 * _SHOWN]


def _removal(explained: dict[str, Any], name: Arm) -> str:
    for placement in explained["placements"]:
        if placement["id"] != name[0]:
            continue
        for arm in placement["removed"]:
            if arm["treatment"] == name[1]:
                rule = f" ({arm['rule']})" if arm["rule"] else ""
                return f"{arm['reason']}{rule}"
        for arm in placement["ranked"]:
            if arm["treatment"] == name[1]:
                return arm["held_back"] or "ranked"
        return "not in the catalog"
    return "no such placement"


def _ranked(explained: dict[str, Any]) -> dict[Arm, dict[str, Any]]:
    return {
        (placement["id"], arm["treatment"]): arm
        for placement in explained["placements"]
        for arm in placement["ranked"]
    }


def _short(number: float | None) -> str:
    return "none" if number is None else f"{number:.4g}"

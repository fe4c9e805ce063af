"""Fairness bounds, judged for a catalog that is not released yet, on the decisions of a log.

Exposure is counted as the report counts it, over the decisions that the candidate makes in the place of
those logged, each once, with the draws falling as they fell. Acceptance is estimated from the items that were
shown: each counts with how much likelier the candidate would have shown it (self-normalised; Swaminathan &
Joachims 2015).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from arbitration.catalog.compile import Arm, CompiledCatalog
from arbitration.catalog.fairness import FairnessBound
from arbitration.catalog.model import Attribute
from arbitration.decide import Decision, decide
from arbitration.evaluation.ratios import Rate, rate_ratios
from arbitration.facts import Facts
from arbitration.following import Followed
from decision.fairness.levels import FEWEST, level_name, level_of, trait_of
from decision.storage.fairness import Trait

if TYPE_CHECKING:
    from decision.whatif.judging import Asked, Logged

CONFIDENCE = 0.95

Origin = Literal["candidate", "live"]
Judged = Literal["kept", "violated", "too_few", "not_judged"]
Sums = defaultdict[str | None, dict[str, tuple[float, float]]]
"""By level and customer: chances, and those taken."""


@dataclass(frozen=True, slots=True)
class BoundVerdict:
    """What is found of a bound. `of`: the catalogs that have it. The `level` with the lowest rate, over the
    `reference`, with the highest: `ratio`, with an interval that holds for all pairs of levels together.
    `today`: the lowest ratio as it is in the log. `customers`: of the levels compared; `left_out`: those with
    too few. Without a ratio there are too few customers, or nothing was taken by anybody, or the bound is of
    the live catalog, and on what the candidate does not have (`not_judged`)."""

    id: str
    of: tuple[Origin, ...]
    attribute: str
    measure: str
    action: str | None
    group: str | None
    min_ratio: float
    verdict: Judged
    customers: int
    level: str | None = None
    rate: float | None = None
    reference: str | None = None
    reference_rate: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    today: float | None = None
    left_out: tuple[str, ...] = ()


class Bounds:
    """Those of the candidate, and of the live catalog: whichever takes the other's place keeps both."""

    def __init__(self, candidate: CompiledCatalog, live: CompiledCatalog | None) -> None:
        self._candidate = candidate
        origins: dict[tuple[FairnessBound, Attribute], list[Origin]] = {}
        for origin, catalog in (("candidate", candidate), ("live", live)):
            attributes = {} if catalog is None else {each.id: each for each in catalog.model.attributes}
            for bound in () if catalog is None else catalog.model.fairness:
                own = attributes[bound.attribute].model_copy(update={"description": ""})
                origins.setdefault((bound, own), []).append("candidate" if origin == "candidate" else "live")
        self._tallies = [_Tally(*key, tuple(of), candidate, live) for key, of in origins.items()]

    def __bool__(self) -> bool:
        return bool(self._tallies)

    def add(
        self, logged: Logged, outcomes: Mapping[str, Collection[str]], asked: Asked, followed: Followed
    ) -> None:
        """One more decision. `outcomes`: what came of each of its treatments of which that is known."""
        if logged.decision.inputs.objects:
            return
        drawn = None
        if asked.inputs is not None and any(each.exposure for each in self._tallies):
            drawn = decide(asked.inputs, asked.catalog, asked.snapshots)
        for tally in self._tallies:
            facts = logged.decision.inputs.facts
            if asked.inputs is not None and "candidate" in tally.of:
                facts = asked.inputs.facts
            if tally.exposure:
                tally.expose(logged, facts, drawn)
            else:
                tally.accept(logged, facts, outcomes, followed)

    def verdicts(self) -> tuple[BoundVerdict, ...]:
        """What is found of each."""
        return tuple(tally.verdict() for tally in self._tallies)


class _Tally:
    """What is counted for one bound."""

    def __init__(
        self,
        bound: FairnessBound,
        attribute: Attribute,
        of: tuple[Origin, ...],
        candidate: CompiledCatalog,
        live: CompiledCatalog | None,
    ) -> None:
        self.bound = bound
        self.of = of
        self.exposure = bound.measure == "exposure"
        self._attribute = attribute
        self._trait: Trait = trait_of(attribute)
        self._arms = candidate.arm_of
        self._instead = _instead(bound, candidate, live)
        meant = [arm for arm in candidate.arms if self._meant(arm)]
        self._judged = bool(meant) or self._instead is None
        self._channels = {arm.treatment.channel for arm in meant}
        self._target: Sums = defaultdict(dict)
        self._today: defaultdict[str | None, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def expose(self, logged: Logged, facts: Facts, drawn: Decision | None) -> None:
        """A decision, if it could show what the bound is on."""
        level, customer = level_of(self._trait, facts), logged.customer
        if not self._channels.isdisjoint(logged.decision.inputs.channels):
            self._add(level, customer, 1.0, float(drawn is not None and self._shows(drawn)))
            self._note(level, float(self._shows(logged.decision)))

    def accept(
        self, logged: Logged, facts: Facts, outcomes: Mapping[str, Collection[str]], followed: Followed
    ) -> None:
        """The items shown whose outcome is known."""
        level, customer = level_of(self._trait, facts), logged.customer
        channel = logged.catalog.channels.get(logged.decision.channel or "")
        best = 0.0 if channel is None else max(channel.rewards.values())
        for place, pick in enumerate(logged.picks):
            arm = self._arms.get(pick.treatment) or logged.catalog.arm_of[pick.treatment]
            said = outcomes.get(pick.treatment)
            if said is None or channel is None or not self._meant(arm):
                continue
            won = float(any(reward == best > 0 for name, reward in channel.rewards.items() if name in said))
            weight = float(followed.target[place] / followed.logging[place])
            self._note(level, won)
            if weight > 0:
                self._add(level, customer, weight, weight * won)

    def verdict(self) -> BoundVerdict:
        """What is found."""
        rates = {level: _rate(list(of.values())) for level, of in self._target.items() if level is not None}
        enough = {level: rate for level, rate in rates.items() if self._enough(rate)}
        left_out = tuple(self._name(level) for level in sorted(rates) if level not in enough)
        customers = sum(rate.customers for rate in enough.values())
        found = _lowest({level: rate.taken / rate.chances for level, rate in enough.items()})
        before = {level: of for level, of in self._today.items() if level in enough}
        today = _lowest({str(level): taken / chances for level, (chances, taken) in before.items()})
        bound = self.bound
        verdict: Judged = "too_few" if len(enough) < 2 else "kept"
        if not self._judged:
            verdict, found = "not_judged", None
        elif found is not None and found[2] < bound.min_ratio:
            verdict = "violated"
        of = BoundVerdict(
            bound.id,
            self.of,
            bound.attribute,
            bound.measure,
            bound.action,
            bound.group,
            bound.min_ratio,
            verdict,
            customers,
            today=None if today is None else today[2],
            left_out=left_out,
        )
        if found is None:
            return of
        lowest, highest = enough[found[0]], enough[found[1]]
        pairs = sum(1 for _ in combinations(enough, 2))
        (ratio,) = rate_ratios([lowest], [highest], 1 - (1 - CONFIDENCE) / pairs)
        return replace(
            of,
            level=self._name(found[0]),
            rate=lowest.value,
            reference=self._name(found[1]),
            reference_rate=highest.value,
            ratio=found[2],
            low=ratio.low,
            high=ratio.high,
        )

    def _add(self, level: str | None, customer: str, chances: float, taken: float) -> None:
        before = self._target[level].get(customer, (0.0, 0.0))
        self._target[level][customer] = before[0] + chances, before[1] + taken

    def _note(self, level: str | None, taken: float) -> None:
        sums = self._today[level]
        sums[0] += 1
        sums[1] += taken

    def _enough(self, rate: Rate) -> bool:
        """Whether a level is judged: by its customers; where their items weigh differently, by how many that
        is worth (Kish)."""
        worth = rate.customers if self.exposure else rate.chances**2 / rate.chances_squared
        return worth >= FEWEST

    def _meant(self, arm: Arm) -> bool:
        if self._instead is not None and arm.treatment.id in self._instead:
            return True
        return self.bound.action in (None, arm.action.id) and self.bound.group in (None, arm.group.id)

    def _shows(self, decision: Decision) -> bool:
        return any(self._meant(item.arm) for slate in decision.slates for item in slate.items)

    def _name(self, level: str) -> str:
        return level_name(self._attribute, level) or ""


def _instead(
    bound: FairnessBound, candidate: CompiledCatalog, live: CompiledCatalog | None
) -> frozenset[str] | None:
    """Where the candidate has no such action or group: the treatments of the live one, by which it is known
    under another id; else None."""

    def of(catalog: CompiledCatalog) -> frozenset[str]:
        return frozenset(
            arm.treatment.id
            for arm in catalog.arms
            if bound.action in (None, arm.action.id) and bound.group in (None, arm.group.id)
        )

    return None if live is None or of(candidate) else of(live)


def _rate(of: Sequence[tuple[float, float]]) -> Rate:
    return Rate(
        len(of),
        sum(n for n, _ in of),
        sum(s for _, s in of),
        sum(n * n for n, _ in of),
        sum(n * s for n, s in of),
        sum(s * s for _, s in of),
    )


def _lowest(rates: Mapping[str, float]) -> tuple[str, str, float] | None:
    """The level with the lowest rate, that with the highest, and the ratio; None where there is none."""
    if len(rates) < 2:
        return None
    lowest, highest = min(rates, key=lambda each: rates[each]), max(rates, key=lambda each: rates[each])
    return None if rates[highest] <= 0 else (lowest, highest, rates[lowest] / rates[highest])

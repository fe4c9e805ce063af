"""The fairness report: exposure and acceptance by sensitive attributes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.fairness import unreported
from arbitration.catalog.model import Attribute
from arbitration.catalog.scalars import duration
from arbitration.catalog.sensitivity import features_with, rules_with
from arbitration.evaluation.ratios import NOBODY, Rate, rate_ratios
from arbitration.facts import rfc3339
from decision.errors import FieldError, Rejected, StoreBusy
from decision.fairness.levels import FEWEST, level_name, reportable, trait_of
from decision.fairness.withholding import Sum, pooled, sums, withheld
from decision.live import Live
from decision.storage.fairness import Counting, Line, Measured
from decision.storage.port import Store

CONFIDENCE = 0.95
OVERALL: Line = ("overall", "")
_ALL = 1_000_000
_ORDER = ("overall", "group", "action")
_WAIT = 60.0
"""Seconds that a report waits for its turn."""
_TURNS: WeakKeyDictionary[Live, asyncio.Lock] = WeakKeyDictionary()
"""Of each service (one a process): a report at a time, as each keeps the database busy."""

Level = tuple[str | None, ...]
"""Those put together, as the store has them; mostly one."""


@dataclass(frozen=True, slots=True)
class Window:
    """since ≤ decided_at < until, on a channel or all."""

    since: datetime | None = None
    until: datetime | None = None
    channel: str | None = None


class FairnessReport:
    """Makes it from the store, one at a time. Raises StoreUnavailable (StoreBusy where others take too long),
    and Rejected while no catalog is published."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live

    async def make(self, now: datetime, window: Window, attribute: str | None = None) -> dict[str, Any]:
        """See `decision.fairness.messages.FairnessReply`. Raises Rejected (422) where there is no such
        sensitive attribute or channel, or the window is empty."""
        turn = _TURNS.setdefault(self._live, asyncio.Lock())
        try:
            await asyncio.wait_for(turn.acquire(), _WAIT)
        except TimeoutError as error:
            raise StoreBusy("other fairness reports are being made") from error
        try:
            return await self._make(now, window, attribute)
        finally:
            turn.release()

    async def _make(self, now: datetime, window: Window, attribute: str | None) -> dict[str, Any]:
        catalog = self._live.serving.published.compiled
        shown = await self._shown(window)
        _check(catalog, shown, window, attribute)
        chosen = [
            each for each in catalog.model.attributes if each.sensitive and attribute in (None, each.id)
        ]
        counted = [each for each in reportable(catalog.model) if each in chosen]
        rates: Mapping[Measured, Rate] = {}
        if counted and shown.lines:
            rates = await self._store.fairness(
                Counting(
                    now,
                    tuple(trait_of(each) for each in counted),
                    shown.lines,
                    shown.accepted,
                    window.since,
                    window.until,
                    window.channel,
                )
            )
        rules, features = rules_with(catalog.model), features_with(catalog.model)
        adding = sums(shown.lines, shown.groups)
        tables = {
            each.id: _Table(each, number, shown.lines, rates, adding) for number, each in enumerate(counted)
        }
        _compare(list(tables.values()))
        return {
            "as_of": rfc3339(now),
            "since": None if window.since is None else rfc3339(window.since),
            "until": None if window.until is None else rfc3339(window.until),
            "channel": window.channel,
            "confidence": CONFIDENCE,
            "fewest_customers": FEWEST,
            "ratios": sum(table.ratios for table in tables.values()),
            "attributes": [
                {
                    "attribute": each.id,
                    "unreported": unreported(each),
                    "rules": rules[each.id],
                    "features": features[each.id],
                    **(
                        tables[each.id].spelled()
                        if each.id in tables
                        else {"reference": None, "levels": [], "lines": []}
                    ),
                }
                for each in chosen
            ],
        }

    async def _shown(self, window: Window) -> _Shown:
        """What the catalogs that were live in the window could show, and count as accepted."""
        versions: dict[str, None] = {}
        for publication in await self._store.publications(_ALL):
            if window.until is None or publication.published_at < window.until:
                versions[publication.version] = None
            if window.since is not None and publication.published_at <= window.since:
                break
        shown = _Shown({}, {}, set(), defaultdict(set))
        channels: defaultdict[Line, set[str]] = defaultdict(set)
        for version in versions:
            document = await self._store.catalog(version)
            if document is not None:
                shown.add(version, await asyncio.to_thread(orjson.loads, document), channels)
        for line in sorted(channels, key=lambda each: (_ORDER.index(each[0]), each[1])):
            if window.channel is None or window.channel in channels[line]:
                of = channels[line] if window.channel is None else {window.channel}
                shown.lines[line] = frozenset(of)
        return shown


@dataclass(frozen=True, slots=True)
class _Shown:
    """See `Counting`; `channels`: all there were; `groups`: those that each action was in."""

    lines: dict[Line, frozenset[str]]
    accepted: dict[tuple[str, str], tuple[frozenset[str], timedelta]]
    channels: set[str]
    groups: defaultdict[str, set[str]]

    def add(self, version: str, document: Mapping[str, Any], lines: defaultdict[Line, set[str]]) -> None:
        """One more catalog, as it is stored."""
        for channel in document.get("channels", ()):
            self.channels.add(channel["id"])
            best = max(channel["rewards"].values())
            accepted = frozenset(name for name, reward in channel["rewards"].items() if reward == best > 0)
            self.accepted[version, channel["id"]] = accepted, duration(channel["response_window"])
        for action in document.get("actions", ()):
            self.groups[action["id"]].add(action["group"])
            for treatment in action["treatments"]:
                for line in (OVERALL, ("group", action["group"]), ("action", action["id"])):
                    lines[line].add(treatment["channel"])


def _check(catalog: CompiledCatalog, shown: _Shown, window: Window, attribute: str | None) -> None:
    errors = []
    sensitive = [each.id for each in catalog.model.attributes if each.sensitive]
    if attribute is not None and attribute not in sensitive:
        errors.append(FieldError("attribute", "unknown_attribute", "there is no such sensitive attribute"))
    if window.channel is not None and window.channel not in {*catalog.channels, *shown.channels}:
        errors.append(FieldError("channel", "unknown_channel", "there is no such channel"))
    if window.since is not None and window.until is not None and window.since >= window.until:
        errors.append(FieldError("until", "empty_window", "it is not after since"))
    if errors:
        raise Rejected(422, "invalid_request", "The request has faults.", errors)


class _Table:
    """One attribute: its levels, and the figures of each line by level."""

    def __init__(
        self,
        attribute: Attribute,
        number: int,
        lines: Mapping[Line, frozenset[str]],
        rates: Mapping[Measured, Rate],
        adding: Sequence[Sum],
    ) -> None:
        self.attribute = attribute
        customers = {
            level: rate.customers
            for (measure, trait, level, line), rate in rates.items()
            if (measure, trait, line) == ("exposure", number, OVERALL)
        }
        small = pooled(customers)
        large = [level for level in customers if level not in small]
        levels: list[Level] = [(level,) for level in sorted(large, key=_place(attribute))]
        if small:
            levels.append(tuple(sorted(small, key=_place(attribute))))
        self.levels = {level: sum(customers[each] for each in level) for level in levels}
        self.pooled = levels[-1] if small else None
        known = [level for level in levels if level != self.pooled and level != (None,)]
        self.reference = max(known, key=lambda level: self.levels[level], default=None)
        self.rates = {
            (line, measure): [
                (level, sum((rates.get((measure, number, each, line), NOBODY) for each in level), NOBODY))
                for level in levels
            ]
            for line in lines
            for measure in ("exposure", "acceptance")
        }
        self._withheld = self._unwidened(lines) | self._subtractable(lines, adding)
        self.ratios = 0
        self._found: dict[tuple[Line, str, Level], dict[str, Any]] = {}

    def comparable(self) -> list[tuple[tuple[Line, str, Level], Rate, Rate]]:
        """Each level with enough customers, and the reference."""
        found = []
        for (line, measure), of in self.rates.items():
            reference = dict(of).get(self.reference, NOBODY) if self.reference is not None else NOBODY
            if self.reference is not None and self._untold(line, measure, self.reference, reference) is None:
                found += [
                    ((line, measure, level), rate, reference)
                    for level, rate in of
                    if level != self.reference
                    and self._untold(line, measure, level, rate) is None
                    and rate.taken + reference.taken > 0
                ]
        self.ratios = len(found)
        return found

    def note(self, key: tuple[Line, str, Level], found: dict[str, Any]) -> None:
        """Keeps the ratio of a line, measure and level."""
        self._found[key] = found

    def spelled(self) -> dict[str, Any]:
        """As `FairnessAttribute` has it."""
        return {
            "reference": None if self.reference is None else self._name(self.reference),
            "levels": [
                {
                    "level": self._name(level),
                    "pooled": self._names(level) if level == self.pooled else None,
                    "customers": count if count >= FEWEST else None,
                }
                for level, count in self.levels.items()
            ],
            "lines": [
                {
                    "by": line[0],
                    "name": line[1] or None,
                    "measure": measure,
                    "levels": [self._figure(line, measure, level, rate) for level, rate in of],
                }
                for (line, measure), of in self.rates.items()
                if any(rate.chances for _, rate in of)
            ],
        }

    def _figure(self, line: Line, measure: str, level: Level, rate: Rate) -> dict[str, Any]:
        reason = self._untold(line, measure, level, rate)
        few = reason is not None
        found = self._found.get((line, measure, level))
        if few:
            pass
        elif level == self.reference:
            reason = "reference"
        elif found is None:
            reason = "nothing_taken" if self._referred(line, measure) else "no_reference"
        return {
            "level": self._name(level),
            "pooled": level == self.pooled,
            "customers": None if few else rate.customers,
            "chances": None if few else rate.chances,
            "taken": None if few else rate.taken,
            "rate": None if few else rate.value,
            **(found or {"ratio": None, "low": None, "high": None, "stands_out": False}),
            "reason": reason,
        }

    def _referred(self, line: Line, measure: str) -> bool:
        of = dict(self.rates[line, measure])
        at = self.reference
        return at is not None and self._untold(line, measure, at, of[at]) is None

    def _untold(self, line: Line, measure: str, level: Level, rate: Rate) -> str | None:
        """Why a figure is not told; None where it is."""
        if rate.customers < FEWEST or self.levels[level] < FEWEST:
            return "too_few_customers"
        return "withheld" if (line, measure, level) in self._withheld else None

    def _unwidened(self, lines: Mapping[Line, frozenset[str]]) -> set[tuple[Line, str, Level]]:
        """Exposure where some level has few customers on the channels of some line: of all lines but those
        on as many channels as there are, as decisions add up over channels."""
        counts = [rate.customers for line in lines for _, rate in self.rates[line, "exposure"]]
        if not any(0 < each < FEWEST for each in counts):
            return set()
        narrow = [line for line, channels in lines.items() if channels != lines[OVERALL]]
        return {(line, "exposure", level) for line in narrow for level in self.levels}

    def _subtractable(self, lines: Collection[Line], adding: Sequence[Sum]) -> set[tuple[Line, str, Level]]:
        """Acceptance that would tell that of few. What few customers have over all levels is kept from all
        attributes alike."""
        levels = sorted(self.levels, key=lambda level: (self.levels[level], str(level)))
        counts = {
            line: [dict(self.rates[line, "acceptance"])[level].customers for level in levels]
            for line in lines
        }
        alone = withheld({line: [sum(of)] for line, of in counts.items()}, adding)
        first = withheld(counts, adding, [line for line, number in alone.items() if number])
        return {(line, "acceptance", level) for line in lines for level in levels[: first[line]]}

    def _name(self, level: Level) -> str | None:
        return None if level == self.pooled else level_name(self.attribute, level[0])

    def _names(self, level: Level) -> list[str | None]:
        return [level_name(self.attribute, each) for each in level]


def _place(attribute: Attribute) -> Any:
    """Levels in the order they are declared in; what is not known comes last."""
    order = {value: number for number, value in enumerate(attribute.values or ())}

    def place(level: str | None) -> tuple[bool, int, str]:
        number = (
            int(level) if level is not None and attribute.bands is not None else order.get(level or "", 0)
        )
        return level is None, number, level or ""

    return place


def _compare(tables: list[_Table]) -> None:
    """Works out all ratios; what stands out does so among all of them together (Bonferroni)."""
    of = [(table, *each) for table in tables for each in table.comparable()]
    rates, references = [each[2] for each in of], [each[3] for each in of]
    together = 1 - (1 - CONFIDENCE) / max(len(of), 1)
    pairs = zip(
        of,
        rate_ratios(rates, references, CONFIDENCE),
        rate_ratios(rates, references, together),
        strict=True,
    )
    for (table, key, _, _), own, wide in pairs:
        apart = wide.low > 1 or (wide.high is not None and wide.high < 1)
        table.note(key, {"ratio": own.value, "low": own.low, "high": own.high, "stands_out": apart})

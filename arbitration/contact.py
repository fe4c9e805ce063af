"""Contact policies: what of the ledger they count, and until when that holds arms back. Pure.

For every policy and target (a channel, an action, …) a customer has a `Counter` with the times of the
newest contacts, as many as the policy's limit. So a check costs the same however long the history is: it
asks whether the moment until which the counter holds has come. `contacts` says what one decision adds to
which counters; a counter is always the sum of that over the ledger. All times are integers: microseconds
since 1970, UTC.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from arbitration.calendars import period_end, zone
from arbitration.catalog.limits import ContactPolicy, Selection
from arbitration.catalog.scalars import duration

if TYPE_CHECKING:
    from arbitration.catalog.model import Catalog

Key = tuple[str, str]
"""(policy, target). The target is what the policy counts by: the id of a channel, group, action or treatment,
a direction, or `""` where all of a customer's contacts are counted together."""

ALL = "*"
"""Stands for every target."""

State = Literal["firm", "reserved", "released"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_PERIOD = timedelta(days=367)


@dataclass(frozen=True, slots=True)
class Shown:
    """An item of a decision. `state`: whether the contact took place, may still, or no longer will."""

    treatment: str
    action: str
    group: str
    state: State = "firm"


@dataclass(frozen=True, slots=True)
class Contact:
    """A recorded decision as far as limits count it. `deferred`: its contact is the impression. `outcomes`:
    (treatment, outcome, when it occurred), in the order in which they were recorded."""

    at: int
    channel: str
    items: tuple[Shown, ...]
    deferred: bool = False
    outcomes: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a decision adds to a counter. `reserved`: it may be taken away again."""

    at: int
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Counter:
    """The newest contacts, ascending: as many as the limit, and one more for each that may be taken away.
    Whatever is at or before `begun` does not count."""

    times: tuple[int, ...] = ()
    reserved: int = 0
    begun: int | None = None

    def moved(self, before: Entry | None, after: Entry | None, limit: int) -> Counter:
        """With one decision's entry replaced."""
        if before == after:
            return self
        times, reserved = list(self.times), self.reserved
        if before is not None:
            reserved -= before.reserved
            if before.at in times:
                times.remove(before.at)
        if after is not None:
            reserved += after.reserved
            if self.begun is None or after.at > self.begun:
                insort(times, after.at)
        return Counter(tuple(times[-(limit + reserved) :]), reserved, self.begun)

    def begun_anew(self, at: int) -> Counter:
        """Without what was at or before `at`."""
        if self.begun is not None and at <= self.begun:
            return self
        return Counter(tuple(each for each in self.times if each > at), self.reserved, at)


@dataclass(frozen=True, slots=True)
class Limit:
    """A contact policy, ready to count. `limit`: how many are too many for another."""

    policy: ContactPolicy
    limit: int
    window: int | None
    rest: int | None
    zone: ZoneInfo
    directions: Mapping[str, str]

    def until(self, counter: Counter) -> int | None:
        """Until when a counter holds; None where it does not, however soon it is asked."""
        if len(counter.times) < self.limit:
            return None
        nth, newest = counter.times[-self.limit], counter.times[-1]
        if self.window is None:
            assert self.policy.each is not None
            return micros(period_end(self.policy.each, moment(nth), self.zone))
        if self.rest is None:
            return nth + self.window
        return newest + self.rest if newest - nth < self.window else None

    def target(self, treatment: str, action: str, group: str, channel: str) -> str | None:
        """Under which target an item is counted; None where it is not."""
        direction = self.directions.get(channel, "")
        if not selected(self.policy.of, direction, channel, group, action):
            return None
        match self.policy.per:
            case "customer":
                return ""
            case "direction":
                return direction
            case "channel":
                return channel
            case "group":
                return group
            case "action":
                return action
            case "treatment":
                return treatment


@dataclass(frozen=True, slots=True)
class Limits:
    """All contact policies of a catalog. `fingerprint`: of all that counters depend on; `horizon`: how far
    back any of them looks."""

    limits: Mapping[str, Limit] = field(default_factory=dict)
    fingerprint: str = ""
    horizon: int = 0

    def contacts(self, contact: Contact) -> dict[Key, Entry]:
        """What a decision adds to which counters: to each once, however many of its items it counts."""
        found: dict[Key, Entry] = {}
        for name, limit in self.limits.items():
            for target, entry in _entries(limit, contact):
                known = found.get((name, target))
                if known is None or (known.reserved and not entry.reserved):
                    found[name, target] = entry
        return found

    def beginnings(self, contact: Contact) -> dict[Key, int]:
        """Which counters begin anew because of what came back for a decision, and from when."""
        found: dict[Key, int] = {}
        if not contact.outcomes:
            return found
        for name, limit in self.limits.items():
            if limit.policy.unless is None:
                continue
            for shown, outcome, at in _answers(contact):
                target = limit.target(shown.treatment, shown.action, shown.group, contact.channel)
                if outcome == limit.policy.unless and target is not None:
                    found[name, target] = max(at, found.get((name, target), at))
        return found

    def changes(
        self, before: Contact | None, after: Contact
    ) -> Iterator[tuple[Key, Entry | None, Entry | None, int | None]]:
        """Per counter that a change of one decision moves: the entry of before and of after, and from when
        it begins anew, if it does."""
        old = {} if before is None else self.contacts(before)
        new = self.contacts(after)
        started = {} if before is None else self.beginnings(before)
        begins = {
            key: at for key, at in self.beginnings(after).items() if key not in started or at > started[key]
        }
        for key in dict.fromkeys((*old, *new, *begins)):
            if old.get(key) != new.get(key) or key in begins:
                yield key, old.get(key), new.get(key), begins.get(key)

    def moved(
        self, counter: Counter, key: Key, before: Entry | None, after: Entry | None, begins: int | None
    ) -> Counter:
        """A counter after such a change."""
        counter = counter.moved(before, after, self.limits[key[0]].limit)
        return counter if begins is None else counter.begun_anew(begins)

    def counted(self, ledger: Iterable[Contact]) -> dict[Key, Counter]:
        """The counters of a customer from all its decisions."""
        found: dict[Key, Counter] = {}
        for contact in ledger:
            for key, before, after, begins in self.changes(None, contact):
                found[key] = self.moved(found.get(key, Counter()), key, before, after, begins)
        return found


def limits_of(catalog: Catalog) -> Limits:
    """The contact policies of a checked catalog, ready to count."""
    if not catalog.contact_policies:
        return Limits()
    directions = {channel.id: channel.direction for channel in catalog.channels}
    limits = {each.id: _limit(each, directions, catalog.time_zone) for each in catalog.contact_policies}
    spelled = f"{sorted(directions.items())!r} " + " ".join(
        f"{limit.policy.model_dump_json(by_alias=True, exclude={'description'})}@{limit.zone.key}"
        for limit in limits.values()
    )
    # A rest lasts on when the window of the contacts that led to it has long moved on.
    horizon = max(
        _span(_LONGEST_PERIOD) if limit.window is None else limit.window + (limit.rest or 0)
        for limit in limits.values()
    )
    return Limits(limits, hashlib.sha256(spelled.encode()).hexdigest()[:16], horizon)


def selected(selection: Selection, direction: str, channel: str, group: str, action: str) -> bool:
    """Whether an arm is among those selected."""
    return (
        (selection.directions is None or direction in selection.directions)
        and (selection.channels is None or channel in selection.channels)
        and (selection.groups is None or group in selection.groups)
        and (selection.actions is None or action in selection.actions)
    )


def micros(moment: datetime) -> int:
    """An aware time in microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The inverse of `micros`, in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def _limit(policy: ContactPolicy, directions: Mapping[str, str], time_zone: str) -> Limit:
    window = policy.within or policy.gap
    return Limit(
        policy,
        policy.at_most or 1,
        None if window is None else _span(duration(window)),
        None if policy.rest is None else _span(duration(policy.rest)),
        zone(policy.time_zone or time_zone),
        directions,
    )


def _span(span: timedelta) -> int:
    return span // _MICROSECOND


def _entries(limit: Limit, contact: Contact) -> Iterator[tuple[str, Entry]]:
    """The items and answers of a decision that a policy counts, as recorded; the first firm one stands."""
    event = limit.policy.on
    if event == "decision" or (event == "impression" and contact.deferred):
        for shown in contact.items:
            target = limit.target(shown.treatment, shown.action, shown.group, contact.channel)
            waits = shown.state == "reserved"
            if target is not None and (waits or (event == "decision" and shown.state == "firm")):
                yield target, Entry(contact.at, waits)
    if event == "decision" or not contact.outcomes:
        return
    seen = set()
    for shown, outcome, at in _answers(contact):
        # Who answers has seen it, whether the impression was reported or not.
        implied = event == "impression" and contact.deferred and shown.state == "firm" and shown not in seen
        target = limit.target(shown.treatment, shown.action, shown.group, contact.channel)
        if target is not None and (outcome == event or (implied and outcome != "no_response")):
            seen.add(shown)
            yield target, Entry(at)


def _answers(contact: Contact) -> Iterator[tuple[Shown, str, int]]:
    items = {shown.treatment: shown for shown in contact.items}
    for treatment, outcome, at in contact.outcomes:
        if treatment in items:
            yield items[treatment], outcome, at

"""From what the ledger has of a decision to what limits count of it. Pure; shared by all backends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import orjson

from arbitration.contact import Contact, Counter, Key, Limits, Shown, State
from decision.storage.rows import Row

# Counters are looked through for what is over when there are more than so many; and what is over is kept for
# a day, as clocks differ.
_MANY = 32
_A_DAY = timedelta(days=1) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Counted:
    """A customer's counters, and what they are counted by (None: they have to be counted). Each counter is
    [times, reserved, begun, until when it holds]; it is read as it is written, since a decision moves few."""

    basis: str | None = None
    counters: Mapping[Key, list[Any]] = field(default_factory=dict)

    @staticmethod
    def of(basis: str, counters: Mapping[Key, Counter], limits: Limits) -> Counted:
        """From counters that were counted by `limits`."""
        return Counted(basis, {key: _written(key, counter, limits) for key, counter in counters.items()})

    @staticmethod
    def read(basis: str | None, text: str) -> Counted:
        """From the columns of `standings`."""
        return Counted(basis, {(policy, target): rest for policy, target, *rest in orjson.loads(text)})

    def text(self) -> str:
        """The column `counters`: a JSON list of [policy, target, times, reserved, begun, until]."""
        return orjson.dumps([[*key, *rest] for key, rest in self.counters.items()]).decode()

    def holds(self, now: int) -> dict[Key, int]:
        """Until when each counter holds, of those that do."""
        return {key: until for key, (*_, until) in self.counters.items() if until is not None and until > now}

    def moved(self, limits: Limits, before: Contact | None, after: Contact) -> Counted:
        """With what changed of one decision, and without what was over long before it. They must be counted
        by `limits`."""
        counters = dict(self.counters)
        if len(counters) > _MANY:
            over = after.at - limits.horizon - _A_DAY
            counters = {key: each for key, each in counters.items() if not _over(each, over)}
        for key, old, new, begins in limits.changes(before, after):
            known = counters.get(key)
            counter = Counter() if known is None else Counter(tuple(known[0]), known[1], known[2])
            counters[key] = _written(key, limits.moved(counter, key, old, new, begins), limits)
        return Counted(self.basis, counters)


def _written(key: Key, counter: Counter, limits: Limits) -> list[Any]:
    return [counter.times, counter.reserved, counter.begun, limits.limits[key[0]].until(counter)]


def _over(counter: list[Any], before: int) -> bool:
    """Whether nothing of it can matter any more: to count it anew, the ledger would not be asked for it."""
    times, reserved, begun, _ = counter
    return not reserved and (not times or times[-1] < before) and (begun is None or begun < before)


UNCOUNTED = Counted()


def basis(limits: Limits, names: int) -> str:
    """What counters are counted by. A customer's names only ever become more, so their number tells."""
    return f"{limits.fingerprint}/{names}"


def contacts(
    decided: Iterable[Row], said: Iterable[Row], states: Mapping[tuple[str, str], State]
) -> list[Contact]:
    """`decided`: (decision_id, decided_at, channel, activation, reply); `said`: all that was said of
    them, (decision_id, treatment, outcome, occurred_at, received_at) in the order of commits; `states`: of
    what was reserved, by decision and treatment."""
    found = list(decided)
    made_at = {row[0]: row[1] for row in found}
    outcomes = defaultdict(list)
    for decision_id, treatment, outcome, occurred, received in said:
        outcomes[decision_id].append((treatment, outcome, _at(made_at[decision_id], occurred, received)))
    return [
        Contact(
            at,
            channel,
            tuple(
                Shown(
                    item["treatment"],
                    item["action"],
                    item["group"],
                    states.get((decision_id, item["treatment"]), "firm"),
                )
                for placement in orjson.loads(reply)["placements"]
                for item in placement["items"]
                if item["treatment"] is not None
            ),
            activation == "deferred",
            tuple(outcomes[decision_id]),
        )
        for decision_id, at, channel, activation, reply in found
    ]


def answered(contact: Contact, said: Row, *, settled: bool) -> Contact:
    """A contact after one more answer: (treatment, outcome, occurred_at, received_at). `settled`: it made
    firm what the item had reserved."""
    treatment, outcome, occurred, received = said
    items = contact.items
    if settled:
        items = tuple(replace(each, state="firm") if each.treatment == treatment else each for each in items)
    at = _at(contact.at, occurred, received)
    return replace(contact, items=items, outcomes=(*contact.outcomes, (treatment, outcome, at)))


def _at(made: int, occurred: int, received: int) -> int:
    """Whatever a caller's clock says, nothing comes back before its decision, or from the future."""
    return min(max(occurred, made), max(received, made))

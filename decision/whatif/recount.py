"""What a candidate's own contact policies and budgets would have counted, from what was logged. Pure.

The contacts are those that were made, not those the candidate would have made in their place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from arbitration.calendars import period_start, zone
from arbitration.catalog.compile import CompiledCatalog, taken
from arbitration.contact import Contact, Key, Limits, Shown, State, micros, moment
from decision.limiting import budget_name
from decision.storage.port import BudgetPeriod


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for an item: when it occurred and since when it is known, in microseconds."""

    treatment: str
    outcome: str
    at: int
    known: int


@dataclass(frozen=True, slots=True)
class Past:
    """A logged decision as limits count it. `due`: when a deferred one is released unseen, else None."""

    at: int
    channel: str
    items: tuple[Shown, ...]
    due: int | None = None
    answers: tuple[Answer, ...] = ()

    def as_of(self, now: int) -> Contact:
        """As it was known at `now`."""
        known = tuple(each for each in self.answers if each.known <= now)
        items = self.items
        if self.due is not None:
            seen = {each.treatment for each in known if each.outcome != "no_response"}
            waiting: State = "reserved" if now < self.due else "released"
            items = tuple(
                replace(item, state="firm" if item.treatment in seen else waiting) for item in items
            )
        outcomes = tuple((each.treatment, each.outcome, each.at) for each in known)
        return Contact(self.at, self.channel, items, self.due is not None, outcomes)

    @property
    def last(self) -> int:
        """When it last changed."""
        return max((self.at, self.due or 0, *(each.known for each in self.answers)))


class Recount:
    """Counts for the contact policies `policies` and the budgets of the actions `budgets` of a catalog.

    Keeps what is within the horizon of these policies of every customer.
    """

    def __init__(self, catalog: CompiledCatalog, policies: Collection[str], budgets: Collection[str]) -> None:
        limits = {id: limit for id, limit in catalog.limits.limits.items() if id in policies}
        self._limits = Limits(limits, horizon=catalog.limits.horizon)
        self._catalog = catalog
        self._budgets = {
            action.id: action.budget
            for action in catalog.model.actions
            if action.id in budgets and action.budget is not None
        }
        self._past: defaultdict[str, list[Past]] = defaultdict(list)
        self.used: defaultdict[BudgetPeriod, int] = defaultdict(int)

    @property
    def counts_budgets(self) -> bool:
        """Whether it counts any budget."""
        return bool(self._budgets)

    def add(self, customer: str, past: Past) -> None:
        """One more logged decision; in the order in which they were made."""
        if self._limits.limits:
            self._past[customer].append(past)
        for action, amount in self._takes(past):
            budget = self._budgets[action]
            begins = None
            if budget.each is not None:
                where = zone(budget.time_zone or self._catalog.model.time_zone)
                begins = period_start(budget.each, moment(past.at), where)
            self.used[BudgetPeriod(budget_name(action, budget), begins)] += amount

    def holds(self, customer: str, now: datetime) -> Mapping[Key, datetime]:
        """What holds back at `now`, and until when."""
        if not self._limits.limits or customer not in self._past:
            return {}
        at = micros(now)
        past = [each for each in self._past[customer] if each.last > at - self._limits.horizon]
        self._past[customer] = past
        found = {}
        for key, counter in self._limits.counted(each.as_of(at) for each in past).items():
            until = self._limits.limits[key[0]].until(counter)
            if until is not None and until > at:
                found[key] = moment(until)
        return found

    def _takes(self, past: Past) -> Iterator[tuple[str, int]]:
        seen = {each.treatment for each in past.answers if each.outcome != "no_response"}
        for item in past.items:
            if item.action in self._budgets and (past.due is None or item.treatment in seen):
                arm = self._catalog.arm_of.get(item.treatment)
                gone = int(self._budgets[item.action].money is None)  # what it cost is not known any more
                yield item.action, gone if arm is None else taken(arm)

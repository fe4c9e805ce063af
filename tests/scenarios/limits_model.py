"""What limits a customer, worked out slowly: all that was answered is kept in a list, and every question
scans the whole of it.

It shares nothing with what it is compared with: no counters, and calendars that go from minute to minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

Json = dict[str, Any]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
RELEASED = "released"
_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def span(text: str) -> timedelta:
    return int(text[:-1]) * _UNITS[text[-1]]


def first_day(each: str, day: date) -> date:
    """Of the period that holds the day."""
    while {
        "day": False,
        "week": day.weekday() != 0,
        "month": day.day != 1,
        "quarter": (day.day, day.month % 3) != (1, 1),
        "year": (day.day, day.month) != (1, 1),
    }[each]:
        day -= timedelta(days=1)
    return day


@cache
def begins(day: date, zone: str) -> datetime:
    """The first minute in which a calendar on the wall shows this day, or a later one."""
    at = datetime.combine(day, time(0), UTC) - 30 * HOUR
    while at.astimezone(ZoneInfo(zone)).date() < day:
        at += MINUTE
    return at


@cache
def _start(each: str, minute: datetime, zone: str) -> datetime:
    today = minute.astimezone(ZoneInfo(zone)).date()
    # A clock may be set back to the day before; the day has begun all the same.
    day = max(day for n in (-1, 0, 1) if begins(day := today + timedelta(days=n), zone) <= minute)
    return begins(first_day(each, day), zone)


def start(each: str, at: datetime, zone: str) -> datetime:
    """When the period that holds an instant began."""
    return _start(each, at.replace(second=0, microsecond=0), zone)


def end(each: str, at: datetime, zone: str) -> datetime:
    """When it ends, which is when another begins."""
    later = at
    while start(each, later, zone) <= at:
        later += 12 * HOUR
    return start(each, later, zone)


def is_quiet(rules: list[Json], at: datetime, zone: str) -> bool:
    """By what the clock on the wall shows."""
    local = at.astimezone(ZoneInfo(zone))
    shows, today, yesterday = f"{local:%H:%M}", _DAYS[local.weekday()], _DAYS[local.weekday() - 1]
    for rule in rules:
        days, since, until = rule.get("days", _DAYS), rule.get("from", "00:00"), rule.get("to", "24:00")
        if since < until:
            quiet = today in days and since <= shows < until
        else:
            quiet = (today in days and since <= shows) or (yesterday in days and shows < until)
        if quiet:
            return True
    return False


def quiet_until(rules: list[Json], at: datetime, zone: str) -> datetime | None:
    """The first minute that is not quiet; None where it is not quiet now."""
    if not is_quiet(rules, at, zone):
        return None
    at = at.replace(second=0, microsecond=0)
    while is_quiet(rules, at, zone):
        at += MINUTE
    return at


def ticks(money: float | Decimal) -> int:
    """Ten-thousandths, in which the service counts money."""
    return int(Decimal(str(money)) * 10_000)


@dataclass
class Arm:
    """A treatment, or one of its incentives."""

    id: str
    action: Json
    placement: str
    channel: str
    cost: Decimal

    @property
    def takes(self) -> int:
        """From its action's budget: once, or its cost."""
        return 1 if "total" in self.action["budget"] else ticks(self.cost)


def arms(document: Json) -> Iterator[Arm]:
    for action in document["actions"]:
        for each in action["treatments"]:
            here = (action, each["placement"], each["channel"])
            cost = Decimal(str(each.get("cost", 0)))
            if not each.get("incentives"):
                yield Arm(each["id"], *here, cost)
            for more in each.get("incentives", ()):
                yield Arm(f"{each['id']}:{more['id']}", *here, cost + Decimal(str(more["cost"])))


@dataclass
class Made:
    """A decision as it was answered. `heard`: treatment, outcome and when it occurred, in the order in which
    it was told; that something was released is told like an outcome."""

    id: str
    name: str
    at: datetime
    document: Json
    deferred: bool
    channel: str
    items: list[Json]
    heard: list[tuple[str, str, datetime]] = field(default_factory=list)

    def of(self, section: str, id: str) -> Json:
        found: Json = next(each for each in self.document[section] if each["id"] == id)
        return found

    @property
    def due(self) -> datetime:
        return self.at + span(self.of("channels", self.channel)["response_window"])

    def state(self, treatment: str) -> str:
        """Whether a contact took place (`firm`), still may (`reserved`), or no longer will."""
        for told, outcome, _ in self.heard:
            if self.deferred and told == treatment and outcome != "no_response":
                return RELEASED if outcome == RELEASED else "firm"
        return "reserved" if self.deferred else "firm"

    def contact(self, event: str, treatments: list[str]) -> datetime | None:
        """When it was a contact by any of these of its treatments, if it was one."""
        states = {each: self.state(each) for each in treatments}
        if event == "decision":
            return self.at if set(states.values()) & {"firm", "reserved"} else None
        for treatment, outcome, at in self.heard:
            # Who answers what is not released has seen it.
            seen = self.deferred and event == "impression" and states.get(treatment) == "firm"
            if treatment in states and (outcome == event or (seen and outcome != "no_response")):
                return at
        waits = self.deferred and event == "impression" and "reserved" in states.values()
        return self.at if waits else None

    def takes(self) -> Iterator[tuple[tuple[str, datetime | None], int, str]]:
        """From which account each item takes how much, and its state."""
        known = {arm.id: arm for arm in arms(self.document)}
        for item in self.items:
            arm = known[item["treatment"]]
            if "budget" in arm.action:
                yield account(self.document, arm.action["id"], self.at), arm.takes, self.state(arm.id)


def account(document: Json, action: str, at: datetime) -> tuple[str, datetime | None]:
    """Of the budget of an action: its name, and when its period began."""
    budget = next(each["budget"] for each in document["actions"] if each["id"] == action)
    began = None
    if "each" in budget:
        began = start(budget["each"], at, budget.get("time_zone", document["time_zone"]))
    return f"{action}:{'times' if 'total' in budget else 'money'}:{budget.get('each', 'ever')}", began


@dataclass
class Model:
    """All that was answered, in order. `roots`: by each name that was merged, the customer it is."""

    made: list[Made] = field(default_factory=list)
    roots: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> list[Made]:
        """All decisions for a customer, under whatever name."""
        root = self.roots.get(name, name)
        return [each for each in self.made if self.roots.get(each.name, each.name) == root]

    def stops(self, name: str, now: datetime) -> set[tuple[str, str]]:
        found = set()
        for made in self.of(name):
            for treatment, outcome, at in made.heard:
                item = next(each for each in made.items if each["treatment"] == treatment)
                for stop in made.of("actions", item["action"]).get("stop", ()):
                    if outcome not in stop["on"] or ("for" in stop and at + span(stop["for"]) <= now):
                        continue
                    scope = stop.get("scope", "action")
                    if scope == "group":
                        found.add(("group", str(item["group"])))
                    else:
                        actions = [item["action"]] if scope == "action" else scope
                        found |= {("action", action) for action in actions}
        return found

    def contacts(self, document: Json, policy: Json, target: str, name: str) -> list[datetime]:
        """When a policy saw contacts under a target, and no fresh start after them."""
        contacts, afresh = [], datetime.min.replace(tzinfo=UTC)
        for made in self.of(name):
            here = [
                str(item["treatment"])
                for item in made.items
                if counted_under(document, policy, item, made.channel) == target
            ]
            at = made.contact(policy.get("on", "decision"), here)
            if at is not None:
                contacts.append(at)
            for treatment, outcome, at in made.heard:
                if treatment in here and outcome == policy.get("unless"):
                    afresh = max(afresh, at)
        return sorted(at for at in contacts if at > afresh)

    def held(self, document: Json, policy: Json, contacts: list[datetime], now: datetime) -> bool:
        if "gap" in policy:
            return any(at + span(policy["gap"]) > now for at in contacts)
        most = int(policy["at_most"])
        if "each" in policy:
            began = start(policy["each"], now, str(policy.get("time_zone", document["time_zone"])))
            return sum(at >= began for at in contacts) >= most
        window = span(policy["within"])
        if "rest" in policy:
            newest = contacts[-most:]
            burst = len(newest) == most and newest[-1] - newest[0] < window
            return burst and newest[-1] + span(policy["rest"]) > now
        return sum(at > now - window for at in contacts) >= most

    def holds(self, document: Json, name: str, now: datetime) -> dict[tuple[str, str], list[datetime]]:
        """Which policies hold back what is counted under which targets, and the contacts that made it so."""
        found = {}
        for policy in document["contact_policies"]:
            targets = {
                counted_under(document, policy, item, made.channel)
                for made in self.of(name)
                for item in made.items
            }
            for target in targets - {None}:
                contacts = self.contacts(document, policy, str(target), name)
                if self.held(document, policy, contacts, now):
                    found[policy["id"], str(target)] = contacts
        return found

    def used(self) -> dict[tuple[str, datetime | None], tuple[int, int]]:
        """By account: what is taken, and how much of it is only reserved."""
        found: dict[tuple[str, datetime | None], tuple[int, int]] = {}
        for made in self.made:
            for name, amount, state in made.takes():
                used, reserved = found.get(name, (0, 0))
                used += amount * (state != RELEASED)
                found[name] = (used, reserved + amount * (state == "reserved"))
        return found

    def standing(self, document: Json, name: str, now: datetime) -> Standing:
        return Standing(document, now, self.stops(name, now), self.holds(document, name, now), self.used())


@dataclass
class Standing:
    """All that limits a customer at a time, but for quiet hours."""

    document: Json
    now: datetime
    stops: set[tuple[str, str]]
    holds: dict[tuple[str, str], list[datetime]]
    used: dict[tuple[str, datetime | None], tuple[int, int]]

    def left(self, action: Json) -> int:
        """Of the budget of an action."""
        used, _ = self.used.get(account(self.document, action["id"], self.now), (0, 0))
        budget = action["budget"]
        return int(budget["total"] if "total" in budget else ticks(budget["money"])) - used

    def against(self, arm: Arm, zone: str) -> set[str]:
        """The contact policies that would hold an arm back, and quiet hours, were it not exempt."""
        item = {"treatment": arm.id, "action": arm.action["id"], "group": arm.action["group"]}
        policies = {policy["id"]: policy for policy in self.document["contact_policies"]}
        found = {
            id
            for id, target in self.holds
            if held_under(self.document, policies[id], item, arm.channel) == target
        }
        return found | (
            {"quiet_hours"} if is_quiet(quiet_rules(self.document, arm.channel), self.now, zone) else set()
        )

    def removed(self, arm: Arm, zone: str) -> dict[str, set[str]]:
        """By stage, why an arm may not be shown; in the order of the stages."""
        action = arm.action
        against = self.against(arm, zone) - set(action.get("exempt", ()))
        found = {
            "stop": {"stopped"}
            if self.stops & {("action", action["id"]), ("group", action["group"])}
            else set(),
            "contact": {f"contact:{policy}" for policy in against - {"quiet_hours"}},
            "quiet_hours": against & {"quiet_hours"},
            "budget": {"budget"} if "budget" in action and arm.takes > self.left(action) else set(),
        }
        return {stage: reasons for stage, reasons in found.items() if reasons}


def quiet_rules(document: Json, channel: str) -> list[Json]:
    return next(each.get("quiet_hours", []) for each in document["channels"] if each["id"] == channel)


def counted_under(document: Json, policy: Json, item: Json, channel: str) -> str | None:
    """The target under which a policy counts an item; None where it does not."""
    return _under(document, policy.get("of", {}), policy, item, channel)


def held_under(document: Json, policy: Json, item: Json, channel: str) -> str | None:
    """The same of what it holds back."""
    return _under(document, policy.get("holds") or policy.get("of", {}), policy, item, channel)


def _under(document: Json, chosen: Json, policy: Json, item: Json, channel: str) -> str | None:
    direction: str = next(each["direction"] for each in document["channels"] if each["id"] == channel)
    group, action = str(item["group"]), str(item["action"])
    kinds = {"direction": direction, "channel": channel, "group": group, "action": action}
    if any(value not in chosen.get(f"{kind}s", [value]) for kind, value in kinds.items()):
        return None
    return {**kinds, "treatment": str(item["treatment"]), "customer": ""}[str(policy.get("per", "customer"))]

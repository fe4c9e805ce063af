"""Checks what contact policies, quiet hours, stops, budgets and control groups say of the other parts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from arbitration.calendars import always_quiet
from arbitration.catalog.keeping import keeping_problems
from arbitration.catalog.limits import MOST, QUIET_HOURS, ContactPolicy, Selection, Stop
from arbitration.catalog.model import Action
from arbitration.catalog.problems import Path, Problem
from arbitration.catalog.scalars import DECIMALS, duration, moment, ticks
from arbitration.contact import selected

if TYPE_CHECKING:
    from arbitration.catalog.references import Checker

_DAYS = {"day": 2, "week": 8, "month": 32, "quarter": 93, "year": 367}


def limit_problems(checker: Checker) -> Iterator[Problem]:
    """Every problem of the limiting parts."""
    yield from _time_zone(checker)
    yield from keeping_problems(checker)
    for section in ("contact_policies", "control_groups"):
        if len(getattr(checker.catalog, section)) > MOST:
            message = f"a catalog has at most {MOST}: each is looked at in every decision"
            yield checker.source.problem("too_many", (section,), message)
    for channel in checker.catalog.channels:
        if always_quiet(channel.quiet_hours):
            path = checker.path("channels", channel, "quiet_hours")
            yield checker.source.problem("always_quiet", path, "no minute of the week is left")
    for policy in checker.catalog.contact_policies:
        yield from _contact_policy(checker, policy)
    taken = {policy.id for policy in checker.catalog.contact_policies}
    for control in checker.catalog.control_groups:
        path = checker.path("control_groups", control)
        yield from _among(checker, Selection(groups=control.groups, actions=control.actions), path)
        if not _covers(checker, Selection(groups=control.groups, actions=control.actions)):
            message = "it covers no action: of groups and actions, it covers what both name"
            yield checker.source.problem("covers_nothing", path, message)
        start, end = control.valid.from_, control.valid.to
        if start is not None and end is not None and moment(start) >= moment(end, end_of_day=True):
            yield checker.source.problem("empty_validity", (*path, "valid"), "ends before it begins")
        if control.id in taken:
            message = f"a contact policy is called '{control.id}' too: `exempt` could mean either"
            yield checker.source.problem("duplicate_id", (*path, "id"), message)
    for section in ("contact_policies", "control_groups"):
        for part in getattr(checker.catalog, section):
            if part.id == QUIET_HOURS:
                path = checker.path(section, part, "id")
                yield checker.source.problem("reserved_id", path, f"'{QUIET_HOURS}' stands for quiet hours")
    for action in checker.catalog.actions:
        yield from _action(checker, action)


def _time_zone(checker: Checker) -> Iterator[Problem]:
    name = checker.catalog.customer_time_zone
    yield from checker.unknown("attributes", name, ("customer_time_zone",))
    for attribute in checker.catalog.attributes:
        if attribute.id == name and attribute.type != "string":
            message = f"the attribute '{name}' is no string"
            yield checker.source.problem("time_zone", ("customer_time_zone",), message)


def _contact_policy(checker: Checker, policy: ContactPolicy) -> Iterator[Problem]:
    path = checker.path("contact_policies", policy)
    yield from _among(checker, policy.of, (*path, "of"))
    yield from _among(checker, policy.holds or Selection(), (*path, "holds"))
    kept = duration(checker.catalog.retention)
    for name, texts in (
        ("within", (policy.within,)),
        ("gap", (policy.gap,)),
        ("rest", (policy.within, policy.rest)),
    ):
        if getattr(policy, name) is None:
            continue
        back = sum((duration(text) for text in texts if text is not None), timedelta())
        if back > kept:
            kept_for = f"the ledger is kept for {checker.catalog.retention} (`retention`)"
            message = f"looks back {back.days} days, but {kept_for}"
            yield checker.source.problem("beyond_retention", (*path, name), message)
            break
    if policy.each is not None and _DAYS[policy.each] > kept.days:
        message = f"a {policy.each} is longer than the ledger is kept (`retention`)"
        yield checker.source.problem("beyond_retention", (*path, "each"), message)
    empty = [name for name in ("of", "holds") if not _covers(checker, getattr(policy, name) or Selection())]
    for name in empty:
        message = "no treatment is of all that is named here: a policy covers what each field allows"
        yield checker.source.problem("covers_nothing", (*path, name), message)
    channels = [
        channel
        for channel in checker.catalog.channels
        if (policy.of.channels is None or channel.id in policy.of.channels)
        and (policy.of.directions is None or channel.direction in policy.of.directions)
    ]
    if empty or checker.broken.get("channels") or set(policy.of.channels or ()) - checker.known["channels"]:
        return
    for name in ("on", "unless"):
        event = getattr(policy, name)
        if event not in (None, "decision") and not any(event in channel.outcomes for channel in channels):
            message = f"no channel it counts on reports '{event}'"
            yield checker.source.problem("unheard_outcome", (*path, name), message)


def _covers(checker: Checker, selection: Selection) -> bool:
    """Whether it selects any treatment. What names an unknown or broken part is reported elsewhere."""
    directions = {channel.id: channel.direction for channel in checker.catalog.channels}
    named = {section: set(getattr(selection, section) or ()) for section in ("channels", "groups", "actions")}
    whole = not any(checker.broken.get(section) for section in (*named, "placements"))
    if not whole or any(names - checker.known[section] for section, names in named.items()):
        return True
    return any(
        selected(selection, directions.get(each.channel, ""), each.channel, action.group, action.id)
        for action in checker.catalog.actions
        for each in action.treatments
    )


def _among(checker: Checker, selection: Selection, path: Path) -> Iterator[Problem]:
    for section in ("channels", "groups", "actions"):
        for index, name in enumerate(getattr(selection, section) or ()):
            yield from checker.unknown(section, name, (*path, section, index))


def _action(checker: Checker, action: Action) -> Iterator[Problem]:
    path = checker.path("actions", action)
    known = checker.known["contact_policies"] | checker.known["control_groups"] | {QUIET_HOURS}
    for index, name in enumerate(action.exempt):
        if name not in known:
            message = f"there is no contact policy or control group '{name}'"
            yield checker.source.problem("unknown_exemption", (*path, "exempt", index), message)
    yield from _stops(checker, action, path)
    for index, treatment in enumerate(action.treatments):
        here: Path = (*path, "treatments", index)
        yield from _money(checker, treatment.cost, (*here, "cost"))
        for number, incentive in enumerate(treatment.incentives):
            yield from _money(checker, incentive.cost, (*here, "incentives", number, "cost"))
        for variant in treatment.variants:
            if isinstance(action.value, float) and action.value < variant.cost:
                message = f"'{variant.id}' costs {variant.cost:g}, and the action is worth {action.value:g}"
                yield checker.source.problem("never_worth_it", here, message)
                break
    if action.budget is None or action.budget.money is None:
        return
    yield from _money(checker, action.budget.money, (*path, "budget", "money"))
    variants = [variant for each in action.treatments for variant in each.variants]
    here = (*path, "budget", "money")
    if free := next((each for each in variants if each.cost == 0), None):
        message = f"'{free.id}' costs nothing, so a budget of money would never limit it"
        yield checker.source.problem("budget_without_cost", here, message)


def _money(checker: Checker, amount: float, path: Path) -> Iterator[Problem]:
    if ticks(amount) != Decimal(str(amount)).scaleb(DECIMALS):
        yield checker.source.problem("money", path, f"money has at most {DECIMALS} decimals")


def _stops(checker: Checker, action: Action, path: Path) -> Iterator[Problem]:
    channels = {channel.id: channel for channel in checker.catalog.channels}
    heard = [channels[t.channel].outcomes for t in action.treatments if t.channel in channels]
    for number, stop in enumerate(action.stops):
        here: Path = (*path, "stop", number) if isinstance(action.stop, tuple) else (*path, "stop")
        for index, outcome in enumerate(stop.on):
            if len(heard) == len(action.treatments) and not any(outcome in outcomes for outcomes in heard):
                message = f"no channel of this action reports '{outcome}'"
                yield checker.source.problem("unheard_outcome", (*here, "on", index), message)
        if isinstance(stop.scope, tuple):
            for index, name in enumerate(stop.scope):
                yield from checker.unknown("actions", name, (*here, "scope", index))
    for number, ending in enumerate(action.stops):
        for outcome in ending.on if ending.for_ is not None else ():
            endless = [stop for stop in action.stops if stop.for_ is None and outcome in stop.on]
            rests = frozenset[str]().union(*(_covered(checker, action, stop) for stop in endless))
            if endless and _covered(checker, action, ending) <= rests:
                message = (
                    f"after '{outcome}' this stop of {ending.for_} can never end: another stop of the action"
                    " covers the same for good"
                )
                yield checker.source.problem("endless_stop", (*path, "stop", number, "for"), message)
                break


def _covered(checker: Checker, action: Action, stop: Stop) -> frozenset[str]:
    """The actions that a stop rests."""
    if isinstance(stop.scope, tuple):
        return frozenset(stop.scope)
    if stop.scope == "action":
        return frozenset({action.id})
    return frozenset(each.id for each in checker.catalog.actions if each.group == action.group)

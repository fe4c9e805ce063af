"""From what limits a customer, as the store has it, to what a decision is told of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from arbitration.calendars import period_end, period_start, quiet_until, zone
from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.catalog.limits import Budget
from arbitration.catalog.scalars import ticks
from arbitration.contact import ALL
from arbitration.control import challenger, in_window, membership
from arbitration.facts import Facts, rfc3339
from decision.sources.port import Cause
from decision.storage.port import BudgetPeriod, Membership, Standing

_UNBOUNDED = 2**62


@dataclass(slots=True)  # not frozen: see `decision.deciding`
class Limited:
    """What of it goes into the inputs (see `arbitration.inputs.Inputs`), and into the claim: `ranges` and
    `joins` (see `decision.storage.port.Claim`)."""

    stops: tuple[tuple[str, str], ...]
    holds: Mapping[str, Mapping[str, str | None]]
    quiet: Mapping[str, str]
    budgets: Mapping[str, int] | None
    controls: Mapping[str, bool]
    assigned: Mapping[str, str]
    degraded: tuple[str, ...] = ()
    ranges: Mapping[BudgetPeriod, tuple[int, int]] = field(default_factory=dict)
    joins: tuple[Membership, ...] = ()


def budget_name(action: str, budget: Budget) -> str:
    """What an action's budget is kept as: one of another unit or period is another budget."""
    return f"{action}:{'times' if budget.money is None else 'money'}:{budget.each or 'ever'}"


def budget_periods(
    catalog: CompiledCatalog, placements: Iterable[str], now: datetime
) -> dict[str, BudgetPeriod]:
    """The budget of each action that has one and could be shown, in its period at `now`, by action."""
    found: dict[str, BudgetPeriod] = {}
    for placement in placements:
        for action, (budget, _) in catalog.candidates[placement].budgets.items():
            begins = None
            if budget.each is not None:
                begins = _began(budget.each, budget.time_zone or catalog.model.time_zone, now)
            found[action] = BudgetPeriod(budget_name(action, budget), begins)
    return found


_periods: dict[tuple[str, str], tuple[datetime, datetime]] = {}


def _began(each: str, time_zone: str, now: datetime) -> datetime:
    """When the period began that holds `now`; the one that was asked for last is remembered, by its kind."""
    begins, ends = _periods.get((each, time_zone), (now, now))
    if not begins <= now < ends:
        where = zone(time_zone)
        begins, ends = period_start(each, now, where), period_end(each, now, where)
        _periods[each, time_zone] = begins, ends
    return begins


def limited(
    catalog: CompiledCatalog,
    placements: Iterable[str],
    channels: Iterable[str],
    key: str,
    standing: Standing | None,
    memberships: Iterable[Membership],
    facts: Facts,
    now: datetime,
    periods: Mapping[str, BudgetPeriod] | None = None,
) -> Limited:
    """What limits a decision. `key`: by which the customer is recorded; `memberships`: those that are
    recorded; `periods`: as `budget_periods` finds them, by who has them already. Without `standing` every
    limit there could be is kept, since one that cannot be read may be in force; and nothing is recorded of
    control groups.
    """
    candidates = [catalog.candidates[placement] for placement in placements]
    quiet, degraded = _quiet(catalog, channels, facts, now)
    controls, joins = _controls(catalog, candidates, key, memberships, now)
    assigned = {
        each.policy.id: id
        for each in candidates
        if each.policy.challengers and (id := challenger(each.policy, key)) is not None
    }
    if standing is None:
        holds: dict[str, dict[str, str | None]] = {policy: {ALL: None} for policy in catalog.limits.limits}
        return Limited(tuple(_every_stop(catalog)), holds, quiet, None, controls, assigned, degraded)
    holds = {}
    for (policy, target), until in standing.holds.items():
        holds.setdefault(policy, {})[target] = rfc3339(until)
    if periods is None:
        periods = budget_periods(catalog, (each.placement.id for each in candidates), now)
    left, ranges = _budgets(candidates, standing, periods)
    return Limited(
        tuple((stop.scope, stop.target) for stop in standing.stops),
        holds,
        quiet,
        left,
        controls,
        assigned,
        degraded,
        ranges,
        joins,
    )


def _quiet(
    catalog: CompiledCatalog, channels: Iterable[str], facts: Facts, now: datetime
) -> tuple[dict[str, str], tuple[str, ...]]:
    own: ZoneInfo | None = None
    degraded: tuple[str, ...] = ()
    if catalog.model.customer_time_zone is not None:
        name = f"customer.{catalog.model.customer_time_zone}"
        if isinstance(named := facts.get(name), str):
            try:
                own = zone(named)
            except ValueError:
                degraded = (f"{name}:{Cause.BAD_VALUE}",)
    rules = {id: hours for id in channels if (hours := catalog.channels[id].quiet_hours)}
    if not rules:
        return {}, degraded
    where = own or zone(catalog.model.time_zone)
    ends = {id: quiet_until(hours, now, where) for id, hours in rules.items()}
    return {id: rfc3339(end) for id, end in ends.items() if end is not None}, degraded


def _controls(
    catalog: CompiledCatalog,
    candidates: list[Candidates],
    key: str,
    memberships: Iterable[Membership],
    now: datetime,
) -> tuple[dict[str, bool], tuple[Membership, ...]]:
    """Who is in is found once, and then stays so; it is recorded when it first matters."""
    if not catalog.model.control_groups:
        return {}, ()
    recorded = {(each.control_group, each.since): each.member for each in memberships}
    exposed = {control.id for each in candidates for control, _ in each.controls}
    found, joins = {}, []
    for control in catalog.model.control_groups:
        if not in_window(control, now):
            continue
        since = control.valid.from_ or ""
        known = recorded.get((control.id, since))
        found[control.id] = membership(control, key) if known is None else known
        if known is None and control.id in exposed:
            joins.append(Membership(control.id, since, found[control.id], control.share))
    return found, tuple(joins)


def _every_stop(catalog: CompiledCatalog) -> Iterator[tuple[str, str]]:
    for action in catalog.model.actions:
        for stop in action.stops:
            if stop.scope == "group":
                yield "group", action.group
            else:
                yield from (
                    ("action", id) for id in (stop.scope if isinstance(stop.scope, tuple) else (action.id,))
                )


def budget_total(budget: Budget) -> int:
    """All there is of it, in times or ticks of money."""
    if budget.total is not None:
        return budget.total
    assert budget.money is not None
    return ticks(budget.money)


def _budgets(
    candidates: list[Candidates], standing: Standing, periods: Mapping[str, BudgetPeriod]
) -> tuple[dict[str, int], dict[BudgetPeriod, tuple[int, int]]]:
    """What is left of those that cannot afford all, and of each within which bounds that stays so."""
    if not periods:
        return {}, {}
    takes: dict[str, set[int]] = {}
    for each in candidates:
        for action, (_, may) in each.budgets.items():
            takes.setdefault(action, set()).update(may)
    left, ranges = {}, {}
    for each in candidates:
        for action, (budget, _) in each.budgets.items():
            total, period = budget_total(budget), periods[action]
            used = standing.used[period]
            ranges[period] = _range(total, used, takes[action])
            if used + max(takes[action]) > total:
                left[action] = total - used
    return left, ranges


def _range(total: int, used: int, takes: set[int]) -> tuple[int, int]:
    """Within which bounds what is used affords the same arms."""
    still_affordable = [total - take for take in takes]
    below = [each + 1 for each in still_affordable if each < used]
    above = [each for each in still_affordable if each >= used]
    return max(below, default=-_UNBOUNDED), min(above, default=_UNBOUNDED)

"""A catalog as it would have been asked in the place of the one that decided: inputs of then, worked out anew
where they depend on the catalog. Pure.

What is recorded stays wherever the two catalogs say the same. What they say differently is worked out as the
service would: by the very functions that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.limits import Budget
from arbitration.contact import Key, Limit
from arbitration.errors import FactError
from arbitration.facts import DERIVED, Facts, Value, admit, rfc3339
from arbitration.inputs import Inputs
from decision.limiting import Limited, budget_name, budget_periods, budget_total, limited
from decision.storage.port import BudgetPeriod, Membership, Standing, Stop


@dataclass(frozen=True, slots=True)
class Departures:
    """What a candidate says otherwise than the catalog that decided.

    `facts`: whether any fact must be looked at again; `missing`: facts and consents that the candidate knows
    of and the log does not; `contact_policies`, `budgets`: those to be counted anew (ids of policies, of
    actions); `controls`: the control groups in which membership is as recorded; `champions`: the policies
    whose challengers are as recorded; `stops`: whether other outcomes stop anything; `slots`: the placements
    that have more of them.
    """

    facts: bool
    missing: tuple[str, ...]
    contact_policies: frozenset[str]
    budgets: frozenset[str]
    controls: frozenset[str]
    champions: frozenset[str]
    stops: bool
    slots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reworked:
    """What the candidate is asked; None where it has nothing to be asked for. `missing`: of the facts and
    consents it wants, those the log lacks here; `lacking`: the placements it does not have."""

    inputs: Inputs | None
    missing: tuple[str, ...]
    lacking: tuple[str, ...]


class Candidate:
    """The catalog to be judged."""

    def __init__(self, catalog: CompiledCatalog) -> None:
        self.catalog = catalog
        self._departures: dict[str, Departures] = {}

    def departures(self, logged: CompiledCatalog) -> Departures:
        """What it says otherwise than a catalog of the log."""
        if logged.version not in self._departures:
            self._departures[logged.version] = _departures(self.catalog, logged)
        return self._departures[logged.version]

    def rework(
        self,
        inputs: Inputs,
        logged: CompiledCatalog,
        key: str,
        holds: Mapping[Key, datetime],
        used: Mapping[BudgetPeriod, int],
    ) -> Reworked:
        """`inputs` of then, for the candidate. `key`: by which the customer is recorded; `holds`, `used`: of
        what is counted anew."""
        mine = self.catalog
        departures = self.departures(logged)
        channels = tuple(each for each in inputs.channels if each in mine.channels)
        placements = tuple(
            (id, min(limit, mine.candidates[id].placement.slots))
            for id, limit in inputs.placements
            if id in mine.candidates and mine.candidates[id].channel.id in channels
        )
        lacking = tuple(id for id, _ in inputs.placements if id not in dict(placements))
        facts, objects = inputs.facts, inputs.objects
        if departures.facts:
            facts = _facts(inputs, mine, logged)
            objects = _objects(inputs, mine, logged)
            if objects:
                facts = {name: value for name, value in facts.items() if not name.startswith("scores.")}
        missing = tuple(
            name
            for name in departures.missing
            if name not in facts and not (name.startswith("consents.") and name[9:] in inputs.consents)
        )
        if not placements:
            return Reworked(None, missing, lacking)
        limits = self._limited(inputs, logged, departures, key, channels, placements, facts, holds, used)
        assigned = {
            champion: id for champion, id in limits.assigned.items() if champion not in departures.champions
        } | {
            champion: id
            for champion, id in inputs.assigned.items()
            if champion in departures.champions and champion in _champions(mine, placements)
        }
        return Reworked(
            replace(
                inputs,
                channels=channels,
                placements=placements,
                facts=facts,
                objects=objects,
                holds=limits.holds,
                quiet=limits.quiet,
                budgets=limits.budgets,
                controls=limits.controls,
                assigned=assigned,
            ),
            missing,
            lacking,
        )

    def _limited(
        self,
        inputs: Inputs,
        logged: CompiledCatalog,
        departures: Departures,
        key: str,
        channels: tuple[str, ...],
        placements: tuple[tuple[str, int], ...],
        facts: Facts,
        holds: Mapping[Key, datetime],
        used: Mapping[BudgetPeriod, int],
    ) -> Limited:
        mine = self.catalog
        ids = [id for id, _ in placements]
        standing = None
        if inputs.budgets is not None:  # else what limits the customer could not be read
            kept = {
                (policy, target): datetime.fromisoformat(until)
                for policy, targets in inputs.holds.items()
                if policy in mine.limits.limits and policy not in departures.contact_policies
                for target, until in targets.items()
                if until is not None
            }
            standing = Standing(
                tuple(Stop(scope, target, None) for scope, target in inputs.stops),
                {**kept, **holds},
                self._used(inputs, departures, ids, used),
            )
        memberships = [
            Membership(control.id, control.valid.from_ or "", inputs.controls[control.id], control.share)
            for control in mine.model.control_groups
            if control.id in departures.controls and control.id in inputs.controls
        ]
        return limited(mine, ids, channels, key, standing, memberships, facts, inputs.now)

    def _used(
        self, inputs: Inputs, departures: Departures, ids: list[str], used: Mapping[BudgetPeriod, int]
    ) -> dict[BudgetPeriod, int]:
        """What was used of each budget; of one that is as it was and not near its end, it does not matter."""
        assert inputs.budgets is not None
        found = {}
        for action, period in budget_periods(self.catalog, ids, inputs.now).items():
            budget = self._budget(action)
            if action in departures.budgets:
                found[period] = used.get(period, 0)
            else:
                left = inputs.budgets.get(action)
                found[period] = 0 if left is None else budget_total(budget) - left
        return found

    def _budget(self, action: str) -> Budget:
        budget = next(each.budget for each in self.catalog.model.actions if each.id == action)
        assert budget is not None
        return budget


def _departures(mine: CompiledCatalog, logged: CompiledCatalog) -> Departures:
    purposes = {purpose.id for purpose in logged.model.purposes}
    champions = {id for id, policy in mine.policies.items() if id in logged.policies}
    stops = {action.id: action.stops for action in logged.model.actions}
    slots = {placement.id: placement.slots for placement in logged.model.placements}
    return Departures(
        facts=(mine.declared, mine.objectionable, _derived(mine))
        != (logged.declared, logged.objectionable, _derived(logged)),
        missing=(
            *(
                name
                for name, fact in mine.declared.items()
                if name not in logged.declared and fact.origin != DERIVED
            ),
            *(f"consents.{purpose.id}" for purpose in mine.model.purposes if purpose.id not in purposes),
        ),
        contact_policies=frozenset(
            id for id, limit in mine.limits.limits.items() if not _alike(limit, logged.limits.limits.get(id))
        ),
        budgets=frozenset(
            action for action, named in _budgets(mine).items() if _budgets(logged).get(action) != named
        ),
        controls=frozenset(
            mine_group.id
            for mine_group in mine.model.control_groups
            for group in logged.model.control_groups
            if (group.id, group.salt, group.share, group.valid.from_)
            == (mine_group.id, mine_group.salt, mine_group.share, mine_group.valid.from_)
        ),
        champions=frozenset(
            id for id in champions if mine.policies[id].challengers == logged.policies[id].challengers
        ),
        stops=any(action.stops != stops[action.id] for action in mine.model.actions if action.id in stops),
        slots=tuple(each.id for each in mine.model.placements if each.slots > slots.get(each.id, each.slots)),
    )


def _alike(limit: Limit, other: Limit | None) -> bool:
    """Whether two contact policies hold back alike."""
    if other is None:
        return False
    same = limit.policy.model_copy(update={"description": other.policy.description}) == other.policy
    return same and limit.zone == other.zone and limit.directions == other.directions


def _budgets(catalog: CompiledCatalog) -> dict[str, tuple[str, int, str]]:
    return {
        action.id: (
            budget_name(action.id, action.budget),
            budget_total(action.budget),
            action.budget.time_zone or catalog.model.time_zone,
        )
        for action in catalog.model.actions
        if action.budget is not None
    }


def _champions(catalog: CompiledCatalog, placements: tuple[tuple[str, int], ...]) -> set[str]:
    return {catalog.candidates[id].policy.id for id, _ in placements}


def _derived(catalog: CompiledCatalog) -> dict[str, str]:
    known = catalog.model.attributes
    return {f"customer.{each.id}": each.derive for each in known if each.derive is not None}


def _facts(inputs: Inputs, mine: CompiledCatalog, logged: CompiledCatalog) -> dict[str, Value]:
    """What was known then, as the candidate declares it, and what it derives from that."""
    known: dict[str, Value] = {}
    derived = {**_derived(logged), **_derived(mine)}
    for name, value in inputs.facts.items():
        declared = mine.declared.get(name)
        if declared is None or (name in derived and name not in inputs.given):
            continue
        if declared != logged.declared.get(name):
            try:
                value = admit(name, rfc3339(value) if isinstance(value, datetime) else value, declared)
            except FactError:
                continue  # as the service would: what does not fit is missing
        known[name] = value
    return mine.derivations.derive(known, inputs.now)[0]


def _objects(inputs: Inputs, mine: CompiledCatalog, logged: CompiledCatalog) -> bool:
    if mine.objectionable == logged.objectionable:
        return inputs.objects
    said = {purpose: inputs.consents.get(purpose) for purpose in (*mine.objectionable, *logged.objectionable)}
    if any(said[purpose] == "withdrawn" for purpose in mine.objectionable):
        return True
    # Without a withdrawal it was for an answer that could not be had.
    unread = inputs.objects and "withdrawn" not in (said[purpose] for purpose in logged.objectionable)
    return unread and bool(mine.objectionable)

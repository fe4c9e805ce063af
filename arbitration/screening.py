"""Which candidates may be shown to this customer now: every stage that removes arms, as masks.

Nothing here loops over arms. Why an arm was removed is read from the same masks afterwards, by
`arbitration.explain`, so that explaining costs the decision nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import Candidates, CompiledCatalog, Ints
from arbitration.catalog.scalars import LARGEST
from arbitration.contact import ALL
from arbitration.inputs import Inputs
from arbitration.rules import Status, Truth

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


_PLENTY = 2**62


class Stage(StrEnum):
    """The stages that remove arms, in the order in which they are reported."""

    HALT = "halt"
    ELIGIBILITY = "eligibility"
    APPLICABILITY = "applicability"
    SUITABILITY = "suitability"
    VALIDITY = "validity"
    STOP = "stop"
    CONTACT = "contact"
    QUIET_HOURS = "quiet_hours"
    CONSENT = "consent"
    BUDGET = "budget"
    CONTROL = "control"
    VALUE = "value"


STAGES = tuple(Stage)
_ROW = {stage: row for row, stage in enumerate(STAGES)}
_OF_RULES = (Stage.ELIGIBILITY, Stage.APPLICABILITY, Stage.SUITABILITY)


class NoAction(StrEnum):
    """Why a placement has no arm to show."""

    NO_CANDIDATES = "no_candidates"
    HALTED = "halted"
    NONE_ELIGIBLE = "none_eligible"
    NONE_APPLICABLE = "none_applicable"
    NONE_SUITABLE = "none_suitable"
    NONE_VALID = "none_valid"
    ALL_STOPPED = "all_stopped"
    CONTACT_LIMIT = "contact_limit"
    QUIET_HOURS = "quiet_hours"
    NO_CONSENT = "no_consent"
    BUDGET_SPENT = "budget_spent"
    CONTROL_GROUP = "control_group"
    NO_VALUE = "no_value"
    SLATE_CONSTRAINTS = "slate_constraints"
    OTHER_CHANNEL = "other_channel"


_EMPTIED_BY = {
    Stage.HALT: NoAction.HALTED,
    Stage.ELIGIBILITY: NoAction.NONE_ELIGIBLE,
    Stage.APPLICABILITY: NoAction.NONE_APPLICABLE,
    Stage.SUITABILITY: NoAction.NONE_SUITABLE,
    Stage.VALIDITY: NoAction.NONE_VALID,
    Stage.STOP: NoAction.ALL_STOPPED,
    Stage.CONTACT: NoAction.CONTACT_LIMIT,
    Stage.QUIET_HOURS: NoAction.QUIET_HOURS,
    Stage.CONSENT: NoAction.NO_CONSENT,
    Stage.BUDGET: NoAction.BUDGET_SPENT,
    Stage.CONTROL: NoAction.CONTROL_GROUP,
    Stage.VALUE: NoAction.NO_VALUE,
}


@dataclass(frozen=True, slots=True)
class Screening:
    """`passes` bool (stages, K): whether each arm passes each stage; `alive` (K,): passes all.

    `status`: the truth of each clause evaluated. `value`, `context_weight` float64 (K,): the factors of
    the priority that depend on the customer; value is nan where it could not be worked out.
    """

    passes: Bools
    alive: Bools
    status: Status
    value: Floats
    context_weight: Floats

    def emptied_by(self) -> NoAction:
        """The reason for there being no arm left. To be asked only then."""
        if self.alive.size == 0:
            return NoAction.NO_CANDIDATES
        remaining = np.logical_and.accumulate(self.passes, axis=0).any(axis=1)
        return _EMPTIED_BY[STAGES[int(np.argmin(remaining))]]

    @property
    def only_quiet(self) -> bool:
        """Whether nothing but quiet hours keeps some arm from being shown."""
        others = np.delete(self.passes, _ROW[Stage.QUIET_HOURS], axis=0).all(axis=0)
        return bool((others & ~self.alive).any())


def screen(
    inputs: Inputs, catalog: CompiledCatalog, candidates: Candidates, activation: Any, status: Status
) -> Screening:
    """Applies every stage to the candidates of one placement. `status`: the truth of (at least) the
    clauses they need, as `Rules.evaluate` gives it."""
    count = len(candidates)
    passes = np.ones((len(STAGES), count), dtype=np.bool_)
    if inputs.halts:
        np.logical_not(halted(candidates, inputs.halts), out=passes[_ROW[Stage.HALT]])
    for stage, clauses in zip(_OF_RULES, candidates.clauses, strict=True):
        np.equal(status[clauses], Truth.TRUE).all(axis=1, out=passes[_ROW[stage]])
    now = inputs.now.timestamp()
    np.logical_and(candidates.valid_from <= now, now < candidates.valid_to, out=passes[_ROW[Stage.VALIDITY]])
    for scope, target in inputs.stops:
        passes[_ROW[Stage.STOP]] &= ~stopped(candidates, scope, target)
    for policy, targets in inputs.holds.items():
        if policy in candidates.held:
            passes[_ROW[Stage.CONTACT]] &= ~(
                candidates.held[policy].covered & counted(candidates, policy, targets)
            )
    if candidates.channel.id in inputs.quiet:
        passes[_ROW[Stage.QUIET_HOURS]] = candidates.disturbs
    for purpose, needed in candidates.purposes:
        if inputs.consents.get(purpose) != "given":
            passes[_ROW[Stage.CONSENT]] &= ~needed
    if inputs.budgets is None:
        np.equal(candidates.takes, 0, out=passes[_ROW[Stage.BUDGET]])  # what could not be read may be spent
    elif inputs.budgets:
        left = np.full(len(candidates.action_numbers), _PLENTY)
        for action, rest in inputs.budgets.items():
            left[candidates.action_numbers[action]] = rest
        np.less_equal(candidates.takes, left[candidates.action], out=passes[_ROW[Stage.BUDGET]])
    for control, covered in candidates.controls:
        if control.behaviour == "no_action" and inputs.controls.get(control.id):
            passes[_ROW[Stage.CONTROL]] &= ~covered
    if inputs.objects:
        # What would be earned, and what situation it is, must not count: each arm is as good.
        value = context_weight = np.ones(count)
    else:
        value = _values(catalog, candidates, activation)
        context_weight = _context_weights(candidates, status)
    np.isfinite(value, out=passes[_ROW[Stage.VALUE]])
    alive = np.logical_and.reduce(passes, axis=0)
    return Screening(passes, alive, status, value, context_weight)


def halted(candidates: Candidates, halts: Collection[tuple[str, str]]) -> Bools:
    """The arms of which nothing may be shown, as their action, group or channel is halted; bool (K,)."""
    if ("channel", candidates.channel.id) in halts:
        return np.ones(len(candidates), dtype=np.bool_)
    covered = np.zeros(len(candidates), dtype=np.bool_)
    for scope, numbers, rows in (
        ("action", candidates.action_numbers, candidates.action),
        ("group", candidates.group_numbers, candidates.group),
    ):
        among = np.zeros(len(numbers), dtype=np.bool_)
        among[[numbers[target] for of, target in halts if of == scope and target in numbers]] = True
        covered |= among[rows]
    return covered


def stopped(candidates: Candidates, scope: str, target: str) -> Bools:
    """The arms that a stop of `scope` (action or group) on `target` covers."""
    numbers = candidates.action_numbers if scope == "action" else candidates.group_numbers
    rows = candidates.action if scope == "action" else candidates.group
    covered: Bools = rows == numbers.get(target, -1)
    return covered


def counted(candidates: Candidates, policy: str, targets: Collection[str]) -> Bools:
    """The arms that a contact policy counts under one of `targets`; bool (K,)."""
    held = candidates.held[policy]
    if ALL in targets:
        return np.ones(len(candidates), dtype=np.bool_)
    if held.target is not None:
        return np.full(len(candidates), held.target in targets)
    numbers: Mapping[str, int] = candidates.treatment_numbers
    rows: Ints = np.arange(len(candidates), dtype=np.int32)
    if held.level == "group":
        numbers, rows = candidates.group_numbers, candidates.group
    elif held.level == "action":
        numbers, rows = candidates.action_numbers, candidates.action
    among = np.zeros(len(numbers), dtype=np.bool_)
    among[[numbers[target] for target in targets if target in numbers]] = True
    found: Bools = among[rows]
    return found


def _values(catalog: CompiledCatalog, candidates: Candidates, activation: Any) -> Floats:
    value = candidates.value
    if candidates.value_programs:
        value = value.copy()
        for program, rows in candidates.value_programs:
            number = catalog.values[program].number(activation)
            value[rows] = np.nan if number is None else number
    net: Floats = value - candidates.cost
    # Less than nothing is no reason to show an action, and more than everything is a mistake.
    net[~((net >= 0) & (value <= LARGEST))] = np.nan
    return net


def _context_weights(candidates: Candidates, status: Status) -> Floats:
    # A weight whose condition cannot be known stays neutral: it prefers, it does not permit.
    holds = status[candidates.weight_clauses] == Truth.TRUE
    weight: Floats = candidates.weights[holds].prod(axis=0)
    return weight

"""Which candidates may be shown to this customer now: every stage that removes arms, as masks.

Nothing here loops over arms. Why an arm was removed is read from the same masks afterwards, by
`arbitration.explain`, so that explaining costs the decision nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from arbitration.catalog.arrays import Ints
from arbitration.catalog.compile import Candidates
from arbitration.contact import ALL
from arbitration.inputs import Inputs
from arbitration.rules import Case, Status, Truth

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class Screening:
    """`alive` bool (K,): the arms that pass every stage. `value`, `context_weight` float64 (K,): the factors
    of the priority that depend on the customer; value is nan where it could not be worked out. Both may be
    shared with other decisions. The rest is worked out when it is asked for."""

    inputs: Inputs
    candidates: Candidates
    case: Case
    alive: Bools
    value: Floats
    context_weight: Floats

    @cached_property
    def status(self) -> Status:
        """The truth of each clause that the candidates need, as the reference runtime has it."""
        return self.case.status(self.candidates.needed)

    @cached_property
    def passes(self) -> Bools:
        """Whether each arm passes each stage; bool (stages, K)."""
        inputs, candidates = self.inputs, self.candidates
        passes = np.ones((len(STAGES), len(candidates)), dtype=np.bool_)
        for stage, clauses in zip(_OF_RULES, candidates.clauses, strict=True):
            np.equal(self.status[clauses], Truth.TRUE).all(axis=1, out=passes[_ROW[stage]])
        for stage, remove in _REMOVING:
            remove(inputs, candidates, passes[_ROW[stage]])
        np.isfinite(self.value, out=passes[_ROW[Stage.VALUE]])
        return passes

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


def screen(inputs: Inputs, candidates: Candidates, case: Case) -> Screening:
    """Applies every stage to the candidates of one placement. `case`: the customer, of the same catalog."""
    count = len(candidates)
    holding = candidates.index.holding(case)
    alive = candidates.index.unpacked(holding)[:count]
    for _, remove in _REMOVING:
        remove(inputs, candidates, alive)
    if inputs.objects:
        # What would be earned, and what situation it is, must not count: each arm is as good.
        value = context_weight = candidates.neutral
    else:
        value = candidates.worth.of(case)
        context_weight = _context_weights(candidates, holding >> count)
        alive &= np.isfinite(value)
    return Screening(inputs, candidates, case, alive, value, context_weight)


# Each takes the arms that do not pass a stage out of `left`, and costs nothing where it removes nothing.


def _halts(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    if inputs.halts:
        _without(left, halted(candidates, inputs.halts))


def _validity(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    now = inputs.now.timestamp()
    begun, ending = candidates.all_valid
    if not begun <= now < ending:
        left &= candidates.valid_from <= now
        left &= now < candidates.valid_to


def _stops(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    for stop in inputs.stops:
        if (rows := candidates.under.get(stop)) is not None:
            left[rows] = False


def _holds(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    for policy, targets in inputs.holds.items():
        if (held := candidates.held.get(policy)) is None:
            continue
        if ALL in targets:
            _without(left, held.covered)
            continue
        found = [held.under[target] for target in targets if target in held.under]
        if found:
            left[found[0] if len(found) == 1 else np.concatenate(found)] = False


def _quiet(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    if candidates.channel.id in inputs.quiet:
        left &= candidates.disturbs


def _consents(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    for purpose, needed in candidates.purposes:
        if inputs.consents.get(purpose) != "given":
            _without(left, needed)


def _budgets(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    if inputs.budgets is None:
        left &= candidates.takes == 0  # what could not be read may be spent
        return
    for action, rest in inputs.budgets.items():
        if (rows := candidates.under.get(("action", action))) is not None:
            left[rows] &= candidates.takes[rows] <= rest


def _controls(inputs: Inputs, candidates: Candidates, left: Bools) -> None:
    for control, covered in candidates.controls:
        if control.behaviour == "no_action" and inputs.controls.get(control.id):
            _without(left, covered)


_REMOVING = (
    (Stage.HALT, _halts),
    (Stage.VALIDITY, _validity),
    (Stage.STOP, _stops),
    (Stage.CONTACT, _holds),
    (Stage.QUIET_HOURS, _quiet),
    (Stage.CONSENT, _consents),
    (Stage.BUDGET, _budgets),
    (Stage.CONTROL, _controls),
)


def _without(left: Bools, removed: Bools) -> None:
    np.greater(left, removed, out=left)


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


def _context_weights(candidates: Candidates, holding: int) -> Floats:
    """The product of the weights whose conditions hold (by bit); in the order of the catalog."""
    # A weight whose condition cannot be known stays neutral: it prefers, it does not permit.
    weight = candidates.neutral
    while holding:
        lowest = holding & -holding
        each = candidates.weights[lowest.bit_length() - 1]
        weight = each if weight is candidates.neutral else weight * each
        holding ^= lowest
    return weight

"""Which candidates may be shown to this customer now: every stage that removes arms, as masks.

Nothing here loops over arms. Why an arm was removed is read from the same masks afterwards, by
`arbitration.explain`, so that explaining costs the decision nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.catalog.scalars import LARGEST
from arbitration.inputs import Inputs
from arbitration.rules import Status, Truth

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Stage(StrEnum):
    """The stages that remove arms, in the order in which they are reported."""

    ELIGIBILITY = "eligibility"
    APPLICABILITY = "applicability"
    SUITABILITY = "suitability"
    VALIDITY = "validity"
    STOP = "stop"
    CONSENT = "consent"
    VALUE = "value"


STAGES = tuple(Stage)


class NoAction(StrEnum):
    """Why a placement has no arm to show."""

    NO_CANDIDATES = "no_candidates"
    NONE_ELIGIBLE = "none_eligible"
    NONE_APPLICABLE = "none_applicable"
    NONE_SUITABLE = "none_suitable"
    NONE_VALID = "none_valid"
    ALL_STOPPED = "all_stopped"
    NO_CONSENT = "no_consent"
    NO_VALUE = "no_value"
    SLATE_CONSTRAINTS = "slate_constraints"


_EMPTIED_BY = dict(
    zip(
        STAGES,
        (
            NoAction.NONE_ELIGIBLE,
            NoAction.NONE_APPLICABLE,
            NoAction.NONE_SUITABLE,
            NoAction.NONE_VALID,
            NoAction.ALL_STOPPED,
            NoAction.NO_CONSENT,
            NoAction.NO_VALUE,
        ),
        strict=True,
    )
)


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


def screen(
    inputs: Inputs, catalog: CompiledCatalog, candidates: Candidates, activation: Any, status: Status
) -> Screening:
    """Applies every stage to the candidates of one placement. `status`: the truth of (at least) the
    clauses they need, as `Rules.evaluate` gives it."""
    count = len(candidates)
    passes = np.ones((len(STAGES), count), dtype=np.bool_)
    for row, clauses in enumerate(candidates.clauses):
        np.equal(status[clauses], Truth.TRUE).all(axis=1, out=passes[row])
    now = inputs.now.timestamp()
    np.logical_and(candidates.valid_from <= now, now < candidates.valid_to, out=passes[3])
    for scope, target in inputs.stops:
        passes[4] &= ~stopped(candidates, scope, target)
    for purpose, needed in candidates.purposes:
        if inputs.consents.get(purpose) != "given":
            passes[5] &= ~needed
    value = _values(catalog, candidates, activation)
    np.isfinite(value, out=passes[6])
    alive = np.logical_and.reduce(passes, axis=0)
    return Screening(passes, alive, status, value, _context_weights(candidates, status))


def stopped(candidates: Candidates, scope: str, target: str) -> Bools:
    """The arms that a stop of `scope` (action or group) on `target` covers."""
    numbers = candidates.action_numbers if scope == "action" else candidates.group_numbers
    rows = candidates.action if scope == "action" else candidates.group
    covered: Bools = rows == numbers.get(target, -1)
    return covered


def _values(catalog: CompiledCatalog, candidates: Candidates, activation: Any) -> Floats:
    if not candidates.value_programs:
        return candidates.value
    value = candidates.value.copy()
    for program, rows in candidates.value_programs:
        number = catalog.values[program].number(activation)
        # Less than nothing is no reason to show an action, and more than everything is a mistake.
        value[rows] = number if number is not None and 0 <= number <= LARGEST else np.nan
    return value


def _context_weights(candidates: Candidates, status: Status) -> Floats:
    # A weight whose condition cannot be known stays neutral: it prefers, it does not permit.
    holds = status[candidates.weight_clauses] == Truth.TRUE
    weight: Floats = candidates.weights[holds].prod(axis=0)
    return weight

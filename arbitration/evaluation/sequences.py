"""Lift that may be looked at every day: confidence sequences for treated against control customers.

A 95% interval holds for one look. Looked at every day until it excludes 0, it sooner or later does, effect or
none. A confidence sequence holds at all looks together, so that one may stop at any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import lambertw

from arbitration.evaluation.errors import EvaluationError

Reason = Literal["too_few_customers", "too_few_outcomes"]

LEAST_CUSTOMERS = 100
LEAST_OUTCOMES = 20.0
TUNED_FOR = 20_000.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One side of the comparison, one outcome a customer: `count` of customers, `total` Σ y, `squares` Σ y².

    y is the customer's outcome since assignment, ≥ 0: 0 or 1, a number of them, or a value. EvaluationError
    for sums that no such outcomes have.
    """

    count: int
    total: float
    squares: float

    def __post_init__(self) -> None:
        for argument, number in (("count", self.count), ("total", self.total), ("squares", self.squares)):
            if not 0 <= number < math.inf:
                raise EvaluationError(argument, "must be finite, and 0 or above")
        if self.total * self.total > self.count * self.squares * (1 + 1e-9):
            raise EvaluationError("squares", "is too small: no outcomes have this total and these squares")

    @property
    def outcomes(self) -> float:
        """How many outcomes the mean rests on: (Σ y)² / Σ y² (Kish), their number where all are alike.

        Where all are 0 or 1, the zeros count too, if they are the rarer: a mean of 0.999 rests on few.
        """
        found = self.total * self.total / self.squares if self.squares > 0 else 0.0
        return min(found, self.count - self.total) if self.total == self.squares else found


@dataclass(frozen=True, slots=True)
class Lift:
    """Treated minus control, with the ends of its confidence sequence, or the reason why there are none yet.

    `estimate`, `low`, `high`: the difference of the means. `ratio`, `ratio_low`, `ratio_high`: the relative
    lift, treated / control - 1, likewise; `ratio_high` is None while the control group's mean cannot be told
    from 0. With a `reason` all of these are None, and `measured`, of the side with less, is below `bound`.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    reason: Reason | None = None
    measured: float | None = None
    bound: float | None = None


def difference_in_means(
    treated: Sample, control: Sample, *, confidence: float = 0.95, tuned_for: float = TUNED_FOR
) -> Lift:
    """The lift and its confidence sequence from the sums of both sides, at one of any number of looks.

    Asymptotic confidence sequence of the Normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024):
    estimate ± √V · √((1 + 1/x)(log(1 + x) - 2 log α)), V the variance of the estimate and x = ρ² t.
    t = 4 n m / (n + m) is the number of customers that two sides of equal size would need to tell as much. ρ²
    makes the interval narrowest at t = `tuned_for`, by Lambert's W; it must be chosen before the data are
    seen, and matters little: at ten times as many the interval is 7% wider than it could be, at a tenth 26%.

    V takes for each side the greater of its own variance and that of all customers together. Where a small
    control group has not met its rare large values yet, its mean and its variance are too low together, and a
    false alarm would be likely (up to 13% instead of 5%, in `benchmarks/results/confidence_sequences.md`).

    The relative lift is Fieller's set with the same bound, so it excludes 0 just when the difference does.
    Both hold at all looks with probability `confidence`, each for itself, once there are the least customers
    and outcomes on both sides. EvaluationError for a confidence not between 0 and 1, `tuned_for` not above 0.
    """
    if not 0 < confidence < 1:
        raise EvaluationError("confidence", "must be between 0 and 1")
    if not 0 < tuned_for < math.inf:
        raise EvaluationError("tuned_for", "must be above 0")
    customers = min(treated.count, control.count)
    if customers < LEAST_CUSTOMERS:
        return Lift(reason="too_few_customers", measured=customers, bound=LEAST_CUSTOMERS)
    outcomes = min(treated.outcomes, control.outcomes)
    together = _variance(treated, control)
    if outcomes < LEAST_OUTCOMES or together == 0:
        return Lift(reason="too_few_outcomes", measured=outcomes, bound=LEAST_OUTCOMES)
    above, below = treated.total / treated.count, control.total / control.count
    above_error, below_error = (max(_variance(side), together) / side.count for side in (treated, control))
    size = 4 * treated.count * control.count / (treated.count + control.count)
    bound = _boundary(size / tuned_for, 1 - confidence)
    half = bound * math.sqrt(above_error + below_error)
    ratio_low, ratio_high = _fieller(above, below, bound * bound * above_error, bound * bound * below_error)
    return Lift(
        estimate=above - below,
        low=above - below - half,
        high=above - below + half,
        ratio=above / below - 1,
        ratio_low=ratio_low - 1,
        ratio_high=None if ratio_high is None else ratio_high - 1,
    )


def _variance(*sides: Sample) -> float:
    """Of the outcomes of all sides together, unbiased."""
    count = sum(side.count for side in sides)
    total = sum(side.total for side in sides)
    return max(0.0, sum(side.squares for side in sides) - total * total / count) / (count - 1)


def _boundary(size: float, alpha: float) -> float:
    """How many standard errors, at `size` (in units of the size it is tuned for), hold at all sizes.

    The least of (1 + 1/x)(log(1 + x) - 2 log α) is where 1 + x = -W₋₁(-α²/e).
    """
    best = -float(lambertw(-alpha * alpha / math.e, -1).real) - 1
    x = best * size
    return math.sqrt((1 + 1 / x) * (math.log1p(x) - 2 * math.log(alpha)))


def _fieller(
    above: float, below: float, above_square: float, below_square: float
) -> tuple[float, float | None]:
    """All ratios r ≥ 0 with (above - r·below)² ≤ above_square + r²·below_square: (low, high or None for ∞).

    Fieller 1954, "Some problems in interval estimation". The set holds above / below.
    """
    a, b, c = below * below - below_square, above * below, above * above - above_square
    root = math.sqrt(max(0.0, b * b - a * c))
    if a <= 0:  # reaches to infinity; its lower end is written so that nothing cancels or is divided by 0
        return max(0.0, c / (b + root)), None
    return max(0.0, (b - root) / a), (b + root) / a

"""Ratios of rates between groups of customers, with intervals. A customer is the independent unit.

A rate is Σ s / Σ n over customers, of n chances each, s of them taken: of n decisions s that showed an
action, of n items shown s that were accepted. Chances of one customer are alike, so they say less than as
many of different ones. How much less is the design effect: the variance of the rate between customers over
the one it would have, were all chances independent. Counts divided by it are used as if they were
independent (Rao & Scott 1992, "A simple method for the analysis of clustered binary data").

Where few customers make the difference, the design effect is not well known, and tends to be taken for too
small: by itself it left intervals of 95% with 91% in simulated logs. So how alike a customer's chances are,
ρ, is also estimated from both groups together (weighted by how many customers carry the rarer of taken and
not taken, (Σ s)² / Σ s²), and the effect is at least what it is with that ρ, 1 + ρ (Σ n² / Σ n - 1). Counts
are lessened further by (z / t)², for the quantiles of the Normal and of Student's t with one degree of
freedom less than customers (Korn & Graubard 1998, "Confidence intervals for proportions with small expected
number of positive counts"). With a chance each, customers are taken as they are.

The interval of the ratio of two such rates is Koopman's (1984, "Confidence intervals for the ratio of two
binomial proportions"): the ratios that a score test does not refuse. It is there with no success, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Floats = npt.NDArray[np.float64]

_STEPS = 60  # of bisection over log ratios from -_WIDEST to _WIDEST: to 1e-16 of the ratio
_WIDEST = 30.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Sums over the customers of a group that had any chance: how many they are, Σ n, Σ s, Σ n², Σ n s, Σ s².

    n and s need not be whole; 0 ≤ s ≤ n.
    """

    customers: int
    chances: float
    taken: float
    chances_squared: float
    product: float
    taken_squared: float

    @property
    def value(self) -> float | None:
        """The rate, or None where there was no chance."""
        return self.taken / self.chances if self.chances > 0 else None

    def __add__(self, other: Rate) -> Rate:
        """Of the customers of both; none is in both."""
        return Rate(
            self.customers + other.customers,
            self.chances + other.chances,
            self.taken + other.taken,
            self.chances_squared + other.chances_squared,
            self.product + other.product,
            self.taken_squared + other.taken_squared,
        )


NOBODY = Rate(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """`value`: one rate over another, with its interval. None: not defined (0 / 0), or, of `high`, without a
    bound."""

    value: float | None
    low: float
    high: float | None


def rate_ratios(rates: Sequence[Rate], references: Sequence[Rate], confidence: float) -> list[Ratio]:
    """The ratio of each rate to the reference of the same place; all have chances. 0 < confidence < 1: of
    each interval for itself."""
    if not rates:
        return []
    z = float(ndtri((1 + confidence) / 2))
    (n1, s1), (n0, s0) = _independent(_Sums.of(rates), _Sums.of(references), z, confidence)
    low, high = np.exp(_end(n1, s1, n0, s0, z, upper=False)), np.exp(_end(n1, s1, n0, s0, z, upper=True))
    found = []
    for index, (rate, reference) in enumerate(zip(rates, references, strict=True)):
        assert rate.value is not None
        assert reference.value is not None
        value = rate.value / reference.value if reference.value > 0 else None
        bound = None if reference.taken <= 0 else float(high[index])
        found.append(Ratio(value, 0.0 if rate.taken <= 0 else float(low[index]), bound))
    return found


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of R rates, each float64 (R,): customers, Σ n, the rate; `effect`: the design effect by the variance
    between customers (nan where all or nothing is taken), `alike`: if all of a customer's chances are alike;
    `carried`: how many customers carry the rarer outcome."""

    customers: Floats
    n: Floats
    p: Floats
    effect: Floats
    alike: Floats
    carried: Floats

    @staticmethod
    def of(rates: Sequence[Rate]) -> _Sums:
        columns = [
            (r.customers, r.chances, r.taken, r.chances_squared, r.product, r.taken_squared) for r in rates
        ]
        customers, n, s, nn, ns, ss = np.array(columns, dtype=np.float64).T
        p = s / n
        between = ss - 2 * p * ns + p * p * nn
        between *= customers / np.maximum(customers - 1, 1.0)
        seen = (s > 0) & (s < n)
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = np.where(seen, between / (n * p * (1 - p)), np.nan)
            carried = np.minimum(s * s / ss, (n - s) ** 2 / (nn - 2 * ns + ss))
        return _Sums(customers, n, p, effect, nn / n, np.where(seen, carried, 0.0))

    @property
    def correlation(self) -> Floats:
        """ρ, 0 to 1, by the design effect; 0 where that is not seen."""
        return np.nan_to_num(np.clip((self.effect - 1) / np.maximum(self.alike - 1, 1e-9), 0.0, 1.0))


def _independent(rates: _Sums, references: _Sums, z: float, confidence: float) -> list[tuple[Floats, Floats]]:
    """How many independent chances, and how many of them taken, the rates and the references are worth."""
    both = (rates, references)
    carried = rates.carried + references.carried
    weighted = sum((each.carried * each.correlation for each in both), np.zeros(len(carried)))
    rho = np.where(carried > 0, weighted / np.where(carried > 0, carried, 1.0), 1.0)
    found = []
    for each in both:
        effect = np.maximum(np.nan_to_num(each.effect, nan=1.0), 1 + rho * np.maximum(each.alike - 1, 0.0))
        t = stdtrit(np.maximum(each.customers - 1, 1.0), (1 + confidence) / 2)
        worth = np.where(each.alike > 1 + 1e-9, each.n / effect * (z / t) ** 2, each.n)
        found.append((worth, each.p * worth))
    return found


def _end(n1: Floats, s1: Floats, n0: Floats, s0: Floats, z: float, *, upper: bool) -> Floats:
    """The log of one end of the interval, by bisection: float64 (R,)."""
    low, high = np.full(len(n1), -_WIDEST), np.full(len(n1), _WIDEST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        score = _score(np.exp(middle), n1, s1, n0, s0)  # falls as the ratio rises
        inside = score > (-z if upper else z)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low


def _score(ratio: Floats, n1: Floats, s1: Floats, n0: Floats, s0: Floats) -> Floats:
    """Koopman's statistic with the sign of p1 - ratio × p0. The rates that are likeliest among those of this
    ratio solve a quadratic (Miettinen & Nurminen 1985, "Comparative analysis of two rates")."""
    a = (n1 + n0) * ratio
    b = n1 * ratio + s1 + n0 + s0 * ratio
    c = s1 + s0
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))
    q0 = np.clip(2 * c / (b + root), 0.0, 1.0)  # the lesser root, without cancellation
    q1 = np.clip(ratio * q0, 0.0, 1.0)
    variance = q1 * (1 - q1) / n1 + ratio * ratio * q0 * (1 - q0) / n0
    apart = s1 / n1 - ratio * s0 / n0
    with np.errstate(divide="ignore", invalid="ignore"):
        score: Floats = np.nan_to_num(apart / np.sqrt(variance), posinf=np.inf, neginf=-np.inf)
    return score

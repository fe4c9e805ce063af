"""The estimators, each as one sum of the same three parts.

Every estimator is `mean(base) + Σ correction / Σ normaliser`, with weights w = target / logging, the weights
ŵ the estimator really uses, model values q of the logged arm and q̄ under the target policy:

| estimator | base | correction | normaliser | ŵ |
|---|---|---|---|---|
| ips | 0 | ŵ r | 1 | w |
| snips | 0 | ŵ r | ŵ | w |
| dm | q̄ | 0 | 1 | - |
| dr | q̄ | ŵ (r - q) | 1 | w |
| sndr | q̄ | ŵ (r - q) | ŵ | w |
| switch_dr | q̄ | ŵ (r - q) | 1 | w where w ≤ threshold, else 0 |
| dros | q̄ | ŵ (r - q) | 1 | λ w / (w² + λ), λ the shrinkage |

Sources: ips Horvitz & Thompson 1952; snips Swaminathan & Joachims 2015; dr Dudík, Langford & Li 2011; sndr
Thomas & Brunskill 2016 (weighted doubly robust, for one step); switch_dr Wang, Agarwal & Dudík 2017; dros Su,
Dimakopoulou, Krishnamurthy & Dudík 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from arbitration.evaluation.rows import Floats, Rows

Estimator = Literal["ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
SELF_NORMALISED: frozenset[Estimator] = frozenset({"snips", "sndr"})

_CANDIDATES = 12
_BIAS_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Terms:
    """`value`; `influence` (n,): what each row adds to it, centred, so that value's error is about its mean;
    `bias`: what the value would be without clipping and shrinking, minus the value; `parameter`: the
    threshold or shrinkage used, ∞ where nothing is cut; `base`, `residual` (n,) and the largest ŵ `cap` that
    the log's probabilities allow: what bounds a row's part."""

    value: float
    influence: Floats
    bias: float
    parameter: float | None
    base: Floats
    residual: Floats
    cap: float


def terms(
    rows: Rows,
    estimator: Estimator,
    weight: Floats,
    predicted: Floats | None,
    predicted_target: Floats | None,
    clip: float | None,
    threshold: float | None,
    shrinkage: float | None,
) -> Terms:
    """The parts of one estimator over rows of weights (n,); predictions are given where it needs them.

    Without a `threshold` it is √units; a `shrinkage` of None is chosen from the rows.
    """
    none = np.zeros(rows.n)
    base = none if predicted_target is None else predicted_target
    residual = rows.reward if predicted is None else rows.reward - predicted
    if estimator == "dm":
        return Terms(float(base.mean()), base - base.mean(), 0.0, None, base, none, 0.0)
    largest = 1 / float(rows.logging.min())
    clipped = weight if clip is None else np.minimum(weight, clip)
    cap = largest if clip is None else min(largest, clip)
    parameter: float | None = None
    used = clipped
    if estimator == "switch_dr":
        # √n bounds the variance and leaves a bias that vanishes (Ionides 2008, "Truncated importance
        # sampling"). The rule of Wang et al. needs the target's probabilities of arms that were not logged.
        parameter = math.sqrt(rows.units) if threshold is None else threshold
        used, cap = _cut(estimator, clipped, parameter), min(cap, parameter)
    elif estimator == "dros":
        parameter = _shrinkage(rows, clipped, base, residual) if shrinkage is None else shrinkage
        used, cap = _cut(estimator, clipped, parameter), min(cap, math.sqrt(parameter) / 2)
    value, influence = _solved(estimator, base, used, residual)
    bias = 0.0 if used is weight else _solved(estimator, base, weight, residual)[0] - value
    return Terms(value, influence, bias, parameter, base, residual, float(cap))


def _solved(estimator: Estimator, base: Floats, used: Floats, residual: Floats) -> tuple[float, Floats]:
    """Value, and influence by the delta method (of a ratio: (correction - ratio · normaliser) / its mean)."""
    correction = used * residual
    start = float(base.mean())
    if estimator not in SELF_NORMALISED:
        centre = float(correction.mean())
        return start + centre, base - start + correction - centre
    mass = float(used.mean())
    if mass == 0:  # nothing the target would do was ever logged: refused by its support, not here
        return start, base - start
    ratio = float(correction.mean()) / mass
    return start + ratio, base - start + (correction - ratio * used) / mass


def _cut(estimator: Estimator, weight: Floats, parameter: float) -> Floats:
    """The weights that Switch-DR and DRos use."""
    if math.isinf(parameter):
        return weight
    if estimator == "switch_dr":
        return np.where(weight <= parameter, weight, 0.0)
    if parameter == 0:
        return np.zeros(len(weight))
    shrunk: Floats = parameter * weight / (weight * weight + parameter)
    return shrunk


def _shrinkage(rows: Rows, weight: Floats, base: Floats, residual: Floats) -> float:
    """The shrinkage of the least estimated squared error, variance + bias².

    The bias is estimated directly, as the mean of (w - ŵ)(r - q) (Su et al. 2020, model selection), and made
    larger by two of its own standard errors. Without these, shrinking looks free wherever the log is too
    short to show its price, and 95% intervals held the truth in 63 to 94% of simulated logs. Candidates: 16
    times the squares of weights between the median and the largest, in equal ratios (ŵ is greatest at
    w = √λ), and ∞, which is plain dr.
    """
    some = weight[weight > 0]
    if not len(some):
        return math.inf
    sizes = np.geomspace(np.median(some), some.max(), _CANDIDATES)
    candidates = [math.inf, *(float(size) for size in np.square(4 * sizes))]

    def squared_error(parameter: float) -> float:
        used = _cut("dros", weight, parameter)
        lost = (weight - used) * residual
        bias = abs(float(lost.mean())) + _BIAS_ERRORS * _error(rows, lost - lost.mean())
        part = base + used * residual
        return _error(rows, part - part.mean()) ** 2 + bias * bias

    return min(candidates, key=squared_error)


def _error(rows: Rows, centred: Floats) -> float:
    """Standard error of a mean over rows, robust to dependence within units."""
    unit = rows.by_unit(centred)
    return math.sqrt(float(unit @ unit)) / rows.n

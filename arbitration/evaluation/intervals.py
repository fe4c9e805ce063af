"""Intervals from influence values: what each row adds to an estimate, summed over independent units."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from scipy.special import stdtrit

from arbitration.evaluation.rows import Floats

Interval = Literal["skew_corrected", "student", "empirical_bernstein", "bootstrap"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)

_RESAMPLES = 2_000
_CELLS = 4_000_000  # of one block of resamples, so that memory does not grow with the log


def standard_error(unit: Floats, n: int) -> float:
    """Of a mean over n rows, from the centred sums of each unit (units,), units ≥ 2: cluster-robust.

    √(G/(G - 1) · Σ u²) / n (Liang & Zeger 1986, with the usual correction for the number G of units).
    """
    count = len(unit)
    return math.sqrt(count / (count - 1) * float(unit @ unit)) / n


def student(unit: Floats, n: int, confidence: float) -> tuple[float, float]:
    """Offsets (low ≤ 0, high ≥ 0) from the estimate: Student's t with units - 1 degrees of freedom."""
    half = float(stdtrit(len(unit) - 1, (1 + confidence) / 2)) * standard_error(unit, n)
    return -half, half


def skew_corrected(unit: Floats, n: int, confidence: float) -> tuple[float, float]:
    """Offsets as of `student`, after Hall's cubic transformation, which takes the skewness out.

    Hall 1992, "On the removal of skewness by transformation", JRSS B 54 (the monotone cubic): with
    a = skewness / √units, T is replaced by ((1 + aT/3)³ - 1)/a + a/6, which is Normal to second order. Its
    inverse at the quantiles of Student's t gives the ends.
    """
    error = standard_error(unit, n)
    if error == 0:
        return 0.0, 0.0
    squares = float(np.square(unit).mean())
    a = float((unit**3).mean()) / squares**1.5 / math.sqrt(len(unit))
    if abs(a) < 1e-8:
        return student(unit, n, confidence)
    quantile = float(stdtrit(len(unit) - 1, (1 + confidence) / 2))
    low, high = (3 / a * (float(np.cbrt(1 + a * (x - a / 6))) - 1) for x in (quantile, -quantile))
    return -low * error, -high * error


def empirical_bernstein(unit: Floats, n: int, confidence: float, spread: float) -> tuple[float, float]:
    """Offsets that hold at every sample size, for units whose sums vary over no more than `spread`.

    Maurer & Pontil 2009, "Empirical Bernstein bounds and sample variance penalization", theorem 4, for both
    sides at half the error each: √(2 V ln(4/δ) / G) + 7 R ln(4/δ) / (3 (G - 1)) for G units, here of what a
    unit adds to the mean over rows times G.
    """
    count = len(unit)
    scale = count / n
    variance = float(unit @ unit) * scale * scale / (count - 1)
    log = math.log(4 / (1 - confidence))
    half = math.sqrt(2 * variance * log / count) + 7 * spread * scale * log / (3 * (count - 1))
    return -half, half


def bootstrap(unit: Floats, n: int, confidence: float, seed: int) -> tuple[float, float]:
    """Offsets by the bootstrap-t over units (Efron & Tibshirani 1993, chapter 12), 2,000 resamples.

    Units are drawn with replacement; of each resample the mean influence over its own standard error is
    taken, and the quantiles of these replace Student's. Of a ratio, the influence is that of the whole sample
    (a score bootstrap, Kline & Santos 2012).
    """
    count = len(unit)
    error = standard_error(unit, n)
    if error == 0:
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // count)
    found: list[Floats] = []
    for start in range(0, _RESAMPLES, block):
        drawn = unit[generator.integers(count, size=(min(block, _RESAMPLES - start), count))]
        mean = drawn.mean(axis=1)
        deviation = np.maximum(drawn.std(axis=1, ddof=1), np.finfo(np.float64).tiny)
        found.append(mean / deviation * math.sqrt(count))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [1 - tail, tail])
    return -float(low) * error, -float(high) * error

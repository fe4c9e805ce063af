"""Support: whether the log says enough about the target policy for a figure to be quoted.

Support is a matter of the two policies, so it is judged on the plain weights, whatever an estimator makes of
them: shrinking a weight does not tell what the log never showed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from arbitration.evaluation.intervals import standard_error
from arbitration.evaluation.rows import Floats, Rows

Flags = npt.NDArray[np.bool_]

Code = Literal["effective_sample_size", "mean_weight", "largest_weight", "unsupported", "outcomes"]
Of = Literal["target", "baseline"]

LEAST_SAMPLE = 100.0
LEAST_SHARE = 0.01
MEAN_LEVEL = 1e-6  # of a Normal mean; of skewed weights it fires in up to 1 of 1,000 good logs
LARGEST_SHARE = 0.05
MOST_UNSUPPORTED = 0.01
LEAST_OUTCOMES = 10


@dataclass(frozen=True, slots=True)
class SupportWarning:
    """Why a figure must not be quoted: what was measured and the bound it falls foul of.

    `effective_sample_size`: below 100, or below 1% of the units (rows, or clusters).
    `mean_weight`: the distance of the mean weight from 1, which it must be where every arm the target shows
    could be logged, with the right probability; beyond 1%, and beyond its own error at a level of 1e-6.
    `largest_weight`: one unit has more than a twentieth of all weight.
    `unsupported`: the target puts more than 1% on arms the log could never show.
    `outcomes`: fewer than 10 units have a reward other than the commonest one, counted where the target has
    weight (of a difference: where the two policies differ).
    `of`: which policy of a difference it concerns; `outcomes` concern both.
    """

    code: Code
    measured: float
    bound: float
    of: Of = "target"


def kish(unit: Floats) -> float:
    """Effective sample size (Σ w)² / Σ w² of weights ≥ 0 (Kish 1965, section 11.7); 0 without any weight."""
    total = float(unit.sum())
    return total * total / float(unit @ unit) if total > 0 else 0.0


def of_weights(rows: Rows, weight: Floats, unsupported: float, of: Of = "target") -> list[SupportWarning]:
    """Every warning that the weights (n,) of one policy give."""
    unit = rows.by_unit(weight)
    found: list[SupportWarning] = []
    size, least = kish(unit), max(LEAST_SAMPLE, LEAST_SHARE * rows.units)
    if size < least:
        found.append(SupportWarning("effective_sample_size", size, least, of))
    off = abs(float(weight.mean()) - 1)
    allowed = _mean_error(rows, weight, size)
    if off > allowed:
        found.append(SupportWarning("mean_weight", off, allowed, of))
    total = float(unit.sum())
    if total > 0 and (share := float(unit.max()) / total) > LARGEST_SHARE:
        found.append(SupportWarning("largest_weight", share, LARGEST_SHARE, of))
    if unsupported > MOST_UNSUPPORTED:
        found.append(SupportWarning("unsupported", unsupported, MOST_UNSUPPORTED, of))
    return found


def _mean_error(rows: Rows, weight: Floats, size: float) -> float:
    """How far from 1 a mean weight may be; Student's t has the degrees of freedom there is support for."""
    if rows.units < 2:
        return math.inf
    error = standard_error(rows.by_unit(weight - weight.mean()), rows.n)
    return max(MOST_UNSUPPORTED, float(stdtrit(max(size - 1, 1.0), 1 - MEAN_LEVEL / 2)) * error)


def of_outcomes(rows: Rows, relevant: Flags) -> list[SupportWarning]:
    """Whether enough units have something to tell, among the rows that are relevant, bool (n,).

    How unequally they carry the estimate is no criterion: refusing where a few large rewards do would quote
    only the logs that happen to lack these, and intervals of what is left cover less, not more.
    """
    values, counts = np.unique(rows.reward, return_counts=True)
    telling = rows.by_unit((relevant & (rows.reward != values[counts.argmax()])).astype(np.float64))
    found = int(np.count_nonzero(telling))
    return [] if found >= LEAST_OUTCOMES else [SupportWarning("outcomes", found, LEAST_OUTCOMES)]

"""Evaluation: what a policy is worth, from logs of another, and what a treatment brings, day by day."""

from arbitration.evaluation.errors import EvaluationError
from arbitration.evaluation.estimates import Estimate, Figure, difference, estimate
from arbitration.evaluation.intervals import Interval
from arbitration.evaluation.sequences import Lift, Sample, difference_in_means
from arbitration.evaluation.support import SupportWarning
from arbitration.evaluation.terms import Estimator

__all__ = [
    "Estimate",
    "Estimator",
    "EvaluationError",
    "Figure",
    "Interval",
    "Lift",
    "Sample",
    "SupportWarning",
    "difference",
    "difference_in_means",
    "estimate",
]

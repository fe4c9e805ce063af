"""Logged rows, checked: what was rewarded, how likely it was logged, and which rows belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arbitration.evaluation.errors import EvaluationError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows of one log. `unit` (n,): to which of the `units` independent units each belongs; None: own."""

    reward: Floats
    logging: Floats
    unit: Indices | None
    units: int

    @property
    def n(self) -> int:
        return len(self.reward)

    def by_unit(self, values: Floats) -> Floats:
        """Sums of `values` (n,) over each unit: float64 (units,)."""
        if self.unit is None:
            return values
        sums: Floats = np.bincount(self.unit, weights=values, minlength=self.units).astype(np.float64)
        return sums

    def largest_unit(self) -> int:
        """How many rows the largest unit has."""
        return 1 if self.unit is None else int(np.bincount(self.unit).max())

    def weight(self, argument: str, probability: npt.ArrayLike) -> Floats:
        """Importance weights target / logging, float64 (n,), ≥ 0."""
        return self.column(argument, probability, 0.0, 1.0) / self.logging

    def column(self, argument: str, values: npt.ArrayLike, least: float, most: float) -> Floats:
        """`values` as float64 (n,), finite, from `least` to `most`."""
        column = _numbers(argument, values)
        if len(column) != self.n:
            raise EvaluationError(argument, f"has {len(column)} rows, reward has {self.n}")
        if len(column) and not (least <= column.min() and column.max() <= most):
            raise EvaluationError(argument, f"must be from {least:g} to {most:g}")
        return column

    def predictions(self, given: Mapping[str, npt.ArrayLike | None]) -> tuple[Floats, ...]:
        """Each of the named predictions, float64 (n,), finite; EvaluationError for one that is None."""
        for argument, values in given.items():
            if values is None:
                raise EvaluationError(argument, "is needed by this estimator")
        return tuple(
            self.column(name, values, -np.inf, np.inf) for name, values in given.items() if values is not None
        )


def rows(reward: npt.ArrayLike, logging_probability: npt.ArrayLike, clusters: npt.ArrayLike | None) -> Rows:
    """Checked rows. EvaluationError names the argument that is at fault."""
    rewards = _numbers("reward", reward)
    if not len(rewards):
        raise EvaluationError("reward", "has no rows")
    n = len(rewards)
    checked = Rows(rewards, np.ones(n), None, n)
    logging = checked.column("logging_probability", logging_probability, 0.0, 1.0)
    if logging.min() == 0:
        raise EvaluationError("logging_probability", "must be above 0: what was logged was possible")
    if clusters is None:
        return Rows(rewards, logging, None, n)
    labels = np.asarray(clusters)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise EvaluationError("clusters", f"must be {n} integers, one a row")
    distinct, unit = np.unique(labels, return_inverse=True)
    return Rows(rewards, logging, unit.astype(np.intp, copy=False), len(distinct))


def _numbers(argument: str, values: npt.ArrayLike) -> Floats:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(argument, "must be numbers") from error
    if column.ndim != 1:
        raise EvaluationError(argument, "must be an array of one dimension")
    if not np.isfinite(column).all():
        raise EvaluationError(argument, "must be finite")
    return column

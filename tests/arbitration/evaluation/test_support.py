"""Each warning with its measure and bound, just on either side of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.evaluation import SupportWarning, support
from arbitration.evaluation.rows import Rows, rows

Floats = npt.NDArray[np.float64]


def log(n: int, clusters: npt.NDArray[np.intp] | None = None) -> Rows:
    return rows(np.arange(n) % 2, np.full(n, 0.5), clusters)


def codes(weight: Floats, unsupported: float = 0.0) -> dict[str, SupportWarning]:
    return {found.code: found for found in support.of_weights(log(len(weight)), weight, unsupported)}


def test_kish() -> None:
    assert support.kish(np.array([1.0, 1, 1, 1])) == 4
    assert support.kish(np.array([2.0, 0, 0, 0])) == 1
    assert support.kish(np.array([3.0, 1.0])) == pytest.approx(1.6)
    assert support.kish(np.zeros(3)) == 0


def test_even_weights_are_full_support() -> None:
    assert codes(np.ones(100)) == {}
    assert codes(np.ones(1_000)) == {}


def test_the_effective_sample_size_has_two_bounds() -> None:
    few = codes(np.ones(99))["effective_sample_size"]
    assert (few.measured, few.bound, few.of) == (99, 100, "target")
    weight = np.zeros(20_000)
    weight[:199] = 20_000 / 199
    few = codes(weight)["effective_sample_size"]
    assert (few.measured, few.bound) == (pytest.approx(199), 200)
    weight[:201] = 20_000 / 201
    assert "effective_sample_size" not in codes(weight)


def test_the_effective_sample_size_counts_clusters() -> None:
    customer = np.arange(600) // 10
    found = support.of_weights(log(600, customer), np.ones(600), 0.0)
    assert [(one.code, one.measured) for one in found] == [("effective_sample_size", pytest.approx(60))]


def test_weights_whose_mean_is_not_one() -> None:
    assert "mean_weight" not in codes(np.full(500, 1.009))
    off = codes(np.full(500, 0.98))["mean_weight"]
    assert off.measured == pytest.approx(0.02)
    assert off.bound == 0.01
    uneven = np.tile([0.0, 2.0], 500)
    assert "mean_weight" not in codes(uneven + 0.15)
    assert codes(uneven + 0.2)["mean_weight"].measured == pytest.approx(0.2)
    assert codes(uneven * 0.8)["mean_weight"].measured == pytest.approx(0.2)


def test_the_mean_weight_has_the_error_of_clusters() -> None:
    """200 rows a customer: a mean that far off is a matter of few customers."""
    weight = np.repeat(np.tile([0.0, 2.0], 150) + 0.2, 200)
    customer = np.repeat(np.arange(300), 200)
    assert "mean_weight" in codes(weight)
    found = support.of_weights(log(60_000, customer), weight, 0.0)
    assert "mean_weight" not in {one.code for one in found}


def test_one_giant_weight() -> None:
    weight = np.ones(1_000)
    weight[0] = 52
    assert "largest_weight" not in codes(weight)
    weight[0] = 54
    giant = codes(weight)["largest_weight"]
    assert (giant.measured, giant.bound) == (pytest.approx(54 / 1_053), 0.05)


def test_what_the_log_could_never_show() -> None:
    assert codes(np.ones(500), 0.01) == {}
    missing = codes(np.ones(500), 0.011)["unsupported"]
    assert (missing.measured, missing.bound) == (0.011, 0.01)


def test_no_weight_at_all() -> None:
    assert set(codes(np.zeros(500))) == {"effective_sample_size", "mean_weight"}


def test_one_row() -> None:
    assert set(codes(np.ones(1))) == {"effective_sample_size", "largest_weight"}


def test_outcomes_are_counted_where_they_are_relevant_and_once_a_unit() -> None:
    reward = np.zeros(200)
    reward[:10] = 1
    every = np.ones(200, dtype=bool)
    assert support.of_outcomes(rows(reward, np.ones(200), None), every) == []
    assert support.of_outcomes(rows(1 - reward, np.ones(200), None), every) == []
    few = support.of_outcomes(rows(reward, np.ones(200), None), np.arange(200) > 0)
    assert few == [SupportWarning("outcomes", 9, 10)]
    pairs = support.of_outcomes(rows(reward, np.ones(200), np.arange(200) // 2), every)
    assert pairs == [SupportWarning("outcomes", 5, 10)]
    assert support.of_outcomes(rows(np.full(200, 3.0), np.ones(200), None), every)[0].measured == 0

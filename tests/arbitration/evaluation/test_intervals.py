"""Intervals against scipy and their own formulas; what must not change them does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from arbitration.evaluation import intervals

Floats = npt.NDArray[np.float64]

SKEWED = np.random.default_rng(8).lognormal(size=300)


def centred(values: Floats) -> Floats:
    return values - values.mean()


def test_student_is_that_of_scipy() -> None:
    low, high = intervals.student(centred(SKEWED), 300, 0.9)
    expected = stats.ttest_1samp(SKEWED, 0).confidence_interval(0.9)
    assert (SKEWED.mean() + low, SKEWED.mean() + high) == pytest.approx((expected.low, expected.high))


def test_ends_of_the_skew_corrected_are_student_quantiles_once_transformed() -> None:
    """Hall's cubic at the standardised ends, written out: T + aT²/3 + a²T³/27 + a/6."""
    unit = centred(SKEWED)
    low, high = intervals.skew_corrected(unit, 300, 0.95)
    error = intervals.standard_error(unit, 300)
    a = stats.skew(SKEWED) / math.sqrt(300)
    quantile = stats.t.ppf(0.975, 299)
    for end, expected in ((-low / error, quantile), (-high / error, -quantile)):
        assert end + a * end**2 / 3 + a**2 * end**3 / 27 + a / 6 == pytest.approx(expected)
    assert high > -low > 0


def test_without_skewness_it_is_students() -> None:
    even = np.concatenate([centred(SKEWED), -centred(SKEWED)])
    assert intervals.skew_corrected(even, 600, 0.95) == intervals.student(even, 600, 0.95)
    nearly = even.copy()
    nearly[0] += 1e-3
    nearly = centred(nearly)
    expected = intervals.student(nearly, 600, 0.95)
    assert intervals.skew_corrected(nearly, 600, 0.95) == pytest.approx(expected, rel=1e-3)


def test_empirical_bernstein_as_in_the_paper() -> None:
    """Maurer & Pontil, theorem 4, for 200 values within 0..1 and both sides."""
    values = np.random.default_rng(9).random(200)
    log = math.log(4 / 0.05)
    expected = math.sqrt(2 * values.var(ddof=1) * log / 200) + 7 * log / (3 * 199)
    assert intervals.empirical_bernstein(centred(values), 200, 0.95, 1.0) == pytest.approx(
        (-expected, expected)
    )


def test_the_bootstrap_is_seeded_and_wider_on_the_skewed_side() -> None:
    unit = centred(SKEWED)
    first = intervals.bootstrap(unit, 300, 0.95, 1)
    assert intervals.bootstrap(unit, 300, 0.95, 1) == first
    assert intervals.bootstrap(unit, 300, 0.95, 2) != first
    assert first[1] > -first[0] > 0
    normal = centred(np.random.default_rng(3).normal(size=2_000))
    expected = intervals.student(normal, 2_000, 0.95)
    assert intervals.bootstrap(normal, 2_000, 0.95, 1) == pytest.approx(expected, rel=0.1)


def test_the_bootstrap_does_not_need_memory_for_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals.bootstrap(centred(SKEWED), 300, 0.95, 1)
    monkeypatch.setattr(intervals, "_CELLS", 900)
    assert intervals.bootstrap(centred(SKEWED), 300, 0.95, 1) == pytest.approx(whole, rel=0.2)


EVERY: dict[str, Callable[[Floats, int], tuple[float, float]]] = {
    "skew_corrected": lambda unit, n: intervals.skew_corrected(unit, n, 0.95),
    "student": lambda unit, n: intervals.student(unit, n, 0.95),
    "bootstrap": lambda unit, n: intervals.bootstrap(unit, n, 0.95, 4),
}


@pytest.mark.parametrize("name", EVERY)
def test_units_of_several_rows_count_once(name: str) -> None:
    """Every row five times, as one unit: the interval is the same."""
    interval = EVERY[name]
    assert interval(5 * centred(SKEWED), 1_500) == pytest.approx(interval(centred(SKEWED), 300))


@pytest.mark.parametrize("name", EVERY)
def test_no_variation_no_width(name: str) -> None:
    assert EVERY[name](np.zeros(20), 20) == (0, 0)

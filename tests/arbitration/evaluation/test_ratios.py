"""Rate ratios against published figures, and at their limits. How often they hold: `tests/statistical`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from arbitration.evaluation.ratios import NOBODY, Rate, Ratio, rate_ratios


def rate(*customers: tuple[float, float]) -> Rate:
    """From (chances, taken) of each customer."""
    found = NOBODY
    for n, s in customers:
        found += Rate(1, n, s, n * n, n * s, s * s)
    return found


def single(customers: int, taken: int) -> Rate:
    """A chance each."""
    return Rate(customers, customers, taken, customers, taken, taken)


def ratio(one: Rate, other: Rate, confidence: float = 0.95) -> Ratio:
    (found,) = rate_ratios([one], [other], confidence)
    return found


def test_koopman_s_own_example() -> None:
    """Koopman 1984: 36 of 40 to 16 of 80, 4.5 (2.94 to 7.15)."""
    found = ratio(single(40, 36), single(80, 16))
    assert found.value == 4.5
    assert (round(found.low, 2), round(found.high or 0, 2)) == (2.94, 7.15)


@pytest.mark.parametrize("table", [(3, 34, 9, 50), (40, 41, 60, 80), (1, 90, 30, 40), (25, 50, 25, 50)])
def test_the_ends_are_where_the_score_test_turns(table: tuple[int, int, int, int]) -> None:
    """Pearson's statistic at the likeliest rates of each ratio, which are looked for by brute force."""
    s, n, s0, n0 = table

    def statistic(ratio: float) -> float:
        q = np.linspace(0, min(1, 1 / ratio), 200_001)[1:-1]
        p = ratio * q
        likely = s * np.log(p) + (n - s) * np.log1p(-p) + s0 * np.log(q) + (n0 - s0) * np.log1p(-q)
        best = int(likely.argmax())
        p0, p1 = float(q[best]), float(p[best])
        found = (s - n * p1) ** 2 / (n * p1 * (1 - p1)) + (s0 - n0 * p0) ** 2 / (n0 * p0 * (1 - p0))
        return float(found)

    found = ratio(single(n, s), single(n0, s0))
    assert statistic(found.low) == pytest.approx(chi2.ppf(0.95, 1), rel=1e-4)
    assert statistic(found.high or 0) == pytest.approx(chi2.ppf(0.95, 1), rel=1e-4)


def test_the_other_way_round_is_the_reciprocal() -> None:
    one, other = rate((3, 1), (5, 4), (2, 0), (7, 2)), rate((4, 4), (1, 0), (6, 3), (2, 1), (2, 2))
    there, back = ratio(one, other), ratio(other, one)
    assert there.value is not None
    assert there.high is not None
    assert back.value == pytest.approx(1 / there.value)
    assert (back.low, back.high) == (pytest.approx(1 / there.high), pytest.approx(1 / there.low))


@pytest.mark.parametrize(
    ("one", "other", "value", "low", "high"),
    [
        (single(40, 0), single(80, 16), 0.0, False, True),
        (single(40, 5), single(80, 0), None, True, False),
        (single(40, 0), single(80, 0), None, False, False),
        (single(40, 40), single(80, 80), 1.0, True, True),
        (rate(*[(5, 5)] * 40), rate(*[(5, 5)] * 40), 1.0, True, True),
        (rate(*[(5, 0)] * 40), rate(*[(5, 1)] * 40), 0.0, False, True),
    ],
)
def test_all_or_nothing(one: Rate, other: Rate, value: float | None, low: bool, high: bool) -> None:
    found = ratio(one, other)
    assert found.value == value
    assert (found.low > 0) == low
    assert (found.high is not None) == high
    if value is not None and found.high is not None:
        assert found.low <= value <= found.high


def test_chances_that_are_all_alike_count_as_one() -> None:
    """Ten decisions of a customer that all show it, or none, say what one would say (and t is wider)."""
    alike, once = rate(*[(10, 10)] * 20, *[(10, 0)] * 80), single(100, 20)
    found, narrow = ratio(alike, once), ratio(once, once)
    assert found.value == narrow.value == 1
    assert found.low < narrow.low < 1
    assert found.low == pytest.approx(narrow.low, rel=0.03)
    independent = rate(*[(10, 2)] * 100)
    apart = ratio(single(1_000, 200), single(1_000, 200))
    assert ratio(independent, independent).low == pytest.approx(apart.low, rel=0.01)


def test_many_at_once_are_each_as_alone() -> None:
    pairs = [(single(40, 36), single(80, 16)), (rate((3, 1), (2, 2)), single(50, 9))]
    assert rate_ratios(*map(list, zip(*pairs, strict=True)), 0.9) == [ratio(*each, 0.9) for each in pairs]
    assert rate_ratios([], [], 0.95) == []


def test_more_confidence_is_a_wider_interval() -> None:
    one, other = single(40, 12), single(80, 16)
    wide, narrow = ratio(one, other, 0.99), ratio(one, other, 0.9)
    assert wide.low < narrow.low < 1.5 < (narrow.high or 0) < (wide.high or 0)


def test_sums_add_up() -> None:
    assert NOBODY.value is None
    assert rate((3, 1), (5, 4)) == Rate(2, 8, 5, 34, 23, 17)

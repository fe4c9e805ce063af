"""Lift from sums: the formula, when there is no figure yet, and the ratio that agrees with the difference."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitration.evaluation import EvaluationError, Lift, Sample, difference_in_means


def sample(values: npt.NDArray[np.float64]) -> Sample:
    return Sample(len(values), float(values.sum()), float((values**2).sum()))


def binary(count: int, positive: int) -> Sample:
    return Sample(count, positive, positive)


def ends(found: Lift) -> tuple[float, float]:
    assert found.reason is None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_the_formula_by_hand() -> None:
    """10,000 and 10,000 customers, tuned for 20,000: x = 8.253..., 3.034... standard errors."""
    treated, control = binary(10_000, 1_100), binary(10_000, 1_000)
    found = difference_in_means(treated, control)
    assert found.estimate == pytest.approx(0.01)
    x = -math.log(0.05**2) + math.log(9.2)  # the optimum, x = log(1 + x) - 2 log α, by iteration
    for _ in range(60):
        x = math.log(1 + x) - 2 * math.log(0.05)
    bound = math.sqrt((1 + 1 / x) * (math.log(1 + x) - 2 * math.log(0.05)))
    assert bound == pytest.approx(3.0334, abs=2e-3)
    together = 2_100 * (1 - 2_100 / 20_000) / 19_999
    own = 1_100 * (1 - 0.11) / 9_999
    half = bound * math.sqrt(max(own, together) / 10_000 + together / 10_000)
    assert ends(found) == pytest.approx((0.01 - half, 0.01 + half))


def test_it_is_narrowest_where_it_is_tuned_for() -> None:
    treated, control = binary(10_000, 1_100), binary(10_000, 1_000)
    widths = {}
    for tuned_for in (2_000.0, 15_000.0, 20_000.0, 25_000.0, 200_000.0):
        low, high = ends(difference_in_means(treated, control, tuned_for=tuned_for))
        widths[tuned_for] = high - low
    assert min(widths, key=widths.__getitem__) == 20_000
    assert widths[2_000.0] / widths[20_000.0] == pytest.approx(1.07, abs=0.005)
    assert widths[200_000.0] / widths[20_000.0] == pytest.approx(1.26, abs=0.005)


def test_more_confidence_is_wider_and_more_customers_are_narrower() -> None:
    few, many = [difference_in_means(binary(n, n // 9), binary(n, n // 10)) for n in (2_000, 50_000)]
    assert ends(few)[1] - ends(few)[0] > ends(many)[1] - ends(many)[0]
    surer = difference_in_means(binary(2_000, 222), binary(2_000, 200), confidence=0.99)
    assert ends(surer)[0] < ends(few)[0]


def test_the_small_side_is_not_taken_to_vary_less_than_everybody() -> None:
    """A control group that has not met a large value yet, where the treated have."""
    generator = np.random.default_rng(2)
    many = sample(generator.lognormal(0, 1.5, 20_000))
    tame = Sample(500, 500.0, 700.0)
    low, high = ends(difference_in_means(many, tame))
    everybody = (many.squares + 700 - (many.total + 500) ** 2 / 20_500) / 20_499
    assert (high - low) / 2 > 3 * math.sqrt(everybody / 500)


def test_too_few_customers() -> None:
    found = difference_in_means(binary(5_000, 500), binary(99, 50))
    assert found == Lift(reason="too_few_customers", measured=99, bound=100)
    assert difference_in_means(Sample(0, 0, 0), Sample(0, 0, 0)).reason == "too_few_customers"


@pytest.mark.parametrize(
    ("treated", "control", "measured"),
    [
        (binary(5_000, 500), binary(5_000, 19), 19),
        (binary(5_000, 19), binary(5_000, 500), 19),
        (binary(5_000, 4_990), binary(5_000, 4_000), 10),
        (binary(5_000, 0), binary(5_000, 0), 0),
        (binary(5_000, 5_000), binary(5_000, 5_000), 0),
        (Sample(5_000, 1_000.0, 100_000.0), binary(5_000, 500), 10),  # one large value among small ones
    ],
)
def test_too_few_outcomes(treated: Sample, control: Sample, measured: float) -> None:
    found = difference_in_means(treated, control)
    assert found == Lift(reason="too_few_outcomes", measured=measured, bound=20)


def test_a_constant_is_no_outcome_to_learn_from() -> None:
    constant = Sample(500, 1_000.0, 2_000.0)
    assert difference_in_means(constant, constant).reason == "too_few_outcomes"


@given(
    st.integers(1_000, 100_000),
    st.integers(1_000, 100_000),
    st.floats(0.03, 0.9),
    st.floats(0.03, 0.9),
)
@settings(max_examples=100, deadline=None)
def test_the_ratio_agrees_with_the_difference(n: int, m: int, rate: float, base: float) -> None:
    found = difference_in_means(binary(n, round(n * rate)), binary(m, round(m * base)))
    low, high = ends(found)
    assert found.estimate is not None
    assert found.ratio is not None
    assert found.ratio_low is not None
    assert low < found.estimate < high
    assert -1 <= found.ratio_low < found.ratio
    assert found.ratio_high is None or found.ratio < found.ratio_high
    assert (found.ratio_low > 0) == (low > 0)
    assert (found.ratio_high is not None and found.ratio_high < 0) == (high < 0)


def test_the_ratio_has_no_upper_end_while_the_control_could_be_nothing() -> None:
    found = difference_in_means(binary(200, 40), binary(100, 25))
    assert found.ratio == pytest.approx(-0.2)
    assert found.ratio_high is None
    assert found.ratio_low is not None


def test_fiellers_ends_are_where_the_contrast_is_just_not_excluded() -> None:
    """At either end r the contrast treated - r·control lies exactly on the bound of its standard errors."""
    treated, control = binary(40_000, 4_400), binary(10_000, 1_000)
    found = difference_in_means(treated, control)
    together = 5_400 * (1 - 5_400 / 50_000) / 49_999
    own = 4_400 * (1 - 0.11) / 39_999
    _, high = ends(found)
    assert found.estimate is not None
    bound = (high - found.estimate) / math.sqrt(max(own, together) / 40_000 + together / 10_000)
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    for r in (1 + found.ratio_low, 1 + found.ratio_high):
        error = math.sqrt(max(own, together) / 40_000 + r * r * together / 10_000)
        assert abs(0.11 - r * 0.1) == pytest.approx(bound * error)


@pytest.mark.parametrize(
    ("argument", "sums"),
    [
        ("count", (-1, 0.0, 0.0)),
        ("total", (10, -1.0, 5.0)),
        ("total", (10, float("nan"), 5.0)),
        ("squares", (10, 1.0, float("inf"))),
        ("squares", (10, 10.0, 9.0)),
    ],
)
def test_sums_that_no_outcomes_have(argument: str, sums: tuple[int, float, float]) -> None:
    with pytest.raises(EvaluationError) as caught:
        Sample(*sums)
    assert caught.value.argument == argument


def test_settings_that_are_none() -> None:
    some = binary(1_000, 100)
    with pytest.raises(EvaluationError, match="confidence"):
        difference_in_means(some, some, confidence=95)
    with pytest.raises(EvaluationError, match="tuned_for"):
        difference_in_means(some, some, tuned_for=0)

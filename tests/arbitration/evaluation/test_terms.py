"""Each estimator against its formula on a few rows; its influence values; how much is cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.evaluation.rows import rows
from arbitration.evaluation.terms import ESTIMATORS, Estimator, Terms, terms

Floats = npt.NDArray[np.float64]

R = np.array([1.0, 0.0, 2.0, 1.0])
LOGGING = np.array([0.5, 0.25, 0.5, 0.1])
W = np.array([0.4, 2.0, 1.0, 8.0])
Q = np.array([0.5, 0.25, 1.5, 0.5])
TARGET_Q = np.array([0.75, 0.5, 1.0, 0.25])
INF = float("inf")


def of(
    estimator: Estimator,
    weight: Floats = W,
    clip: float | None = None,
    threshold: float | None = 3.0,
    shrinkage: float | None = 4.0,
) -> Terms:
    log = rows(R, LOGGING, None)
    modelled = estimator not in ("ips", "snips")
    predicted = Q if modelled and estimator != "dm" else None
    under_target = TARGET_Q if modelled else None
    return terms(log, estimator, weight, predicted, under_target, clip, threshold, shrinkage)


SHRUNK = 4 * W / (W**2 + 4)
EXPECTED: dict[Estimator, float] = {
    "ips": (0.4 * 1 + 0 + 1 * 2 + 8 * 1) / 4,
    "snips": (0.4 + 2 + 8) / 11.4,
    "dm": 2.5 / 4,
    "dr": 2.5 / 4 + (0.4 * 0.5 - 2 * 0.25 + 1 * 0.5 + 8 * 0.5) / 4,
    "sndr": 2.5 / 4 + (0.2 - 0.5 + 0.5 + 4) / 11.4,
    "switch_dr": 2.5 / 4 + (0.2 - 0.5 + 0.5) / 4,
    "dros": 2.5 / 4 + float(SHRUNK @ (R - Q)) / 4,
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_formula(estimator: Estimator) -> None:
    assert of(estimator).value == pytest.approx(EXPECTED[estimator])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_influence_is_the_derivative_in_the_weight_of_a_row(estimator: Estimator) -> None:
    """What a row adds: counting row i a little more often changes the value by influence / n. By difference,
    from a log in which every row counts 10,000 times and one of them once more."""
    parts, often = of(estimator), 10_000
    assert parts.influence.sum() == pytest.approx(0, abs=1e-12)
    for row in range(4):
        counts = np.full(4, often)
        counts[row] += 1
        pick = np.repeat(np.arange(4), counts)
        log = rows(R[pick], LOGGING[pick], None)
        modelled = estimator not in ("ips", "snips")
        more = terms(
            log,
            estimator,
            W[pick],
            Q[pick] if modelled and estimator != "dm" else None,
            TARGET_Q[pick] if modelled else None,
            None,
            3.0,
            4.0,
        )
        assert (more.value - parts.value) * 4 * often == pytest.approx(parts.influence[row], abs=1e-3)


def test_a_perfect_model_leaves_dr_nothing_to_correct() -> None:
    log = rows(R, LOGGING, None)
    for estimator in ("dr", "sndr", "switch_dr", "dros"):
        assert terms(log, estimator, W, R, TARGET_Q, None, None, None).value == pytest.approx(2.5 / 4)


def test_a_model_of_nothing_makes_dr_ips_and_sndr_snips() -> None:
    log, none = rows(R, LOGGING, None), np.zeros(4)
    assert terms(log, "dr", W, none, none, None, None, None).value == of("ips").value
    assert terms(log, "sndr", W, none, none, None, None, None).value == of("snips").value


def test_clipping_and_the_bias_it_shows() -> None:
    clipped = of("ips", clip=2.0)
    assert clipped.value == pytest.approx((0.4 + 2 + 2) / 4)
    assert clipped.bias == pytest.approx(6 / 4)
    assert of("snips", clip=2.0).value == pytest.approx((0.4 + 2 + 2) / 5.4)
    assert of("snips", clip=2.0).bias == pytest.approx(10.4 / 11.4 - 4.4 / 5.4)
    assert of("ips").bias == 0


def test_the_ends_of_switching_and_shrinking_are_dr_and_dm() -> None:
    assert of("switch_dr", threshold=8.0).value == of("dr").value
    assert of("switch_dr", threshold=0.1).value == pytest.approx(of("dm").value)
    assert of("dros", shrinkage=INF).value == of("dr").value
    assert of("dros", shrinkage=1e12).value == pytest.approx(of("dr").value)
    assert of("dros", shrinkage=0.0).value == pytest.approx(of("dm").value)
    assert of("dros", shrinkage=0.0, weight=np.array([0.0, 1, 1, 1])).value == pytest.approx(of("dm").value)
    assert of("switch_dr", threshold=3.0).bias == pytest.approx(4 / 4)


def test_no_weight_at_all_is_no_division_by_zero() -> None:
    for estimator in ESTIMATORS:
        assert np.isfinite(of(estimator, weight=np.zeros(4), threshold=None, shrinkage=None).value)


def test_the_largest_weight_that_is_possible() -> None:
    """1 / the least logging probability, here 0.1, or what cuts it."""
    assert of("ips").cap == pytest.approx(10)
    assert of("ips", clip=2.0).cap == 2
    assert of("switch_dr", threshold=3.0).cap == 3
    assert of("dros", shrinkage=4.0).cap == 1  # √λ / 2
    assert of("dm").cap == 0


def test_the_threshold_is_by_default_the_root_of_the_units() -> None:
    weight = np.full(100, 9.0)
    weight[:50] = 11
    log = rows(np.ones(100), np.full(100, 0.05), None)
    found = terms(log, "switch_dr", weight, np.zeros(100), np.zeros(100), None, None, None)
    assert (found.parameter, found.value) == (10, pytest.approx(4.5))


def test_shrinkage_is_chosen_from_the_rows() -> None:
    """Rare great weights on mere noise are shrunk, and those on what the model misses by far are not."""
    generator = np.random.default_rng(5)
    n = 4_000
    great = generator.random(n) < 0.01
    weight = np.where(great, 50.0, 0.5)
    model = np.full(n, 0.5)
    noise = model + generator.normal(size=n)
    log = rows(noise, np.full(n, 0.02), None)
    found = terms(log, "dros", weight, model, model, None, None, None)
    assert found.parameter is not None
    assert found.parameter < INF
    plain = terms(log, "dr", weight, model, model, None, None, None)
    assert found.influence.std() < plain.influence.std()
    missed = rows(noise + 20 * great, np.full(n, 0.02), None)
    kept = terms(missed, "dros", weight, model, model, None, None, None)
    assert abs(kept.bias) < 0.05 * abs(kept.value)


def test_shrinking_is_not_free_where_its_price_cannot_be_seen() -> None:
    """A model that happens to be right and weights from 0.2 to 3: shrunk a little, not to the model alone."""
    generator = np.random.default_rng(0)
    probability, weight = generator.uniform(0.1, 1, 4_000), generator.choice([0.2, 0.6, 1.0, 3.0], 4_000)
    model, reward = np.full(4_000, 0.3), (generator.random(4_000) < 0.3).astype(np.float64)
    log = rows(reward, probability, None)
    shrunk, plain = (terms(log, name, weight, model, model, None, None, None) for name in ("dros", "dr"))
    assert 0.8 < shrunk.influence.std() / plain.influence.std() < 0.99

"""Means, gains and intervals against figures worked out otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from decision.bakeoff.log import Log
from decision.bakeoff.standing import references, standings

RNG = np.random.default_rng(5)
N = 400
LOG = Log(
    ("a", "b"),
    np.arange(N) % 2,
    (RNG.random(N) < np.where(np.arange(N) % 2, 0.7, 0.3)).astype(float),
    np.full(N, 0.5),
    {},
)


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(N)[:count]


def test_one_run_has_the_interval_of_a_mean() -> None:
    met = rows(1, 100)
    horizon, (standing,) = standings(LOG, {"p": [met]})
    reward = LOG.reward[met]
    half = 1.959964 * reward.std() / 10
    assert horizon == 100
    assert standing.reward.value == pytest.approx(reward.mean())
    assert standing.reward.runs is None
    assert standing.reward.customers == pytest.approx((reward.mean() - half, reward.mean() + half))
    assert standing.shares == pytest.approx((np.mean(LOG.arm[met] == 0), np.mean(LOG.arm[met] == 1)))


def test_intervals_over_runs_are_student_s() -> None:
    one, other = [rows(seed, 100) for seed in (1, 2, 3)], [rows(seed, 100) for seed in (4, 5, 6)]
    _, (first, second) = standings(LOG, {"one": one, "other": other})
    means, others = ([LOG.reward[met].mean() for met in runs] for runs in (one, other))
    alone = ttest_1samp(means, 0).confidence_interval(0.95)
    paired = ttest_rel(others, means).confidence_interval(0.95)
    assert first.reward.runs == pytest.approx((alone.low, alone.high))
    assert second.gain.value == pytest.approx(np.mean(others) - np.mean(means))
    assert second.gain.runs == pytest.approx((paired.low, paired.high))


def test_a_customer_met_twice_is_one_customer() -> None:
    met = rows(1, 100)
    _, (once,) = standings(LOG, {"p": [met]})
    _, (twice,) = standings(LOG, {"p": [met, met]})
    assert twice.reward.customers == pytest.approx(once.reward.customers)
    _, (fresh,) = standings(LOG, {"p": [np.arange(100), np.arange(100, 200)]})
    width = fresh.reward.customers[1] - fresh.reward.customers[0]
    p = LOG.reward[:200].mean()
    assert width == pytest.approx(2 * 1.959964 * math.sqrt(p * (1 - p) / 200))


def test_all_are_compared_over_the_same_number_of_events() -> None:
    horizon, found = standings(LOG, {"long": [rows(1, 150)], "short": [rows(2, 80)]})
    assert horizon == 80
    assert found[0].reward.value == pytest.approx(LOG.reward[rows(1, 150)[:80]].mean())
    for standing in found:
        assert standing.curve.events[-1] == 80
        assert standing.curve.reward[-1] == pytest.approx(80 * standing.reward.value)
        ends = (standing.curve.low[-1], standing.curve.high[-1])
        assert ends == pytest.approx(tuple(80 * end for end in standing.reward.customers))


@pytest.mark.parametrize("count", [2, 59, 61, 100])
def test_a_curve_begins_with_an_event_and_ends_with_the_last(count: int) -> None:
    _, (standing,) = standings(LOG, {"p": [rows(1, count)]})
    assert standing.curve.events[0] >= 1
    assert standing.curve.events[-1] == count
    assert len(standing.curve.events) <= 60


def test_what_two_policies_share_is_no_difference() -> None:
    met = rows(1, 100)
    _, (_, same, other) = standings(LOG, {"a": [met], "same": [met[::-1]], "other": [rows(2, 100)]})
    assert (same.gain.value, *same.gain.customers) == pytest.approx((0, 0, 0), abs=1e-12)
    assert other.gain.customers[1] > other.gain.customers[0]


def test_references_weight_by_what_was_logged() -> None:
    """Where arm b is logged mostly to those who respond, its plain mean flatters it."""
    rng = np.random.default_rng(7)
    n = 20_000
    keen = rng.random(n) < 0.5
    p_b = np.where(keen, 0.8, 0.2)
    arm = (rng.random(n) < p_b).astype(np.intp)
    reward = (rng.random(n) < np.where(keen, 0.6, 0.2) + 0.1 * (arm == 0)).astype(float)
    found = references(Log(("a", "b"), arm, reward, np.where(arm == 1, p_b, 1 - p_b), {}))
    assert reward[arm == 1].mean() > reward[arm == 0].mean()
    assert found.best_arm == "a"
    # 4.5 standard errors: a false alarm in 1.5e5.
    assert abs(found.best.value - 0.5) < 4.5 / 1.96 * (found.best.customers[1] - found.best.value)
    assert abs(found.uniform.value - 0.45) < 4.5 / 1.96 * (found.uniform.customers[1] - found.uniform.value)
    assert 0.005 < found.best.customers[1] - found.best.value < 0.02

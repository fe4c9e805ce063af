"""The stacked posterior is Bayesian linear regression, arm by arm, with an honest noise.

The noise tests compare an estimate from n simulated events with the true deviation, within 6 standard
errors (σ/√(2n) for Normal residuals): false-alarm rate 2e-9 each, 1e-8 for the file; seeds are fixed, so
it cannot flake. The rest is compared with direct solutions and has no false alarms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.catalog.learning import Thompson
from arbitration.policy.posterior import Posterior, posterior_of
from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]

SIZE = 5


def policy(**settings: Any) -> Thompson:
    return Thompson(id="p", strategy="thompson", **settings)


def simulated(count: int, seed: int, sd: float = 0.3) -> tuple[Floats, Floats]:
    """Contexts with a bias column, and rewards linear in them but for Normal noise."""
    rng = np.random.default_rng(seed)
    x = np.hstack([np.ones((count, 1)), rng.normal(size=(count, SIZE - 1))])
    return x, x @ np.array([0.4, 0.2, -0.1, 0.0, 0.3]) + sd * rng.normal(size=count)


def state_of(**events: tuple[Floats, Floats]) -> State:
    state = State("encoding", SIZE)
    for arm, (x, rewards) in events.items():
        state.add([arm] * len(x), x, rewards, np.ones(len(x)))
    return state


def score_one(posterior: Posterior, arm: int, x: Floats) -> tuple[float, float]:
    mean, sd = posterior.score(x, arm, arm + 1)
    assert mean.shape == sd.shape == (1,)
    return float(mean[0]), float(sd[0])


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("noise_sd", [1.0, 0.2])
def test_mean_and_deviation_are_those_of_a_direct_solve(ridge: float, noise_sd: float) -> None:
    data = {"a": simulated(40, 1), "b": simulated(3, 2), "c": simulated(2000, 3)}
    posterior = posterior_of(policy(ridge=ridge, noise_sd=noise_sd), list(data), SIZE, state_of(**data))
    for row, (x, rewards) in enumerate(data.values()):
        a = ridge * np.eye(SIZE) + x.T @ x
        for at in np.random.default_rng(9).normal(size=(20, SIZE)):
            mean, sd = score_one(posterior, row, at)
            assert mean == pytest.approx(at @ np.linalg.solve(a, x.T @ rewards), abs=1e-10)
            assert sd == pytest.approx(noise_sd * math.sqrt(at @ np.linalg.solve(a, at)), abs=1e-10)


def test_arms_are_in_the_order_asked_for_and_score_as_one_or_all() -> None:
    state = state_of(b=simulated(30, 1), a=simulated(50, 2), gone=simulated(5, 3))
    posterior = posterior_of(policy(), ["a", "new", "b"], SIZE, state)
    swapped = posterior_of(policy(), ["b", "a"], SIZE, state)
    x = np.linspace(-1, 1, SIZE)
    mean, sd = posterior.score(x, 0, 3)
    for arm in range(3):
        assert score_one(posterior, arm, x) == pytest.approx((mean[arm], sd[arm]), abs=1e-14)
    assert score_one(swapped, 0, x) == pytest.approx((mean[2], sd[2]), abs=1e-14)
    assert score_one(swapped, 1, x) == pytest.approx((mean[0], sd[0]), abs=1e-14)


@pytest.mark.parametrize("state", [None, State("encoding", SIZE), state_of(other=simulated(20, 1))])
def test_an_arm_without_events_has_its_prior(state: State | None) -> None:
    """Mean 0, deviation σ‖x‖/√λ with σ = 1/2, the most that a reward within 0..1 can have."""
    x = np.arange(1.0, SIZE + 1)
    mean, sd = score_one(posterior_of(policy(ridge=4.0), ["new"], SIZE, state), 0, x)
    assert mean == 0
    assert sd == pytest.approx(0.5 * math.sqrt(x @ x / 4))


def test_an_arm_whose_events_were_all_taken_back_is_at_its_prior() -> None:
    x, rewards = simulated(50, 1)
    state = state_of(erased=(x, rewards))
    state.add(["erased"] * 50, x, rewards, -np.ones(50))
    posterior = posterior_of(policy(), ["erased", "new"], SIZE, state)
    mean, sd = posterior.score(np.ones(SIZE), 0, 2)
    assert mean[0] == pytest.approx(mean[1], abs=1e-12)
    assert sd[0] == pytest.approx(sd[1], abs=1e-12)


def test_no_arms_are_no_trouble() -> None:
    mean, sd = posterior_of(policy(), [], SIZE, None).score(np.ones(SIZE), 0, 0)
    assert mean.shape == sd.shape == (0,)


@pytest.mark.parametrize(("true", "seed"), [(0.05, 1), (0.3, 2), (2.0, 3)])
def test_the_noise_estimate_finds_the_true_deviation(true: float, seed: int) -> None:
    count = 20_000
    posterior = posterior_of(policy(), ["a"], SIZE, state_of(a=simulated(count, seed, true)))
    # The pseudo-observation, the prior's pull and the fitted columns are worth a few events of 20,000.
    slack = 10 / count * max(true, 0.25 / true)
    assert posterior.noise[0] == pytest.approx(true, abs=6 * true / math.sqrt(2 * count) + slack)


def test_the_noise_of_rare_outcomes_is_that_of_a_coin() -> None:
    """Clicks at 2%: σ̂ = √(p(1-p)), so the posterior of a context-free arm has √(p(1-p)/n)."""
    count, clicks = 10_000, 200
    state = State("encoding", 1)
    rewards = (np.arange(count) < clicks).astype(np.float64)
    state.add(["a"] * count, np.ones((count, 1)), rewards, np.ones(count))
    mean, sd = score_one(posterior_of(policy(), ["a"], 1, state), 0, np.ones(1))
    assert mean == pytest.approx(0.02, rel=1e-3)
    assert sd == pytest.approx(math.sqrt(0.02 * 0.98 / count), rel=1e-2)


def test_the_noise_is_worked_out_by_hand() -> None:
    """One event of reward 1: A = 2, mean 1/2, residual 1 - 1/2, σ̂² = (1/4 + 1/2) / 2."""
    state = State("encoding", 1)
    state.add(["a"], np.ones((1, 1)), np.ones(1), np.ones(1))
    posterior = posterior_of(policy(), ["a"], 1, state)
    assert posterior.noise[0] ** 2 == pytest.approx(0.375)
    assert score_one(posterior, 0, np.ones(1)) == pytest.approx((0.5, math.sqrt(0.375 / 2)))


def test_a_perfect_fit_keeps_a_little_doubt() -> None:
    """Rewards without noise leave no residual; rounding may not make it negative, nor the doubt 0."""
    x, _ = simulated(1000, 1)
    posterior = posterior_of(policy(ridge=1e-9), ["a"], SIZE, state_of(a=(x, x[:, 0])))
    assert 0 < posterior.noise[0] < 0.02
    mean, sd = posterior.score(x[0], 0, 1)
    assert mean[0] == pytest.approx(1)
    assert 0 < sd[0] < 0.01


def test_uncertainty_shrinks_as_the_root_of_the_events() -> None:
    sds = []
    for count in (1_000, 4_000, 16_000):
        posterior = posterior_of(policy(noise_sd=1.0), ["a"], SIZE, state_of(a=simulated(count, 5)))
        sds.append(score_one(posterior, 0, np.ones(SIZE))[1])
    assert sds[0] / sds[1] == pytest.approx(2, rel=0.1)
    assert sds[1] / sds[2] == pytest.approx(2, rel=0.1)


def test_intervals_hold_what_they_promise() -> None:
    """Over 400 simulated worlds from the prior, the truth lies within ±1.96 deviations in about 95%.

    Binomial(400, 0.95): 6 deviations are 26 worlds.
    """
    rng, inside = np.random.default_rng(12), 0
    at = np.array([1.0, 0.5, -0.5, 1.0, 0.2])
    for _ in range(400):
        truth = 0.3 * rng.normal(size=SIZE)
        x = rng.normal(size=(60, SIZE))
        state = state_of(a=(x, x @ truth + 0.3 * rng.normal(size=60)))
        mean, sd = score_one(posterior_of(policy(noise_sd=0.3), ["a"], SIZE, state), 0, at)
        inside += abs(mean - at @ truth) < 1.96 * sd
    assert abs(inside - 380) <= 26


def events_of_kin(
    warm_start: float, *families: tuple[object, ...], **events: tuple[Floats, Floats]
) -> Posterior:
    """The posterior of arms `a`, `b`, `c`, … whose families are given in this order."""
    arms = [chr(ord("a") + number) for number in range(len(families))]
    return posterior_of(policy(warm_start=warm_start), arms, SIZE, state_of(**events), families)


def direct(own: list[tuple[Floats, Floats]], kin: tuple[Floats, Floats], share: float, x: Floats) -> Any:
    """Mean and deviation from events of an arm's own and, each by a share, of its kin, by the formulas of
    docs/learning.md; how much rewards vary is said by the own events alone."""
    a, b = np.eye(SIZE), np.zeros(SIZE)
    for (contexts, rewards), weight in [*((each, 1.0) for each in own), (kin, share)]:
        a = a + weight * contexts.T @ contexts
        b = b + weight * contexts.T @ rewards
    solved = np.linalg.solve(a, b)
    residual = sum(float(((rewards - contexts @ solved) ** 2).sum()) for contexts, rewards in own)
    if own:
        residual += float(solved @ solved)  # the ridge, as where there is no kin
    noise = (0.25 + residual) / (1 + sum(len(rewards) for _, rewards in own))
    return pytest.approx((float(x @ solved), math.sqrt(noise * x @ np.linalg.solve(a, x))))


def test_a_new_arm_starts_from_its_kin_with_the_certainty_taken_back() -> None:
    known, other = simulated(500, 7), simulated(300, 8, sd=0.1)
    x = np.array([1.0, 0.3, -0.2, 0.5, 0.1])
    posterior = events_of_kin(10, ("mail",), ("mail",), ("call",), b=known, c=other)
    mean, sd = score_one(posterior, 0, x)
    assert (mean, sd) == direct([], known, 10 / 500, x)
    mean_of_kin, sd_of_kin = score_one(posterior, 1, x)
    assert (mean_of_kin, sd_of_kin) == direct([known], known, 0.0, x)
    assert abs(mean - mean_of_kin) < 2 * sd
    assert sd > 4 * sd_of_kin  # so it can win
    assert score_one(posterior, 2, x) == direct([other], other, 0.0, x)


def test_ones_own_events_outweigh_ones_kin() -> None:
    known, own = simulated(500, 7), simulated(40, 9)
    x = np.array([1.0, 0.3, -0.2, 0.5, 0.1])
    posterior = events_of_kin(10, ("m",), ("m",), a=own, b=known)
    assert score_one(posterior, 0, x) == direct([own], known, 10 / 500, x)
    # and the other way round: forty events of kin count for at most ten
    assert score_one(posterior, 1, x) == direct([known], own, 10 / 40, x)


def test_few_events_of_kin_count_for_no_more_than_they_are() -> None:
    known = simulated(3, 7)
    x = np.array([1.0, 0.3, -0.2, 0.5, 0.1])
    posterior = events_of_kin(10, ("m",), ("m",), b=known)
    assert score_one(posterior, 0, x) == direct([], known, 1.0, x)


def test_the_nearest_family_that_knows_anything_is_kin() -> None:
    near, far = simulated(50, 1), simulated(60, 2)
    x = np.array([1.0, 0.3, -0.2, 0.5, 0.1])
    families = (
        (("act", "mail"), "act"),
        (("act", "mail"), "act"),
        (("act", "call"), "act"),
        (("o", "mail"), "o"),
    )
    posterior = events_of_kin(5, *families, b=near, c=far)
    assert score_one(posterior, 0, x) == direct([], near, 5 / 50, x)
    posterior = events_of_kin(5, *families, c=far)
    assert score_one(posterior, 0, x) == direct([], far, 5 / 60, x)
    assert score_one(posterior, 3, x)[0] == 0.0
    assert score_one(events_of_kin(0, *families, b=near, c=far), 0, x)[0] == 0.0

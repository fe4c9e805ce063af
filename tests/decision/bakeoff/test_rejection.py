"""Replay by rejection gives a policy the events it would have met, whatever the logging was.

Statistical tests: fixed seeds, and bounds of 4.5 standard errors: a false alarm in 1.5e5 per comparison.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from arbitration.catalog.learning import Mabwiser, Thompson
from arbitration.catalog.mabwiser import EpsilonGreedy, KNearest
from arbitration.policy.posterior import posterior_of
from arbitration.policy.state import State
from decision.bakeoff import rejection
from decision.bakeoff.log import Floats, Log
from decision.bakeoff.rejection import Knowledge, replay

LOGGING = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])  # P(arm | x)
TARGET = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
TRUTH = np.array([[0.1, 0.5, 0.9], [0.3, 0.6, 0.2]])  # P(reward | x, arm)
THOMPSON = Thompson(id="t", strategy="thompson")


def logged(seed: int, n: int) -> tuple[Log, Floats]:
    rng = np.random.default_rng(seed)
    segment = rng.integers(2, size=n)
    arm = (rng.random((n, 1)) > LOGGING[segment].cumsum(axis=1)).sum(axis=1)
    reward = (rng.random(n) < TRUTH[segment, arm]).astype(float)
    x = np.column_stack([np.ones(n), segment])
    return Log(("a", "b", "c"), arm.astype(np.intp), reward, LOGGING[segment, arm], {}), x


def shuffled(seed: int, n: int) -> tuple[np.ndarray, Floats]:
    rng = np.random.default_rng([seed, 1])
    return rng.permutation(n), rng.random(n)


def test_a_fixed_policy_meets_what_it_would_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Non-uniform logging, the probabilities of the target policy given: its value, its mix of contexts and
    arms, and the number of events that count are all known."""

    class Fixed:
        def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
            return TARGET[int(x[1])], np.zeros(3)

    monkeypatch.setattr(rejection, "posterior_of", lambda *_: Fixed())
    monkeypatch.setattr(rejection, "selection_probabilities", lambda policy, mean, sd, weight: mean)
    n = 40_000
    log, x = logged(1, n)
    rows = replay(THOMPSON, log, x, log.reward, *shuffled(1, n), refresh=10**9)
    assert len(rows) == pytest.approx(0.1 * n, abs=4.5 * math.sqrt(n * 0.1 * 0.9))
    value = (TARGET * TRUTH).sum(axis=1).mean()
    error = 4.5 * math.sqrt(value * (1 - value) / len(rows))
    assert log.reward[rows].mean() == pytest.approx(value, abs=error)
    assert abs(log.reward.mean() - value) > 2 * error  # the log itself is worth something else
    met = np.zeros((2, 3))
    np.add.at(met, (x[rows, 1].astype(int), log.arm[rows]), 1 / len(rows))
    assert met == pytest.approx(TARGET / 2, abs=4.5 * math.sqrt(0.25 / len(rows)))
    assert len(set(rows.tolist())) == len(rows)


def test_it_learns_only_what_counted_and_only_at_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[int] = []

    class Spied(Knowledge):
        def learn(self, arm: np.ndarray, x: Floats, reward: Floats) -> None:
            learned.append(len(arm))
            super().learn(arm, x, reward)
            last.clear()
            last.append(self)

    last: list[Knowledge] = []
    monkeypatch.setattr(rejection, "Knowledge", Spied)
    log, x = logged(2, 1_000)
    told: list[int] = []
    rows = replay(THOMPSON, log, x, log.reward, *shuffled(2, 1_000), refresh=50, told=told.append)
    assert learned == [50] * (len(rows) // 50)
    assert sum(told) == 1_000
    known = rows[: len(rows) // 50 * 50]
    state = State("", 2)
    state.add([log.arms[arm] for arm in log.arm[known]], x[known], log.reward[known], np.ones(len(known)))
    alone = posterior_of(THOMPSON, log.arms, 2, state, [("all",)] * len(log.arms))
    for context in ([1.0, 0.0], [1.0, 1.0]):
        believed = last[0].belief.score(np.array(context), 0, 3)
        assert np.array(believed) == pytest.approx(np.array(alone.score(np.array(context), 0, 3)), abs=1e-9)


def test_a_learner_ends_better_than_the_log() -> None:
    log, x = logged(3, 3_000)
    rows = replay(THOMPSON, log, x, log.reward, *shuffled(3, 3_000), refresh=25)
    late = rows[len(rows) // 2 :]
    assert log.reward[late].mean() - log.reward.mean() > 4.5 * math.sqrt(0.25 / len(late))


def test_equal_policies_meet_the_same_and_the_luck_decides() -> None:
    log, x = logged(4, 300)
    order, luck = shuffled(4, 300)
    other = Thompson(id="other", strategy="thompson")
    one, same = (replay(policy, log, x, log.reward, order, luck, 20) for policy in (THOMPSON, other))
    assert one.tolist() == same.tolist()
    assert one.tolist() != replay(THOMPSON, log, x, log.reward, order, luck[::-1], 20).tolist()


def test_mabwiser_without_a_neighbourhood() -> None:
    policy = Mabwiser(id="m", library="mabwiser", learning_policy=EpsilonGreedy(name="EpsilonGreedy"))
    log, x = logged(5, 4_000)
    rows = replay(policy, log, x[:, :1], log.reward, *shuffled(5, 4_000), refresh=50)
    late = np.bincount(log.arm[rows[len(rows) // 2 :]], minlength=3) / len(rows[len(rows) // 2 :])
    assert late[0] < 0.2  # worth .2, the others .55


@pytest.mark.long  # MABWiser takes 3 s to import
def test_mabwiser_with_a_neighbourhood() -> None:
    learning = EpsilonGreedy(name="EpsilonGreedy")
    near = KNearest(name="KNearest", k=40)
    policy = Mabwiser(id="m", library="mabwiser", learning_policy=learning, neighborhood_policy=near)
    log, x = logged(6, 4_000)
    rows = replay(policy, log, x, log.reward, *shuffled(6, 4_000), refresh=50)
    late = rows[len(rows) // 2 :]
    best = TRUTH.argmax(axis=1)[x[late, 1].astype(int)] == log.arm[late]
    assert best.mean() > 0.6

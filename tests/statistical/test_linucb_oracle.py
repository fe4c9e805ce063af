"""LinUCB is LinUCB: our stacked posterior scores as MABWiser's does, to 1e-9, on the same data.

MABWiser (2.7.4) is the oracle where it is right: at λ = 1, and at any λ for an arm that has data. For an
arm without, it starts A⁻¹ as λI instead of I/λ; there ours is held to the closed form, and MABWiser shown
to differ. Nothing here is random but the data, drawn from fixed seeds: no false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.catalog.learning import UCB
from arbitration.policy.posterior import posterior_of
from arbitration.policy.state import State

mabwiser = pytest.importorskip("mabwiser.mab")

Floats = npt.NDArray[np.float64]

ARMS = ("a", "b", "c", "d", "unseen")
SIZE = 6
EVENTS = 800


@dataclass(frozen=True)
class Log:
    """Events, and contexts to score afterwards."""

    arms: list[str]
    x: Floats
    rewards: Floats
    contexts: Floats


@pytest.fixture(params=range(5))
def log(request: pytest.FixtureRequest) -> Log:
    rng = np.random.default_rng(request.param)
    x = rng.normal(size=(EVENTS, SIZE)) * 10 ** rng.uniform(-1, 1, SIZE)
    arms = rng.choice(ARMS[:-2], size=EVENTS, p=[0.6, 0.3, 0.1]).tolist()
    arms[0] = "d"  # an arm with a single event
    rewards = (rng.random(EVENTS) < 0.3).astype(np.float64) * rng.choice([1.0, 0.5], EVENTS)
    return Log(arms, x, rewards, rng.normal(size=(200, SIZE)))


def theirs(log: Log, alpha: float, ridge: float) -> Floats:
    policy = mabwiser.LearningPolicy.LinUCB(alpha=alpha, l2_lambda=ridge)
    model = mabwiser.MAB(list(ARMS), policy)
    model.fit(log.arms, log.rewards, log.x)
    return np.array([[of[arm] for arm in ARMS] for of in model.predict_expectations(log.contexts)])


def ours(log: Log, alpha: float, ridge: float) -> Floats:
    state = State("test", SIZE)
    for part in np.array_split(np.arange(EVENTS), 7):
        arms = [log.arms[event] for event in part]
        state.add(arms, log.x[part], log.rewards[part], np.ones(len(part)))
    policy = UCB(id="ucb", strategy="ucb", alpha=alpha, ridge=ridge, noise_sd=1.0)
    posterior = posterior_of(policy, ARMS, SIZE, state)
    scores = (posterior.score(x, 0, len(ARMS)) for x in log.contexts)
    return np.array([mean + alpha * sd for mean, sd in scores])


def closed_form(log: Log, alpha: float, ridge: float) -> Floats:
    """xᵀA⁻¹b + α √(xᵀA⁻¹x), arm by arm and context by context."""
    scores = np.empty((len(log.contexts), len(ARMS)))
    for column, arm in enumerate(ARMS):
        mine = [event for event, of in enumerate(log.arms) if of == arm]
        a = ridge * np.eye(SIZE) + log.x[mine].T @ log.x[mine]
        b = log.x[mine].T @ log.rewards[mine]
        for row, x in enumerate(log.contexts):
            scores[row, column] = x @ np.linalg.solve(a, b) + alpha * np.sqrt(x @ np.linalg.solve(a, x))
    return scores


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_scores_are_mabwisers_at_a_ridge_of_one(log: Log, alpha: float) -> None:
    assert ours(log, alpha, 1.0) == pytest.approx(theirs(log, alpha, 1.0), abs=1e-9, rel=0)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 2.0, 50.0])
def test_scores_are_the_closed_form_at_any_ridge(log: Log, ridge: float) -> None:
    assert ours(log, 1.0, ridge) == pytest.approx(closed_form(log, 1.0, ridge), abs=1e-9, rel=0)


def test_mabwiser_starts_an_unseen_arm_wrong_at_another_ridge(log: Log) -> None:
    """Its deviation is √(λ xᵀx), as if a stronger prior were a weaker one; ours √(xᵀx / λ)."""
    mine, other = ours(log, 1.0, 2.0), theirs(log, 1.0, 2.0)
    length = np.linalg.norm(log.contexts, axis=1)
    assert mine[:, :-1] == pytest.approx(other[:, :-1], abs=1e-9, rel=0)
    assert mine[:, -1] == pytest.approx(length / np.sqrt(2), abs=1e-9)
    assert other[:, -1] == pytest.approx(length * np.sqrt(2), abs=1e-9)

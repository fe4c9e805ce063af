"""What is believed without a neighbourhood is what MABWiser (2.7.4) computes, where MABWiser is right.

Its faults are shown beside ours: the start of A⁻¹ at λI, the intercept that `scale` loses, UCB1's arms that
are never tried. Data are drawn from fixed seeds and compared numerically: no false alarms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.catalog.learning import Mabwiser
from arbitration.policy.mabwiser.belief import belief_of
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities

mab = pytest.importorskip("mabwiser.mab")

Floats = npt.NDArray[np.float64]

ARMS = ("a", "b", "c", "unseen")
EVENTS, SIZE = 300, 4
RNG = np.random.default_rng(3)
CHOSEN: list[str] = RNG.choice(ARMS[:-1], EVENTS, p=[0.6, 0.3, 0.1]).tolist()
X = np.hstack([np.ones((EVENTS, 1)), RNG.normal(1, [0.3, 1, 4], (EVENTS, SIZE - 1))])
REWARD = (RNG.random(EVENTS) < 0.3).astype(np.float64)
CONTEXTS = np.hstack([np.ones((20, 1)), RNG.normal(size=(20, SIZE - 1))])


def policy(name: str, **parameters: Any) -> Mabwiser:
    learning = {"name": name, **parameters}
    return Mabwiser.model_validate(
        {"id": "p", "library": "mabwiser", "learning_policy": learning, "floor": 0.0}
    )


def ours(policy: Mabwiser, x: Floats = X, reward: Floats = REWARD) -> tuple[Floats, Floats]:
    """(contexts, arms) means and deviations; of what takes no context, x is 1."""
    linear = policy.learning_policy.name.startswith("Lin")
    x, at = (x, CONTEXTS) if linear else (np.ones((len(x), 1)), np.ones((1, 1)))
    state = State("test", x.shape[1])
    state.add([*CHOSEN, "gone"], np.vstack([x, x[:1]]), np.append(reward, 1.0), np.ones(EVENTS + 1))
    belief = belief_of(policy, ARMS, x.shape[1], state)
    mean, sd = zip(*(belief.score(row, 0, len(ARMS)) for row in at), strict=True)
    return np.array(mean), np.array(sd)


def theirs(policy: Mabwiser, x: Floats | None = None) -> Any:
    """MABWiser's fitted object."""
    parameters = policy.learning_policy.model_dump(exclude={"name"})
    model = mab.MAB(list(ARMS), getattr(mab.LearningPolicy, policy.learning_policy.name)(**parameters))
    model.fit(CHOSEN, REWARD, x)
    return model


def listed(expectations: Any) -> Floats:
    return np.array([[of[arm] for arm in ARMS] for of in expectations])


def test_means() -> None:
    made = policy("EpsilonGreedy", epsilon=0.0)
    mean, sd = ours(made)
    assert mean == pytest.approx(listed([theirs(made).predict_expectations()]), abs=1e-12)
    assert not sd.any()


@pytest.mark.parametrize("made", [policy("Popularity"), policy("Softmax"), policy("Softmax", tau=0.05)])
def test_what_mabwiser_calls_expectations_are_our_probabilities(made: Mabwiser) -> None:
    (mean,), (sd,) = ours(made)
    expected = theirs(made)._imp.arm_to_expectation
    chances = selection_probabilities(made, mean, sd, np.full(len(ARMS), 7.0))
    assert chances == pytest.approx([expected[arm] for arm in ARMS], abs=1e-12)


def test_ucb1_tries_an_unseen_arm() -> None:
    made = policy("UCB1", alpha=0.7)
    (mean,), (sd,) = ours(made)
    expected = listed([theirs(made).predict_expectations()])[0]
    assert (mean + 0.7 * sd)[:-1] == pytest.approx(expected[:-1], abs=1e-12)
    assert expected[-1] == 0
    assert (mean[-1], sd[-1]) == (0, pytest.approx(np.sqrt(2 * np.log(EVENTS))))


def test_thompson_sampling_is_a_beta() -> None:
    made = policy("ThompsonSampling")
    (mean,), (sd,) = ours(made)
    model = theirs(made)._imp
    a = np.array([model.arm_to_success_count[arm] for arm in ARMS])
    b = np.array([model.arm_to_fail_count[arm] for arm in ARMS])
    assert mean == pytest.approx(a / (a + b), abs=1e-12)
    assert sd**2 == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), abs=1e-12)


def test_a_reward_between_0_and_1_is_a_part_of_a_success() -> None:
    (mean,), _ = ours(policy("ThompsonSampling"), reward=np.full(EVENTS, 0.25))
    count = CHOSEN.count("a")
    assert mean[0] == pytest.approx((1 + 0.25 * count) / (2 + count))
    (mean,), (sd,) = ours(policy("ThompsonSampling"), reward=np.full(EVENTS, 3.0))
    assert (mean < 1).all()
    assert np.isfinite(sd).all()


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("alpha", [0.0, 1.25])
def test_linucb(ridge: float, alpha: float) -> None:
    made = policy("LinUCB", alpha=alpha, l2_lambda=ridge)
    mean, sd = ours(made)
    expected = listed(theirs(made, X).predict_expectations(CONTEXTS))
    assert (mean + alpha * sd)[:, :-1] == pytest.approx(expected[:, :-1], abs=1e-9)
    length = np.linalg.norm(CONTEXTS, axis=1)
    assert sd[:, -1] == pytest.approx(length / np.sqrt(ridge))
    assert expected[:, -1] == pytest.approx(alpha * length * np.sqrt(ridge))  # as if stronger were weaker


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_lingreedy_and_lints(ridge: float) -> None:
    greedy, sampling = policy("LinGreedy", epsilon=0.0, l2_lambda=ridge), policy("LinTS", l2_lambda=ridge)
    expected = listed(theirs(greedy, X).predict_expectations(CONTEXTS))
    assert ours(greedy)[0] == pytest.approx(expected, abs=1e-9)
    mean, sd = ours(sampling)
    assert mean == pytest.approx(expected, abs=1e-9)
    for column, arm in enumerate(ARMS[:-1]):
        inverse = theirs(sampling, X)._imp.arm_to_model[arm].A_inv
        assert sd[:, column] ** 2 == pytest.approx(np.einsum("ci,ij,cj->c", CONTEXTS, inverse, CONTEXTS))


def test_scale_is_mabwisers_and_keeps_the_intercept() -> None:
    """Scaled columns are centred, so the intercept that MABWiser loses is Σr / (n + λ), all by itself."""
    made = policy("LinUCB", alpha=1.0, l2_lambda=2.0, scale=True)
    mean, sd = ours(made)
    imp = theirs(made, X)._imp
    for column, arm in enumerate(ARMS[:-1]):
        events = np.array(CHOSEN) == arm
        model = imp.arm_to_model[arm]
        z = model.scaler.transform(CONTEXTS)
        weight = 1 / (events.sum() + 2.0)
        assert mean[:, column] == pytest.approx(z @ model.beta + REWARD[events].sum() * weight, abs=1e-9)
        variance = np.einsum("ci,ij,cj->c", z, model.A_inv, z) + weight
        assert sd[:, column] ** 2 == pytest.approx(variance, abs=1e-9)
    assert sd[:, -1] == pytest.approx(np.linalg.norm(CONTEXTS, axis=1) / np.sqrt(2.0))


@pytest.mark.parametrize("name", ["EpsilonGreedy", "UCB1", "ThompsonSampling", "LinTS"])
def test_nothing_learned(name: str) -> None:
    made = policy(name)
    empty = belief_of(made, ARMS, 2, None).score(np.ones(2), 1, 3)
    state = State("test", 2)
    state.add(["b"] * 3, np.ones((3, 2)), np.array([0.1, 0.2, 0.7]), np.ones(3))
    state.add(["b"] * 3, np.ones((3, 2)), np.array([0.1, 0.2, 0.7]), -np.ones(3))
    taken_back = belief_of(made, ARMS, 2, state).score(np.ones(2), 1, 3)
    for before, after in zip(empty, taken_back, strict=True):
        assert before.shape == (2,)
        assert np.isfinite(before).all()
        assert after == pytest.approx(before, abs=1e-9)

"""Beliefs in a neighbourhood are those of MABWiser (2.7.4) itself, fitted to the same events.

But for arms that have no event in it (MABWiser: 0 under UCB1, λ upside down in regressions; here as without a
neighbourhood) and for empty ones (nan there). Nothing is a statistical comparison: no false alarms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.catalog.learning import Mabwiser
from arbitration.policy.mabwiser.belief import belief_of
from arbitration.policy.mabwiser.history import History
from arbitration.policy.mabwiser.neighbourhood import believe
from arbitration.policy.mabwiser.training import train
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities

mab = pytest.importorskip("mabwiser.mab")

Floats = npt.NDArray[np.float64]

ARMS = ["a", "b", "c"]
COUNT, SIZE = 80, 4
RNG = np.random.default_rng(8)
X = np.hstack([np.ones((COUNT, 1)), RNG.normal(size=(COUNT, SIZE - 1))])
CHOSEN: list[str] = RNG.choice(ARMS, COUNT, p=[0.5, 0.4, 0.1]).tolist()
REWARD = (RNG.random(COUNT) < 0.4).astype(np.float64)
AT = np.arange(COUNT, dtype=np.float64)
CONTEXTS = np.hstack([np.ones((12, 1)), RNG.normal(size=(12, SIZE - 1))])
NEIGHBOURHOODS: dict[str, dict[str, Any]] = {
    "Clusters": {"n_clusters": 3},
    "KNearest": {"k": 9, "metric": "cityblock"},
    "LSHNearest": {"n_dimensions": 2, "n_tables": 2},
    "Radius": {"radius": 1.2},
    "TreeBandit": {"tree_parameters": {"min_samples_leaf": 4}},
}
EXACT = {
    "EpsilonGreedy": {"epsilon": 0.0},
    "UCB1": {"alpha": 0.6},
    "LinGreedy": {"epsilon": 0.0},
    "LinUCB": {"alpha": 0.6},
}


def policy(name: str, near: str, near_more: Any = None, **parameters: Any) -> Mabwiser:
    return Mabwiser.model_validate(
        {
            "id": "p",
            "library": "mabwiser",
            "learning_policy": {"name": name, **parameters},
            "neighborhood_policy": {"name": near, **NEIGHBOURHOODS[near], **(near_more or {})},
            "floor": 0.0,
        }
    )


def history(count: int = COUNT) -> History:
    made = History("f", SIZE, 1000)
    made.add(CHOSEN[:count], X[:count], REWARD[:count], np.ones(count), AT[:count])
    return made


def scores(made: Mabwiser, arms: list[str] = ARMS, count: int = COUNT) -> tuple[Floats, Floats]:
    belief = believe(made, train(made, history(count)), arms, SIZE)
    mean, sd = zip(*(belief.score(x, 0, len(arms)) for x in CONTEXTS), strict=True)
    return np.array(mean), np.array(sd)


@pytest.mark.parametrize(
    ("name", "near"),
    [(name, near) for name in EXACT for near in NEIGHBOURHOODS if (name[:3], near) != ("Lin", "TreeBandit")],
)
def test_expectations_are_mabwisers(name: str, near: str) -> None:
    made = policy(name, near, **EXACT[name])
    assert made.neighborhood_policy is not None
    inner = getattr(mab.LearningPolicy, name)(**made.learning_policy.model_dump(exclude={"name"}))
    outer = getattr(mab.NeighborhoodPolicy, near)(**made.neighborhood_policy.model_dump(exclude={"name"}))
    model = mab.MAB(ARMS, inner, outer)
    model.fit(CHOSEN, REWARD, X)
    expected = np.array([[of[arm] for arm in ARMS] for of in model.predict_expectations(CONTEXTS)])
    mean, sd = scores(made)
    found = mean + EXACT[name].get("alpha", 0.0) * sd
    compared = np.isfinite(expected)
    if name == "UCB1":
        compared &= expected != 0  # an arm without events nearby
    assert compared.sum() >= 20
    assert found[compared] == pytest.approx(expected[compared], abs=1e-9)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("near", NEIGHBOURHOODS)
def test_an_arm_without_events_is_as_good_as_new_and_one_not_asked_for_is_ignored(near: str) -> None:
    made = policy("ThompsonSampling", near)
    mean, sd = scores(made, ["new", "a"])
    some = sd[:, 0] > 0  # within the radius of some contexts there is nobody
    mean, sd = mean[some], sd[some]
    assert len(mean) >= 8
    assert mean[:, 0] == pytest.approx(0.5)
    assert sd[:, 0] == pytest.approx(1 / np.sqrt(12))
    assert (np.abs(mean[:, 1] - 0.5) > 1e-3).any()


@pytest.mark.parametrize("near", ["KNearest", "LSHNearest"])
def test_events_of_other_arms_are_no_neighbours(near: str) -> None:
    made, mine = policy("UCB1", near), np.array(CHOSEN) == "b"
    only = History("f", SIZE, 1000)
    only.add(["b"] * mine.sum(), X[mine], REWARD[mine], np.ones(mine.sum()), AT[mine])
    belief = believe(made, train(made, only), ["b"], SIZE)
    mean, sd = scores(made, ["b"])
    for row, x in enumerate(CONTEXTS):
        expected = belief.score(x, 0, 1)
        assert mean[row] == pytest.approx(expected[0], abs=1e-12)
        assert sd[row] == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("near", ["KNearest", "Radius", "LSHNearest"])
@pytest.mark.parametrize("scale", [False, True])
def test_a_regression_in_a_neighbourhood_of_everything_is_the_one_without(near: str, scale: bool) -> None:
    more = {"KNearest": {"k": COUNT}, "Radius": {"radius": 99.0}, "LSHNearest": {"n_tables": 32}}
    made = policy("LinTS", near, more.get(near), l2_lambda=0.5, scale=scale)
    plain = made.model_copy(update={"neighborhood_policy": None})
    arms = [*ARMS, "new"]
    mean, sd = scores(made, arms)
    state = State("f", SIZE)
    state.add(CHOSEN, X, REWARD, np.ones(COUNT))
    belief = belief_of(plain, arms, SIZE, state)
    for row, x in enumerate(CONTEXTS):
        expected = belief.score(x, 0, len(arms))
        assert mean[row] == pytest.approx(expected[0], abs=1e-9)
        assert sd[row] == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize("near", NEIGHBOURHOODS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_events_are_no_trouble(near: str, count: int) -> None:
    made = policy("UCB1", near)
    mean, sd = scores(made, count=count)
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()
    if count == 0:
        assert not mean.any()
        assert not sd.any()


@pytest.mark.parametrize("name", ["EpsilonGreedy", "Popularity", "Random", "Softmax", "ThompsonSampling"])
@pytest.mark.parametrize("near", ["Radius", "LSHNearest"])
def test_where_nobody_is_near(name: str, near: str) -> None:
    """All alike whatever the weights, or as the author says, among the eligible."""
    far = np.array([1.0, *[-1e6] * (SIZE - 1)])
    weight = np.array([1.0, 50.0, 2.0, 1.0])
    arms = [*ARMS, "d"]
    for given, expected in (
        (None, [1 / 4] * 4),
        ({"a": 0.6, "c": 0.3, "gone": 0.1}, [2 / 3, 0, 1 / 3, 0]),
    ):
        more = {"n_dimensions": 32, "n_tables": 1} if near == "LSHNearest" else {}
        made = policy(name, near, {**more, "no_nhood_prob_of_arm": given})
        belief = believe(made, train(made, history()), arms, SIZE)
        mean, sd = belief.score(far, 0, 4)
        assert selection_probabilities(made, mean, sd, weight) == pytest.approx(expected)
        # Only arms that the author gave nothing: alike.
        assert selection_probabilities(made, mean[3:], sd[3:], weight[3:]) == pytest.approx([1.0])


@pytest.mark.parametrize("near", NEIGHBOURHOODS)
def test_a_belief_is_a_function_of_x_and_the_arm(near: str) -> None:
    """Asked in another order, or of some arms only, it says the same."""
    made = policy("UCB1", near)
    belief = believe(made, train(made, history()), ARMS, SIZE)
    first = [belief.score(x, 0, 3) for x in CONTEXTS]
    for both, x in zip(reversed(first), reversed(CONTEXTS), strict=True):
        again, some = belief.score(x, 0, 3), belief.score(x, 1, 2)
        for before, after, part in zip(both, again, some, strict=True):
            assert np.array_equal(before, after)
            assert np.array_equal(before[1:2], part)


def test_trees_are_walked_down_as_scikit_learn_does() -> None:
    """At a threshold, and a hair's breadth beside it: trees are grown, and asked, in single precision."""
    made = policy("EpsilonGreedy", "TreeBandit", {"tree_parameters": {}})
    trained = train(made, history())
    belief = believe(made, trained, list(trained.events.arms), SIZE)
    tree = trained.mab._imp.arm_to_tree[0].tree_
    differ = 0
    for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
        if feature < 0:
            continue
        for beside in (0.0, 1e-12, -1e-12, 1e-3):
            x = CONTEXTS[0].copy()
            x[feature] = threshold + beside
            expected = trained.mab.predict_expectations(x[np.newaxis])
            found, _ = belief.score(x, 0, 3)
            assert found == pytest.approx([expected[arm] for arm in range(3)], abs=1e-12)
            differ += float(np.float32(x[feature])) != x[feature]
    assert differ > 10

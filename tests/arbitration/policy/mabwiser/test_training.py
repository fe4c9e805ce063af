"""What training depends on, and that MABWiser is asked for nothing that it draws."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from arbitration.catalog.learning import Policy
from arbitration.policy.mabwiser.history import History
from arbitration.policy.mabwiser.training import train, training

pytest.importorskip("mabwiser.mab")

_READ: TypeAdapter[Any] = TypeAdapter(Policy)


def policy(near: dict[str, Any] | None, name: str = "UCB1", **more: Any) -> Any:
    return _READ.validate_python(
        {
            "id": "p",
            "library": "mabwiser",
            "learning_policy": {"name": name},
            "neighborhood_policy": near,
            **more,
        }
    )


def test_only_what_changes_what_is_learned_is_in_the_fingerprint() -> None:
    ours = _READ.validate_python({"id": "p", "strategy": "ucb"})
    assert training(ours) == training(policy(None)) == ""
    near, far = {"name": "KNearest", "k": 3}, {"name": "Radius"}
    assert training(policy(near)) == training(policy(far)) != ""  # the same events, found otherwise
    assert training(policy(near)) != training(policy(near, history=9))
    clusters = [{"name": "Clusters"}, {"name": "Clusters", "n_clusters": 3}, {"name": "TreeBandit"}, near]
    assert len({training(policy(each)) for each in clusters}) == len(clusters)
    assert training(policy(clusters[0])) == training(policy(clusters[0], "ThompsonSampling"))


@pytest.mark.parametrize("near", [{"name": "Clusters", "is_minibatch": True}, {"name": "TreeBandit"}])
def test_equal_histories_give_equal_objects(near: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, reward = rng.normal(size=(40, 2)), rng.random(40)
    trained = []
    for order in (np.arange(40), rng.permutation(40)):
        history = History("f", 2, 100)
        arms = [f"a{event % 3}" for event in order]
        history.add(arms, x[order], reward[order], np.ones(40), order.astype(np.float64))
        trained.append(train(policy(near), history))
    assert pickle.dumps(trained[0].mab) == pickle.dumps(trained[1].mab)


def test_clusters_of_equal_contexts_wait_for_different_ones() -> None:
    history = History("f", 2, 100)
    history.add(["a"] * 9, np.ones((9, 2)), np.ones(9), np.ones(9), np.arange(9.0))
    assert train(policy({"name": "Clusters", "n_clusters": 5}), history).mab is None
    history.add(["a"], np.zeros((1, 2)), np.ones(1), np.ones(1), np.ones(1))
    assert train(policy({"name": "Clusters", "n_clusters": 5}), history).mab._imp.n_clusters == 2


def test_a_policy_of_sums_is_not_trained() -> None:
    history = History("f", 1, 5)
    history.add(["a"], np.ones((1, 1)), np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(AssertionError):
        train(policy(None), history)

"""What is believed in the neighbourhood of a context: MABWiser finds it, sums over its events are the belief.

So any learning policy within one is served as exactly as without, and nothing random is left. Where a
neighbourhood has no event at all, all arms are alike, or as `no_nhood_prob_of_arm` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arbitration.catalog.learning import Mabwiser
from arbitration.catalog.mabwiser import (
    Clusters,
    LearningPolicy,
    Linear,
    LSHNearest,
    NeighborhoodPolicy,
    Radius,
    TreeBandit,
)
from arbitration.policy.mabwiser.belief import Means, belief_of, estimates, precision
from arbitration.policy.mabwiser.history import Events
from arbitration.policy.mabwiser.training import Trained, fitted
from arbitration.policy.state import State

if TYPE_CHECKING:
    from arbitration.snapshot import Belief

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def believe(policy: Mabwiser, trained: Trained | None, arms: Sequence[str], size: int) -> Belief:
    """The belief about `arms`, in this order, over `size` columns.

    An arm without events is believed of as its learning policy does; events of other arms are ignored.
    """
    learning, near = policy.learning_policy, policy.neighborhood_policy
    assert near is not None, policy.id
    lonely = _alone(near, arms)
    if trained is None or not len(trained.events.arm):
        return lonely
    if isinstance(near, Clusters):
        return lonely if trained.mab is None else _Clustered(policy, trained, arms, size)
    place = {arm: index for index, arm in enumerate(arms)}
    place_of = np.array([place.get(arm, -1) for arm in trained.events.arms], dtype=np.intp)
    if isinstance(near, TreeBandit):
        return lonely if trained.mab is None else _Leaves(learning, trained, place_of, len(arms))
    return _Near(learning, near, trained.events, place_of, lonely)


def _alone(near: NeighborhoodPolicy, arms: Sequence[str]) -> Means:
    """Where nobody is near: no arm is better than another; minus the given probability stands as the sd."""
    given = near.no_nhood_prob_of_arm if isinstance(near, LSHNearest | Radius) else None
    shares = np.array([(given or {}).get(arm, 0.0) for arm in arms], dtype=np.float64)
    return Means(np.zeros(len(arms)), 0.0 - shares)


class _Rows:
    """Stands in MABWiser where the learning policy of a neighbourhood does, and hands out whom it is fitted
    with. MABWiser copies it for each prediction, so predictions do not meet."""

    rows: Indices

    def fit(self, decisions: Indices, rewards: Floats, contexts: Floats) -> None:
        self.rows = decisions

    def predict_expectations(self, contexts: Floats) -> Indices:
        return self.rows


class _Near:
    """KNearest, Radius, LSHNearest: the neighbourhood is made of single events, found anew for each x."""

    def __init__(
        self,
        learning: LearningPolicy,
        near: NeighborhoodPolicy,
        events: Events,
        place_of: Indices,
        lonely: Means,
    ) -> None:
        known = place_of[events.arm] >= 0
        self._learning = learning
        self._arm = place_of[events.arm[known]]
        self._x = events.x[known]
        self._reward = events.reward[known]
        self._lonely = lonely
        # Its decisions are the numbers of the rows, so that these are what is handed out.
        mine = Events(("any",), self._arm, self._x, self._reward)
        self._mab = fitted(near, mine, np.arange(len(self._arm)))
        if self._mab is not None:
            self._mab._imp.lp = _Rows()

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        found = None if self._mab is None else self._mab.predict_expectations(x[np.newaxis])
        if not isinstance(found, np.ndarray):  # a dictionary of nan: nobody is near
            return self._lonely.score(x, first, stop)
        rows = np.sort(found)
        arm = self._arm[rows] - first
        rows = rows[inside := (arm >= 0) & (arm < stop - first)]
        if isinstance(self._learning, Linear):
            return _regressed(self._learning, arm[inside], self._x[rows], self._reward[rows], x, stop - first)
        count = np.bincount(arm[inside], minlength=stop - first).astype(np.float64)
        reward = np.bincount(arm[inside], self._reward[rows], stop - first).astype(np.float64)
        return estimates(self._learning, count, reward, np.full(1, float(len(found))))


def _regressed(
    learning: Linear, arm: Indices, contexts: Floats, reward: Floats, x: Floats, count: int
) -> tuple[Floats, Floats]:
    """Mean and sd at x (d,) of `count` arms, from m events: arm (m,), contexts (m, d), reward (m,)."""
    mean, sd = np.zeros(count), np.full(count, np.sqrt(x @ x / learning.l2_lambda))
    if not len(arm):
        return mean, sd
    order = np.argsort(arm, kind="stable")
    seen, starts = np.unique(arm[order], return_index=True)
    contexts, reward = contexts[order], reward[order]
    a, b = np.triu_indices(len(x))
    outer = np.add.reduceat(contexts[:, a] * contexts[:, b], starts)
    moment = np.add.reduceat(contexts * reward[:, None], starts)
    sides = np.stack([moment, np.broadcast_to(x, moment.shape)], axis=2)
    solved = np.linalg.solve(precision(learning, outer, len(x)), sides)
    mean[seen] = solved[:, :, 0] @ x
    sd[seen] = np.sqrt(np.maximum(solved[:, :, 1] @ x, 0.0))
    return mean, sd


class _Clustered:
    """Clusters: each has a belief of its own."""

    def __init__(self, policy: Mabwiser, trained: Trained, arms: Sequence[str], size: int) -> None:
        events = trained.events
        self._kmeans = trained.mab._imp.kmeans
        self._beliefs = []
        for cluster in range(self._kmeans.n_clusters):
            rows = np.flatnonzero(self._kmeans.labels_ == cluster)
            state = State("", size)
            names = [events.arms[arm] for arm in events.arm[rows]]
            state.add(names, events.x[rows], events.reward[rows], np.ones(len(rows)))
            self._beliefs.append(belief_of(policy, arms, size, state))

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        return self._beliefs[int(self._kmeans.predict(x[np.newaxis])[0])].score(x, first, stop)


class _Leaves:
    """TreeBandit: the trees of all arms in one array of nodes, walked down side by side."""

    def __init__(self, learning: LearningPolicy, trained: Trained, place_of: Indices, count: int) -> None:
        self._learning = learning
        imp = trained.mab._imp
        # The first node is the whole tree of an arm that has none.
        left, right, feature, threshold = (
            [np.array([-1])],
            [np.array([-1])],
            [np.array([0])],
            [np.array([0.0])],
        )
        self._root = np.zeros(count, dtype=np.intp)
        tried, gained, nodes = [np.zeros(1)], [np.zeros(1)], 1
        for arm in np.flatnonzero(place_of >= 0).tolist():
            tree, rewards = imp.arm_to_tree[arm].tree_, imp.arm_to_leaf_to_rewards[arm]
            self._root[place_of[arm]] = nodes
            left.append(np.where(tree.children_left < 0, -1, tree.children_left + nodes))
            right.append(tree.children_right + nodes)
            feature.append(np.maximum(tree.feature, 0))
            threshold.append(tree.threshold)
            tried.append(np.array([float(len(rewards.get(n, ()))) for n in range(tree.node_count)]))
            gained.append(np.array([float(sum(rewards.get(n, ()))) for n in range(tree.node_count)]))
            nodes += tree.node_count
        self._left, self._right = np.concatenate(left), np.concatenate(right)
        self._feature, self._threshold = np.concatenate(feature), np.concatenate(threshold)
        self._tried, self._gained = np.concatenate(tried), np.concatenate(gained)

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        narrow = x.astype(np.float32)  # as the trees were grown
        node = self._root[first:stop]
        while (inner := self._left[node] >= 0).any():
            lower = narrow[self._feature[node]] <= self._threshold[node]
            node = np.where(inner, np.where(lower, self._left[node], self._right[node]), node)
        tried = self._tried[node]
        return estimates(self._learning, tried, self._gained[node], tried)

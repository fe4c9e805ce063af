"""What MABWiser's learning policies believe, computed from sums over events.

It is what MABWiser computes, but that nothing is drawn, that the inverse of a regression starts as I/λ at any
λ (MABWiser's starts as λI), that the bias column is not scaled away by `scale` (MABWiser's regression is then
left without an intercept), and that an arm never tried has, under UCB1, the bonus of one trial (MABWiser's
gives it 0, so it may never be tried).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from arbitration.catalog.learning import Mabwiser
from arbitration.catalog.mabwiser import UCB1, LearningPolicy, Linear, ThompsonSampling
from arbitration.policy.posterior import Posterior, sums_of
from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]

_NO_EVENT = 1e-9  # fewer are the rounding of events taken back
_NARROW = 1e-6  # a deviation that MABWiser takes for none


class Means:
    """A belief that no context changes: mean and sd of each arm, float64 (N,)."""

    def __init__(self, mean: Floats, sd: Floats) -> None:
        self.mean = mean
        self.sd = sd

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the reward of arms first..stop, whatever x is."""
        return self.mean[first:stop], self.sd[first:stop]


def belief_of(policy: Mabwiser, arms: Sequence[str], size: int, state: State | None) -> Means | Posterior:
    """The belief of the policy's learning policy about `arms`, in this order, over `size` columns."""
    outer, moment, _, count = sums_of(State("", size) if state is None else state, arms)
    learning = policy.learning_policy
    if not isinstance(learning, Linear):
        return Means(*estimates(learning, count, moment[:, 0], count.sum(keepdims=True)))
    upper = np.triu_indices(size)
    inverse: Floats = np.linalg.inv(precision(learning, outer, size)).astype(np.float64, copy=False)
    coefficients = np.einsum("nij,nj->ni", inverse, moment)
    return Posterior(coefficients, inverse[:, upper[0], upper[1]], np.ones(len(arms)))


def estimates(policy: LearningPolicy, count: Floats, reward: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Mean and sd of n arms, each float64 (n,), under a policy that takes no context.

    count, reward: how often each arm was tried, and what it brought in all, (n,); trials: how often all were,
    (n,) or one number. `sd` is what the policy makes of its doubt: of UCB1 √(2 ln N / n) (Auer, Cesa-Bianchi,
    Fischer 2002, "Finite-time analysis of the multiarmed bandit problem"), of ThompsonSampling that of its
    Beta, else 0.
    """
    if isinstance(policy, ThompsonSampling):
        # A reward between 0 and 1 is that much of a success and the rest of a failure.
        a, b = 1 + np.maximum(reward, 0.0), 1 + np.maximum(count - reward, 0.0)
        return a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    mean = np.zeros(len(count))
    np.divide(reward, count, out=mean, where=count > _NO_EVENT)
    if isinstance(policy, UCB1):
        return mean, np.sqrt(2 * np.log(np.maximum(trials, 1.0)) / np.maximum(count, 1.0))
    return mean, np.zeros(len(count))


def precision(policy: Linear, outer: Floats, size: int) -> Floats:
    """A of n arms, shape (n, d, d), from Σ x xᵀ as `State` keeps it, (n, d(d+1)/2).

    With `scale`, MABWiser regresses on z = (x - μ) / s, by mean and deviation of the arm's own events. As x
    has a bias column, x = L z for a matrix L of μ and s: a regression on x with prior λ L Lᵀ in place of λ I.
    """
    upper = np.triu_indices(size)
    full = np.zeros((len(outer), size, size))
    full[:, upper[0], upper[1]] = outer
    full[:, upper[1], upper[0]] = outer
    prior = np.broadcast_to(np.eye(size), full.shape)
    if policy.scale:
        count = np.maximum(full[:, 0, 0], _NO_EVENT)[:, None]
        mean = full[:, 0, 1:] / count
        variance = np.diagonal(full, axis1=1, axis2=2)[:, 1:] / count - mean * mean
        spread = np.sqrt(np.maximum(variance, 0.0))
        to_x = np.zeros_like(full)
        to_x[:, 0, 0] = 1.0
        to_x[:, 1:, 0] = mean
        columns = np.arange(1, size)
        to_x[:, columns, columns] = np.where(spread > _NARROW, spread, 1.0)
        prior = to_x @ to_x.transpose(0, 2, 1)
    a: Floats = full + policy.l2_lambda * prior
    return a

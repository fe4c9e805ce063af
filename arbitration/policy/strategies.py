"""Strategies: from what is believed of each eligible arm to the probability of choosing it.

Every strategy returns probabilities; the choice itself is one draw from exactly these, made elsewhere.
Scores are compared in priority, propensity × weight, where the weight of an arm is its context weight
× value × lever (≥ 0): what is optimised is what the business gets, not the click alone. A negative mean
counts as propensity 0, or the more an arm is worth, the less it would be shown.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from arbitration.catalog import mabwiser
from arbitration.catalog.learning import (
    UCB,
    EpsilonGreedy,
    Mabwiser,
    Policy,
    Softmax,
    SquareCB,
    Thompson,
)
from arbitration.policy.contest import Contest
from arbitration.policy.thompson import best_of_betas

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def propensity(mean: Floats) -> Floats:
    """The posterior mean as a probability: a linear model may leave 0..1, a propensity does not."""
    return np.minimum(np.maximum(mean, 0.0), 1.0)


class Choosing:
    """A policy's choice among n arms, asked slot after slot, each time without those taken before."""

    def __init__(self, policy: Policy, mean: Floats, sd: Floats, weight: Floats, removed: int) -> None:
        """As `selection_probabilities`. `removed`: at most so many arms will have been taken away when it is
        last asked."""
        self._policy = policy
        self._beliefs = (mean, sd, weight)
        self._contest = None
        if isinstance(policy, Thompson):
            self._contest = Contest(propensity(mean) * weight, policy.alpha * sd * weight, removed)

    def chances(self, left: Indices) -> Floats:
        """The selection probabilities of the arms left: positions, (k,), ascending; float64 (k,)."""
        if self._contest is None:
            return selection_probabilities(self._policy, *(part.take(left) for part in self._beliefs))
        return _mixed(self._contest.chances(left), self._policy.floor)


def selection_probabilities(policy: Policy, mean: Floats, sd: Floats, weight: Floats) -> Floats:
    """How likely each eligible arm is to be chosen for a slot.

    mean, sd: posterior of the reward, float64 (n,), n ≥ 1; weight: float64 (n,), ≥ 0. Returns float64
    (n,), each ≥ policy.floor / n, summing to 1.
    """
    match policy:
        case Thompson():
            chosen = _best(propensity(mean) * weight, policy.alpha * sd * weight)
        case EpsilonGreedy():
            best = _shared(propensity(mean) * weight)
            chosen = (1 - policy.epsilon) * best + policy.epsilon / len(mean)
        case Softmax():
            chosen = _softmax(propensity(mean) * weight, policy.temperature)
        case SquareCB():
            chosen = _inverse_gap(propensity(mean) * weight, policy.gamma)
        case UCB():
            chosen = _shared(np.maximum(mean + policy.alpha * sd, 0.0) * weight)
        case Mabwiser():
            chosen = _of_mabwiser(policy.learning_policy, mean, sd, weight)
    return _mixed(chosen, policy.floor)


def _mixed(chosen: Floats, floor: float) -> Floats:
    """With a part of `floor` shared out evenly."""
    mixed: Floats = (1 - floor) * chosen
    mixed += floor / len(chosen)
    mixed /= np.add.reduce(mixed)
    return mixed


def _best(mean: Floats, sd: Floats) -> Floats:
    return Contest(mean, sd, 0).chances(np.arange(len(mean)))


def _of_mabwiser(policy: mabwiser.LearningPolicy, mean: Floats, sd: Floats, weight: Floats) -> Floats:
    """What MABWiser would choose of the eligible arms, as probabilities, priorities in place of its means.

    A negative sd says that the neighbourhood is empty, and is minus the probability that the author gave the
    arm for this case.
    """
    if (sd < 0).any():
        return _proportional(np.maximum(-sd, 0.0))
    priority = np.maximum(mean, 0.0) * weight
    match policy:
        case mabwiser.EpsilonGreedy() | mabwiser.LinGreedy():
            return (1 - policy.epsilon) * _shared(priority) + policy.epsilon / len(mean)
        case mabwiser.Popularity():
            return _proportional(priority)
        case mabwiser.Random():
            return np.full(len(mean), 1 / len(mean))
        case mabwiser.Softmax():
            # In units of the greatest weight: at equal weights MABWiser's softmax of the means.
            share = priority / (weight.max() or 1.0)
            return _proportional(np.exp((share - share.max()) / policy.tau))
        case mabwiser.ThompsonSampling():
            return best_of_betas(mean, sd, weight)
        case mabwiser.UCB1() | mabwiser.LinUCB():
            return _shared(np.maximum(mean + policy.alpha * sd, 0.0) * weight)
        case mabwiser.LinTS():
            return _best(priority, policy.alpha * sd * weight)


def _proportional(score: Floats) -> Floats:
    total = score.sum()
    return score / total if total > 0 else np.full(len(score), 1 / len(score))


def _shared(score: Floats) -> Floats:
    """All probability to the greatest score; exact ties share it."""
    best = score == score.max()
    shared: Floats = best / best.sum()
    return shared


def _softmax(priority: Floats, temperature: float) -> Floats:
    """Boltzmann exploration, relative to the highest priority so that money needs no own temperature."""
    top = priority.max()
    if top <= 0:
        return np.full(len(priority), 1 / len(priority))
    raised = np.exp((priority / top - 1) / temperature)
    normal: Floats = raised / raised.sum()
    return normal


def _inverse_gap(priority: Floats, gamma: float) -> Floats:
    """Inverse gap weighting (Abe & Long 1999; SquareCB, Foster & Rakhlin 2020, algorithm 1).

    p_i = 1 / (n + γ·gap_i) for arms below the best, gaps relative to the highest priority; the best has
    the rest.
    """
    top = priority.max()
    gap = (top - priority) / top if top > 0 else np.zeros(len(priority))
    chosen: Floats = 1 / (len(priority) + gamma * gap)
    best = gap == 0
    chosen[best] = (1 - chosen[~best].sum()) / best.sum()
    return chosen

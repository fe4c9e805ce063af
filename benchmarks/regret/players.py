"""Who plays: this project's default policy, and the peers as they are published.

A player chooses for a block of events with what it knew before, then learns the whole block. Contexts are
(n, d), `eligible` bool (n, K), arms int (n,); `probability` float (n,) is that of the arm that was chosen.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy

from arbitration.catalog.compile import DEFAULT_POLICY
from arbitration.catalog.learning import Policy
from arbitration.policy.posterior import posterior_of
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities

Chosen = tuple[np.ndarray, np.ndarray]


class Player(Protocol):
    """Chooses arms, and learns from what they brought."""

    def choose(self, x: np.ndarray, eligible: np.ndarray) -> Chosen:
        """Arms and their probabilities."""
        ...

    def learn(
        self,
        x: np.ndarray,
        eligible: np.ndarray,
        arm: np.ndarray,
        reward: np.ndarray,
        probability: np.ndarray,
    ) -> None:
        """Takes a block in."""
        ...


class Ours:
    """A policy of this project, through its own state, posterior and selection probabilities."""

    def __init__(self, arms: int, size: int, seed: int, policy: Policy = DEFAULT_POLICY) -> None:
        self._names = [str(number) for number in range(arms)]
        self._policy, self._size = policy, size
        self._state = State("regret", size)
        self._posterior = posterior_of(policy, self._names, size, None)
        self._rng = np.random.default_rng([10, seed])

    def choose(self, x: np.ndarray, eligible: np.ndarray) -> Chosen:
        arm, probability = np.zeros(len(x), dtype=int), np.zeros(len(x))
        for number, (context, open_) in enumerate(zip(x, eligible, strict=True)):
            mean, sd = self._posterior.score(context, 0, len(self._names))
            which = np.flatnonzero(open_)
            share = selection_probabilities(self._policy, mean[which], sd[which], np.ones(len(which)))
            arm[number], probability[number] = _draw(self._rng, which, share)
        return arm, probability

    def learn(
        self,
        x: np.ndarray,
        eligible: np.ndarray,
        arm: np.ndarray,
        reward: np.ndarray,
        probability: np.ndarray,
    ) -> None:
        self._state.add([self._names[number] for number in arm], x, reward, np.ones(len(x)))
        kin = [("all",)] * len(self._names)  # each is an action of its own, on one channel
        self._posterior = posterior_of(self._policy, self._names, self._size, self._state, kin)


class MabWiser:
    """A learning policy of MABWiser: the eligible arm of the greatest expectation that it states."""

    def __init__(self, arms: int, seed: int, policy: Any) -> None:
        self._arms = arms
        self._mab = MAB(list(range(arms)), policy, seed=seed)
        self._fitted = False

    def choose(self, x: np.ndarray, eligible: np.ndarray) -> Chosen:
        if self._mab.is_contextual:
            stated = self._mab.predict_expectations(x)
            stated = [stated] if isinstance(stated, dict) else stated
        else:
            stated = [self._mab.predict_expectations() for _ in x]
        scores = np.array([[row[arm] for arm in range(self._arms)] for row in stated])
        return np.where(eligible, scores, -np.inf).argmax(axis=1), np.ones(len(x))

    def learn(
        self,
        x: np.ndarray,
        eligible: np.ndarray,
        arm: np.ndarray,
        reward: np.ndarray,
        probability: np.ndarray,
    ) -> None:
        fit = self._mab.partial_fit if self._fitted else self._mab.fit
        fit(arm, reward, x if self._mab.is_contextual else None)
        self._fitted = True


class VowpalWabbit:
    """`--cb_explore_adf --squarecb`; the customer's features are crossed with the arm's id (`-q ca`)."""

    def __init__(self, arms: int, seed: int, options: str) -> None:
        self._vw = vowpalwabbit.Workspace(
            f"--cb_explore_adf --squarecb --quiet -q ca --random_seed {seed + 1} {options}"
        )
        self._lines = [f"|a {number}" for number in range(arms)]
        self._rng = np.random.default_rng([11, seed])

    def choose(self, x: np.ndarray, eligible: np.ndarray) -> Chosen:
        arm, probability = np.zeros(len(x), dtype=int), np.zeros(len(x))
        for number, (context, open_) in enumerate(zip(x, eligible, strict=True)):
            which = np.flatnonzero(open_)
            share = np.array(self._vw.predict([_shared(context), *(self._lines[arm] for arm in which)]))
            arm[number], probability[number] = _draw(self._rng, which, share / share.sum())
        return arm, probability

    def learn(
        self,
        x: np.ndarray,
        eligible: np.ndarray,
        arm: np.ndarray,
        reward: np.ndarray,
        probability: np.ndarray,
    ) -> None:
        for context, open_, chosen, gain, share in zip(x, eligible, arm, reward, probability, strict=True):
            label = f"0:{-gain}:{share:.6g} {self._lines[chosen]}"
            lines = [label if each == chosen else self._lines[each] for each in np.flatnonzero(open_)]
            self._vw.learn([_shared(context), *lines])


def mabwiser(name: str, **parameters: float) -> Any:
    """A MABWiser learning policy by name."""
    return getattr(LearningPolicy, name)(**parameters)


def _draw(rng: np.random.Generator, which: np.ndarray, share: np.ndarray) -> tuple[int, float]:
    place = min(int(np.searchsorted(share.cumsum(), rng.random(), side="right")), len(share) - 1)
    return int(which[place]), float(share[place])


def _shared(context: np.ndarray) -> str:
    """The line of the customer; the bias is left to VW's own constant and to the arm's id."""
    return "shared |c " + " ".join(f"{i}:{v:.6g}" for i, v in enumerate(context) if i and v)

"""Replay by rejection: a learning policy meets the logged events as it would have met customers.

Li, Chu, Langford, Wang 2011, "Unbiased offline evaluation of contextual-bandit-based news article
recommendation algorithms", for uniform logs; for others an event is accepted with probability
π(a|x) / (M p(a|x)), M = 1 / min p, as in rejection sampling (Dudík, Erhan, Langford, Li 2012,
"Sample-efficient nonstationary policy evaluation for contextual bandits", arXiv 1210.4862).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from arbitration.catalog.learning import Mabwiser, Policy
from arbitration.policy.mabwiser.belief import belief_of
from arbitration.policy.mabwiser.history import History
from arbitration.policy.mabwiser.neighbourhood import believe
from arbitration.policy.mabwiser.training import train
from arbitration.policy.posterior import posterior_of
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities
from arbitration.snapshot import Belief
from decision.bakeoff.log import Floats, Ints, Log

_TOLD_EVERY = 256


class Knowledge:
    """What one policy has learned so far in one replay, and what it believes on the strength of it."""

    def __init__(self, policy: Policy, arms: Sequence[str], size: int) -> None:
        self._policy, self._arms, self._size = policy, arms, size
        self._state = State("bakeoff", size)
        self._history: History | None = None
        if isinstance(policy, Mabwiser) and policy.neighborhood_policy is not None:
            self._history = History("bakeoff", size, policy.history)
        self._learned = 0
        self.belief = self._believed()

    def learn(self, arm: Ints, x: Floats, reward: Floats) -> None:
        """Takes n events in: arm (n,), x (n, size), reward (n,)."""
        names, once = [self._arms[number] for number in arm], np.ones(len(arm))
        if self._history is None:
            self._state.add(names, x, reward, once)
        else:
            self._history.add(names, x, reward, once, self._learned + np.arange(len(arm), dtype=np.float64))
        self._learned += len(arm)
        self.belief = self._believed()

    def _believed(self) -> Belief:
        if not isinstance(self._policy, Mabwiser):
            # Each arm is an action of its own, all on one channel.
            return posterior_of(
                self._policy, self._arms, self._size, self._state, [("all",)] * len(self._arms)
            )
        if self._history is None:
            return belief_of(self._policy, self._arms, self._size, self._state)
        trained = train(self._policy, self._history) if self._learned else None
        return believe(self._policy, trained, self._arms, self._size)


def replay(
    policy: Policy,
    log: Log,
    x: Floats,
    reward: Floats,
    order: Ints,
    luck: Floats,
    refresh: int,
    told: Callable[[int], object] = lambda _: None,
) -> Ints:
    """The rows that count, in the order they were met: those the policy would have made, intp (m,).

    x (n, size); reward (n,), as it is learned, in 0..1; `order`: the rows as they come; luck: a number in
    0..1 per row, shared by policies that are to be compared. After every `refresh` counted events the policy
    has learned them; in between what it believes is fixed. `told` hears of the rows done since the last call.
    """
    knowledge = Knowledge(policy, log.arms, x.shape[1])
    weight = np.ones(len(log.arms))
    # Accepted where luck < π(a|x) · threshold, min p / p(a|x).
    threshold = log.probability.min() / log.probability
    counted: list[int] = []
    for number, row in enumerate(order.tolist()):
        mean, sd = knowledge.belief.score(x[row], 0, len(log.arms))
        share = selection_probabilities(policy, mean, sd, weight)[log.arm[row]]
        if luck[row] < share * threshold[row]:
            counted.append(row)
            if len(counted) % refresh == 0:
                latest = np.array(counted[-refresh:], dtype=np.intp)
                knowledge.learn(log.arm[latest], x[latest], reward[latest])
        if number % _TOLD_EVERY == _TOLD_EVERY - 1:
            told(_TOLD_EVERY)
    told(len(order) % _TOLD_EVERY)
    return np.array(counted, dtype=np.intp)

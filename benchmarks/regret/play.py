"""Lets a player play an episode, or replays a log with it."""

from __future__ import annotations

import numpy as np
from players import Player
from worlds import Episode, Log


def regret(player: Player, episode: Episode, refresh: int, step: int) -> np.ndarray:
    """Cumulative pseudo-regret (T - refresh,): the best eligible arm's P(outcome) less the chosen arm's.

    The first `refresh` events are of arms drawn uniformly, the same for every player, and not counted. From
    there the player learns after every `step` events.
    """
    events = len(episode.x)
    rng = np.random.default_rng(20)
    order = np.where(episode.eligible, rng.random(episode.truth.shape), -1.0)
    first = slice(0, refresh)
    _learn(player, episode, first, order[first].argmax(axis=1), 1 / episode.eligible[first].sum(axis=1))
    lost = []
    best = np.where(episode.eligible, episode.truth, 0.0).max(axis=1)
    for start in range(refresh, events, step):
        block = slice(start, min(start + step, events))
        arm, probability = player.choose(episode.x[block], episode.eligible[block])
        lost.append(best[block] - episode.truth[block][np.arange(len(arm)), arm])
        _learn(player, episode, block, arm, probability)
    return np.concatenate(lost).cumsum()


def _learn(player: Player, episode: Episode, block: slice, arm: np.ndarray, probability: np.ndarray) -> None:
    reward = (episode.luck[block] < episode.truth[block][np.arange(len(arm)), arm]).astype(float)
    player.learn(episode.x[block], episode.eligible[block], arm, reward, probability)


def replay(player: Player, log: Log, refresh: int, step: int) -> np.ndarray:
    """Rewards of the events that count, in order (Li et al. 2011): those where the player chooses what the
    log has. The first `refresh` are of arms drawn uniformly, and left out of what is returned."""
    guess = np.random.default_rng(21).integers(log.arms, size=len(log.arm))
    hit = np.flatnonzero(guess == log.arm)[:refresh]
    everyone = np.ones((len(log.arm), log.arms), dtype=bool)
    share = np.full(refresh, 1 / log.arms)
    player.learn(log.x[hit], everyone[hit], log.arm[hit], log.reward[hit], share)
    at, rewards = int(hit[-1]) + 1, []
    while at < len(log.arm):
        block = np.arange(at, min(at + log.arms * step, len(log.arm)))
        arm, probability = player.choose(log.x[block], everyone[block])
        agreed = np.flatnonzero(arm == log.arm[block])[:step]
        # What lies beyond the last event of a full block is decided again, with what was learned.
        at = int(block[agreed[-1]]) + 1 if len(agreed) == step else int(block[-1]) + 1
        if len(agreed):
            hit = block[agreed]
            rewards.append(log.reward[hit])
            player.learn(log.x[hit], everyone[hit], arm[agreed], log.reward[hit], probability[agreed])
    return np.concatenate(rewards)

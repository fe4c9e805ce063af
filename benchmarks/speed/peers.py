"""Vowpal Wabbit and MABWiser, as somebody would use them who wants them to be fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy

SQUARECB = "--cb_explore_adf --squarecb -q ca --quiet --random_seed 7"


class VowpalWabbit:
    """`--cb_explore_adf --squarecb` over so many arms; the customer's features are crossed with the
    arm's id."""

    def __init__(self, arms: int) -> None:
        self._workspace = vowpalwabbit.Workspace(SQUARECB)
        self.lines = [f"|a {number}" for number in range(arms)]
        self._parsed: list[Any] = [
            example for line in self.lines for example in _list(self._workspace.parse(line))
        ]

    def predict(self, shared: str) -> Any:
        """Probabilities of the arms; all of the example is text."""
        return self._workspace.predict([shared, *self.lines])

    def predict_parsed(self, shared: str) -> Any:
        """The same, but the lines of the arms were parsed once, for all requests."""
        parsed = _list(self._workspace.parse(shared))
        probabilities = self._workspace.predict([*parsed, *self._parsed])
        self._workspace.finish_example(parsed)
        return probabilities

    def learn(self, event: Any) -> None:
        """Learns from one event: lines of text, or examples parsed from them."""
        self._workspace.learn(event)

    def parsed(self, events: Iterable[Sequence[str]]) -> list[Any]:
        """Events as examples, for `learn`."""
        return [self._workspace.parse(list(lines)) for lines in events]

    def event(self, shared: str, arm: int, reward: float, probability: float, all_arms: bool) -> list[str]:
        """What is learned from one event: the lines of all arms, or of the chosen one and its neighbour."""
        others = range(len(self.lines)) if all_arms else sorted({arm, (arm + 1) % len(self.lines)})
        label = f"0:{-reward:g}:{probability:.6g} {self.lines[arm]}"
        return [shared, *(label if each == arm else self.lines[each] for each in others)]


def shared_line(x: np.ndarray) -> str:
    """A context as VW's text; the bias is left to VW's own constant."""
    return "shared |c " + " ".join(f"{number}:{value:.6g}" for number, value in enumerate(x) if number)


def mabwiser(name: str, arms: int) -> MAB:
    """A linear policy of MABWiser with alpha and λ of 1."""
    policy = getattr(LearningPolicy, name)(alpha=1.0, l2_lambda=1.0)
    return MAB(list(range(arms)), policy, seed=7)


def _list(parsed: Any) -> list[Any]:
    return parsed if isinstance(parsed, list) else [parsed]

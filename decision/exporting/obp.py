"""The bandit feedback of Open Bandit Pipeline: its dict of arrays, as an .npz file without pickles.

A round is a pick whose outcome is known, its action the treatment, its position the rank less one, and its
`pscore` the selection probability given the picks before. Beside the keys that the library knows there are
`decision`, which rounds of one decision share, and `actions` and `features`, the names of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arbitration.features import Vector
from decision.exporting.errors import ExportError
from decision.exporting.rows import Arm, Row

Floats = npt.NDArray[np.float64]


class BanditFeedback:
    """Collects rounds, and writes them to `path` at the end: they are held in memory. `features` names the
    columns of x."""

    def __init__(self, path: Path, features: Sequence[str]) -> None:
        self._path = path
        self._features = list(features)
        self._actions: dict[str, tuple[int, Arm]] = {}
        self._decisions: dict[str, int] = {}
        self._rounds: list[tuple[int, int, int, float, float, float]] = []
        self._x: list[Vector] = []
        self._pools: list[tuple[list[int], list[float]]] = []

    def write(self, row: Row) -> bool:
        """Takes a pick with an outcome of a customer who may be profiled."""
        item = row.item
        if item is None or item.reward is None or row.x is None:
            return False
        numbers = [self._number(arm) for arm in item.arms]
        self._pools.append((numbers, [arm.probability for arm in item.arms]))
        decision = self._decisions.setdefault(row.decision_id, len(self._decisions))
        chance, along = item.selection_probability, item.cumulative_probability
        self._rounds.append((decision, self._number(item.arm), item.rank - 1, item.reward, chance, along))
        self._x.append(row.x)
        return True

    def _number(self, arm: Arm) -> int:
        return self._actions.setdefault(arm.treatment, (len(self._actions), arm))[0]

    def finish(self) -> None:
        """Writes the file. Raises ExportError where there is no round."""
        if not self._rounds:
            raise ExportError("no item shown in this time has an outcome yet, so there are no rounds")
        decision, action, position, reward, pscore, cascade = zip(*self._rounds, strict=True)
        possible = np.zeros((len(self._rounds), len(self._actions), 1))
        for number, (numbers, chances) in enumerate(self._pools):
            possible[number, numbers, 0] = chances
        with self._path.open("wb") as file:
            np.savez_compressed(
                file,
                n_rounds=np.array(len(self._rounds)),
                n_actions=np.array(len(self._actions)),
                action=np.array(action),
                position=np.array(position),
                reward=np.array(reward),
                pscore=np.array(pscore),
                context=np.stack(self._x),
                action_context=self._action_context(),
                pi_b=possible,
                pscore_cascade=np.array(cascade),
                decision=np.array(decision),
                actions=np.array(list(self._actions)),
                features=np.array(self._features, dtype=np.str_),
            )

    def _action_context(self) -> Floats:
        """One-hot of treatment, action and group, side by side: what arms of an action have in common can be
        learned, and what they have not."""
        arms = [arm for _, arm in self._actions.values()]
        kinds = ([arm.treatment for arm in arms], [arm.action for arm in arms], [arm.group for arm in arms])
        return np.concatenate([_one_hot(names) for names in kinds], axis=1)


def _one_hot(names: list[str]) -> Floats:
    levels, codes = np.unique(names, return_inverse=True)
    return np.eye(len(levels))[codes]

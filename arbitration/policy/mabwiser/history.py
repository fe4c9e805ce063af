"""The events a neighbourhood policy is trained on: a bounded multiset, whatever order they arrive in.

Like the sums of `State`: an event is added, and one that proves wrong is taken back by adding it with weight
-1. What is trained on are the newest events; some more are kept, so that what is taken back is replaced by
the next older one. What is older still is dropped from time to time, so taking back more events than
are trained on leaves fewer than there were: it is then `exhausted`, and the learner reads them again.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arbitration.errors import SnapshotError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
_Row = tuple[float, str, float, bytes]  # time, arm, reward, x: in this order they are newest last

_KEPT = 2  # times what is trained on
_SLACK = 2  # times what is kept, before the older half is dropped


@dataclass(frozen=True, slots=True)
class Events:
    """n events, oldest first, equal for equal histories. `arms`: the distinct ones, sorted; `arm`: of each
    event, intp (n,), an index into them; `x`: float64 (n, size); `reward`: float64 (n,)."""

    arms: tuple[str, ...]
    arm: Indices
    x: Floats
    reward: Floats


class History:
    """The newest events of one policy over contexts of `size` columns, `keep` of them to be trained on.

    `rows` counts each distinct event. `fingerprint` tells which encoding the x came from.
    """

    def __init__(self, fingerprint: str, size: int, keep: int) -> None:
        self.fingerprint = fingerprint
        self.size = size
        self.keep = keep
        self.rows: dict[_Row, int] = {}
        self._dropped = False

    @property
    def exhausted(self) -> bool:
        """Whether so much was taken back that events no longer held would be among the newest."""
        return self._dropped and len(self) < self.keep

    def __len__(self) -> int:
        return sum(count for count in self.rows.values() if count > 0)

    def add(self, arms: Sequence[str], x: Floats, reward: Floats, weight: Floats, at: Floats) -> None:
        """Adds `n` events: arm ids (n,), contexts (n, size), rewards (n,), weights (n,), times (n,) in epoch
        seconds.

        Weight 1 counts an event, -1 takes an equal one back, which may also arrive later. Raises
        SnapshotError where any of them is not finite, or a weight no whole number, and then adds nothing.
        """
        if not all(np.isfinite(part).all() for part in (x, reward, weight, at)):
            raise SnapshotError("an event that is not finite cannot be learned from")
        if not (weight == np.rint(weight)).all():
            raise SnapshotError("a history counts whole events only")
        x, reward = x.astype(np.float64) + 0.0, reward + 0.0  # -0 is 0
        for arm, context, gained, count, time in zip(
            arms, x, reward.tolist(), weight.tolist(), at.tolist(), strict=True
        ):
            self._count((time, arm, gained, context.tobytes()), int(count))
        self._drop()

    def newest(self) -> Events:
        """The newest `keep` events."""
        rows = heapq.nlargest(self.keep, (row for row, count in self.rows.items() if count > 0))
        every = [row for row in reversed(rows) for _ in range(self.rows[row])][-self.keep :]
        arms = tuple(sorted({row[1] for row in every}))
        place = {arm: index for index, arm in enumerate(arms)}
        x = np.frombuffer(b"".join(row[3] for row in every), np.float64).reshape(-1, self.size)
        arm = np.array([place[row[1]] for row in every], dtype=np.intp)
        return Events(arms, arm, x, np.array([row[2] for row in every], dtype=np.float64))

    def _count(self, row: _Row, count: int) -> None:
        if total := self.rows.get(row, 0) + count:
            self.rows[row] = total
        else:
            self.rows.pop(row, None)

    def _drop(self) -> None:
        if len(self.rows) <= _SLACK * _KEPT * self.keep:
            return
        self.rows = {row: self.rows[row] for row in heapq.nlargest(_KEPT * self.keep, self.rows)}
        self._dropped = True

"""Read-only arrays of a compiled catalog, out of what is said of each arm in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

_ALWAYS_TRUE = -1  # the last entry of a status array


def mask(flags: Iterable[bool]) -> Bools:
    """Bool, as many as there are flags."""
    return frozen(np.fromiter(flags, dtype=np.bool_))


def positions(keys: Sequence[Any], among: Bools | None = None) -> dict[Any, Positions]:
    """The positions at which each key stands, `among` those that are wanted."""
    found: dict[Any, list[int]] = {}
    for position, key in enumerate(keys):
        if among is None or among[position]:
            found.setdefault(key, []).append(position)
    return {key: frozen(np.array(positions, dtype=np.intp)) for key, positions in found.items()}


def rectangle(rows: list[list[int]]) -> Ints:
    """Rows of clauses, the shorter ones filled up with the one that is always true; int32."""
    table = np.full((len(rows), max(map(len, rows), default=0)), _ALWAYS_TRUE, dtype=np.int32)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return frozen(table)


def floats(values: list[float]) -> Floats:
    """Float64."""
    return frozen(np.array(values, dtype=np.float64))


def ints(values: list[int]) -> Ints:
    """Int32."""
    return frozen(np.array(values, dtype=np.int32))


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, read-only from now on."""
    array.setflags(write=False)
    return array

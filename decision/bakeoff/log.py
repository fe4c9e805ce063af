"""A logged data set: who was there, which arm each got with what probability, and the reward."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from decision.errors import FieldError, Rejected

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Cells = Mapping[str, Sequence[object]]

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Log:
    """n logged events.

    `arms`: the K distinct ones, sorted. `arm` intp (n,), indices into them; `reward` float64 (n,), ≥ 0;
    `probability` float64 (n,): with which the arm was logged, in (0, 1]. `columns`: the other cells by
    column, text from CSV, typed from Parquet.
    """

    arms: tuple[str, ...]
    arm: Ints
    reward: Floats
    probability: Floats
    columns: Cells

    def __len__(self) -> int:
        return len(self.arm)


def read_log(
    path: Path, arm: str, reward: str, probability: str | None = None, limit: int | None = None, seed: int = 0
) -> Log:
    """The log in a CSV (.gz too) or Parquet file.

    Without a `probability` column the arms are taken to be randomised, each with its share of the rows,
    whoever the customer. `limit`: only so many rows, picked at random by `seed`. Raises Rejected
    (`invalid_log`), naming the column and the line at fault.
    """
    columns = _parquet(path) if path.suffix in PARQUET else _csv(path)
    for option, name in (("--arm", arm), ("--reward", reward), ("--probability", probability)):
        if name is not None and name not in columns:
            raise refused(option, f"no column '{name}' (there are: {', '.join(columns) or 'none'})")
    count = len(columns[arm])
    if limit is not None and limit < count:
        rows = np.sort(np.random.default_rng([seed, 1]).choice(count, limit, replace=False)).tolist()
        columns = {name: [cells[row] for row in rows] for name, cells in columns.items()}
    named = [str(cell) for cell in columns[arm]]
    arms, numbers = np.unique(np.array(named, dtype=object), return_inverse=True)
    if len(arms) < 2:
        raise refused("--arm", f"column '{arm}' needs two different arms or more, it has {len(arms)}")
    rewards = numbers_of(columns[reward], reward, low=0.0)
    shares = np.bincount(numbers) / max(len(numbers), 1)
    known = shares[numbers] if probability is None else _probabilities(columns[probability], probability)
    rest = {name: cells for name, cells in columns.items() if name not in (arm, reward, probability)}
    return Log(tuple(arms.tolist()), numbers.astype(np.intp), rewards, known, rest)


def number_of(cell: object, column: str, row: int) -> float | None:
    """A cell as a number; None where it is empty. Raises Rejected otherwise."""
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, str) and cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    try:
        number = float(cell) if isinstance(cell, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise refused(column, f"row {row + 1}: {cell!r} is no number")
    return number


def numbers_of(cells: Sequence[object], column: str, low: float, high: float = math.inf) -> Floats:
    """A column of numbers from low to high, none missing. Raises Rejected."""
    numbers = np.zeros(len(cells))
    for row, cell in enumerate(cells):
        number = number_of(cell, column, row)
        if number is None or not low <= number <= high:
            bounds = f"{low:g} or more" if high == math.inf else f"between {low:g} and {high:g}"
            raise refused(column, f"row {row + 1}: {cell!r} should be a number, {bounds}")
        numbers[row] = number
    return numbers


def refused(field: str, message: str) -> Rejected:
    """A log, or an option, that cannot be used."""
    return Rejected(422, "invalid_log", "the bake-off cannot begin", [FieldError(field, "log", message)])


def _probabilities(cells: Sequence[object], column: str) -> Floats:
    numbers = numbers_of(cells, column, 0.0, 1.0)
    if not numbers.all():
        row = int(np.flatnonzero(numbers == 0)[0])
        raise refused(column, f"row {row + 1}: what was logged cannot have had probability 0")
    return numbers


def _csv(path: Path) -> Cells:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error, OSError, EOFError, zlib.error) as error:
        raise refused("DATA", f"{path.name} cannot be read as CSV: {error}") from error
    if len(set(head)) != len(head):
        raise refused("DATA", f"{path.name} has a column twice: {', '.join(head)}")
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise refused("DATA", f"row {number + 1} has {len(row)} cells, the header has {len(head)}")
    return dict(zip(head, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(head, ())


def _parquet(path: Path) -> Cells:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise refused("DATA", "reading Parquet needs pyarrow, which is not installed here") from error
    try:
        return dict(read_table(path).to_pydict())
    except (ArrowException, OSError) as error:
        raise refused("DATA", f"{path.name} cannot be read as Parquet: {error}") from error

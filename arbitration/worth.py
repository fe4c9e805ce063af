"""What showing each arm earns: its value less its cost. Most values are constants or plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arbitration.arithmetic import Plain, Unsure, double
from arbitration.catalog.scalars import LARGEST
from arbitration.catalog.syntax import TooDeep, tree
from arbitration.rules import Case, Program

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Formula:
    """A value's program, and the same as a function of the facts where it is plain arithmetic."""

    program: Program
    plain: Plain | None

    def number(self, case: Case) -> float | None:
        """As `Program.number`."""
        if self.plain is not None:
            try:
                number: float = self.plain(case.facts)
            except KeyError:
                return None
            except Unsure:
                return self.program.number(case.activation)
            return number if math.isfinite(number) else None
        return self.program.number(case.activation)


@dataclass(frozen=True, slots=True)
class Worth:
    """The arms' net values. `net` (S,): each different one there is, nan where it depends on the customer;
    `which` (K,): the arm's number among these. `priced`: each formula, with the (number, cost) pairs of those
    that depend on it. `settled` (K,): the values, if none depends. All are nan where there is no value."""

    net: Floats
    which: npt.NDArray[np.intp]
    priced: tuple[tuple[Formula, tuple[tuple[int, float], ...]], ...]
    settled: Floats | None

    def of(self, case: Case) -> Floats:
        """The net value of each arm for a customer, nan where it has none; float64 (K,), maybe shared."""
        if self.settled is not None:
            return self.settled
        net = self.net.copy()
        for formula, entries in self.priced:
            value = formula.number(case)
            if value is not None:
                for number, cost in entries:
                    net[number] = _net(value, cost)
        return net.take(self.which)


def worth_of(
    value: Floats, cost: Floats, programs: Sequence[tuple[Program, Bools]], types: Mapping[str, str]
) -> Worth:
    """`value` (K,): the constant ones. `programs`: with the arms (K,) whose value they give."""
    program_of = np.full(len(value), -1)
    for number, (_, rows) in enumerate(programs):
        program_of[rows] = number
    # An arm's kind: its program, or -1 with its constant value (0 or -0); and its cost.
    kinds = [
        (program, 0.0 if program >= 0 else each, math.copysign(1.0, each), paid)
        for program, each, paid in zip(program_of.tolist(), value.tolist(), cost.tolist(), strict=True)
    ]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    net = np.array([math.nan if program >= 0 else _net(each, paid) for program, each, _, paid in numbers])
    priced = tuple(
        (
            Formula(program, _formula(program, types)),
            tuple((number, paid) for (of, _, _, paid), number in numbers.items() if of == position),
        )
        for position, (program, _) in enumerate(programs)
    )
    which = np.array([numbers[kind] for kind in kinds], dtype=np.intp)
    settled = None if priced else net[which]
    if settled is not None:
        settled.setflags(write=False)
    return Worth(net, which, priced, settled)


def _net(value: float, cost: float) -> float:
    # Less than nothing is no reason to show an action, and more than everything is a mistake.
    net = value - cost
    return net if net >= 0 and value <= LARGEST else math.nan


def _formula(program: Program, types: Mapping[str, str]) -> Plain | None:
    try:
        return double(tree(program.expression.serialize()), types)
    except TooDeep:
        return None

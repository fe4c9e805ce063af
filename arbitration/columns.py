"""The rows of bits of one fact: which bits each value leaves set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from operator import and_, or_
from typing import Any

from arbitration.arithmetic import Plain, Unsure
from arbitration.rules import Case
from arbitration.tabulation import EARLIEST, LATEST, REACH, Table, Variable, ordered

_PYTHON = {"bool": bool, "int": int, "double": float, "string": str, "timestamp": datetime, "strings": tuple}


@dataclass(frozen=True, slots=True)
class Column:
    """The rows of one variable: one for each interval or value, as in `Table`, then one for a fact that is
    missing, and last that for a value that tables say nothing of: the runtime has to be asked."""

    variable: Variable
    type: type
    in_order: bool
    cuts: list[Any]
    rows: list[int]
    clears: int
    """The bits that some row clears."""
    plain: Plain | None

    @property
    def unknown(self) -> int:
        """The place of the last row."""
        return len(self.rows) - 1

    def place(self, case: Case) -> int:
        """Which row is a customer's."""
        if self.plain is not None:
            return self._outcome(self.plain, case)
        fact, kind, item = self.variable
        value: Any = case.now if fact == "now" else case.facts.get(fact)
        if value is None:
            return self.unknown - 1
        if kind == "presence":
            return 0
        found: object = type(value)
        if found is not self.type:
            return self.unknown
        if self.type is datetime:
            return self._place(value, case.now)
        if self.in_order:
            return bisect_right(self.cuts, value)
        if kind == "contains":
            value = item in value
        return self.cuts.index(value) if value in self.cuts else len(self.cuts)

    def _outcome(self, plain: Plain, case: Case) -> int:
        try:
            return 1 if plain(case.facts) else 0
        except KeyError:
            return self.unknown - 1
        except Unsure:
            return self.unknown

    def _place(self, value: datetime, now: datetime) -> int:
        if value.tzinfo is not UTC:
            return self.unknown
        place = bisect_right(self.cuts, value - now if self.variable.kind == "age" else value)
        return place if 0 < place < len(self.cuts) else self.unknown


def column_of(
    variable: Variable,
    types: Mapping[str, str],
    entries: Sequence[tuple[Table, bool, int]],
    full: int,
    plain: Plain | None,
) -> Column:
    """`entries`: (table, truth, bits): where the table comes to `truth`, these bits are cleared."""
    in_order = ordered(variable, types)
    # An outcome is true or false, whether or not a table tells the two apart.
    cuts = [False] if plain is not None else sorted({cut for table, _, _ in entries for cut in table.cuts})
    at = {cut: place for place, cut in enumerate(cuts)}
    spans = _Spans(len(cuts) + 1)
    missing = 0
    # The runtime is asked about a value that tables say nothing of. Until then no alternative is lost.
    unknown = full & ~reduce(or_, (bits for _, truth, bits in entries if truth), 0)
    for table, truth, bits in entries:
        places = [at[cut] for cut in table.cuts]
        if in_order:
            edges = [0, *(place + 1 for place in places), len(cuts) + 1]
            for (begin, end), holds in zip(pairwise(edges), table.holds, strict=True):
                if holds is truth:
                    spans.add(begin, end, bits)
        else:
            *single, other = table.holds
            edges = [-1, *places, len(cuts) + 1]
            if other is truth:
                for begin, end in pairwise(edges):
                    spans.add(begin + 1, end, bits)
            for place, holds in zip(places, single, strict=True):
                if holds is truth:
                    spans.add(place, place + 1, bits)
        if table.missing is truth:
            missing |= bits
    rows = [full & ~cleared for cleared in spans.totals()]
    kind = bool if plain is not None else _PYTHON[types[variable.fact]]
    if in_order:
        changes = [place for place in range(len(cuts)) if rows[place] != rows[place + 1]]
        cuts = [cuts[place] for place in changes]
        rows = [rows[0], *(rows[place + 1] for place in changes)]
    if kind is datetime and variable.kind != "presence":
        ends = (-REACH, REACH) if variable.kind == "age" else (EARLIEST, LATEST)
        cuts, rows = [ends[0], *cuts, ends[1]], [unknown, *rows, unknown]
    rows += [full & ~missing, unknown]
    return Column(variable, kind, in_order, cuts, rows, full & ~reduce(and_, rows), plain)


class _Spans:
    """Bits added over ranges of places, in a segment tree: each range takes a logarithm of additions."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._size = 1 << (places - 1).bit_length()
        self._tree = [0] * (2 * self._size)

    def add(self, begin: int, end: int, bits: int) -> None:
        begin, end = begin + self._size, end + self._size
        while begin < end:
            if begin & 1:
                self._tree[begin] |= bits
                begin += 1
            if end & 1:
                end -= 1
                self._tree[end] |= bits
            begin, end = begin >> 1, end >> 1

    def totals(self) -> list[int]:
        for node in range(1, self._size):
            self._tree[2 * node] |= self._tree[node]
            self._tree[2 * node + 1] |= self._tree[node]
        return self._tree[self._size : self._size + self._places]

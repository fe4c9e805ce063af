"""Which of many lists of clauses hold for a customer: a row of bits per value of each fact, and-ed together.

Each list has a bit. For every fact that tabulated clauses ask about, and every interval of its values, there
is the row of the lists that such a value does not rule out. A customer costs one look-up and one `&` per
fact; then only what could not be tabulated is put to the runtime, as long as a list that needs it is left.
The outcome is that of the reference, `Rules.evaluate`, bit for bit.

After the bits of the lists there is one for each term with alternatives on several facts. It stays set while
no alternative holds, and then rules out all lists with that term.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.arithmetic import Plain, Unsure
from arbitration.columns import column_of
from arbitration.rules import Case, Program
from arbitration.tabulation import Table, Terms, Variable

Bools = npt.NDArray[np.bool_]

MOST_BYTES = 64 * 2**20
"""Of the rows of one index. Clauses on the facts that would need more are left to the runtime."""
_FIRST_YEAR, _LAST_YEAR = 1972, 2098  # within `REACH` of these, the runtime takes times over exactly


class Index:
    """Lists of clauses, tabulated."""

    def __init__(
        self,
        lists: Sequence[Collection[int]],
        programs: Sequence[Program],
        terms: Mapping[int, Terms],
        types: Mapping[str, str],
        comparisons: Mapping[str, Plain],
    ) -> None:
        """`lists`: the clauses that must all hold, for each bit. `programs`, `terms`: by clause. `types`: of
        the facts. `comparisons`: of plain arithmetic, by their text."""
        self.size = len(lists)
        self._needing = _needing(lists)
        kept = _kept([terms[clause] for clause in self._needing], self.size)
        entries: dict[Variable, list[tuple[Table, bool, int]]] = defaultdict(list)
        alternatives: list[int] = []
        left_over: list[int] = []
        never = 0
        for clause, bits in self._needing.items():
            here = [term for term in terms[clause].terms if kept.issuperset(term)]
            if not terms[clause].complete or len(here) < len(terms[clause].terms):
                left_over.append(clause)
            for term in here:
                if not term:
                    never |= bits
                elif len(term) == 1:
                    ((variable, table),) = term.items()
                    entries[variable].append((table, False, bits))
                else:
                    for variable, table in term.items():
                        entries[variable].append((table, True, 1 << (self.size + len(alternatives))))
                    alternatives.append(bits)
        width = self.size + len(alternatives)
        full = (1 << width) - 1
        self._begin = full & ~never
        self._ruling = tuple(full & ~bits for bits in alternatives)
        self._left_over = tuple((clause, self._needing[clause]) for clause in left_over)
        of_fact: dict[str, list[tuple[int, int]]] = defaultdict(list)
        personal = 0
        for clause, bits in self._needing.items():
            for name in programs[clause].names:
                of_fact[name].append((clause, bits))
            for variable in {variable for term in terms[clause].terms for variable in term}:
                if variable.kind == "outcome":
                    of_fact[variable.fact].append((clause, bits))
            if programs[clause].personal:
                personal |= bits
        self._of_fact = dict(of_fact)
        self._of_objectors = self._begin & ~personal
        columns = [
            column_of(variable, types, found, full, comparisons.get(variable.fact))
            for variable, found in entries.items()
        ]
        self.columns = tuple(columns)
        self._numbers = [
            (column.variable.fact, column.type, column.cuts, column.rows, column.rows[-2])
            for column in columns
            if column.in_order and column.type is not datetime
        ]
        self._choices = [
            (
                column.variable.fact,
                column.type,
                dict(zip(column.cuts, column.rows, strict=False)),
                column.rows[-3],
                column.rows[-2],
            )
            for column in columns
            if not column.in_order and column.variable.kind == "value"
        ]
        self._ages = [
            (column.variable.fact, column.cuts, column.rows, column.rows[-2])
            for column in columns
            if column.variable.kind == "age"
        ]
        self._outcomes = [
            (column.variable.fact, column.plain, column.rows, column.clears)
            for column in columns
            if column.plain is not None
        ]
        self._others = [
            column
            for column in columns
            if column.variable.kind in ("contains", "presence")
            or (column.variable.kind == "value" and column.type is datetime)
        ]
        self._unknown = {column.variable.fact: full for column in columns}
        for column in columns:
            self._unknown[column.variable.fact] &= column.rows[-1]
        self._timed = any(column.type is datetime for column in columns)

    def holding(self, case: Case) -> int:
        """The lists that hold for a customer, as bits."""
        left = self._of_objectors if case.objects else self._begin
        if not self._tells(case.now):
            return self._asked(left & ((1 << self.size) - 1), self._needing.items(), case)
        get = case.facts.get
        odd: list[str] = []
        value: Any
        for fact, kind, cuts, rows, missing in self._numbers:
            value = get(fact)
            if type(value) is kind:
                left &= rows[bisect_right(cuts, value)]
            elif value is None:
                left &= missing
            else:
                odd.append(fact)
        for fact, kind, choices, other, missing in self._choices:
            value = get(fact)
            if type(value) is kind:
                left &= choices.get(value, other)
            elif value is None:
                left &= missing
            else:
                odd.append(fact)
        for fact, cuts, rows, missing in self._ages:
            value = get(fact)
            if type(value) is datetime and value.tzinfo is UTC:
                place = bisect_right(cuts, value - case.now)
                left &= rows[place]
                if not 0 < place < len(cuts):
                    odd.append(fact)
            elif value is None:
                left &= missing
            else:
                odd.append(fact)
        for text, plain, rows, clears in self._outcomes:
            if left & clears:
                try:
                    left &= rows[plain(case.facts)]
                except KeyError:
                    left &= rows[-2]
                except Unsure:
                    odd.append(text)
        for column in self._others:
            if left & column.clears:
                place = column.place(case)
                left &= column.rows[place]
                if place == column.unknown:
                    odd.append(column.variable.fact)
        return self._finished(left, odd, case)

    def unpacked(self, bits: int) -> Bools:
        """The bits of `holding` as bool (lists,), of the caller's own."""
        packed = np.frombuffer(bits.to_bytes((self.size + 7) // 8, "little"), np.uint8)
        return np.unpackbits(packed, count=self.size, bitorder="little").view(np.bool_)

    def _tells(self, now: datetime) -> bool:
        """Whether the tables are good for this time."""
        return not self._timed or (now.tzinfo is UTC and _FIRST_YEAR <= now.year <= _LAST_YEAR)

    def _finished(self, left: int, odd: Iterable[str], case: Case) -> int:
        for fact in odd:
            left &= self._unknown[fact]
        pending = left >> self.size
        while pending:
            lowest = pending & -pending
            left &= self._ruling[lowest.bit_length() - 1]
            pending ^= lowest
        left &= (1 << self.size) - 1
        for fact in odd:
            left = self._asked(left, self._of_fact[fact], case)
        return self._asked(left, self._left_over, case)

    def _asked(self, left: int, clauses: Iterable[tuple[int, int]], case: Case) -> int:
        """Without the lists that need one of `clauses` that does not hold, by the runtime."""
        for clause, bits in clauses:
            if left & bits and not case.holds(clause):
                left &= ~bits
        return left


def _needing(lists: Sequence[Collection[int]]) -> dict[int, int]:
    """The lists that need each clause, as bits."""
    found: dict[int, bytearray] = {}
    for number, clauses in enumerate(lists):
        for clause in clauses:
            if clause not in found:
                found[clause] = bytearray((len(lists) + 7) // 8)
            found[clause][number >> 3] |= 1 << (number & 7)
    return {clause: int.from_bytes(found[clause], "little") for clause in sorted(found)}


def _kept(found: Sequence[Terms], width: int) -> set[Variable]:
    """The variables whose rows there is room for, those with the fewest first."""
    cuts: dict[Variable, set[Any]] = defaultdict(set)
    for terms in found:
        for term in terms.terms:
            for variable, table in term.items():
                cuts[variable].update(table.cuts)
    kept = set()
    room = MOST_BYTES // max(width // 8, 1)
    for variable in sorted(cuts, key=lambda each: (len(cuts[each]), each)):
        room -= len(cuts[variable]) + 5
        if room >= 0:
            kept.add(variable)
    return kept

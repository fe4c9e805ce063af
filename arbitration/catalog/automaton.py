"""What a pattern of `matches` costs at most: in steps, for one text of a given length.

The runtime keeps nothing of a pattern between two calls. Each call reads it, lays out its automaton (RE2,
over the bytes of UTF-8), and makes its deterministic one as far as the text leads, a state at a time. So a
call costs the layout, and a move for each character, which is cheap only where the move was made before. How
many different moves there are is counted here, over characters: a state is the row of positions in the
pattern (Glushkov's construction) that may be next, in the order in which they are tried. Where they are too
many to count, each character is taken to need a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from arbitration.catalog.pattern import Part, Ranges, Reader

# Steps of 100 ns, as measured at worst; see docs/security.md.
_CALL, _HOT = 40.0, 0.1  # a call, a character whose move is known
_MOVE, _ACTIVE = 1.0, 0.6  # a new move, and each position that it starts from
_MOST_POSITIONS, _MOST_LAYOUT, _MOST_COUNTED = 100, 30_000.0, 10_000.0
_WIDE_MOVES = 20  # the bytes of what is not ASCII lead through so many states of their own

Row = tuple[int, ...]
_OUT = -1


@lru_cache(maxsize=10_000)
def price(pattern: str, length: float) -> float:
    """Steps of one call on a text of at most `length` characters. Raises Refused."""
    reader = Reader(pattern)
    root = reader.whole()
    around = _CALL + root.layout + length * _HOT
    each = _MOVE + _ACTIVE * root.positions
    many = root.positions > _MOST_POSITIONS or root.layout > _MOST_LAYOUT
    if length * each <= 1000 or many or not reader.countable:
        return around + length * each
    return around + min(length * each, _Moves(root).counted())


@dataclass(frozen=True, slots=True)
class _Ends:
    """Of a part, in the order in which the runtime tries them: the positions that it may begin with, where
    the text begins and after that, _OUT where it may be empty; and the positions that it may end with."""

    first: Row
    later: Row
    last: Row


class _Moves:
    """The moves of the deterministic automaton of a pattern."""

    def __init__(self, root: Part) -> None:
        self._ranges: list[Ranges] = []
        self._after: list[Row] = []  # the positions after each, _OUT where its part may end
        self._ends = self._laid(root)

    def counted(self) -> float:
        """Steps to make all of them, or more than `_MOST_COUNTED`: infinity."""
        kinds = self._kinds()
        # What is not ASCII is several bytes, each a move.
        wide = any(high > 127 for ranges in self._ranges for _, high in ranges)
        moves = len(kinds) + (_WIDE_MOVES if wide else 1)
        known, todo, total = {self._ends.first}, [self._ends.first], 0.0
        while todo:
            state = todo.pop()
            total += moves * (_MOVE + _ACTIVE * len(state))
            if total > _MOST_COUNTED:
                return float("inf")
            for kind in kinds:
                after = (self._after[at] for at in state if at in kind)
                following = _row(*after, self._ends.later)
                if following not in known:
                    known.add(following)
                    todo.append(following)
        return total

    def _kinds(self) -> set[frozenset[int]]:
        """For each kind of character, the positions that take it."""
        changes = {0} | {code for ranges in self._ranges for low, high in ranges for code in (low, high + 1)}
        return {
            frozenset(
                at
                for at, ranges in enumerate(self._ranges)
                if any(low <= code <= high for low, high in ranges)
            )
            for code in changes
        }

    def _laid(self, part: Part) -> _Ends:
        if part.kind == "set":
            at = len(self._ranges)
            self._ranges.append(part.ranges)
            self._after.append((_OUT,))
            return _Ends((at,), (at,), (at,))
        if part.kind == "begin":
            return _Ends((_OUT,), (), ())
        if part.kind == "many":
            return self._many(part)
        laid = [self._laid(each) for each in part.parts]
        if part.kind == "or":
            return _Ends(
                _row(*(each.first for each in laid)),
                _row(*(each.later for each in laid)),
                _row(*(each.last for each in laid)),
            )
        found = _NOTHING
        for each in laid:
            found = self._joined(found, each)
        return found

    def _joined(self, one: _Ends, other: _Ends) -> _Ends:
        for at in one.last:
            self._after[at] = _instead(self._after[at], other.later)
        last = _row(other.last, one.last if _OUT in other.later else ())
        return _Ends(_instead(one.first, other.first), _instead(one.later, other.later), last)

    def _many(self, part: Part) -> _Ends:
        """`x{2,4}` is `xx(x(x)?)?`."""
        (inner,) = part.parts
        least, most = part.least, part.most
        found = _NOTHING
        times = most if most is not None else max(least, 1)
        for nth in reversed(range(times)):
            copy = self._laid(inner)
            if most is None and nth == times - 1:
                again = _or_out(copy.later, part.lazy)
                for at in copy.last:
                    self._after[at] = _instead(self._after[at], again)
            found = self._joined(copy, found)
            if nth >= least:
                found = _Ends(_or_out(found.first, part.lazy), _or_out(found.later, part.lazy), found.last)
        return found


_NOTHING = _Ends((_OUT,), (_OUT,), ())


def _row(*rows: Row) -> Row:
    return tuple(dict.fromkeys(at for row in rows for at in row))


def _instead(row: Row, out: Row) -> Row:
    """With `out` where it may be left."""
    if _OUT not in row:
        return row
    at = row.index(_OUT)
    return _row(row[:at], out, row[at + 1 :])


def _or_out(row: Row, lazy: bool) -> Row:
    within = tuple(at for at in row if at != _OUT)
    return (_OUT, *within) if lazy else (*within, _OUT)

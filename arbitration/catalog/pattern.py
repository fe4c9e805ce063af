"""What a pattern of `matches` is made of, and what it takes to lay it out."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

# Steps of 100 ns, as measured at worst.
_ASCII, _WIDE, _FOLDED, _WRITTEN = 10.0, 40.0, 120.0, 12.0  # layout: a position; each character of a class
_MOST_TIMES, _DEEPEST = 1000, 50
_MOST = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]


class Refused(Exception):
    """A pattern that no rule may have."""

    message = "has a pattern that cannot be read"


class Unicode(Refused):
    """A class such as `\\pL`: laying it out takes a millisecond at each call."""

    message = "has a pattern with a Unicode class (\\p, \\P), which takes too long: write out its ranges"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pattern, with the positions in it and what their layout takes."""

    kind: str  # set, cat, or, many, begin, none
    parts: tuple[Part, ...] = ()
    ranges: Ranges = ()
    least: int = 1
    most: int | None = 1
    lazy: bool = False
    positions: float = 0.0
    layout: float = 3.0


class Reader:
    """The syntax of RE2 (github.com/google/re2/wiki/Syntax)."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._folded = self._lines = self._dots = False
        self.countable = True
        """Whether the moves depend on nothing but the characters before: not on the next, as of `\\b`."""

    def whole(self) -> Part:
        part = self._either()
        if self._at < len(self._text):
            raise Refused
        return part

    def _ahead(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _taken(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(pattern, re.DOTALL).match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _either(self) -> Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Refused
        flags = self._folded, self._lines, self._dots
        ways = [self._row()]
        while self._ahead("|"):
            ways.append(self._row())
        self._folded, self._lines, self._dots = flags
        self._depth -= 1
        return ways[0] if len(ways) == 1 else _together("or", ways)

    def _row(self) -> Part:
        parts: list[Part] = []
        repeated = False
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if self._ahead(r"\Q"):
                quoted = self._taken(r"(.*?)(?:\\E|$)")
                parts += [self._one(ord(each)) for each in (quoted[1] if quoted else "")]
            elif found := self._taken(r"([*+?]|\{(\d+)(,(\d*))?\})\??"):
                if not parts or repeated or max(int(found[2] or 0), int(found[4] or 0)) > _MOST_TIMES:
                    raise Refused  # so it is to the runtime
                parts.append(_repeated(parts.pop(), found))
                repeated = True
                continue
            else:
                parts.append(self._atom())
            repeated = False
        return _together("cat", parts)

    def _atom(self) -> Part:
        if self._ahead("("):
            return self._group()
        if self._ahead("["):
            return self._class()
        if self._ahead("."):
            return self._set(((0, _MOST),) if self._dots else ((0, 9), (11, _MOST)), 1)
        if self._ahead(r"\A"):
            return Part("begin")
        if self._ahead("^"):
            self.countable &= not self._lines
            return Part("begin")
        if self._ahead("$") or self._ahead(r"\z"):
            self.countable &= not self._lines
            return self._set((), 1)  # nothing that comes later may follow
        if self._taken(r"\\[bB]"):
            self.countable = False
            return Part("none")
        if self._ahead(r"\C"):
            return self._set(((0, _MOST),), 1)
        return self._set(self._escape() or self._both(self._char()), 1)

    def _group(self) -> Part:
        if not self._ahead("?") or self._taken(r"P?<\w+>"):
            inner = self._either()
        elif found := self._taken(r"([imsU]*)(?:-([imsU]+))?([:)])"):
            before = self._folded, self._lines, self._dots
            self.countable &= "U" not in found[0]
            self._folded = "i" in found[1] or (self._folded and "i" not in (found[2] or ""))
            self._lines = "m" in found[1] or (self._lines and "m" not in (found[2] or ""))
            self._dots = "s" in found[1] or (self._dots and "s" not in (found[2] or ""))
            if found[3] == ")":
                return Part("none")
            inner = self._either()
            self._folded, self._lines, self._dots = before
        else:
            raise Refused
        if not self._ahead(")"):
            raise Refused
        return inner

    def _class(self) -> Part:
        outside = self._ahead("^")
        ranges: list[tuple[int, int]] = []
        written = 0
        while not self._ahead("]") or written == 0:
            if self._at >= len(self._text):
                raise Refused
            written += 1
            if self._text[self._at - 1] == "]" and written == 1 and self._text[self._at - 2] in "[^":
                low = ord("]")
            elif found := self._taken(r"\[:(\^?)(\w+):\]"):
                ranges += _named(found[2], bool(found[1]))
                continue
            elif several := self._escape():
                ranges += several
                continue
            else:
                ((low, _),) = self._char()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                ((high, _),) = self._char()
                ranges.append((low, high))
            else:
                ranges.append((low, low))
        both = self._both(ranges)
        return self._set(_outside(both) if outside else both, written)

    def _escape(self) -> Ranges | None:
        """An escape that is a class of characters."""
        if self._taken(r"\\[pP]"):
            raise Unicode
        if found := self._taken(r"\\([dwsDWS])"):
            ranges = _SHORT[found[1].lower()]
            return ranges if found[1].islower() else _outside(ranges)
        return None

    def _char(self) -> Ranges:
        if not self._ahead("\\"):
            found = self._taken(".")
            if found is None:
                raise Refused
            code = ord(found[0])
        elif found := self._taken(r"x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))|([0-7]{1,3})"):
            code = int(found[3], 8) if found[3] else int(found[1] or found[2], 16)
        elif found := self._taken(r"([afnrtv])|([^0-9A-Za-z])"):
            code = ord(
                {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}.get(found[0], found[0])
            )
        else:
            raise Refused
        return ((code, code),)

    def _one(self, code: int) -> Part:
        return self._set(self._both([(code, code)]), 1)

    def _both(self, ranges: Sequence[tuple[int, int]]) -> Ranges:
        """In either case, where it does not matter."""
        if not self._folded:
            return tuple(ranges)
        found = list(ranges)
        for low, high in ranges:
            self.countable &= high < 128  # of others, what is the other case is not known here
            for begin, end, by in ((*_UPPER, 32), (*_LOWER, -32)):
                if max(low, begin) <= min(high, end):
                    found.append((max(low, begin) + by, min(high, end) + by))
            # The sign of kelvin and the long s are a K and an S.
            found += [(sign, sign) for code, sign in ((107, 0x212A), (115, 0x17F)) if low <= code <= high]
        return tuple(found)

    def _set(self, ranges: Ranges, written: int) -> Part:
        wide = any(high > 127 for _, high in ranges)
        layout = _ASCII if not wide else (_FOLDED if self._folded else _WIDE) + _WRITTEN * (written - 1)
        return Part("set", (), ranges, positions=2.0 if wide else 1.0, layout=layout)


def _repeated(part: Part, found: re.Match[str]) -> Part:
    if found[2] is not None:
        least = int(found[2])
        most = least if found[3] is None else int(found[4]) if found[4] else None
    else:
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
    times = max(least, most or 0, 1)
    lazy = len(found[0]) > 1 and found[0].endswith("?")
    layout = 3.0 + part.layout * times
    return Part("many", (part,), (), least, most, lazy, part.positions * times, layout)


def _together(kind: str, parts: list[Part]) -> Part:
    positions, layout = sum(part.positions for part in parts), sum(part.layout for part in parts)
    return Part(kind, tuple(parts), positions=positions, layout=3.0 + layout)


def _named(name: str, outside: bool) -> Ranges:
    ranges = _NAMED.get(name)
    if ranges is None:
        raise Refused
    return _outside(ranges) if outside else ranges


def _outside(ranges: Ranges | list[tuple[int, int]]) -> Ranges:
    found, after = [], 0
    for low, high in sorted(ranges):
        if low > after:
            found.append((after, low - 1))
        after = max(after, high + 1)
    return (*found, (after, _MOST)) if after <= _MOST else tuple(found)


def _spans(letters: str) -> Ranges:
    return tuple((ord(each), ord(each)) for each in letters)


_DIGIT, _UPPER, _LOWER = (48, 57), (65, 90), (97, 122)
_SHORT: dict[str, Ranges] = {
    "d": (_DIGIT,), "w": (_DIGIT, _UPPER, _LOWER, (95, 95)), "s": _spans("\t\n\f\r "),
}  # fmt: skip
_NAMED: dict[str, Ranges] = {
    "alnum": (_DIGIT, _UPPER, _LOWER), "alpha": (_UPPER, _LOWER), "ascii": ((0, 127),),
    "blank": _spans("\t "), "cntrl": ((0, 31), (127, 127)), "digit": (_DIGIT,), "graph": ((33, 126),),
    "lower": (_LOWER,), "print": ((32, 126),), "punct": _spans(string.punctuation), "upper": (_UPPER,),
    "space": _spans("\t\n\v\f\r "), "word": _SHORT["w"], "xdigit": (_DIGIT, (65, 70), (97, 102)),
}  # fmt: skip

"""The syntax tree of a compiled rule, out of the form in which the runtime gives it away.

That is `cel.expr.CheckedExpr` (github.com/google/cel-spec, proto/cel/expr/checked.proto and syntax.proto) in
the wire format of Protocol Buffers: a field's number and kind, then its content. Numbers below are those of
the fields there. Macros are expanded: `all`, `exists`, `map` and their like are comprehensions here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 100

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CONTENT = 2  # of google.protobuf.Any
_EXPRESSION, _SOURCE, _POSITIONS = 4, 5, 4
_ID, _CONSTANT, _NAME, _SELECT, _CALL, _LIST, _MAP, _FOLD = 2, 3, 4, 5, 6, 7, 8, 9
_BOOL, _INT, _DOUBLE, _STRING = 2, 3, 5, 6


class TooDeep(Exception):
    """A tree of more than `DEEPEST` levels."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal; `text` where it is a string, `value` where it is a bool, an int, a double or a string."""

    at: int
    text: str | None
    value: bool | int | float | str | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A fact, or a variable of a comprehension."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator (`_+_`) and what it is given; of a method, its object first. `""`: a field is
    taken."""

    at: int
    function: str
    given: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A list or map that is written out."""

    at: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """For each `variable` of `over`, while `goes_on`, `result` becomes `step`; in the end, `outcome`."""

    at: int
    variable: str
    over: Node
    result: str
    begin: Node
    goes_on: Node
    step: Node
    outcome: Node


Node = Constant | Name | Call | Literal | Fold
Raw = int | bytes


def tree(serialized: bytes) -> Node:
    """The tree; `at` of a node is its place in the text, in characters from 0. Raises TooDeep."""
    checked = dict(_fields(_one(serialized, _CONTENT)))
    source, expression = checked.get(_SOURCE, b""), checked[_EXPRESSION]
    assert isinstance(source, bytes)
    assert isinstance(expression, bytes)
    places: dict[int, int] = {}
    for number, entry in _fields(source):
        if number == _POSITIONS:
            assert isinstance(entry, bytes)
            pair = dict(_fields(entry))
            places[_int(pair.get(1, 0))] = _int(pair.get(2, 0))
    return _node(expression, places, 0)


def _node(raw: bytes, places: dict[int, int], depth: int) -> Node:
    if depth > DEEPEST:
        raise TooDeep
    at = 0
    kind, content = 0, b""
    for number, value in _fields(raw):
        if number == _ID:
            at = places.get(_int(value), 0)
        elif isinstance(value, bytes):
            kind, content = number, value

    def nodes(*numbers: int) -> tuple[Node, ...]:
        found = (value for number, value in _fields(content) if number in numbers)
        return tuple(_node(value, places, depth + 1) for value in found if isinstance(value, bytes))

    match kind:
        case 3:
            return _constant(at, content)
        case 4:
            return Name(at, _one(content, 1).decode())
        case 5:
            return Call(at, "", nodes(1))
        case 6:
            return Call(at, _one(content, 2).decode(), (*nodes(1), *nodes(3)))
        case 7:
            return Literal(at, nodes(1))
        case 8:
            entries = [value for number, value in _fields(content) if number == 2]
            parts = [dict(_fields(entry)) for entry in entries if isinstance(entry, bytes)]
            both = [part[number] for part in parts for number in (3, 4) if number in part]
            found = (_node(value, places, depth + 1) for value in both if isinstance(value, bytes))
            return Literal(at, tuple(found))
        case 9:
            parts_of = dict(_fields(content))
            over, begin, goes_on, step, outcome = (nodes(number)[0] for number in (2, 4, 5, 6, 7))
            variable, result = (parts_of.get(number, b"") for number in (1, 3))
            assert isinstance(variable, bytes)
            assert isinstance(result, bytes)
            return Fold(at, variable.decode(), over, result.decode(), begin, goes_on, step, outcome)
    return Constant(at, None)


def _constant(at: int, content: bytes) -> Constant:
    ((number, raw),) = _fields(content)
    if isinstance(raw, int):
        signed = raw - 2**64 if raw >= 2**63 else raw
        return Constant(at, None, {_BOOL: bool(raw), _INT: signed}.get(number))
    if number == _DOUBLE:
        return Constant(at, None, struct.unpack("<d", raw)[0])
    text = raw.decode(errors="replace")
    return Constant(at, text, text if number == _STRING else None)


def _one(raw: bytes, wanted: int) -> bytes:
    found = dict(_fields(raw)).get(wanted, b"")
    assert isinstance(found, bytes)
    return found


def _int(value: Raw) -> int:
    return value if isinstance(value, int) else 0


def _fields(raw: bytes) -> Iterator[tuple[int, Raw]]:
    """(number, content) of each field: an int, or bytes."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(raw, at)
            yield key >> 3, value
            continue
        length = 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else 0
        if kind == _BYTES:
            length, at = _varint(raw, at)
        yield key >> 3, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at

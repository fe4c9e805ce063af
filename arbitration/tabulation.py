"""What a rule comes to for each value of the facts it names, asked of the runtime once per catalog.

Most rules compare facts with constants. Between two neighbouring constants such a comparison cannot change,
so the reference runtime is asked at each constant, once in each gap, and with the fact missing; its answers
are the table. Nothing here works out a comparison itself. A rule is brought into terms that must all hold,
each of them alternatives on different facts. CEL's logic allows that: `a && b` is true where both are and
false where one is, `a || b` is true where one is and false where both are, even if the other is an error.

Comparisons of plain arithmetic are worked out in Python, and tabulated by their outcome. What cannot be
tabulated (functions, comprehensions) is left to the runtime.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

from arbitration.arithmetic import Plain, comparison
from arbitration.catalog.syntax import Call, Constant, Name, Node, TooDeep, tree
from arbitration.catalog.syntax import Literal as Listed
from arbitration.facts import Value
from arbitration.rules import Language, Program

Kind: TypeAlias = Literal["value", "age", "contains", "presence", "outcome"]

MOST_ASKED = 200_000
"""Evaluations for the tables of one catalog, some 8 µs each."""
MOST_TERMS = 16
"""Of one rule; writing out alternatives of conjunctions can make many."""
REACH = timedelta(days=365 * 140)
"""How far from `now` the age of a time is tabulated: far beyond the constants, and well within the 292 years
between two times that the runtime can subtract."""
EARLIEST, LATEST = datetime(1831, 1, 1, tzinfo=UTC), datetime(2240, 1, 1, tzinfo=UTC)
"""Between these the runtime takes over a time exactly; beyond, it may round the last microseconds."""
_FARTHEST = timedelta(days=36_525)
_NOW = datetime(2020, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_COMPARISONS = frozenset({"_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_"})
_LOGIC = frozenset({"!_", "_&&_", "_||_", "_?_:_"})
_PYTHON = {"bool": bool, "int": int, "double": float, "string": str}
_SOME: dict[str, Value] = {
    "bool": True, "int": 0, "double": 0.0, "string": "", "timestamp": _NOW, "strings": (),
}  # fmt: skip


class Variable(NamedTuple):
    """What a table is over: the `value` of a fact, its `age` (how far the time lies after `now`), whether it
    `contains` an item, or its `presence`; or the `outcome` of a comparison, `fact` being its text. `now`
    itself is a fact that is never missing."""

    fact: str
    kind: Kind
    item: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Whether something holds, by the value of one variable.

    Of numbers and times `holds[i]` is for values from `cuts[i - 1]` (included) up to `cuts[i]`. Of all else
    `cuts` are single values, `holds[i]` is for `cuts[i]`, and the last for any other. `missing`: where the
    fact is.
    """

    cuts: tuple[Any, ...]
    holds: tuple[bool, ...]
    missing: bool


_TRUE, _FALSE = Table((False,), (False, True), False), Table((False,), (True, False), False)

Term: TypeAlias = Mapping[Variable, Table]
"""Alternatives on different variables: it holds where one does. Never, where there are none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A rule holds only where all terms do; where they are `complete`, it holds exactly there."""

    terms: tuple[Term, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Reading:
    """A part of a rule that depends on one variable alone (None: on nothing), and the constants in it."""

    variable: Variable | None
    points: frozenset[Any]


def ordered(variable: Variable, types: Mapping[str, str]) -> bool:
    """Whether tables over a variable are over intervals, not single values."""
    return variable.kind == "age" or (
        variable.kind == "value" and types[variable.fact] in ("int", "double", "timestamp")
    )


@lru_cache(maxsize=2)
def tabulator_of(language: Language) -> Tabulator:
    """The tabulator of a language; what it has tabulated need not be again in the next catalog."""
    return Tabulator(language)


class Tabulator:
    """Tabulates the rules of a language."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._types = language.types
        self._tables: dict[str, tuple[Table, Table]] = {}
        self._terms_of: dict[str, Terms] = {}
        self._left = MOST_ASKED
        self.comparisons: dict[str, Plain] = {}
        """Those of plain arithmetic, by their text."""

    def begin(self) -> None:
        """Begins with another catalog: for each there is a bound to what is asked of the runtime."""
        self._left = MOST_ASKED

    def tabulate(self, program: Program) -> Terms:
        """The terms of a rule, as far as it can be tabulated."""
        found = self._terms_of.get(program.text)
        if found is None:
            found = self._tabulated(program)
            if self._left >= 0:  # else another time it may be more
                self._terms_of[program.text] = found
        return found

    def _tabulated(self, program: Program) -> Terms:
        try:
            node = tree(program.expression.serialize())
        except TooDeep:
            return Terms((), complete=False)
        found = self._terms(node, True, program)
        return Terms(tuple(term for term in found if term is not None), None not in found)

    def _terms(self, node: Node, wanted: bool, program: Program | None = None) -> list[Term | None]:
        """The terms of "`node` comes to `wanted`"; None is one that is not known. `program`: the whole rule,
        where `node` is the whole of it."""
        reading = self._read(node)
        if reading is not None:
            return self._asked(node, reading, wanted, program)
        match node:
            case Call(function="!_", given=(inner,)):
                return self._terms(inner, not wanted)
            case Call(function="_&&_" | "_||_" as operator, given=(one, other)):
                first, second = self._terms(one, wanted), self._terms(other, wanted)
                return first + second if (operator == "_&&_") == wanted else self._either(first, second)
            case Call(function="_?_:_", given=(condition, one, other)):
                return self._either(
                    self._terms(condition, True) + self._terms(one, wanted),
                    self._terms(condition, False) + self._terms(other, wanted),
                )
            case _ if (plain := comparison(node, self._types)) is not None:
                text = _written(node)
                self.comparisons[text] = plain
                return [{Variable(text, "outcome"): _TRUE if wanted else _FALSE}]
        return [None]

    def _either(self, first: list[Term | None], second: list[Term | None]) -> list[Term | None]:
        """Terms of which all hold where all of `first` or all of `second` do."""
        if len(first) * len(second) > MOST_TERMS:
            return [None]
        return [
            None if one is None or other is None else _merged(one, other, self._types)
            for one in first
            for other in second
        ]

    def _asked(
        self, node: Node, reading: _Reading, wanted: bool, program: Program | None
    ) -> list[Term | None]:
        text = _written(node)
        if text not in self._tables:
            self._left -= 2 * len(reading.points) + 3
            if self._left < 0:
                return [None]
            if program is None:
                program = self._language.part(text)
                if _written(tree(program.expression.serialize())) != text:
                    return [None]  # it would be another rule
            self._tables[text] = self._ask(program, reading)
        table = self._tables[text][0 if wanted else 1]
        if reading.variable is None:
            return [] if table.missing else [{}]
        return [{reading.variable: table}]

    def _ask(self, program: Program, reading: _Reading) -> tuple[Table, Table]:
        """The tables of where it is true and where it is false."""
        variable = reading.variable
        cuts: Sequence[Any] = ()
        answers = []
        if variable is not None:
            cuts, values = _values(variable, self._types.get(variable.fact, ""), reading.points)
            answers = [self._truth(program, variable, value) for value in values]
        missing = program.truth(self._language.activation({}, _NOW))
        in_order = variable is not None and ordered(variable, self._types)
        true, false = (
            _shortened(cuts, [answer is wanted for answer in answers], missing is wanted, in_order)
            for wanted in (True, False)
        )
        return true, false

    def _truth(self, program: Program, variable: Variable, value: Any) -> bool | None:
        now, fact = _NOW, value
        if variable.fact == "now":
            return program.truth(self._language.activation({}, value))
        match variable.kind:
            case "age":
                fact = now + value
            case "contains":
                fact = (variable.item,) if value else ()
            case "presence":
                fact = _SOME[self._types[variable.fact]]
        return program.truth(self._language.activation({variable.fact: fact}, now))

    def _read(self, node: Node) -> _Reading | None:
        match node:
            case Constant(value=bool()):
                return _Reading(None, frozenset())
            case Name(name=name) if name.startswith("has."):
                return _Reading(Variable(name.removeprefix("has."), "presence"), frozenset())
            case Name(name=name) if self._types.get(name) == "bool":
                return _Reading(Variable(name, "value"), frozenset())
            case Call(function=function, given=given) if function in _LOGIC:
                return _joined(self._read(part) for part in given)
            case Call(function=function, given=(one, other)) if function in _COMPARISONS:
                alike = function in ("_==_", "_!=_")
                return self._compared(one, other, alike) or self._compared(other, one, alike)
            case Call(function="@in", given=(Name(name=name), Listed(items=items))) if items:
                return _joined([self._compared(Name(0, name), item, True) for item in items])
            case Call(function="@in", given=(Constant(value=str(text)), Name(name=name))):
                if self._types.get(name) == "strings":
                    return _Reading(Variable(name, "contains", text), frozenset())
        return None

    def _compared(self, subject: Node, other: Node, alike: bool) -> _Reading | None:
        """`subject` compared with a constant; `alike`: only whether they are equal."""
        match subject, other:
            case Name(name=name), Constant(value=value) if self._types.get(name) in _PYTHON:
                fits = type(value) is _PYTHON[self._types[name]] and (alike or type(value) is not str)
                finite = type(value) is not float or math.isfinite(value)
                return _Reading(Variable(name, "value"), frozenset([value])) if fits and finite else None
            case Name(name=name), Call(function="timestamp", given=(Constant(value=str(text)),)):
                moment = self._language.constant(f"timestamp({_quoted(text)})")
                if isinstance(moment, datetime) and EARLIEST + _TICK * 9 < moment < LATEST - _TICK * 9:
                    return _Reading(Variable(name, "value"), frozenset([moment]))
            case Name(name=name), _ if name != "now" and self._types.get(name) == "timestamp":
                return self._aged(name, self._after_now(other))
            case Call(function="_-_", given=(Name(name=name), Name(name="now"))), _:
                return self._aged(name, self._span(other))
            case Call(function="_-_", given=(Name(name="now"), Name(name=name))), _:
                span = self._span(other)
                return self._aged(name, None if span is None else -span)
        return None

    def _aged(self, name: str, span: timedelta | None) -> _Reading | None:
        if name == "now" or span is None or abs(span) > _FARTHEST:
            return None
        return _Reading(Variable(name, "age"), frozenset([span]))

    def _after_now(self, node: Node) -> timedelta | None:
        """How far after now a time is that is written as `now`, or as it and a duration."""
        match node:
            case Name(name="now"):
                return timedelta(0)
            case Call(function="_+_", given=(Name(name="now"), span) | (span, Name(name="now"))):
                return self._span(span)
            case Call(function="_-_", given=(Name(name="now"), span)):
                back = self._span(span)
                return None if back is None else -back
        return None

    def _span(self, node: Node) -> timedelta | None:
        if not isinstance(node, Call) or node.function != "duration":
            return None
        match node.given:
            case (Constant(value=str(text)),):
                span = self._language.constant(f"duration({_quoted(text)})")
                return span if isinstance(span, timedelta) else None
        return None


def _joined(parts: Iterable[_Reading | None]) -> _Reading | None:
    """Several parts as one, if all are about the same variable."""
    variable: Variable | None = None
    points: frozenset[Any] = frozenset()
    for part in parts:
        if part is None:
            return None
        points |= part.points
        if part.variable is None or part.variable == variable:
            continue
        if variable is None or (variable.kind == "presence" and variable.fact == part.variable.fact):
            variable = part.variable
        elif part.variable != Variable(variable.fact, "presence"):
            return None
    return _Reading(variable, points)


def _merged(one: Term, other: Term, types: Mapping[str, str]) -> Term:
    """One term of the alternatives of both."""
    merged = {**one, **other}
    for variable in one.keys() & other.keys():
        merged[variable] = _union(one[variable], other[variable], ordered(variable, types))
    return merged


def _union(one: Table, other: Table, in_order: bool) -> Table:
    cuts = sorted({*one.cuts, *other.cuts})
    holds = [held(one, cut, in_order) or held(other, cut, in_order) for cut in cuts]
    rest = 0 if in_order else -1
    holds.insert(0 if in_order else len(holds), one.holds[rest] or other.holds[rest])
    return _shortened(cuts, holds, one.missing or other.missing, in_order)


def _values(variable: Variable, type: str, points: frozenset[Any]) -> tuple[Sequence[Any], list[Any]]:
    """Where to cut, and the values to ask at, one for each entry of `Table.holds`."""
    if variable.kind == "presence":
        return (), [None]
    if variable.kind == "contains" or type == "bool":
        return (False, True), [False, True, True]
    if variable.kind == "value" and type == "string":
        keys = sorted(points)
        return keys, [*keys, "x" * (max(map(len, keys), default=0) + 1)]
    if variable.kind == "age" or type == "timestamp":
        # Constants may have nanoseconds, which were cut off: one more tick on each side does no harm.
        cuts = sorted({point + _TICK * ticks for point in points for ticks in (-1, 0, 1, 2)})
        return cuts, [cuts[0] - _TICK, *cuts]
    if type == "int":
        cuts = sorted({cut for point in points for cut in (point, point + 1) if cut < 2**63})
        return cuts, [max(cuts[0] - 1, -(2**63)), *cuts]
    cuts = sorted({cut for point in points for cut in (point, math.nextafter(point, math.inf))})
    return cuts, [math.nextafter(cuts[0], -math.inf), *cuts]


def _shortened(cuts: Sequence[Any], holds: list[bool], missing: bool, in_order: bool) -> Table:
    """Without the cuts at which nothing changes."""
    if in_order:
        kept = [i for i in range(len(cuts)) if holds[i] != holds[i + 1]]
        return Table(tuple(cuts[i] for i in kept), (holds[0], *(holds[i + 1] for i in kept)), missing)
    kept = [i for i in range(len(cuts)) if holds[i] != holds[-1]]
    last = holds[-1:]  # nothing where there is no variable
    return Table(tuple(cuts[i] for i in kept), (*(holds[i] for i in kept), *last), missing)


def held(table: Table, cut: Any, in_order: bool) -> bool:
    """Whether it holds at a value that is there."""
    if in_order:
        return table.holds[bisect_right(table.cuts, cut)]
    return table.holds[table.cuts.index(cut) if cut in table.cuts else -1]


def _written(node: Node) -> str:
    """A part of a rule as text. Only for what `_read` or `comparison` reads."""
    match node:
        case Constant(value=bool(value)):
            return "true" if value else "false"
        case Constant(value=str(text)):
            return _quoted(text)
        case Constant(value=value):
            return repr(value)
        case Name(name=name):
            return name
        case Listed(items=items):
            return f"[{', '.join(map(_written, items))}]"
        case Call(function="!_", given=(inner,)):
            return f"!({_written(inner)})"
        case Call(function="_?_:_", given=given):
            condition, one, other = map(_written, given)
            return f"(({condition}) ? ({one}) : ({other}))"
        case Call(function="-_", given=(inner,)):
            return f"-({_written(inner)})"
        case Call(function="timestamp" | "duration" | "double" as name, given=(inner,)):
            return f"{name}({_written(inner)})"
        case Call(function=function, given=(one, other)):
            return f"({_written(one)} {'in' if function == '@in' else function.strip('_')} {_written(other)})"
    raise AssertionError(node)


def _quoted(text: str) -> str:
    plain = (c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'

"""Rules in CEL, typed at publish, and what they come to: the reference for all that is faster.

Facts are declared as dotted variables (`customer.nps`), so the reference runtime (the official C++
implementation) refuses a misspelled name or a wrong type when the rule is compiled, and turns a
missing value into an error value when it is evaluated. Equal expressions are one program: a catalog
of a thousand actions has few distinct clauses. A decision asks `arbitration.index` which of them hold; the
runtime evaluates those that could not be tabulated, and all when a decision is explained.

`has(customer.x)` asks whether a fact is known. The runtime's own `has` works on messages only, so it
is rewritten, at the same length to keep error columns true, to a bool variable bound per decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings

from arbitration.facts import Declared, Facts, personal

if TYPE_CHECKING:
    from arbitration.catalog.model import FactType

    Wanted: TypeAlias = FactType | Literal["number"]

Status = npt.NDArray[np.int8]

_CEL_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
    "strings": cel.Type.List(cel.Type.STRING),
}
_MOST_REMEMBERED = 5_000
_NUMBERS = (cel.Type.INT, cel.Type.DOUBLE, cel.Type.UINT)
_STRING = (
    r"""(?:[rR][bB]?|[bB][rR])(?:"[^"\n]*"|'[^'\n]*')|"""
    r"[rRbB]{0,2}(?:"
    r'"""(?:\\.|[^\\])*?"""|'
    r"\'\'\'(?:\\.|[^\\])*?\'\'\'|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'(?:\\.|[^'\\\n])*')"
)
_COMMENT = r"//[^\n]*"
_FACT = r"(?:customer|scores|context)"
_HAS = re.compile(rf"({_STRING}|{_COMMENT})|(?<![\w.])has(\s*)\((\s*)({_FACT}\s*\.\s*\w+)(\s*)\)")
_ODD = re.compile(rf"{_STRING}|{_COMMENT}|(?<![\w.])(has)\s*\(|(?<![\w)\]}}.\s])\s*(\.)\s*(?:{_FACT}|now)\b")
_NAME = re.compile(rf"(?:{_STRING}|{_COMMENT})|(?<![\w.])({_FACT}\s*\.\s*\w+|now\b)")
_AT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class Truth(IntEnum):
    """What a clause came to. Only TRUE lets an arm pass."""

    TRUE = 1
    FALSE = 0
    MISSING = -1
    ERROR = -2


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """Why an expression does not compile; `line` and `column` from 1, in the text as authored."""

    message: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression and the facts it names (dotted names, `now` included)."""

    text: str
    names: tuple[str, ...]
    expression: Any

    @property
    def personal(self) -> bool:
        """Whether it names facts about the customer."""
        return any(personal(name) for name in self.names if name != "now")

    def number(self, activation: Any) -> float | None:
        """The expression's number, or None where it came to an error or to no finite number."""
        result = self._result(activation)
        number = None if result is None else result.value()
        if isinstance(number, int | float) and np.isfinite(number):
            return float(number)
        return None

    def value(self, activation: Any) -> object | None:
        """What the expression came to, as plain Python, or None where it came to an error."""
        result = self._result(activation)
        if result is None or result.type() in (cel.Type.ERROR, cel.Type.UNKNOWN):
            return None
        value: object = result.plain_value()
        return value

    def truth(self, activation: Any) -> bool | None:
        """Whether it holds, or None where it came to an error."""
        result = self._result(activation)
        holds = None if result is None else result.value()
        return holds if isinstance(holds, bool) else None

    def _result(self, activation: Any) -> Any:
        try:
            return self.expression.eval(activation)
        except RuntimeError:  # a comprehension over more than the runtime goes through
            return None


class Language:
    """The rule language over one catalog's declared facts: compiles text to programs."""

    def __init__(self, declared: Mapping[str, Declared], unknown: Iterable[str] = ()) -> None:
        """`unknown`: names of facts whose own declaration is broken; they take part as untyped, so
        that one broken declaration is not reported again by every rule that uses it."""
        self._asked: dict[str, str] = {}
        self._compiled: dict[tuple[str, str], Program | list[RuleProblem]] = {}
        variables = {name: _CEL_TYPES[fact.type] for name, fact in declared.items()}
        untyped = {name: cel.Type.DYN for name in unknown if name not in variables}
        self._lenient = bool(untyped)
        variables |= untyped
        variables |= {f"has.{name}": cel.Type.BOOL for name in variables}
        variables["now"] = cel.Type.TIMESTAMP
        self.types: Mapping[str, str] = {name: fact.type for name, fact in declared.items()} | {
            "now": "timestamp"
        }
        """The type of every fact, and of `now`."""
        self._env = cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings(), ext_math.ExtMath()])

    @property
    def full(self) -> bool:
        """Whether it has compiled so much, some 10 KB each, that another should take its place."""
        return len(self._compiled) > _MOST_REMEMBERED

    def compile(self, text: str, wanted: Wanted = "bool") -> Program | list[RuleProblem]:
        """A program whose result is of the type `wanted` (`number`: int or double), or what is wrong."""
        found = self._compiled.get((text, wanted))
        if found is None:
            found = self._compiled[text, wanted] = self._compile(text, wanted)
        return found

    def _compile(self, text: str, wanted: Wanted) -> Program | list[RuleProblem]:
        if odd := _unreadable(_presence(text)):
            return odd
        try:
            expression = self._env.compile(_presence(text))
        except RuntimeError as error:
            return _problems(str(error))
        kind = expression.return_type()
        allowed = _NUMBERS if wanted == "number" else (_CEL_TYPES[wanted],)
        if kind not in allowed and not (self._lenient and kind.name() == "DYN"):
            named = {"number": "a number", "bool": "true or false", "strings": "a list of strings"}
            message = f"must come to {named.get(wanted, wanted)}, this is of type {kind.name().lower()}"
            return [RuleProblem(message)]
        for match in _HAS.finditer(text):
            if match[1] is None:
                name = re.sub(r"\s", "", match[4])
                if name not in self._asked:  # made anew, as others may be going through it
                    self._asked = {**self._asked, name: f"has.{name}"}
        return Program(text, names(text), expression)

    def part(self, text: str) -> Program:
        """A part of a program of this language, `has.customer.x` standing for `has(customer.x)`."""
        return Program(text, (), self._env.compile(text))

    def constant(self, text: str) -> object | None:
        """What an expression without facts comes to, or None where it came to an error."""
        return Program(text, (), self._env.compile(text)).value(self._env.Activation({}))

    def activation(self, facts: Facts, now: datetime) -> Any:
        """The variables of one decision, bound once for all programs."""
        variables: dict[str, object] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()
        }
        for name, asked in self._asked.items():
            variables[asked] = name in facts
        variables["now"] = now
        return self._env.Activation(variables)


def language_of(declared: Mapping[str, Declared], unknown: Iterable[str] = ()) -> Language:
    """As `Language`, but one for all catalogs that declare the same: most rules of a new catalog are those of
    the one before, and are compiled already."""
    types = tuple((name, fact.type) for name, fact in declared.items())
    found = _language(types, tuple(unknown))
    if not found.full:
        return found
    _language.cache_clear()  # who uses it still has it
    return _language(types, tuple(unknown))


@lru_cache(maxsize=2)
def _language(types: tuple[tuple[str, FactType], ...], unknown: tuple[str, ...]) -> Language:
    return Language({name: Declared(type) for name, type in types}, unknown)


@dataclass(frozen=True, slots=True)
class Rules:
    """The distinct clauses of a catalog."""

    language: Language
    programs: tuple[Program, ...]

    def evaluate(self, facts: Facts, activation: Any, clauses: Sequence[int]) -> Status:
        """The `Truth` of each of `clauses` for one customer, whose `activation` of `facts` this is.

        Returns int8 of shape (len(programs) + 1,): entries not asked for are 0 (false), and the last,
        which pads shorter rule lists, is 1 (true).
        """
        status = np.zeros(len(self.programs) + 1, dtype=np.int8)
        status[-1] = Truth.TRUE
        for clause in clauses:
            program = self.programs[clause]
            holds = program.truth(activation)
            if holds:
                status[clause] = Truth.TRUE
            elif holds is None:
                missing = any(name not in facts for name in program.names if name != "now")
                status[clause] = Truth.MISSING if missing else Truth.ERROR
        return status


class Case:
    """What is known of one customer at a moment, and what the rules come to. Each is evaluated at most once,
    when it is first asked for, as are the variables bound.

    `objects`: to profiling. Then nothing about the customer is known, and rules that name such facts count as
    missing a value. Not even that a value is missing may count for them: `!has(customer.nps)` would.
    """

    __slots__ = ("_activation", "_holds", "facts", "now", "objects", "rules")

    def __init__(self, rules: Rules, facts: Facts, now: datetime, objects: bool = False) -> None:
        if objects:
            facts = {name: value for name, value in facts.items() if not personal(name)}
        self.rules, self.facts, self.now, self.objects = rules, facts, now, objects
        self._activation: Any = None
        self._holds: dict[int, bool] = {}

    @property
    def activation(self) -> Any:
        """The variables, for programs of the catalog."""
        if self._activation is None:
            self._activation = self.rules.language.activation(self.facts, self.now)
        return self._activation

    def holds(self, clause: int) -> bool:
        """Whether a clause is true for a customer who does not object."""
        if (known := self._holds.get(clause)) is not None:
            return known
        found = self._holds[clause] = self.rules.programs[clause].truth(self.activation) is True
        return found

    def status(self, clauses: Sequence[int]) -> Status:
        """The `Truth` of each of `clauses`, as `Rules.evaluate` gives it."""
        status = self.rules.evaluate(self.facts, self.activation, clauses)
        if self.objects:
            status[[number for number, each in enumerate(self.rules.programs) if each.personal]] = (
                Truth.MISSING
            )
        return status


def names(text: str) -> tuple[str, ...]:
    """The facts an expression names, in order of first use, outside strings and comments."""
    found = (re.sub(r"\s", "", match) for match in _NAME.findall(text))
    return tuple(dict.fromkeys(name for name in found if name))


def _presence(text: str) -> str:
    def swap(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[0]
        return f"has{match[2]}.{match[3]}{match[4]}{match[5]} "

    return _HAS.sub(swap, text)


def _unreadable(text: str) -> list[RuleProblem]:
    """Forms that the runtime would accept and mean otherwise than their author, or that hide a name."""
    found = []
    for match in _ODD.finditer(text):
        for group, message in (
            (1, "has() takes one fact: has(customer.x)"),
            (2, "a name does not begin with a dot"),
        ):
            if match[group] is not None:
                before = text[: match.start(group)]
                column = len(before) - before.rfind("\n")
                found.append(RuleProblem(message, before.count("\n") + 1, column))
    return found


def _problems(report: str) -> list[RuleProblem]:
    report = report.replace(" (in container '')", "").replace("'has.", "'")
    found = [RuleProblem(text, int(line), int(column)) for line, column, text in _AT.findall(report)]
    return found or [RuleProblem(report)]

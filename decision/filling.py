"""Templates that do no more than fill values in, as most do: filled in directly, and not by the engine.

The engine makes a context, a stream and a scope for each rendering. What is here gives the same text, byte
for byte, of a template that has only `{{ customer.x }}` and the like, with a few filters that make nothing
grow; whatever is unusual, in the template or in a value, is left to the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from liquid import BoundTemplate, Undefined
from liquid.ast import Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import FilteredExpression, Path, PositionalArgument
from liquid.builtin.expressions.filtered import Filter
from liquid.builtin.expressions.primitive import FloatLiteral, IntegerLiteral, StringLiteral
from liquid.builtin.output import OutputNode
from liquid.stringify import to_liquid_string

from arbitration.facts import MAX_STRING, Facts
from decision.sandbox import LONGEST

ROOTS = frozenset({"customer", "scores", "context"})
# None of these makes a text longer than it was, so with so many the work stays far below what may be done
# (`decision.sandbox`), and need not be counted.
_FILTERS = frozenset({"date", "default", "divided_by", "minus", "plus", "round", "times"})
_MOST_OUTPUTS, _MOST_FILTERS, _LONGEST_ARGUMENT = 16, 3, 256
# Of what is not there, the engine has these all the same.
_NOT_FIELDS = frozenset({"first", "last", "size"})


class _Unusual(ValueError):
    """Left to the engine."""


@dataclass(frozen=True, slots=True)
class _Output:
    """A fact by its dotted name, `missing` where it is not there, through `filters`."""

    name: str
    missing: object
    filters: tuple[Callable[[Any], object], ...]


class Filling:
    """A template that only fills in. `template`: the same, for the engine."""

    __slots__ = ("__weakref__", "_escapes", "_parts", "template")

    def __init__(self, template: BoundTemplate, parts: tuple[str | _Output, ...]) -> None:
        self.template = template
        self._parts = parts
        self._escapes = template.env.autoescape

    def filled(self, facts: Facts) -> str | None:
        """The text; None where it is left to the engine. Raises whatever a filter does: then it is, too."""
        written = []
        for part in self._parts:
            if isinstance(part, str):
                written.append(part)
                continue
            value: object = facts.get(part.name, part.missing)
            if isinstance(value, tuple) or (isinstance(value, str) and len(value) > MAX_STRING):
                return None
            for through in part.filters:
                value = through(value)
            written.append(to_liquid_string(value, self._escapes))
        text = "".join(written)
        # The engine makes the ends of lines alike, and bounds the bytes that are written.
        return None if "\r" in text or len(text) > LONGEST // 4 else text


def filling(template: BoundTemplate) -> Filling | None:
    """The template as one that only fills in; None where it does more."""
    nodes = template.nodes
    if sum(isinstance(node, OutputNode) for node in nodes) > _MOST_OUTPUTS:
        return None
    try:
        return Filling(template, tuple(_part(template, node) for node in nodes))
    except _Unusual:
        return None


def _part(template: BoundTemplate, node: Node) -> str | _Output:
    if type(node) is ContentNode:
        return node.text
    if type(node) is not OutputNode or type(node.expression) is not FilteredExpression:
        raise _Unusual
    left, filters = node.expression.left, node.expression.filters or []
    if type(left) is not Path or len(left.path) != 2 or len(filters) > _MOST_FILTERS:
        raise _Unusual
    root, field = left.path
    if not isinstance(root, str) or not isinstance(field, str) or root not in ROOTS or field in _NOT_FIELDS:
        raise _Unusual
    nothing = template.context_class(template, globals={root: {} for root in ROOTS})
    missing = left.evaluate(nothing)
    return _Output(f"{root}.{field}", missing, tuple(_through(template, each) for each in filters))


def _through(template: BoundTemplate, used: Filter) -> Callable[[Any], object]:
    nothing = template.context_class(template)
    given = []
    for argument in used.args:
        value = argument.value if type(argument) is PositionalArgument else None
        if not isinstance(value, FloatLiteral | IntegerLiteral | StringLiteral):
            raise _Unusual
        given.append(value.evaluate(nothing))
        if len(str(given[-1])) > _LONGEST_ARGUMENT:
            raise _Unusual
    if used.name not in _FILTERS:
        raise _Unusual
    of = template.env.filters[used.name]
    more: dict[str, object] = {}
    if getattr(of, "with_context", False):
        more["context"] = nothing
    if getattr(of, "with_environment", False):
        more["environment"] = template.env
    of = partial(of, **more)

    def through(left: Any) -> object:
        # Of a text it might be the decision's time that is asked for.
        if used.name == "date" and not isinstance(left, datetime | Undefined):
            raise _Unusual
        return of(left, *given)

    return through

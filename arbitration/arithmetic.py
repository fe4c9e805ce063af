"""Plain arithmetic of the rule language as Python functions of the facts.

Of doubles, Python's `+ - * /` and comparisons are those of the runtime: both are IEEE 754. Of ints, `+ - *`
are as well, as long as 64 bits suffice. Whatever else occurs is no plain arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from arbitration.catalog.syntax import Call, Constant, Name, Node
from arbitration.facts import Facts

Plain: TypeAlias = Callable[[Facts], Any]
"""Raises KeyError where a fact is missing, Unsure where the runtime has to be asked."""

_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "_+_": operator.add,
    "_-_": operator.sub,
    "_*_": operator.mul,
}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
    "_==_": operator.eq,
    "_!=_": operator.ne,
}
_TYPES = {"int": int, "double": float}
_INT64 = 2**63


class Unsure(Exception):
    """A fact that is not of its type (it was recorded under another catalog), too large an int, or a division
    by zero."""


def comparison(node: Node, types: Mapping[str, str]) -> Plain | None:
    """Whether one number compares with another, where both are plain. `types`: of the facts."""
    match node:
        case Call(function=function, given=(one, other)) if function in _COMPARISONS:
            (kind, left), (other_kind, right) = _number(one, types), _number(other, types)
            if left is not None and right is not None and kind is other_kind:
                return _of_two(_COMPARISONS[function], left, right)
    return None


def double(node: Node, types: Mapping[str, str]) -> Plain | None:
    """A double, where it is plain. `types`: of the facts."""
    kind, found = _number(node, types)
    return found if kind is float else None


def _number(node: Node, types: Mapping[str, str]) -> tuple[type | None, Plain | None]:
    match node:
        case Constant(value=int() | float() as number) if type(number) is not bool:
            return type(number), lambda _: number
        case Name(name=name) if types.get(name) in _TYPES:
            kind = _TYPES[types[name]]
            return kind, _fact(name, kind)
        case Call(function="double", given=(inner,)):
            kind_of, found = _number(inner, types)
            return (float, _of_one(float, found)) if kind_of is int and found is not None else (None, None)
        case Call(function="-_", given=(inner,)):
            kind_of, found = _number(inner, types)
            return (float, _of_one(operator.neg, found)) if kind_of is float and found else (None, None)
        case Call(function=function, given=(one, other)) if function in _OPERATIONS or function == "_/_":
            (kind_of, left), (other_kind, right) = _number(one, types), _number(other, types)
            if left is None or right is None or kind_of is not other_kind:
                return None, None
            if function == "_/_":
                return (float, _quotient(left, right)) if kind_of is float else (None, None)
            found = _of_two(_OPERATIONS[function], left, right)
            return kind_of, found if kind_of is float else _in_64_bits(found)
    return None, None


def _fact(name: str, kind: type) -> Plain:
    def fact(facts: Facts) -> Any:
        value = facts[name]
        if type(value) is not kind:
            raise Unsure
        return value

    return fact


def _of_one(function: Callable[[Any], Any], inner: Plain) -> Plain:
    return lambda facts: function(inner(facts))


def _of_two(function: Callable[[Any, Any], Any], left: Plain, right: Plain) -> Plain:
    return lambda facts: function(left(facts), right(facts))


def _quotient(left: Plain, right: Plain) -> Plain:
    def quotient(facts: Facts) -> Any:
        above, below = left(facts), right(facts)
        if below == 0:
            raise Unsure
        return above / below

    return quotient


def _in_64_bits(inner: Plain) -> Plain:
    def bounded(facts: Facts) -> Any:
        number = inner(facts)
        if not -_INT64 <= number < _INT64:
            raise Unsure
        return number

    return bounded

"""JMESPath, with which a value is picked out of a document: compiled, and its faults kept to that value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jmespath

# What an expression may run into: its functions let more through than its own errors.
_FAILURES = (
    jmespath.exceptions.JMESPathError,
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_OF_NO_TYPE: dict[str, object] = {}


def selector(path: str) -> Callable[[Any], Any]:
    """What picks the value at `path`: None where there is none. Where the document has another shape than
    the expression is for (a text where it takes a length), an object, which no declared type admits."""
    search = jmespath.compile(path).search

    def select(document: Any) -> Any:
        try:
            return search(document)
        except _FAILURES:
            return _OF_NO_TYPE

    return select


def fault(path: str) -> tuple[str, int] | None:
    """A sentence and a column (from 1), or None where the expression can be used."""
    try:
        jmespath.compile(path).search({})
    except jmespath.exceptions.JMESPathTypeError:
        return None  # nothing is there yet to be of the right type
    except jmespath.exceptions.JMESPathError as error:
        reason = str(error).partition("\n")[0].partition(": Parse error at")[0].rstrip(":")
        return f"not a JMESPath expression: {reason}", (getattr(error, "lex_position", None) or 0) + 1
    except _FAILURES:
        return None
    return None

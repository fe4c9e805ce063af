"""What can be wrong with the sources of a catalog that only the shell can tell, since it runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jmespath

from arbitration.catalog.problems import Problem, Source, caret


def source_problems(source: Source) -> Iterator[Problem]:
    """The JMESPath expressions of a document that do not parse, in sound and broken parts alike."""
    http = {
        part.get("id") for _, part in _objects(source.document.get("sources")) if part.get("kind") == "http"
    }
    for section in ("attributes", "scores", "purposes"):
        for index, part in _objects(source.document.get(section)):
            path = part.get("path")
            if part.get("source") not in http or not isinstance(path, str) or not path:
                continue
            fault = _fault(path)
            if fault is not None:
                message, column = fault
                excerpt = caret(path, 1, column)
                yield source.problem("path", (section, index, "path"), message, excerpt)


def _fault(path: str) -> tuple[str, int] | None:
    """A sentence and a column (from 1), or None where the expression can be used."""
    try:
        jmespath.compile(path).search({})
    except jmespath.exceptions.JMESPathTypeError:
        return None  # nothing is there yet to be of the right type
    except jmespath.exceptions.JMESPathError as error:
        reason = str(error).partition("\n")[0].partition(": Parse error at")[0].rstrip(":")
        return f"not a JMESPath expression: {reason}", (getattr(error, "lex_position", None) or 0) + 1
    return None


def _objects(items: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping):
            yield index, item

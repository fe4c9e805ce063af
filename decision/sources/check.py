"""What can be wrong with the sources of a catalog that only the shell can tell, since it runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arbitration.catalog.problems import Problem, Source, caret
from decision.sources.jmes import fault


def source_problems(source: Source) -> Iterator[Problem]:
    """The JMESPath expressions of a document that do not parse, in sound and broken parts alike."""
    http = {
        part.get("id") for _, part in _objects(source.document.get("sources")) if part.get("kind") == "http"
    }
    for section in ("attributes", "scores", "purposes"):
        for index, part in _objects(source.document.get(section)):
            path = part.get("path", part.get("id"))
            if part.get("source") not in http or not isinstance(path, str) or not path:
                continue
            if (found := fault(path)) is not None:
                message, column = found
                where = (section, index, "path" if "path" in part else "id")
                yield source.problem("path", where, message, caret(path, 1, column))


def _objects(items: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping):
            yield index, item

"""From an authored document to a catalog that can serve: the one place where both are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from arbitration.catalog.compile import CompiledCatalog, canonical, compile_catalog, compile_document
from arbitration.catalog.model import Catalog
from arbitration.catalog.problems import Problem, Source
from arbitration.catalog.validate import check
from arbitration.errors import CatalogError
from decision.catalog_files import read_catalog
from decision.content import Templates, parse_templates, template_problems
from decision.sources.check import source_problems


@dataclass(frozen=True, slots=True)
class Published:
    """A catalog ready to decide and to render with. Immutable."""

    version: str
    compiled: CompiledCatalog
    templates: Templates


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of checking a document: ready to publish, or every problem there is."""

    published: Published | None
    document: bytes
    problems: tuple[Problem, ...]


def check_document(source: Source) -> Checked:
    """Checks a document whole. `document` is its canonical JSON, to be stored under the version."""
    result = check(source)
    problems = [
        *result.problems,
        *source_problems(source),
        *template_problems(source, result.declared, result.unknown),
    ]
    if result.catalog is None or problems:
        return Checked(None, b"", tuple(problems))
    return Checked(_publish(compile_catalog(result.catalog)), canonical(result.catalog), ())


def check_path(path: Path) -> tuple[Published, bytes]:
    """The catalog authored at `path` and its canonical JSON. Raises CatalogError with every problem."""
    source, unreadable = read_catalog(path)
    checked = check_document(source)
    if unreadable or checked.published is None:
        raise CatalogError([*unreadable, *checked.problems])
    return checked.published, checked.document


def load_published(version: str, document: bytes) -> Published:
    """The catalog stored as `version`. Raises CatalogError if this code cannot serve it any more.

    It was checked when it was published. That takes most of the time, and is done again only where this code
    cannot read it: to say why.
    """
    stored = _as_it_was(orjson.loads(document))
    try:
        return _publish(compile_catalog(Catalog.model_validate(stored), version))
    except (ValidationError, AssertionError, LookupError):
        return _publish(compile_document(stored, version))


def _as_it_was(document: dict[str, Any]) -> dict[str, Any]:
    """Of what was not written out when it was stored there was nothing yet: no warm start then."""
    document.setdefault("policies", [])
    if not document["policies"]:
        document["policies"] = [{"id": "default", "strategy": "thompson", "alpha": 1.0}]
    for policy in document["policies"]:
        if "strategy" in policy:
            policy.setdefault("warm_start", 0.0)
    return document


def _publish(compiled: CompiledCatalog) -> Published:
    return Published(compiled.version, compiled, parse_templates(compiled))

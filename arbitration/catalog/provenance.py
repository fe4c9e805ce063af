"""Where each value comes from, and what must be known before it: checks, and the order of asking."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from arbitration.catalog.model import Catalog, FactType
from arbitration.catalog.problems import Path
from arbitration.catalog.sources import OpenInferenceSource, Source
from arbitration.facts import DERIVED, REQUEST, STORE, declarations
from arbitration.rules import names

RESERVED = (STORE, DERIVED, REQUEST)
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_BOUND = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")  # as SQLAlchemy reads it
_FEATURE = re.compile(r"[^:\s]+:[^:\s]+")
_OUTPUT = re.compile(r"[^\[\]\s]+(\[\d{1,4}\])?")
_SECTIONS = {"attributes": "customer", "scores": "scores", "purposes": "consents"}

Fault = tuple[Path, str, str]
"""Where (below `sources`, `attributes` …), a code, a sentence."""


@dataclass(frozen=True, slots=True)
class Served:
    """A value that a source serves: its name (`customer.nps`, `scores.churn`, `consents.mail`), its type
    (of a consent: bool), and what the source calls it."""

    name: str
    type: FactType
    path: str


@dataclass(frozen=True, slots=True)
class Call:
    """A source as decisions use it. `after`: the ids of the sources whose answers it is asked with."""

    source: Source
    serves: tuple[Served, ...]
    after: frozenset[str]


def calls(catalog: Catalog) -> tuple[Call, ...]:
    """The sources of a checked catalog that serve anything, each after those it depends on."""
    serves = {source.id: tuple(_served(catalog, source.id)) for source in catalog.sources}
    needs = _needs(catalog)
    by_id = {source.id: source for source in catalog.sources}
    found = []
    for node in TopologicalSorter(needs).static_order():
        if node in by_id and serves[node]:
            before = _behind(node, needs)
            after = frozenset(name for name in before if name in by_id and serves[name])
            found.append(Call(by_id[node], serves[node], after))
    return tuple(found)


def derivation_levels(catalog: Catalog) -> list[list[str]]:
    """The ids of the derived attributes, such that each needs only those of earlier levels."""
    texts = {f"customer.{a.id}": a.derive for a in catalog.attributes if a.derive is not None}
    sorter = TopologicalSorter(
        {name: [other for other in names(text) if other in texts] for name, text in texts.items()}
    )
    sorter.prepare()
    levels = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        levels.append([name.removeprefix("customer.") for name in ready])
        sorter.done(*ready)
    return levels


def faults(catalog: Catalog, broken: Collection[str] = ()) -> Iterator[Fault]:
    """What is wrong with the sources and with what is said to come from them.

    `broken`: facts whose own declaration is at fault, and already reported.
    """
    declared = declarations(catalog)
    kinds = {source.id: source.kind for source in catalog.sources}
    for index, source in enumerate(catalog.sources):
        if source.id in RESERVED:
            yield ("sources", index, "id"), "reserved", f"the id '{source.id}' has a meaning of its own"
        types = {"customer_id": "string"} | {name: fact.type for name, fact in declared.items()}
        for key, name in source.inputs.items():
            path = ("sources", index, "inputs", key)
            if name not in types and name not in broken and not name.startswith("identity."):
                yield path, "unknown_name", f"unknown name '{name}'"
            elif source.kind == "open_inference" and (
                message := _untensored(types.get(name, "string"), source)
            ):
                yield path, "input_type", message
        yield from _placeholders(source, index)
    for section in _SECTIONS:
        for index, part in enumerate(getattr(catalog, section)):
            kind = kinds.get(part.source)
            where = (section, index, "path")
            if kind == "feast" and not _FEATURE.fullmatch(part.path or ""):
                yield where, "path", "a feature of Feast is written view:feature"
            elif kind == "open_inference" and not _OUTPUT.fullmatch(part.path or part.id):
                yield where, "path", "a model's output is written name or name[column]"
    yield from _circles(catalog)


def _untensored(type: str, source: OpenInferenceSource) -> str | None:
    if type in ("timestamp", "strings"):
        return f"a model takes no {type}; derive a number from it"
    if source.tensor is not None and type == "string":
        return "the columns of one tensor are numbers"
    if source.tensor is not None and source.datatype == "INT64" and type == "double":
        return "an INT64 tensor takes no double; derive an int from it"
    return None


def _placeholders(source: Source, index: int) -> Iterator[Fault]:
    base: Path = ("sources", index)
    if source.kind == "http":
        field, used = "path", set(PLACEHOLDER.findall(source.path))
        used |= {
            name
            for text in strings(source.body)
            for name in PLACEHOLDER.findall(text)
            if name in source.inputs
        }
        if any(unquote(segment) in (".", "..") for segment in source.path.partition("?")[0].split("/")):
            yield (*base, field), "path", "a path has no steps up, which servers read as another path"
        if set(PLACEHOLDER.sub("", source.path)) & {"{", "}"}:
            yield (*base, field), "placeholder", "a brace stands without its other half"
    elif source.kind == "sql":
        field, used = "query", set(_BOUND.findall(source.query))
    else:
        return
    for name in sorted(used - set(source.inputs)):
        yield (*base, field), "placeholder", f"'{name}' is not among the inputs"
    for name in sorted(set(source.inputs) - used):
        yield (*base, "inputs", name), "unused_input", "it is not used: every customer would get the same"


def strings(node: Any) -> Iterator[str]:
    """Every string within a JSON value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


def _circles(catalog: Catalog) -> Iterator[Fault]:
    needs = _needs(catalog)
    while True:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            circle = error.args[1][:-1]
            first = min(circle)
            yield _place(catalog, first), "circular", f"needs itself: {' → '.join([*circle, circle[0]])}"
            needs = {node: before - {first} for node, before in needs.items() if node != first}
            continue
        return


def _place(catalog: Catalog, node: str) -> Path:
    for index, source in enumerate(catalog.sources):
        if source.id == node:
            return ("sources", index, "inputs")
    for index, attribute in enumerate(catalog.attributes):
        if f"customer.{attribute.id}" == node:
            return ("attributes", index, "derive")
    return ()


def _needs(catalog: Catalog) -> dict[str, set[str]]:
    """For each source (by id) and derived attribute (by fact name): the sources and derived attributes it
    is worked out from, and STORE where stored values are."""
    origins = {name: fact.origin for name, fact in declarations(catalog).items()}

    def nodes(facts: Iterable[str]) -> set[str]:
        found = set()
        for name in facts:
            origin = origins.get(name)  # ids and identities are known from the start
            if origin is not None and origin != REQUEST:
                found.add(name if origin == DERIVED else origin)
        return found

    needs = {source.id: nodes(source.inputs.values()) for source in catalog.sources}
    for attribute in catalog.attributes:
        if attribute.derive is not None:
            needs[f"customer.{attribute.id}"] = nodes(names(attribute.derive))
    return needs


def _behind(node: str, needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for name in needs.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _served(catalog: Catalog, source: str) -> Iterator[Served]:
    for attribute in catalog.attributes:
        if attribute.source == source and attribute.derive is None:
            yield Served(f"customer.{attribute.id}", attribute.type, attribute.path or attribute.id)
    for score in catalog.scores:
        if score.source == source:
            yield Served(f"scores.{score.id}", "double", score.path or score.id)
    for purpose in catalog.purposes:
        if purpose.source == source:
            yield Served(f"consents.{purpose.id}", "bool", purpose.path or purpose.id)

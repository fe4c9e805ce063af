"""Checks a whole catalog and reports every problem at once, each where the author wrote it.

Parts are read one by one, so a broken action does not hide what is wrong with the next; references
to a part that is itself broken are not reported again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from arbitration.catalog import cost, references
from arbitration.catalog.model import Catalog, FactType
from arbitration.catalog.problems import Path, Problem, Source, caret
from arbitration.facts import Declared, declarations
from arbitration.rules import Language, language_of

_SECTIONS = {
    name: TypeAdapter(field.annotation.__args__[0])
    for name, field in Catalog.model_fields.items()
    if get_origin(field.annotation) is tuple and field.annotation is not None
}
_PREFIX = {"attributes": "customer", "scores": "scores", "context": "context"}


@dataclass(frozen=True, slots=True)
class Check:
    """The catalog, if the document is without fault, and every problem found otherwise.

    `declared`: the facts whose declarations are sound; `unknown`: the names of those that are not.
    Templates are not parsed here: the shell, which renders them, checks them with these two.
    """

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    declared: Mapping[str, Declared]
    unknown: frozenset[str]


def check(source: Source) -> Check:
    """Checks a whole document, parts, references and rules."""
    parts, broken, problems = _read_parts(source)
    single, found = _read_singles(source)
    problems += found
    valid = {name: [part for _, part in items] for name, items in parts.items()}
    sections: dict[str, Any] = {name: tuple(items) for name, items in valid.items()}
    catalog = Catalog.model_construct(**single, **sections)
    where = {(name, id(part)): (name, index) for name, items in parts.items() for index, part in items}
    problems += references.check(source, catalog, where, broken)
    unknown = frozenset(
        f"{_PREFIX[section]}.{name}" for section in _PREFIX for name in broken.get(section, ())
    )
    declared = declarations(catalog)
    problems += [source.problem("too_many", (name,), message) for name, message in cost.too_many(catalog)]
    problems += _check_rules(source, language_of(declared, unknown), declared)
    sound = None if problems else Catalog.model_validate(dict(source.document))
    return Check(sound, tuple(problems), declared, unknown)


def _read_singles(source: Source) -> tuple[dict[str, Any], list[Problem]]:
    """The values that are no lists; those with a fault stand at their default."""
    singles = {key: value for key, value in source.document.items() if key not in _SECTIONS}
    problems: list[Problem] = []
    try:
        read = Catalog.model_validate(singles)
    except ValidationError as error:
        problems = [_pydantic_problem(source, (), detail) for detail in error.errors()]
        faulty = {detail["loc"][0] for detail in error.errors()}
        read = Catalog.model_validate({key: value for key, value in singles.items() if key not in faulty})
    return {key: getattr(read, key) for key in Catalog.model_fields if key not in _SECTIONS}, problems


def _read_parts(
    source: Source,
) -> tuple[dict[str, list[tuple[int, Any]]], dict[str, set[str]], list[Problem]]:
    parts: dict[str, list[tuple[int, Any]]] = {name: [] for name in _SECTIONS}
    broken: dict[str, set[str]] = {}
    problems: list[Problem] = []
    for name, adapter in _SECTIONS.items():
        items = source.document.get(name, [])
        if not isinstance(items, list | tuple):
            problems.append(source.problem("not_a_list", (name,), "must be a list"))
            continue
        for index, item in enumerate(items):
            part, found = _read_part(source, adapter, (name, index), item)
            problems += found
            if part is not None:
                parts[name].append((index, part))
            elif isinstance(item, dict) and isinstance(item.get("id"), str):
                broken.setdefault(name, set()).add(item["id"])
    return parts, broken, problems


def _read_part(
    source: Source, adapter: TypeAdapter[Any], path: Path, item: object
) -> tuple[Any | None, list[Problem]]:
    try:
        return adapter.validate_python(item), []
    except ValidationError as error:
        # A list whose entries are at fault is also said to be short of entries.
        found = error.errors()
        within = {detail["loc"][:-1] for detail in found}
        details = [d for d in found if d["type"] != "too_short" or d["loc"] not in within]
    problems = [_pydantic_problem(source, path, detail, item) for detail in details]
    if not isinstance(item, Mapping):
        return None, problems
    # Without its faulty fields the part may still stand, and be checked for the rest of its faults.
    fields = {str(part) for detail in details for part in detail["loc"]} & set(item)
    try:
        return adapter.validate_python({key: item[key] for key in item if key not in fields}), problems
    except ValidationError:
        return None, problems


def _pydantic_problem(source: Source, base: Path, detail: Any, item: object = None) -> Problem:
    path: Path = base
    node = item
    for part in detail["loc"]:
        # pydantic names the branch of a union in the path; the author wrote no such key.
        if isinstance(node, Mapping) and isinstance(part, str) and part not in node:
            if detail["type"] in ("missing", "extra_forbidden") and part == detail["loc"][-1]:
                path = (*path, part)
            continue
        if isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif isinstance(node, Mapping):
            node = node.get(part)
        elif item is not None:
            continue
        path = (*path, part)
    if detail["type"] == "extra_forbidden":
        message = f"there is no field '{detail['loc'][-1]}' here"
    else:
        # An author writes lists, whatever they are read into.
        message = (
            detail["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
        )
    return source.problem(detail["type"], path, message)


def _check_rules(source: Source, language: Language, declared: Mapping[str, Declared]) -> Iterator[Problem]:
    compiling = cost.Compiling(language, declared)
    for path, text, wanted, channels in _expressions(source.document):
        if path[3:4] == (cost.MOST_CLAUSES,):
            yield source.problem("too_many", path, f"a stage has at most {cost.MOST_CLAUSES} rules")
        compiled = compiling.compile(text, wanted)
        if isinstance(compiled, list):
            for problem in compiled:
                excerpt = caret(text, problem.line, problem.column)
                yield source.problem("rule", path, problem.message, excerpt)
            if compiling.full:
                return
            continue
        for name in compiled.names:
            only = declared[name].channels if name in declared else None
            if only is not None and channels and not only & channels:
                message = f"'{name}' is never there on {', '.join(sorted(channels))}"
                yield source.problem("context_elsewhere", path, message, caret(text, 1, text.find(name) + 1))


def _expressions(document: Mapping[str, object]) -> Iterator[tuple[Path, str, Any, frozenset[str]]]:
    """(path, text, what it must come to, channels) of every rule, in sound and broken parts alike."""
    for index, attribute in _objects(document.get("attributes")):
        wanted = attribute.get("type")
        if isinstance(text := attribute.get("derive"), str) and wanted in get_args(FactType):
            yield ("attributes", index, "derive"), text, wanted, frozenset()
    for index, action in _objects(document.get("actions")):
        channels = frozenset(str(item.get("channel")) for _, item in _objects(action.get("treatments")))
        for stage in ("eligibility", "applicability", "suitability"):
            clauses = action.get(stage)
            for position, clause in enumerate(clauses if isinstance(clauses, list | tuple) else ()):
                path: Path = ("actions", index, stage, position)
                if isinstance(clause, Mapping):
                    clause, path = clause.get("rule"), (*path, "rule")
                if isinstance(clause, str):
                    yield path, clause, "bool", channels
        if isinstance(value := action.get("value"), str):
            yield ("actions", index, "value"), value, "number", channels
    for index, weight in _objects(document.get("context_weights")):
        if isinstance(when := weight.get("when"), str):
            yield ("context_weights", index, "when"), when, "bool", frozenset()


def _objects(items: object) -> Iterator[tuple[int, Mapping[str, object]]]:
    for index, item in enumerate(items if isinstance(items, list | tuple) else ()):
        if isinstance(item, Mapping):
            yield index, item

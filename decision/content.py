"""Renders content: Liquid templates over the facts of a decision, in a sandbox (`decision.sandbox`).

No file access, no includes, bounded work, and no clock: `"now" | date` means the decision's time, so that a
replay renders the same bytes. In `html` fields what is filled in is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from liquid import BoundTemplate
from liquid.exceptions import LiquidError, ResourceLimitError
from liquid.static_analysis import TemplateAnalysis

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.problems import Path, Problem, Source, caret
from arbitration.facts import Declared
from arbitration.inputs import Inputs
from decision.filling import ROOTS, Filling, filling
from decision.sandbox import ENVIRONMENTS, LONGEST

# What a template may run into: the filters let more through than the engine's own errors.
_FAILURES = (LiquidError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Template = str | Filling | BoundTemplate
"""A template, or the text itself where there is nothing to fill in."""


@dataclass(frozen=True, slots=True)
class Templates:
    """The parsed content of a catalog: by treatment id and, for fallbacks, by placement id."""

    treatments: Mapping[str, Mapping[str, Template]]
    fallbacks: Mapping[str, Mapping[str, Template]]


def parse_templates(catalog: CompiledCatalog) -> Templates:
    """Parses every template of a catalog that `template_problems` found nothing wrong with."""
    treatments, fallbacks = {}, {}
    for placement in catalog.model.placements:
        kinds = {field.id: field.type for field in placement.content}
        if placement.fallback is not None:
            fallbacks[placement.id] = _parsed(placement.fallback, kinds)
        for arm in catalog.candidates[placement.id].arms:
            treatments[arm.treatment.id] = _parsed(arm.treatment.content, kinds)
    return Templates(treatments, fallbacks)


def _parsed(content: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, Template]:
    return {name: _template(text, kinds[name]) for name, text in content.items()}


def _template(text: str, kind: str) -> Template:
    if "{{" not in text and "{%" not in text:
        return text
    found = _SHARED.get((text, kind))
    if found is None:
        template = ENVIRONMENTS[kind].from_string(text)
        found = _SHARED[text, kind] = filling(template) or template
    return found


# Most of a new catalog is as it was in the one before. None is kept that no catalog has.
_SHARED: WeakValueDictionary[tuple[str, str], Filling | BoundTemplate] = WeakValueDictionary()


class Renderer:
    """Renders the content of one decision. `failed` lists the fields that could not be rendered."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._variables: dict[str, Any] | None = None
        self.failed: list[str] = []

    def render(self, owner: str, content: Mapping[str, Template]) -> dict[str, str]:
        """The fields of one content block, filled in. A field that fails is empty and named in `failed`:
        an unfortunate template costs its text, never the decision."""
        block = {}
        for name, template in content.items():
            if isinstance(template, str):
                block[name] = template
                continue
            text = self._filled(template) if isinstance(template, Filling) else None
            try:
                if text is None:
                    engine = template.template if isinstance(template, Filling) else template
                    text = engine.render(**self._bound())
            except _FAILURES:
                text = ""
                self.failed.append(f"content.{owner}.{name}:render_error")
            block[name] = text
        return block

    def _filled(self, template: Filling) -> str | None:
        try:
            return template.filled(self._inputs.facts)
        except _FAILURES:  # the engine says whether it is one
            return None

    def _bound(self) -> dict[str, Any]:
        if self._variables is None:
            self._variables = {root: {} for root in ROOTS}
            for name, value in self._inputs.facts.items():
                root, _, field = name.partition(".")
                self._variables[root][field] = list(value) if isinstance(value, tuple) else value
            self._variables["now"] = self._inputs.now
        return self._variables


def template_problems(
    source: Source, declared: Mapping[str, Declared], unknown: frozenset[str]
) -> Iterator[Problem]:
    """What is wrong with the templates of a document, sound or not.

    `unknown`: facts whose declaration is itself broken, and already reported.
    """
    kinds = {
        str(placement.get("id")): {
            str(field.get("id")): field.get("type", "text") for field in _objects(placement.get("content"))
        }
        for placement in _objects(source.document.get("placements"))
    }
    for path, placement_id, text in _texts(source.document):
        kind = kinds.get(str(placement_id), {}).get(str(path[-1]), "text")
        env = ENVIRONMENTS["html" if kind == "html" else "text"]
        if len(text) > LONGEST:
            yield _problem(source, path, "template", f"a text has at most {LONGEST} characters", text, 0)
            continue
        read = _read(text, "html" if kind == "html" else "text")
        if isinstance(read[0], str):
            yield _problem(source, path, "template", read[0], text, read[1])
            continue
        template, analysis = read
        for name, spans in analysis.filters.items():
            if name not in env.filters:
                yield _problem(source, path, "template", f"unknown filter '{name}'", text, spans[0].index)
        for root, places in analysis.globals.items():
            for place in places:
                message = _unknown(root, place.segments, declared, unknown)
                if message is not None:
                    yield _problem(source, path, "template_name", message, text, place.span.index)
        if _works_too_much(template, declared):
            yield _problem(source, path, "template_cost", "does too much work", text, 0)


def _read(text: str, kind: str) -> tuple[BoundTemplate, TemplateAnalysis] | tuple[str, int]:
    """A template and what it names; or what is wrong with it, and at which character."""
    try:
        template = ENVIRONMENTS[kind].from_string(text)
        return template, template.analyze(include_partials=False)
    except LiquidError as error:
        return str(error.message or error), error.token.start_index if error.token is not None else 0
    except RecursionError:
        return "nested too deeply", 0


_SAMPLES: dict[str, Any] = {"bool": True, "int": 10, "double": 10.0, "string": "Ten letters"}
_SAMPLES |= {"timestamp": datetime(2026, 1, 1, tzinfo=UTC), "strings": ["Ten letters"] * 10}


def _works_too_much(template: BoundTemplate, declared: Mapping[str, Declared]) -> bool:
    """Whether it does so whatever is filled in. By what a customer may be called it may still: it then fails
    where it is rendered, and costs its text."""
    variables: dict[str, Any] = {root: {} for root in ROOTS}
    for name, fact in declared.items():
        root, _, field = name.partition(".")
        variables[root][field] = _SAMPLES[fact.type]
    try:
        template.render(**variables, now=_SAMPLES["timestamp"])
    except ResourceLimitError:
        return True
    except _FAILURES:
        return False
    return False


def _unknown(
    root: str, segments: list[Any], declared: Mapping[str, Declared], unknown: frozenset[str]
) -> str | None:
    if root == "now" and len(segments) == 1:
        return None
    if root not in ROOTS:
        return f"unknown name '{root}': there are customer, scores, context and now"
    if len(segments) < 2 or not isinstance(segments[1], str):
        return f"'{root}' needs the name of a value: {root}.…"
    name = f"{root}.{segments[1]}"
    return None if name in declared or name in unknown else f"unknown name '{name}'"


def _problem(source: Source, path: Path, code: str, message: str, text: str, index: int) -> Problem:
    before = text[:index]
    line, column = before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
    return source.problem(code, path, message, caret(text, line, column))


def _texts(document: Mapping[str, Any]) -> Iterator[tuple[Path, object, str]]:
    for a, action in enumerate(_objects(document.get("actions"), keep=True)):
        for t, treatment in enumerate(_objects(action.get("treatments"), keep=True)):
            base: Path = ("actions", a, "treatments", t)
            placement = treatment.get("placement")
            yield from _fields((*base, "content"), placement, treatment.get("content"))
            for i, incentive in enumerate(_objects(treatment.get("incentives"), keep=True)):
                yield from _fields((*base, "incentives", i, "content"), placement, incentive.get("content"))
    for p, placement in enumerate(_objects(document.get("placements"), keep=True)):
        yield from _fields(("placements", p, "fallback"), placement.get("id"), placement.get("fallback"))


def _fields(base: Path, placement: object, content: object) -> Iterator[tuple[Path, object, str]]:
    if isinstance(content, Mapping):
        for name, text in content.items():
            if isinstance(text, str):
                yield (*base, name), placement, text


def _objects(items: object, *, keep: bool = False) -> list[Mapping[str, Any]]:
    """The objects of a list; with `keep`, others stand as empty ones so that positions stay true."""
    found = items if isinstance(items, list | tuple) else []
    return [item if isinstance(item, Mapping) else {} for item in found if keep or isinstance(item, Mapping)]

"""Checks what the parts of a catalog say of each other: duplicate ids, unknown references, content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from arbitration.catalog.fairness import unreported
from arbitration.catalog.learning import Policy
from arbitration.catalog.limiting import limit_problems
from arbitration.catalog.model import Action, Catalog, Placement, Treatment
from arbitration.catalog.problems import Path, Problem, Source
from arbitration.catalog.provenance import faults
from arbitration.catalog.scalars import moment
from arbitration.catalog.sensitivity import sensitive_facts, tells
from arbitration.facts import STORE
from arbitration.features import cross_problem


class Checker:
    """What the checks between parts share: the parts, where each was written, and which are there."""

    def __init__(
        self, source: Source, catalog: Catalog, where: Mapping[Any, Path], broken: Mapping[str, set[str]]
    ):
        self.source, self.catalog, self.where = source, catalog, where
        self.broken = broken
        self.known = {
            section: {part.id for part in getattr(catalog, section)} | broken.get(section, set())
            for section in (
                "attributes", "scores", "context", "purposes", "sources", "groups", "channels",
                "placements", "features", "policies", "context_weights", "contact_policies",
                "control_groups", "actions", "fairness",
            )
        }  # fmt: skip
        self.placements: dict[str, Placement] = {part.id: part for part in catalog.placements}

    def path(self, section: str, part: object, *more: str | int) -> Path:
        return (*self.where[section, id(part)], *more)

    def unknown(self, section: str, name: str | None, path: Path) -> Iterator[Problem]:
        if name is not None and name not in self.known[section]:
            kind = {"policies": "policy"}.get(section, section.rstrip("s"))
            known = ", ".join(sorted(self.known[section])) or "none is declared"
            yield self.source.problem(
                f"unknown_{kind}", path, f"unknown {kind} '{name}' (there are: {known})"
            )


def check(
    source: Source, catalog: Catalog, where: Mapping[Any, Path], broken: Mapping[str, set[str]]
) -> Iterator[Problem]:
    """Every problem between the parts. `where` maps (section, id(part)) to the part's path, `broken`
    the ids of parts that could not be read, by section."""
    checker = Checker(source, catalog, where, broken)
    yield from _duplicates(checker)
    yield from _sources(checker)
    yield from _channels_and_groups(checker)
    yield from _placements(checker)
    yield from _learning(checker)
    for weight in catalog.context_weights:
        path = checker.path("context_weights", weight)
        yield from checker.unknown("actions", weight.action, (*path, "action"))
        yield from checker.unknown("groups", weight.group, (*path, "group"))
    for action in catalog.actions:
        yield from _action(checker, action)
    yield from limit_problems(checker)
    yield from _fairness(checker)


def _fairness(checker: Checker) -> Iterator[Problem]:
    """What a sensitive attribute must not be used for, and bounds."""
    told = sensitive_facts(checker.catalog)
    for feature in checker.catalog.features:
        of = tells(feature, checker.catalog.features, told)
        if of and not feature.allow_sensitive:
            place = "of" if feature.kind == "cross" else "source"
            message = f"it tells what is sensitive ({', '.join(sorted(of))}); meant so: allow_sensitive: true"
            yield checker.source.problem("sensitive", checker.path("features", feature, place), message)
    attributes = {attribute.id: attribute for attribute in checker.catalog.attributes}
    for bound in checker.catalog.fairness:
        path = checker.path("fairness", bound)
        yield from checker.unknown("attributes", bound.attribute, (*path, "attribute"))
        yield from checker.unknown("actions", bound.action, (*path, "action"))
        yield from checker.unknown("groups", bound.group, (*path, "group"))
        if (attribute := attributes.get(bound.attribute)) is not None:
            why = unreported(attribute) if attribute.sensitive else "not_sensitive"
            if why is not None:
                message = f"'{attribute.id}' has no levels to compare: {_NO_LEVELS[why]}"
                yield checker.source.problem(why, (*path, "attribute"), message)


_NO_LEVELS = {
    "not_sensitive": "it is not declared sensitive",
    "no_values": "a string needs values",
    "no_bands": "a number or a timestamp needs bands",
    "a_list": "it is a list",
}


def _duplicates(checker: Checker) -> Iterator[Problem]:
    for section in checker.known:
        parts = getattr(checker.catalog, section)
        yield from _twice(checker, ((part.id, checker.path(section, part, "id")) for part in parts))
    treatments = (
        (treatment.id, checker.path("actions", action, "treatments", index, "id"))
        for action in checker.catalog.actions
        for index, treatment in enumerate(action.treatments)
    )
    yield from _twice(checker, treatments)


def _sources(checker: Checker) -> Iterator[Problem]:
    for section in ("attributes", "scores", "purposes"):
        for part in getattr(checker.catalog, section):
            if part.source != STORE:
                yield from checker.unknown("sources", part.source, checker.path(section, part, "source"))
    broken = {
        f"{prefix}.{name}"
        for section, prefix in (("attributes", "customer"), ("scores", "scores"), ("context", "context"))
        for name in checker.broken.get(section, ())
    }
    for where, code, message in faults(checker.catalog, broken):
        field, index, *more = where
        part = getattr(checker.catalog, str(field))[index]
        yield checker.source.problem(code, checker.path(str(field), part, *more), message)


def _twice(checker: Checker, named: Iterable[tuple[str, Path]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for name, path in named:
        if name in seen:
            yield checker.source.problem("duplicate_id", path, f"the id '{name}' is taken")
        seen.add(name)


def _channels_and_groups(checker: Checker) -> Iterator[Problem]:
    for channel in checker.catalog.channels:
        path = checker.path("channels", channel, "consent")
        yield from checker.unknown("purposes", channel.consent, path)
    for group in checker.catalog.groups:
        yield from checker.unknown("purposes", group.consent, checker.path("groups", group, "consent"))
    for item in checker.catalog.context:
        for index, name in enumerate(item.channels or ()):
            yield from checker.unknown("channels", name, checker.path("context", item, "channels", index))


def _placements(checker: Checker) -> Iterator[Problem]:
    for placement in checker.catalog.placements:
        path = checker.path("placements", placement)
        yield from checker.unknown("channels", placement.channel, (*path, "channel"))
        yield from checker.unknown("policies", placement.policy, (*path, "policy"))
        yield from _twice(
            checker, ((field.id, (*path, "content", i, "id")) for i, field in enumerate(placement.content))
        )
        if placement.fallback is not None:
            yield from _content(checker, placement, placement.fallback, (*path, "fallback"))


def _learning(checker: Checker) -> Iterator[Problem]:
    by_id = {feature.id: feature for feature in checker.catalog.features}
    for feature in checker.catalog.features:
        path = checker.path("features", feature)
        if feature.kind != "cross":
            prefix, _, name = feature.source.partition(".")
            section = "attributes" if prefix == "customer" else prefix
            yield from checker.unknown(section, name, (*path, "source"))
            continue
        message = cross_problem(feature, by_id)
        if message is not None and not set(feature.of) & checker.broken.get("features", set()):
            yield checker.source.problem("cross", (*path, "of"), message)
    for policy in checker.catalog.policies:
        for index, name in enumerate(policy.features or ()):
            path = checker.path("policies", policy, "features", index)
            yield from checker.unknown("features", name, path)
        yield from _challengers(checker, policy)


def _challengers(checker: Checker, policy: Policy) -> Iterator[Problem]:
    path = checker.path("policies", policy, "challengers")
    named = [(each.policy, (*path, index, "policy")) for index, each in enumerate(policy.challengers)]
    for name, where in named:
        yield from checker.unknown("policies", name, where)
        if name == policy.id:
            yield checker.source.problem("own_challenger", where, "a policy cannot challenge itself")
    yield from _twice(checker, named)
    if sum(each.share or 0.0 for each in policy.challengers) > 1:
        yield checker.source.problem("shares", path, "the shares of the challengers are more than 1 together")


def _action(checker: Checker, action: Action) -> Iterator[Problem]:
    path = checker.path("actions", action)
    yield from checker.unknown("groups", action.group, (*path, "group"))
    start, end = action.valid.from_, action.valid.to
    if start is not None and end is not None and moment(start) >= moment(end, end_of_day=True):
        yield checker.source.problem("empty_validity", (*path, "valid"), "ends before it begins")
    for index, treatment in enumerate(action.treatments):
        yield from _treatment(checker, treatment, (*path, "treatments", index))


def _treatment(checker: Checker, treatment: Treatment, path: Path) -> Iterator[Problem]:
    yield from checker.unknown("channels", treatment.channel, (*path, "channel"))
    yield from checker.unknown("placements", treatment.placement, (*path, "placement"))
    if (placement := checker.placements.get(treatment.placement)) is None:
        return
    if placement.channel != treatment.channel:
        message = f"the placement '{placement.id}' is on the channel '{placement.channel}'"
        yield checker.source.problem("other_channel", (*path, "channel"), message)
    yield from _twice(
        checker, ((each.id, (*path, "incentives", i, "id")) for i, each in enumerate(treatment.incentives))
    )
    for index, variant in enumerate(treatment.variants):
        where: Path = (*path, "incentives", index) if treatment.incentives else path
        yield from _content(checker, placement, variant.content, (*where, "content"))


def _content(
    checker: Checker, placement: Placement, content: Mapping[str, str], path: Path
) -> Iterator[Problem]:
    fields = {field.id: field for field in placement.content}
    for name, field in fields.items():
        if field.required and name not in content:
            message = f"the placement '{placement.id}' needs the content field '{name}'"
            yield checker.source.problem("missing_content", path, message)
    for name in content:
        if name not in fields:
            message = f"the placement '{placement.id}' has no content field '{name}'"
            yield checker.source.problem("unknown_content", (*path, name), message)

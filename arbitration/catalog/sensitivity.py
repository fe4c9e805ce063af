"""What tells a sensitive attribute: other facts, rules, features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from arbitration.rules import names

if TYPE_CHECKING:
    from arbitration.catalog.learning import Feature
    from arbitration.catalog.model import Catalog


def sensitive_facts(catalog: Catalog) -> dict[str, frozenset[str]]:
    """The facts that tell a sensitive attribute, each with the attributes it tells: they themselves, what is
    derived from them, and what a source answers that is asked with them. By dotted name."""
    found = {f"customer.{each.id}": frozenset({each.id}) for each in catalog.attributes if each.sensitive}
    while True:
        grown = dict(found)
        for name, of in _told(catalog):
            tells = frozenset().union(*(found[each] for each in of if each in found))
            if tells:
                grown[name] = grown.get(name, frozenset()) | tells
        if grown == found:
            return found
        found = grown


def _told(catalog: Catalog) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(fact, the facts it is worked out from)."""
    asked = {source.id: tuple(source.inputs.values()) for source in catalog.sources}
    for attribute in catalog.attributes:
        if attribute.derive is not None:
            yield f"customer.{attribute.id}", names(attribute.derive)
    for prefix, parts in (("customer", catalog.attributes), ("scores", catalog.scores)):
        for part in parts:
            if part.source in asked:
                yield f"{prefix}.{part.id}", asked[part.source]


def rules_with(catalog: Catalog) -> dict[str, list[str]]:
    """Where rules use what tells a sensitive attribute: by attribute, `actions.<id>.eligibility[0]` and the
    like, in the order of the catalog."""
    told = sensitive_facts(catalog)
    found: dict[str, list[str]] = {each.id: [] for each in catalog.attributes if each.sensitive}
    for place, text in _rules(catalog):
        for attribute in sorted(frozenset().union(*(told.get(name, frozenset()) for name in names(text)))):
            found[attribute].append(place)
    return found


def features_with(catalog: Catalog) -> dict[str, list[str]]:
    """The features that tell a sensitive attribute, which each of them allows, by attribute."""
    told = sensitive_facts(catalog)
    found: dict[str, list[str]] = {each.id: [] for each in catalog.attributes if each.sensitive}
    for feature in catalog.features:
        for attribute in sorted(tells(feature, catalog.features, told)):
            found[attribute].append(feature.id)
    return found


def tells(
    feature: Feature, features: Iterable[Feature], told: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """The sensitive attributes that a feature tells. `told`: as of `sensitive_facts`."""
    if feature.kind != "cross":
        return told.get(feature.source, frozenset())
    parts = (each.source for each in features if each.kind != "cross" and each.id in feature.of)
    return frozenset().union(*(told.get(source, frozenset()) for source in parts))


def _rules(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for attribute in catalog.attributes:
        if attribute.derive is not None:
            yield f"attributes.{attribute.id}.derive", attribute.derive
    for weight in catalog.context_weights:
        yield f"context_weights.{weight.id}.when", weight.when
    for action in catalog.actions:
        for stage in ("eligibility", "applicability", "suitability"):
            for index, clause in enumerate(getattr(action, stage)):
                text = clause if isinstance(clause, str) else clause.rule
                yield f"actions.{action.id}.{stage}[{index}]", text
        if isinstance(action.value, str):
            yield f"actions.{action.id}.value", action.value

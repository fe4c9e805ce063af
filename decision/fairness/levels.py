"""The levels of sensitive attributes: by what a report tells customers apart, and what it calls them."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from itertools import pairwise
from math import floor

from arbitration.catalog.fairness import edges_of, unreported
from arbitration.catalog.model import Attribute, Catalog
from arbitration.facts import Facts
from decision.storage.fairness import Kind, Trait

FEWEST = 30
"""Customers of a level, below which nothing is said of it: it could be said of one of them."""

_KINDS: dict[str, Kind] = {
    "string": "text",
    "bool": "bool",
    "int": "number",
    "double": "number",
    "timestamp": "time",
}


def reportable(catalog: Catalog) -> list[Attribute]:
    """The sensitive attributes that have levels."""
    return [each for each in catalog.attributes if each.sensitive and unreported(each) is None]


def trait_of(attribute: Attribute) -> Trait:
    """How customers are told apart by a reportable attribute."""
    return Trait(
        f"customer.{attribute.id}",
        _KINDS[attribute.type],
        attribute.values or (),
        edges_of(attribute.bands or ()),
    )


def level_of(trait: Trait, facts: Facts) -> str | None:
    """The level of a customer, as a store counts it (`decision.storage.fairness.Trait`); None where it is not
    known."""
    value = facts.get(trait.fact)
    match trait.kind:
        case "text":
            return value if isinstance(value, str) and value in trait.values else None
        case "bool":
            return str(value).lower() if isinstance(value, bool) else None
        case "number" if isinstance(value, int | float) and not isinstance(value, bool):
            return str(bisect_right(trait.edges, value))
        case "time" if isinstance(value, datetime):
            return str(bisect_right(trait.edges, floor(value.timestamp())))
    return None


def level_name(attribute: Attribute, level: str | None) -> str | None:
    """A level as it is written in a report: a band by its edges, from (inclusive) and to (exclusive)."""
    if level is None or attribute.bands is None:
        return level
    edges = [each if isinstance(each, str) else f"{each:g}" for each in attribute.bands]
    names = [f"below {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"from {edges[-1]}"]
    return names[int(level)]

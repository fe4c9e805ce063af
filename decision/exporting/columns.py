"""What of a customer and a situation may leave: the facts, by name and type, and the encoded features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from arbitration.catalog.model import Catalog, FactType
from arbitration.facts import Declared
from arbitration.features import Encoder

if TYPE_CHECKING:
    from arbitration.catalog.learning import Feature

Declarations = Mapping[str, Declared]


def fact_types(catalogs: Sequence[Declarations], *, pii: bool) -> dict[str, FactType]:
    """The exported facts, sorted by name. What any of the catalogs marks as `pii` is left out, unless `pii`.

    A fact that was declared with several types is a double where all of them are numbers, else a string.
    """
    types: dict[str, set[FactType]] = {}
    for catalog in catalogs:
        for name, declared in catalog.items():
            types.setdefault(name, set()).add(declared.type)
    hidden = frozenset() if pii else _personal(catalogs)
    return {name: _common(kinds) for name, kinds in sorted(types.items()) if name not in hidden}


def feature_encoder(live: Catalog, catalogs: Sequence[Declarations], *, pii: bool) -> Encoder:
    """Encodes all features of the live catalog but those made from what is left out. As the learner does, it
    encodes decisions of the past, too, in the way of today, so that all rows have the same columns."""
    hidden = frozenset() if pii else _personal(catalogs)
    chosen = [each.id for each in live.features if hidden.isdisjoint(sources(each.id, live.features))]
    return Encoder(live.features, chosen)


def _personal(catalogs: Iterable[Declarations]) -> frozenset[str]:
    return frozenset(name for catalog in catalogs for name, each in catalog.items() if each.pii)


def _common(types: set[FactType]) -> FactType:
    if len(types) == 1:
        return next(iter(types))
    return "double" if types == {"int", "double"} else "string"


def sources(name: str, features: Sequence[Feature]) -> list[str]:
    """The facts that a feature is made from."""
    feature = next(each for each in features if each.id == name)
    if feature.kind == "cross":
        return [source for part in feature.of for source in sources(part, features)]
    return [feature.source]

"""Derived attributes: rules over other facts, worked out anew for every decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from arbitration.catalog.provenance import derivation_levels
from arbitration.errors import FactError
from arbitration.facts import Declared, Facts, Value, admit, rfc3339
from arbitration.rules import Language, Program

if TYPE_CHECKING:
    from arbitration.catalog.model import Catalog


@dataclass(frozen=True, slots=True)
class Derivation:
    """How one fact follows from others."""

    name: str
    program: Program
    declared: Declared


@dataclass(frozen=True, slots=True)
class Derivations:
    """All of a catalog, in levels: each derivation needs only facts of earlier levels."""

    language: Language
    levels: tuple[tuple[Derivation, ...], ...]

    def derive(self, facts: Facts, now: datetime) -> tuple[dict[str, Value], tuple[str, ...]]:
        """The facts with the derived ones added, and the names of those that could not be worked out
        although all they need is known (a division by zero, a result out of bounds).

        One that needs what is missing is missing too. A fact that is there already stays as it is: what a
        request says overrides.
        """
        known = dict(facts)
        unfit: list[str] = []
        for level in self.levels:
            wanted = [each for each in level if each.name not in facts]
            if wanted:
                activation = self.language.activation(known, now)
                found = {each.name: _outcome(each, activation, known, unfit) for each in wanted}
                known.update((name, value) for name, value in found.items() if value is not None)
        return known, tuple(unfit)


def derivations(catalog: Catalog, declared: dict[str, Declared], language: Language) -> Derivations:
    """Compiles the derived attributes of a checked catalog."""
    texts = {attribute.id: attribute.derive for attribute in catalog.attributes}
    levels = []
    for level in derivation_levels(catalog):
        compiled = []
        for id in level:
            name = f"customer.{id}"
            program = language.compile((texts[id] or "").strip(), declared[name].type)
            assert isinstance(program, Program), program
            compiled.append(Derivation(name, program, declared[name]))
        levels.append(tuple(compiled))
    return Derivations(language, tuple(levels))


def _outcome(each: Derivation, activation: object, known: Facts, unfit: list[str]) -> Value | None:
    raw = each.program.value(activation)
    if raw is None:
        if all(name in known for name in each.program.names if name != "now"):
            unfit.append(each.name)
        return None
    try:
        return admit(each.name, rfc3339(raw) if isinstance(raw, datetime) else raw, each.declared)
    except FactError:
        unfit.append(each.name)
        return None

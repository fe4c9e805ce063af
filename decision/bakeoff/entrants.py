"""Who takes part: the policies of a YAML file, and the context vectors each of them sees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from arbitration.catalog.learning import CrossFeature, Feature, Policy
from arbitration.catalog.problems import Problem, Source
from arbitration.catalog.validate import check
from arbitration.errors import CatalogError
from arbitration.facts import Facts, Value
from arbitration.features import Encoder
from decision.bakeoff.log import Cells, Floats, number_of, refused
from decision.catalog_files import read_catalog

_SECTIONS = ("features", "policies")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# Fields that speak of time, of money or of traffic, none of which a log of arms and rewards has.
_ELSEWHERE = {"half_life": None, "value_scale": None, "apprentice": 0.0, "challengers": ()}
_NOW = datetime(2000, 1, 1, tzinfo=UTC)  # no fact of a log is a time


def read_entrants(path: Path, columns: Sequence[str]) -> tuple[tuple[Policy, ...], tuple[Feature, ...]]:
    """The policies and features in a YAML file of the two catalog sections of these names.

    Checked as in a catalog whose attributes are the `columns` of the log. Raises CatalogError with every
    problem, each with its line.
    """
    source, problems = read_catalog(path)
    attributes = [{"id": name, "type": "string"} for name in columns if _COLUMN.fullmatch(name)]
    parts = {name: source.document[name] for name in _SECTIONS if name in source.document}
    checked = check(Source({"attributes": attributes, **parts}, source.places))
    problems += checked.problems
    problems += [
        source.problem("unknown_section", (name,), f"only {' and '.join(_SECTIONS)} belong here")
        for name in source.document
        if name not in _SECTIONS
    ]
    if not problems and (checked.catalog is None or not checked.catalog.policies):
        problems.append(Problem("no_policies", "policies", "there is no policy to try", path.name))
    if not problems and checked.catalog is not None:
        problems += _out_of_place(source, checked.catalog.policies)
    if problems or checked.catalog is None:
        raise CatalogError(problems)
    return checked.catalog.policies, checked.catalog.features


def _out_of_place(source: Source, policies: Sequence[Policy]) -> Iterator[Problem]:
    for index, policy in enumerate(policies):
        for field, without in _ELSEWHERE.items():
            if getattr(policy, field, without) != without:
                message = "has no meaning in a bake-off: the log has neither times, nor offers, nor traffic"
                yield source.problem("out_of_place", ("policies", index, field), f"{field} {message}")


def contexts(
    policies: Sequence[Policy], features: Sequence[Feature], columns: Cells, rows: int
) -> dict[str, Floats]:
    """x of every row, float64 (rows, size), by policy id; equal encodings share one array.

    Raises Rejected, naming the column, where a cell is no number though a feature needs one.
    """
    facts = _facts(features, columns, rows)
    found: dict[str, Floats] = {}
    by_encoding: dict[str, Floats] = {}
    for policy in policies:
        encoder = Encoder(features, policy.features)
        if encoder.fingerprint not in by_encoding:
            x = np.array([encoder.encode(row, _NOW) for row in facts]).reshape(rows, encoder.size)
            by_encoding[encoder.fingerprint] = x
        found[policy.id] = by_encoding[encoder.fingerprint]
    return found


def _facts(features: Sequence[Feature], columns: Cells, rows: int) -> list[Facts]:
    kinds: dict[str, set[bool]] = {}
    for feature in features:
        if not isinstance(feature, CrossFeature):
            name = feature.source.partition(".")[2]
            kinds.setdefault(name, set()).add(feature.kind == "categorical")
    values: dict[str, list[Value | None]] = {}
    for name, kind in kinds.items():
        if len(kind) > 1:
            raise refused(name, "used as a number by one feature and as a category by another")
        cells = columns[name]
        values[name] = (
            [_word(cell) for cell in cells]
            if True in kind
            else [number_of(cell, name, row) for row, cell in enumerate(cells)]
        )
    return [
        {f"customer.{name}": value for name, cells in values.items() if (value := cells[row]) is not None}
        for row in range(rows)
    ]


def _word(cell: object) -> Value | None:
    if cell is None or cell == "":
        return None
    return cell if isinstance(cell, bool) else str(cell)

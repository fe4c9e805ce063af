"""Encodes a customer and a situation as the context vector x of the bandit.

x = [1 (bias), then the columns of each feature in the declared order]. A fact that is missing, or of
another type than the feature expects (inputs recorded under an older catalog), is treated as missing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arbitration.facts import Facts, Value

if TYPE_CHECKING:
    from arbitration.catalog.learning import (
        BucketisedFeature,
        CategoricalFeature,
        CrossFeature,
        Feature,
        NumericFeature,
    )

Vector = npt.NDArray[np.float64]
_Block = Callable[[list[float], Facts, datetime], None]
_DAY = 86_400.0


class Encoder:
    """x from facts. `columns` names each of the `size` columns; `fingerprint` tells two encodings apart."""

    def __init__(self, features: Sequence[Feature], chosen: Sequence[str] | None) -> None:
        by_id = {feature.id: feature for feature in features}
        picked = [by_id[name] for name in chosen] if chosen is not None else list(features)
        columns, self._blocks = ["bias"], []
        for feature in picked:
            block, names = _block(feature, by_id, len(columns))
            columns += names
            self._blocks.append(block)
        self.columns: tuple[str, ...] = tuple(columns)
        self.size = len(self.columns)
        self._blank = [1.0] + [0.0] * (self.size - 1)
        spelled = repr([(_spelled(feature), _crossed(feature, by_id)) for feature in picked])
        self.fingerprint = hashlib.sha256(spelled.encode()).hexdigest()[:16]

    def encode(self, facts: Facts, now: datetime) -> Vector:
        """The context vector: float64, shape (size,)."""
        row = self._blank.copy()
        for block in self._blocks:
            block(row, facts, now)
        return np.array(row)


def _block(feature: Feature, by_id: dict[str, Feature], at: int) -> tuple[_Block, list[str]]:
    """What writes a feature's columns, the first of them being `at`, into a row of zeros; and their names."""
    match feature.kind:
        case "numeric":
            return _numeric(feature, at), [feature.id, f"{feature.id}=missing"]
        case "categorical":
            names = [f"{feature.id}={value}" for value in feature.values]
            return _categorical(feature, at), [*names, f"{feature.id}=other"]
        case "bucketised":
            edges = ["-inf", *(f"{edge:g}" for edge in feature.edges), "inf"]
            names = [f"{feature.id}=[{a},{b})" for a, b in pairwise(edges)]
            return _bucketised(feature, at), [*names, f"{feature.id}=missing"]
        case "cross":
            (left, left_names), (right, right_names) = (_block(by_id[name], by_id, 0) for name in feature.of)
            names = [f"{a}&{b}" for a in left_names for b in right_names]
            return _cross(left, len(left_names), right, len(right_names), at), names


def _numeric(feature: NumericFeature, at: int) -> _Block:
    source, center, scale, clip = feature.source, feature.center, feature.scale, feature.clip

    def block(row: list[float], facts: Facts, now: datetime) -> None:
        number = facts.get(source)
        if type(number) is not float and (number := _number(number, now)) is None:
            row[at + 1] = 1.0
        else:
            row[at] = max(-clip, min(clip, (number - center) / scale))

    return block


def _categorical(feature: CategoricalFeature, at: int) -> _Block:
    source, other = feature.source, at + len(feature.values)
    position: dict[object, int] = {value: at + index for index, value in enumerate(feature.values)}

    def block(row: list[float], facts: Facts, now: datetime) -> None:
        value = facts.get(source)
        if isinstance(value, bool):
            value = "true" if value else "false"
        row[position.get(value, other)] = 1.0

    return block


def _bucketised(feature: BucketisedFeature, at: int) -> _Block:
    source, edges, missing = feature.source, feature.edges, at + len(feature.edges) + 1

    def block(row: list[float], facts: Facts, now: datetime) -> None:
        number = facts.get(source)
        if type(number) is not float and (number := _number(number, now)) is None:
            row[missing] = 1.0
        else:
            row[at + bisect_right(edges, number)] = 1.0

    return block


def _cross(left: _Block, lefts: int, right: _Block, rights: int, at: int) -> _Block:
    def block(row: list[float], facts: Facts, now: datetime) -> None:
        of_left, of_right = [0.0] * lefts, [0.0] * rights
        left(of_left, facts, now)
        right(of_right, facts, now)
        row[at : at + lefts * rights] = [a * b for a in of_left for b in of_right]

    return block


def _number(value: Value | None, now: datetime) -> float | None:
    if isinstance(value, datetime):
        return (value - now).total_seconds() / _DAY
    return float(value) if isinstance(value, bool | int | float) else None


def _crossed(feature: Feature, by_id: dict[str, Feature]) -> list[object]:
    return [_spelled(by_id[name]) for name in feature.of] if feature.kind == "cross" else []


def _spelled(feature: Feature) -> dict[str, object]:
    """All that the encoding depends on."""
    return feature.model_dump(exclude={"allow_sensitive"})


def cross_problem(feature: CrossFeature, by_id: dict[str, Feature]) -> str | None:
    """Why a cross cannot be built, or None."""
    for name in feature.of:
        if name not in by_id:
            return f"unknown feature '{name}'"
        if by_id[name].kind == "cross":
            return f"'{name}' is itself a cross"
    return None

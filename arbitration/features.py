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
_Block = Callable[[Facts, datetime], list[float]]
_DAY = 86_400.0


class Encoder:
    """x from facts. `columns` names each of the `size` columns; `fingerprint` tells two encodings apart."""

    def __init__(self, features: Sequence[Feature], chosen: Sequence[str] | None) -> None:
        by_id = {feature.id: feature for feature in features}
        picked = [by_id[name] for name in chosen] if chosen is not None else list(features)
        blocks = [_block(feature, by_id) for feature in picked]
        self.columns: tuple[str, ...] = ("bias", *(name for _, names in blocks for name in names))
        self.size = len(self.columns)
        self._blocks = [block for block, _ in blocks]
        spelled = repr([(_spelled(feature), _crossed(feature, by_id)) for feature in picked])
        self.fingerprint = hashlib.sha256(spelled.encode()).hexdigest()[:16]

    def encode(self, facts: Facts, now: datetime) -> Vector:
        """The context vector: float64, shape (size,)."""
        row = [1.0]
        for block in self._blocks:
            row += block(facts, now)
        return np.array(row)


def _block(feature: Feature, by_id: dict[str, Feature]) -> tuple[_Block, list[str]]:
    match feature.kind:
        case "numeric":
            return _numeric(feature), [feature.id, f"{feature.id}=missing"]
        case "categorical":
            names = [f"{feature.id}={value}" for value in feature.values]
            return _categorical(feature), [*names, f"{feature.id}=other"]
        case "bucketised":
            edges = ["-inf", *(f"{edge:g}" for edge in feature.edges), "inf"]
            names = [f"{feature.id}=[{a},{b})" for a, b in pairwise(edges)]
            return _bucketised(feature), [*names, f"{feature.id}=missing"]
        case "cross":
            (left, left_names), (right, right_names) = (_block(by_id[name], by_id) for name in feature.of)
            names = [f"{a}&{b}" for a in left_names for b in right_names]
            return lambda facts, now: [a * b for a in left(facts, now) for b in right(facts, now)], names


def _numeric(feature: NumericFeature) -> _Block:
    source, center, scale, clip = feature.source, feature.center, feature.scale, feature.clip

    def block(facts: Facts, now: datetime) -> list[float]:
        number = _number(facts.get(source), now)
        if number is None:
            return [0.0, 1.0]
        return [max(-clip, min(clip, (number - center) / scale)), 0.0]

    return block


def _categorical(feature: CategoricalFeature) -> _Block:
    source, size = feature.source, len(feature.values) + 1
    position: dict[object, int] = {value: index for index, value in enumerate(feature.values)}

    def block(facts: Facts, now: datetime) -> list[float]:
        row = [0.0] * size
        value = facts.get(source)
        if isinstance(value, bool):
            value = "true" if value else "false"
        row[position.get(value, size - 1)] = 1.0
        return row

    return block


def _bucketised(feature: BucketisedFeature) -> _Block:
    source, edges, size = feature.source, feature.edges, len(feature.edges) + 2

    def block(facts: Facts, now: datetime) -> list[float]:
        row = [0.0] * size
        number = _number(facts.get(source), now)
        row[size - 1 if number is None else bisect_right(edges, number)] = 1.0
        return row

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

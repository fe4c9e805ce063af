"""The context vector: its columns, what is missing, and when two encodings are the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from arbitration.catalog.learning import Feature
from arbitration.facts import Value
from arbitration.features import Encoder, cross_problem

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RAW: list[dict[str, Any]] = [
    {"id": "n", "kind": "numeric", "source": "customer.n", "center": 2, "scale": 4, "clip": 1.5},
    {"id": "c", "kind": "categorical", "source": "customer.c", "values": ["a", "true"]},
    {"id": "b", "kind": "bucketised", "source": "customer.b", "edges": [0, 10]},
    {"id": "x", "kind": "cross", "of": ["n", "c"]},
]
ADAPTER: TypeAdapter[Any] = TypeAdapter(Feature)


def encoder(chosen: list[str] | None = None, raw: list[dict[str, Any]] = RAW) -> Encoder:
    return Encoder([ADAPTER.validate_python(item) for item in raw], chosen)


def row(facts: dict[str, Value], chosen: list[str]) -> list[float]:
    return list(encoder(chosen).encode(facts, NOW))


@pytest.mark.parametrize(
    ("facts", "feature", "expected"),
    [
        ({"customer.n": 4}, "n", [0.5, 0]),
        ({"customer.n": 4.0}, "n", [0.5, 0]),
        ({"customer.n": 1e300}, "n", [1.5, 0]),
        ({"customer.n": -1e300}, "n", [-1.5, 0]),
        ({"customer.n": True}, "n", [-0.25, 0]),
        ({"customer.n": NOW + timedelta(days=3)}, "n", [0.25, 0]),
        ({"customer.n": "4"}, "n", [0, 1]),
        ({}, "n", [0, 1]),
        ({"customer.c": "a"}, "c", [1, 0, 0]),
        ({"customer.c": True}, "c", [0, 1, 0]),
        ({"customer.c": "z"}, "c", [0, 0, 1]),
        ({"customer.c": ("a",)}, "c", [0, 0, 1]),
        ({}, "c", [0, 0, 1]),
        ({"customer.b": -0.1}, "b", [1, 0, 0, 0]),
        ({"customer.b": 0}, "b", [0, 1, 0, 0]),
        ({"customer.b": 10}, "b", [0, 0, 1, 0]),
        ({}, "b", [0, 0, 0, 1]),
        ({"customer.n": 4, "customer.c": "a"}, "x", [0.5, 0, 0, 0, 0, 0]),
        ({"customer.c": "a"}, "x", [0, 0, 0, 1, 0, 0]),
    ],
)
def test_the_columns_of_each_kind(facts: dict[str, Value], feature: str, expected: list[float]) -> None:
    assert row(facts, [feature]) == [1.0, *expected]


def test_columns_have_names_in_order() -> None:
    assert encoder().columns == (
        "bias", "n", "n=missing", "c=a", "c=true", "c=other", "b=[-inf,0)", "b=[0,10)", "b=[10,inf)",
        "b=missing", "n&c=a", "n&c=true", "n&c=other", "n=missing&c=a", "n=missing&c=true",
        "n=missing&c=other",
    )  # fmt: skip
    assert encoder([]).columns == ("bias",)
    assert len(encoder(["b", "n"]).encode({}, NOW)) == encoder(["b", "n"]).size == 7


@given(
    st.dictionaries(
        st.sampled_from(["customer.n", "customer.c", "customer.b"]),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
            st.text(), st.datetimes(timezones=st.just(UTC)), st.lists(st.text()).map(tuple),
        ),
    )
)  # fmt: skip
def test_x_is_finite_whatever_the_facts(facts: dict[str, Value]) -> None:
    x = encoder().encode(facts, NOW)
    assert x.dtype == np.float64
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= 2.25


def test_a_fingerprint_tells_encodings_apart() -> None:
    changed = [{**RAW[0], "scale": 5}, *RAW[1:]]
    prints = [
        encoder().fingerprint, encoder(["n"]).fingerprint, encoder(["b", "n"]).fingerprint,
        encoder(["n", "b"]).fingerprint, encoder(raw=changed).fingerprint,
        encoder(["x"]).fingerprint, encoder(["x"], changed).fingerprint,
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert encoder(["c"]).fingerprint == encoder(["c"], changed).fingerprint


def test_a_cross_needs_two_that_are_there() -> None:
    features = {item["id"]: ADAPTER.validate_python(item) for item in RAW}
    assert cross_problem(features["x"], features) is None
    for of, word in ((["n", "zork"], "unknown"), (["n", "x"], "cross")):
        crossed = ADAPTER.validate_python({"id": "y", "kind": "cross", "of": of})
        assert word in str(cross_problem(crossed, features))

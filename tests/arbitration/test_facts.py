"""Facts: what is admitted has exactly its declared type, and survives the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arbitration.errors import FactError
from arbitration.facts import Declared, admit, admitter, from_json, to_json

BOUNDED = Declared("int", 0, 10)
LISTED = Declared("string", values=frozenset({"a", "b"}))


@pytest.mark.parametrize(
    ("raw", "declared", "value"),
    [
        (3, BOUNDED, 3),
        (3, Declared("double"), 3.0),
        ("a", LISTED, "a"),
        (["a"], Declared("strings", values=frozenset({"a"})), ("a",)),
        ("2026-03-01T13:00:00+01:00", Declared("timestamp"), datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (False, Declared("bool"), False),
        ("line\nbreak", Declared("string"), "line\nbreak"),
    ],
)
def test_what_fits_is_admitted(raw: object, declared: Declared, value: object) -> None:
    admitted = admit("f", raw, declared)
    assert admitted == value
    assert type(admitted) is type(value)


@pytest.mark.parametrize(
    ("raw", "declared"),
    [
        (3.0, BOUNDED), (True, BOUNDED), ("3", BOUNDED), (None, BOUNDED), (11, BOUNDED), (-1, BOUNDED),
        (2**63, Declared("int")), (2**64, Declared("double")), (float("nan"), Declared("double")),
        (float("inf"), Declared("double")), (True, Declared("double")), ("c", LISTED), (1, LISTED),
        ("x" * 4097, Declared("string")), ("a\0b", Declared("string")), (["a\0"], Declared("strings")),
        (["a", 1], Declared("strings")), ("a", Declared("strings")), (["a"] * 257, Declared("strings")),
        ("2026-03-01", Declared("timestamp")), ("2026-03-01T12:00:00", Declared("timestamp")),
        ("0001-01-01T00:00:00+01:00", Declared("timestamp")), (1, Declared("timestamp")),
        (1, Declared("bool")), ({}, Declared("string")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(raw: object, declared: Declared) -> None:
    with pytest.raises(FactError, match=r"^profile\.x: ") as caught:
        admit("profile.x", raw, declared)
    assert len(str(caught.value)) < 200


_DECLARED = st.one_of(
    st.builds(
        Declared,
        st.sampled_from(["int", "double"]),
        st.sampled_from([None, 0.0, 2.5]),
        st.sampled_from([None, 10, 1e30]),
    ),
    st.builds(
        Declared,
        st.sampled_from(["string", "strings"]),
        values=st.sampled_from([None, frozenset({"a", "a\0", "\u00e9"})]),
    ),
    st.builds(Declared, st.sampled_from(["bool", "timestamp"]), pii=st.booleans()),
)
_RAW = st.sampled_from([
    None, True, False, 0, 1, 3, -1, 10, 11, 2**63, 2**63 - 1, -(2**63) - 1, 0.0, 2.0, 2.5, 10.5, 1e308,
    float("inf"), float("-inf"), float("nan"), "a", "b", "a\0", "\u00e9", "\ud800", "x" * 4096, "x" * 4097,
    "2026-03-01T13:00:00+01:00", "2026-03-01", "0001-01-01T00:00:00+01:00", ["a"], ["b", "a"], ["a", 1], {},
])  # fmt: skip


@given(_RAW, _DECLARED)
@example(float("inf"), Declared("double"))
@example(11, Declared("int", 0, 10))
@example("a\0", Declared("string", values=frozenset({"a\0"})))
@example(True, Declared("int"))
def test_what_is_admitted_again_and_again_is_admitted_alike(raw: object, declared: Declared) -> None:
    def outcome(admits: Callable[[], object]) -> object:
        try:
            value = admits()
        except FactError as error:
            return str(error)
        return type(value), value

    assert outcome(lambda: admitter("f", declared)(raw)) == outcome(lambda: admit("f", raw, declared))


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.datetimes(timezones=st.just(UTC)),
        st.lists(st.text(), max_size=3).map(tuple),
    )
)
def test_every_value_survives_the_ledger(value: object) -> None:
    again = from_json(json.loads(json.dumps(to_json(value))))  # type: ignore[arg-type]
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("raw", "declared"),
    [
        ("anna@example.com", Declared("string", values=frozenset({"a"}), pii=True)),
        ("1970-secret", Declared("timestamp", pii=True)),
        (4711, Declared("int", 0, 10, pii=True)),
        (-4711, Declared("int", 0, 10, pii=True)),
    ],
)
def test_a_message_does_not_tell_what_is_pii(raw: object, declared: Declared) -> None:
    with pytest.raises(FactError) as refused:
        admit("f", raw, declared)
    assert str(raw) not in str(refused.value)

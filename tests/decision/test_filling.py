"""Filling in is what the engine does, byte for byte, or it is left to the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import NOW

from arbitration.inputs import Inputs
from decision.content import Renderer
from decision.filling import Filling, filling
from decision.sandbox import ENVIRONMENTS

_FIELDS = ("customer.a", "customer.b", "scores.a", "context.size", "customer['a']", "customer.missing", "now")
_ARGUMENTS = (
    "0",
    "3",
    "-2",
    "0.15",
    "'%B'",
    "'%s %Y %%'",
    "'x\u00e9'",
    "''",
    "customer.b",
    "nil",
    "true",
    "9" * 30,
)
_FILTERS = ("date", "default", "divided_by", "minus", "plus", "round", "times", "upcase", "escape", "size")
_texts = st.sampled_from(
    ["", "5", "-7.5", "<b>&", "now", "a\rb", "\u00df\u0390", "true", "9" * 4096, "x" * 5000]
) | st.text(max_size=8)
_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 7, 10]),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)),  # noqa: DTZ001
    st.lists(_texts, max_size=3).map(tuple),
)
_filters = st.builds(
    lambda name, given: f" | {name}" + (f": {', '.join(given)}" if given else ""),
    st.sampled_from(_FILTERS),
    st.lists(st.sampled_from(_ARGUMENTS), max_size=2),
)
_outputs = st.builds(
    lambda field, filters: "{{ " + field + "".join(filters) + " }}",
    st.sampled_from(_FIELDS),
    st.lists(_filters, max_size=2),
)
_parts = st.one_of(_outputs, st.sampled_from(["<i>", "100 %", "\n", "{% if customer.a %}y{% endif %}", "\r"]))
_facts = st.dictionaries(st.sampled_from(["customer.a", "customer.b", "customer.size", "scores.a"]), _values)


def rendered(template: Any, facts: dict[str, Any]) -> tuple[str, list[str]]:
    """What a template comes to, and what failed."""
    renderer = Renderer(Inputs("d", NOW, "c", ("web",), (("hero", 1),), facts))
    return renderer.render("t", {"body": template})["body"], renderer.failed


@given(st.lists(_parts, min_size=1, max_size=4).map("".join), _facts, st.sampled_from(["text", "html"]))
@example("{{ customer.a | date: '%F' }}", {"customer.a": "now"}, "text")
@example("{{ customer.a | times: 0.15 | round: 2 }}", {"customer.a": 1e308}, "html")
@example("{{ customer.a }}", {"customer.a": "<b>&"}, "html")
@example("{{ customer.a | default: '<x>' }}", {}, "html")
@example("{{ customer.a }}{{ customer.b | date: '%F' }}", {}, "text")
@example("{{ customer.size }}{{ context.size }}", {"customer.b": "x"}, "text")
@example("{{ customer.a | divided_by: 0 }}", {"customer.a": 5}, "text")
def test_the_engine_gives_the_same(text: str, facts: dict[str, Any], kind: str) -> None:
    try:
        engine = ENVIRONMENTS[kind].from_string(text)
    except Exception:  # noqa: BLE001  # no template at all
        return
    direct = filling(engine)
    if direct is not None:
        assert rendered(direct, facts) == rendered(engine, facts)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hello {{ customer.a | default: 'you' }}, until {{ customer.b | date: '%-d %B' }}", True),
        ("{{ customer.a | times: 0.15 | round: 2 }}", True),
        ("{{ customer['a'] }}", True),
        ("{{ customer.size }}", False),
        ("{{ customer.a.b }}", False),
        ("{{ customer[customer.b] }}", False),
        ("{{ customer.a | upcase }}", False),
        ("{{ customer.a | default: customer.b }}", False),
        ("{{ customer.a | default: 'x', allow_false: true }}", False),
        ("{{ now | date: '%F' }}", False),
        ("{{ 'now' | date: '%F' }}", False),
        ("{% if customer.a %}x{% endif %}", False),
        ("{{ customer.a }}" * 17, False),
    ],
)
def test_what_does_no_more_is_filled_in_directly(text: str, *, plain: bool) -> None:
    assert (filling(ENVIRONMENTS["text"].from_string(text)) is not None) == plain


@pytest.mark.parametrize("value", ["a\rb", "x" * 4097, ("a",), "now"])
def test_unusual_values_are_left_to_the_engine(value: object) -> None:
    found = filling(ENVIRONMENTS["text"].from_string("{{ customer.a | date: '%F' }}{{ customer.a }}"))
    assert isinstance(found, Filling)
    text, failed = rendered(found, {"customer.a": value})
    assert (text, failed) == rendered(found.template, {"customer.a": value})
    assert text.startswith("2026-03-01") == (value == "now")

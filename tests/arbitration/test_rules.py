"""The rule language: typed, fail-closed, and the same evaluated together or each alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitration.facts import Declared, Value
from arbitration.rules import Language, Program, Rules, Truth, names

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DECLARED = {
    "customer.nps": Declared("int"),
    "customer.spend": Declared("double"),
    "customer.plan": Declared("string"),
    "customer.open": Declared("bool"),
    "customer.end": Declared("timestamp"),
    "customer.tags": Declared("strings"),
    "scores.clv": Declared("double"),
    "context.page": Declared("string"),
}
FACTS: dict[str, Value] = {
    "customer.nps": 3, "customer.spend": 12.5, "customer.plan": "Basic", "customer.open": False,
    "customer.end": NOW + timedelta(days=30), "customer.tags": ("a", "b"), "scores.clv": 400.0,
}  # fmt: skip


def truth(text: str, facts: dict[str, Value] = FACTS) -> Truth:
    language = Language(DECLARED)
    program = language.compile(text)
    assert isinstance(program, Program), program
    rules = Rules(language, (program,))
    return Truth(int(rules.evaluate(facts, language.activation(facts, NOW), [0])[0]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("customer.nps <= 6", Truth.TRUE),
        ("customer.nps > 6", Truth.FALSE),
        ('customer.end - now < duration("721h")', Truth.TRUE),
        ('customer.end - now < duration("720h")', Truth.FALSE),
        ('customer.end > timestamp("2026-03-30T00:00:00Z")', Truth.TRUE),
        ("now.getFullYear() == 2026 && now.getMonth() == 2", Truth.TRUE),
        ('customer.plan in ["Basic", "Plus"]', Truth.TRUE),
        ('"b" in customer.tags', Truth.TRUE),
        ('customer.tags.exists(t, t == "c")', Truth.FALSE),
        ('customer.plan.startsWith("Ba") && customer.plan.size() == 5', Truth.TRUE),
        ('customer.plan.lowerAscii() == "basic" && customer.plan.matches("^B.*c$")', Truth.TRUE),
        ("has(customer.nps)", Truth.TRUE),
        ("has( context.page )", Truth.FALSE),
        ("!has(context.page) || context.page == 'x'", Truth.TRUE),
        ("has(context.page) && context.page == 'x'", Truth.FALSE),
        ("context.page == 'x'", Truth.MISSING),
        ("context.page == 'x' || customer.nps == 3", Truth.TRUE),  # CEL: one true side is enough
        ("context.page == 'x' && customer.nps == 9", Truth.FALSE),
        ("1 / (customer.nps - 3) > 0", Truth.ERROR),
        ("int(customer.plan) > 0", Truth.ERROR),
        ("customer.tags[7] == 'a'", Truth.ERROR),
        ("'has(context.page)' == \"has(context.page)\"", Truth.TRUE),
        ("customer.nps == 3 // && has(context.page)", Truth.TRUE),
        ("math.greatest(customer.nps, 5) == 5", Truth.TRUE),
    ],
)
def test_what_a_rule_comes_to(text: str, expected: Truth) -> None:
    assert truth(text) is expected


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_missing_value_is_told_from_an_error(name: str) -> None:
    rest = {key: value for key, value in FACTS.items() if key != name}
    assert truth(f"{name} == {name}", rest) is Truth.MISSING
    assert truth(f"has({name})", rest) is Truth.FALSE


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("customer.nsp > 3", 1), ("customer.nps > 3 && scores.zork > 1.0", 21), ("customer.nps + 1", 1),
        ("has(customer.nsp)", 1), ("has(customer.nps) && customer.plan > 3", 22), ("nps > 3", 1), ("", 1),
        ("customer.nps > 3.0", 14), ("f(customer.nps)", 2), ("customer.plan ==", 17), ("customer", 1),
    ],
)  # fmt: skip
def test_what_does_not_compile_says_where(text: str, column: int) -> None:
    found = Language(DECLARED).compile(text)
    assert isinstance(found, list)
    assert any(abs(problem.column - column) <= 14 and problem.line == 1 for problem in found), found
    assert all("has." not in problem.message for problem in found)


def test_columns_stay_true_after_has() -> None:
    found = Language(DECLARED).compile("has( customer.nps ) &&\n  has(customer.plan) && zork")
    assert isinstance(found, list)
    assert (found[0].line, found[0].column) == (2, 25)


@pytest.mark.parametrize("text", ["has(customer .nps)", "has(customer. nps)", "has ( customer . nps )"])
def test_has_does_not_mind_white_space(text: str) -> None:
    assert truth(text) is Truth.TRUE
    assert truth(text, {}) is Truth.FALSE


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("has((customer.nps))", 1), ("true && has(customer.nps // c\n)", 9), ("has(customer.nps + 1)", 1),
        (".customer.nps > 1", 1), ("true && .now > now", 9),
    ],
)  # fmt: skip
def test_what_would_mean_something_else_is_refused(text: str, column: int) -> None:
    found = Language(DECLARED).compile(text)
    assert isinstance(found, list)
    assert found[0].column == column


def test_raw_strings_end_where_they_end() -> None:
    assert names(r"""customer.plan == r"\" && scores.clv > 1.0 && customer.plan == R'\'""") == (
        "customer.plan",
        "scores.clv",
    )


def test_names_are_those_outside_strings_and_comments() -> None:
    assert names("customer.nps > 3 && has(scores.clv) // context.page") == ("customer.nps", "scores.clv")
    assert names("'customer.a' == \"scores.b\" && now > customer . end") == ("now", "customer.end")


_ATOMS = {
    "customer.nps": st.integers(-3, 3).map(lambda n: f"customer.nps {'<='} {n}"),
    "customer.spend": st.sampled_from(["customer.spend > 1.5", "customer.spend / 0.0 > 1.0"]),
    "customer.plan": st.sampled_from(
        ['customer.plan == "a"', 'customer.plan in ["b", ""]', "size(customer.plan) > 1"]
    ),
    "customer.open": st.just("customer.open"),
    "customer.end": st.sampled_from(["customer.end > now", 'customer.end - now < duration("24h")']),
    "customer.tags": st.sampled_from(['"a" in customer.tags', 'customer.tags[0] == "b"']),
    "has": st.sampled_from(sorted(DECLARED)).map(lambda name: f"has({name})"),
    "error": st.just("10 / customer.nps > 2"),
}  # fmt: skip
EXPRESSIONS = st.recursive(
    st.one_of(*_ATOMS.values()),
    lambda inner: st.one_of(
        inner.map(lambda a: f"!({a})"),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=5,
)
PROFILES = st.fixed_dictionaries(
    {},
    optional={
        "customer.nps": st.integers(-3, 3),
        "customer.spend": st.floats(allow_nan=False, allow_infinity=False),
        "customer.plan": st.sampled_from(["", "a", "b", "ß"]),
        "customer.open": st.booleans(),
        "customer.end": st.timedeltas(timedelta(-9999), timedelta(days=9999)).map(lambda span: NOW + span),
        "customer.tags": st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
        "scores.clv": st.just(1.0),
    },
)
_TYPES = {
    "int": cel.Type.INT, "double": cel.Type.DOUBLE, "string": cel.Type.STRING, "bool": cel.Type.BOOL,
    "timestamp": cel.Type.TIMESTAMP, "strings": cel.Type.List(cel.Type.STRING),
}  # fmt: skip


def alone(text: str, facts: dict[str, Value]) -> Truth:
    """One clause in an environment of its own, `has` replaced by what is known."""
    for name in DECLARED:
        text = text.replace(f"has({name})", "true" if name in facts else "false")
    types = {name: _TYPES[fact.type] for name, fact in DECLARED.items()} | {"now": cel.Type.TIMESTAMP}
    env = cel.NewEnv(variables=types, extensions=[ext_strings.ExtStrings(), ext_math.ExtMath()])
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}
    result = env.compile(text).eval(env.Activation({**given, "now": NOW})).value()
    if isinstance(result, bool):
        return Truth.TRUE if result else Truth.FALSE
    return Truth.ERROR


@settings(max_examples=50, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=5), PROFILES)
def test_all_together_is_each_alone(texts: list[str], facts: dict[str, Value]) -> None:
    language = Language(DECLARED)
    programs = [language.compile(text) for text in texts]
    rules = Rules(language, tuple(program for program in programs if isinstance(program, Program)))
    assert len(rules.programs) == len(texts)
    status = rules.evaluate(facts, language.activation(facts, NOW), range(len(texts)))
    for text, found in zip(texts, status, strict=False):
        expected = alone(text, facts)
        assert found == expected or (expected is Truth.ERROR and found == Truth.MISSING), text
        if found == Truth.MISSING:
            assert any(name not in facts for name in names(text))
    assert status[-1] == Truth.TRUE

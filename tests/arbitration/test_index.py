"""Rules as bitmaps are rules one by one: for each list of them and each customer."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitration import index, tabulation
from arbitration.catalog.programs import Programs
from arbitration.facts import Declared, Facts
from arbitration.index import Index
from arbitration.rules import Case, Language, Program, Rules, Truth
from arbitration.tabulation import Tabulator

NOW = datetime(2026, 3, 1, 12, 30, 15, 123457, tzinfo=UTC)
DECLARED = {
    "customer.n": Declared("int"), "customer.m": Declared("int"), "customer.d": Declared("double"),
    "customer.e": Declared("double"), "customer.s": Declared("string"), "customer.b": Declared("bool"),
    "customer.t": Declared("timestamp"), "customer.u": Declared("timestamp"),
    "customer.l": Declared("strings"), "context.s": Declared("string"), "context.b": Declared("bool"),
}  # fmt: skip
INTS = (0, 1, -1, 7, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
DOUBLES = (0.0, -0.0, 1.5, -3.25, 5e-324, 2.2250738585072014e-308, 9007199254740993.0, 1.7976931348623157e308)
TEXTS = ("", "a", "b", "Ünï ☂ 💡", 'quo"te', "back\\slash", "line\nend", "a'b", "has(customer.n)")
SPANS = ("0s", "24h", "720h", "-1h", "1.5s", "0.000001s", "1.000000001s", "-0.000000001s")
MOMENTS = ("2026-03-01T12:30:15.123457Z", "2026-03-01T00:00:00Z", "2025-12-31T23:59:59.999999999+02:00")


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


def pick(values: Any) -> Any:
    return st.sampled_from(values)


def filled(pattern: str, **parts: Any) -> Any:
    return st.builds(pattern.format, **parts)


ORDER = pick(["<", "<=", ">", ">=", "==", "!="])
SAME = pick(["==", "!="])
INT, DOUBLE = pick(INTS).map(str), pick(DOUBLES).map(repr)
TEXT, SPAN = pick(TEXTS).map(quoted), pick(SPANS).map('duration("{}")'.format)
MOMENT = pick(MOMENTS).map('timestamp("{}")'.format)
TIME = pick(["customer.t", "customer.u"])


def among(items: Any) -> Any:
    return st.lists(items, min_size=1, max_size=3).map(lambda each: f"[{', '.join(each)}]")


TABULATED = st.one_of(
    filled("{f} {o} {c}", f=pick(["customer.n", "customer.m"]), o=ORDER, c=INT),
    filled("{c} {o} {f}", f=pick(["customer.n", "customer.m"]), o=ORDER, c=INT),
    filled("{f} in {c}", f=pick(["customer.n", "customer.m"]), c=among(INT)),
    filled("{f} {o} {c}", f=pick(["customer.d", "customer.e"]), o=ORDER, c=DOUBLE),
    filled("{c} {o} {f}", f=pick(["customer.d", "customer.e"]), o=ORDER, c=DOUBLE),
    filled("{f} in {c}", f=pick(["customer.d", "customer.e"]), c=among(DOUBLE)),
    filled("{f} {o} {c}", f=pick(["customer.s", "context.s"]), o=SAME, c=TEXT),
    filled("{f} in {c}", f=pick(["customer.s", "context.s"]), c=among(TEXT)),
    filled("{c} in customer.l", c=TEXT),
    pick(["customer.b", "context.b", "true", "false"]),
    filled("{f} {o} {c}", f=pick(["customer.b", "context.b"]), o=ORDER, c=pick(["true", "false"])),
    filled("{f} - now {o} {c}", f=TIME, o=ORDER, c=SPAN),
    filled("now - {f} {o} {c}", f=TIME, o=ORDER, c=SPAN),
    filled("{c} {o} {f} - now", f=TIME, o=ORDER, c=SPAN),
    filled("{f} {o} now {s} {c}", f=TIME, o=ORDER, s=pick("+-"), c=SPAN),
    filled("{c} + now {o} {f}", f=TIME, o=ORDER, c=SPAN),
    filled("{f} {o} now", f=TIME, o=ORDER),
    filled("{f} {o} {c}", f=pick(["customer.t", "customer.u", "now"]), o=ORDER, c=MOMENT),
    filled("{f} in {c}", f=TIME, c=among(MOMENT)),
    pick(sorted(DECLARED)).map("has({})".format),
)
LEFT = st.one_of(  # what is left to the runtime
    pick(
        [
            "10 / customer.n > 2",
            "customer.s.startsWith('a')", "size(customer.l) > 1", "customer.l.exists(x, x == 'a')",
            "customer.t > customer.u", "now.getHours() == 12",
            'customer.t + duration("24h") > now', "customer.n in []", "customer.s > 'a'",
            "customer.l == ['a']", "customer.n > customer.m % 2", "customer.n / customer.m > 1",
            "customer.t - now < duration('87000000h')", "customer.n in [1, 2.5]", "-(customer.n) > 1",
            "customer.s == context.s", 'customer.t > timestamp("9999-12-31T00:00:00Z")',
        ]
    )
)  # fmt: skip


def sums(names: list[str], constants: Any, signs: str) -> Any:
    return st.recursive(
        st.one_of(pick(names), pick(names), constants),
        lambda inner: filled("({a} {o} {b})", a=inner, o=pick(list(signs)), b=inner),
        max_leaves=4,
    )


DOUBLES_OF = st.one_of(
    sums(["customer.d", "customer.e", "double(customer.n)", "-(customer.d)"], DOUBLE, "+-*/"),
    sums(["customer.d", "customer.e"], DOUBLE, "+-*/"),
)
INTS_OF = sums(["customer.n", "customer.m"], INT, "+-*")
ARITHMETIC = st.one_of(
    filled("{a} {o} {b}", a=DOUBLES_OF, o=ORDER, b=DOUBLES_OF),
    filled("{a} {o} {b}", a=INTS_OF, o=ORDER, b=INTS_OF),
    filled("customer.d {o} {c}", o=ORDER, c=pick(["1e999", "-1e999"])),
)


def nested(leaves: Any) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            filled("!({a})", a=inner),
            filled("({a} {o} {b})", a=inner, o=pick(["&&", "||"]), b=inner),
            filled("({a} ? {b} : {c})", a=inner, b=inner, c=inner),
        ),
        max_leaves=5,
    )


RULES = st.one_of(
    TABULATED, nested(TABULATED), nested(st.one_of(TABULATED, ARITHMETIC)), nested(st.one_of(TABULATED, LEFT))
)
NEAR = pick([timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1), timedelta(days=40)])
AGES = pick(
    [timedelta(0), timedelta(hours=24), timedelta(days=30), timedelta(hours=-1), timedelta(seconds=1.5)]
)
WHENS = [datetime.fromisoformat(text) for text in (MOMENTS[0], MOMENTS[1], "2025-12-31T21:59:59.999999Z")]
FAR = [
    datetime(9999, 12, 31, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC), datetime(1700, 6, 6, 1, 2, 3, 999999, tzinfo=UTC),
    datetime(2026, 3, 1, 13, 30, 15, 123457, tzinfo=timezone(timedelta(hours=1))),
]  # fmt: skip
TIMES = st.one_of(
    st.builds(lambda age, near, sign: NOW + sign * age + near, AGES, NEAR, pick([1, -1])),
    st.builds(lambda when, near: when + near, pick(WHENS), NEAR),
    pick(FAR),
)
SOME_INTS = st.one_of(
    pick(INTS), st.builds(lambda a, b: max(-(2**63), min(a + b, 2**63 - 1)), pick(INTS), pick([-1, 1]))
)
SOME_DOUBLES = st.one_of(
    pick(DOUBLES),
    st.builds(math.nextafter, pick(DOUBLES), pick([-1e300, 1e300])),
    st.floats(allow_nan=False, allow_infinity=False),
)
SOME_TEXTS = st.one_of(
    pick(TEXTS), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
)
ODD = st.one_of(st.just(True), st.just(3), st.just(1.5), st.just("a"), st.just(("a",)), pick(WHENS))
PROFILES = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(values, values, values, ODD) if name.endswith(("m", "e", "u")) else values
        for name, values in {
            "customer.n": SOME_INTS, "customer.m": SOME_INTS, "customer.d": SOME_DOUBLES,
            "customer.e": SOME_DOUBLES, "customer.s": SOME_TEXTS, "customer.b": st.booleans(),
            "customer.t": TIMES, "customer.u": TIMES,
            "customer.l": st.lists(pick(TEXTS), max_size=3).map(tuple),
            "context.s": SOME_TEXTS, "context.b": st.booleans(),
        }.items()
    },
)  # fmt: skip
LISTS = st.lists(st.lists(st.integers(0, 5), max_size=3).map(frozenset), max_size=9)


def built(texts: list[str], lists: list[frozenset[int]]) -> tuple[Index, Rules]:
    programs = Programs(Language(DECLARED))
    numbers = [programs.clause(text) for text in texts]
    found = programs.index([{numbers[each % len(numbers)] for each in clauses} for clauses in lists])
    return found, Rules(programs.language, tuple(programs.clauses.values()))


def expected(rules: Rules, lists: list[frozenset[int]], texts: list[str], case: Case) -> list[bool]:
    numbers = {program.text: number for number, program in enumerate(rules.programs)}
    status = case.status(range(len(rules.programs)))
    return [
        all(status[numbers[texts[each % len(texts)].strip()]] == Truth.TRUE for each in of) for of in lists
    ]


ANY = given(
    st.lists(RULES, min_size=1, max_size=6),
    LISTS,
    st.lists(st.tuples(PROFILES, st.booleans(), pick([NOW, NOW, NOW, WHENS[2], FAR[4], FAR[0]])), max_size=4),
)


def check_bitmaps(
    texts: list[str], lists: list[frozenset[int]], customers: list[tuple[Facts, bool, datetime]]
) -> None:
    found, rules = built(texts, lists)
    cases = [Case(rules, facts, now, objects) for facts, objects, now in customers]
    wanted = [expected(rules, lists, texts, case) for case in cases]
    assert [found.unpacked(found.holding(case)).tolist() for case in cases] == wanted


@settings(max_examples=60, deadline=None)
@ANY
def test_bitmaps_are_the_rules_one_by_one(
    texts: list[str], lists: list[frozenset[int]], customers: list[tuple[Facts, bool, datetime]]
) -> None:
    check_bitmaps(texts, lists, customers)


@pytest.mark.long
@settings(max_examples=2_000, deadline=None)
@ANY
def test_many_bitmaps_are_the_rules_one_by_one(
    texts: list[str], lists: list[frozenset[int]], customers: list[tuple[Facts, bool, datetime]]
) -> None:
    check_bitmaps(texts, lists, customers)


ORDERS = ("<", "<=", ">", ">=", "==", "!=")
TICK = timedelta(microseconds=1)
FAR_NOW = datetime(9999, 6, 1, 0, 0, 0, 999999, tzinfo=UTC)


def either_side(values: Any, tick: Any) -> list[Any]:
    return [each for value in values for each in (value - tick, value, value + tick)]


def aged(now: datetime) -> list[datetime]:
    spans = [
        timedelta(0),
        timedelta(hours=24),
        timedelta(days=30),
        timedelta(hours=-1),
        timedelta(seconds=1.5),
    ]
    near = either_side([*spans, TICK, timedelta(seconds=1)], TICK)
    return [now + sign * span for span in near for sign in (1, -1)]


NEIGHBOURS: dict[str, tuple[list[str], list[Any]]] = {
    "int": (
        [f"customer.n {order} {number}" for order in ORDERS for number in INTS]
        + [f"{number} {order} customer.n" for order in ORDERS for number in (7, 2**63 - 1)],
        [number for number in either_side(INTS, 1) if -(2**63) <= number < 2**63],
    ),
    "double": (
        [f"customer.d {order} {number!r}" for order in ORDERS for number in DOUBLES]
        + [f"{number!r} {order} customer.d" for order in ORDERS for number in (1.5, 5e-324)],
        [
            near
            for number in DOUBLES
            for near in (math.nextafter(number, -1e308), number, -number, math.nextafter(number, 1e308))
        ],
    ),
    "string": (
        [f"customer.s {order} {quoted(text)}" for order in ("==", "!=") for text in TEXTS]
        + [f"customer.s in [{quoted(a)}, {quoted(b)}]" for a in TEXTS for b in TEXTS[:3]],
        [*TEXTS, "c", "A", "a "],
    ),
    "age": (
        [
            pattern.format(order, span)
            for order in ORDERS
            for span in SPANS
            for pattern in (
                'customer.t - now {} duration("{}")',
                'now - customer.t {} duration("{}")',
                'customer.t {} now - duration("{}")',
            )
        ],
        aged(NOW) + FAR,
    ),
    "moment": (
        [f'customer.t {order} timestamp("{moment}")' for order in ORDERS for moment in MOMENTS],
        either_side(WHENS, TICK) + FAR,
    ),
    "union": (
        [
            "customer.n < 3 && customer.b || customer.n > 7 && customer.d > 1.0",
            'customer.s == "a" && customer.b || customer.s != "b" && customer.d > 1.0',
        ],
        [1, 3, 5, 7, 8, "a", "b", "c"],
    ),
}


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_next_to_every_constant(kind: str) -> None:
    texts, values = NEIGHBOURS[kind]
    lists = [frozenset([number]) for number in range(len(texts))]
    found, rules = built(texts, lists)
    fact = {"int": "customer.n", "double": "customer.d", "string": "customer.s"}.get(kind, "customer.t")
    profiles: list[Facts] = [{}, *({fact: value} for value in values)]
    if kind == "union":
        both = [{"customer.s" if isinstance(value, str) else "customer.n": value} for value in values]
        profiles = [
            each | {"customer.b": b, "customer.d": d}
            for each in both
            for b in (True, False)
            for d in (0.5, 2.0)
        ]
    cases = [Case(rules, facts, NOW) for facts in profiles]
    if kind == "age":
        cases += [Case(rules, {fact: each}, FAR_NOW) for each in aged(FAR_NOW)]
    wanted = [expected(rules, lists, texts, case) for case in cases]
    assert [found.unpacked(found.holding(case)).tolist() for case in cases] == wanted


OF_ANY_TYPE = (
    "customer.n > 3", "customer.d > 1.0", 'customer.s == "a"', "customer.b", "customer.t > now",
    "has(customer.n)",
    'customer.t > timestamp("2026-01-01T00:00:00Z")', '"a" in customer.l', "customer.n + customer.m > 1",
    "customer.n * customer.m < 1", "customer.d * 2.0 > 1.0", "customer.d / customer.e > 1.0",
    "-(customer.d) < 0.0", 'customer.t - now > duration("1h") || customer.n > 5',
    "customer.d > 5.0 || customer.n > 5", "double(customer.n) > 2.5", "customer.n - customer.m != 0",
)  # fmt: skip
ODD_FACTS: tuple[dict[str, Any], ...] = (
    {"customer.n": True, "customer.m": 7}, {"customer.n": 4.5, "customer.m": 2**62}, {"customer.n": "a"},
    {"customer.n": 2**62, "customer.m": 2**62}, {"customer.n": -(2**63), "customer.m": 1, "customer.d": 3},
    {"customer.d": 0.0, "customer.e": 0.0}, {"customer.d": 1.0, "customer.e": 0.0}, {"customer.e": 0.0},
    {"customer.d": -1.0, "customer.e": -0.0}, {"customer.d": 1e308, "customer.e": 1e-308},
    {"customer.d": "x"}, {"customer.t": FAR[0], "customer.n": 1}, {"customer.t": FAR[3], "customer.n": 1},
    {"customer.s": 3}, {"customer.s": ("a",)}, {"customer.b": 1}, {"customer.b": "true"}, {"customer.l": "a"},
    {"customer.t": "a"}, {"customer.t": FAR[4]}, {"customer.t": 5},
    {"customer.t": FAR[4].replace(tzinfo=None)},
    {"customer.l": ("a", "b")}, {"customer.l": ()}, {"customer.d": 6, "customer.n": 2},
)  # fmt: skip


def test_a_value_of_another_type_is_as_the_runtime_takes_it() -> None:
    texts = list(OF_ANY_TYPE)
    lists = [frozenset([number]) for number in range(len(texts))]
    found, rules = built(texts, lists)
    cases = [Case(rules, facts, NOW) for facts in ODD_FACTS]
    wanted = [expected(rules, lists, texts, case) for case in cases]
    assert [found.unpacked(found.holding(case)).tolist() for case in cases] == wanted


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_compares_with_constants_is_not_left_to_the_runtime(data: st.DataObject) -> None:
    tabulator = Tabulator(Language(DECLARED))
    for rules, complete in ((TABULATED, True), (ARITHMETIC, True), (LEFT, False)):
        text = data.draw(rules)
        assert tabulator.tabulate(compiled(text)).complete is complete, text


def test_alternatives_and_conjunctions_are_told_apart() -> None:
    tabulator = Tabulator(Language(DECLARED))
    for text, terms, complete in (
        ("customer.n > 3 && customer.d < 2.0 && customer.b", 3, True),
        ("customer.n > 3 || customer.d < 2.0 || customer.b", 1, True),
        ("!(customer.n > 3 || customer.d < 2.0)", 2, True),
        ("customer.n > 3 && customer.n < 9 || has(customer.n)", 1, True),
        ("customer.b ? customer.n > 3 : customer.d < 2.0", 4, True),
        ("customer.n > 3 && customer.s.startsWith('a')", 1, False),
        ("customer.n > 3 || customer.s.startsWith('a')", 0, False),
        ("true", 0, True),
        ("customer.s > 'a'", 0, False),
        ("customer.n in []", 0, False),  # false where it is known, an error where it is not
    ):
        found = tabulator.tabulate(compiled(text))
        assert (len(found.terms), found.complete) == (terms, complete), text


LIMITS = [(tabulation, "MOST_ASKED"), (tabulation, "MOST_TERMS"), (index, "MOST_BYTES")]


@pytest.mark.parametrize(("module", "limit"), LIMITS)
def test_beyond_the_limits_the_runtime_is_asked(
    module: Any, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, 1)
    texts = [
        "customer.n > 3",
        "customer.n > 3 && customer.b || customer.d < 2.0 && customer.n < 9",
        "customer.b",
    ]
    lists = [frozenset(clauses) for clauses in ((0,), (1,), (2,), (0, 1), ())]
    found, rules = built(texts, lists)
    for facts in ({"customer.n": 5, "customer.b": True}, {"customer.d": 1.0, "customer.n": 2}, {}):
        case = Case(rules, facts, NOW)
        assert found.unpacked(found.holding(case)).tolist() == expected(rules, lists, texts, case)


def compiled(text: str) -> Program:
    found = Language(DECLARED).compile(text)
    assert isinstance(found, Program), found
    return found


@pytest.mark.parametrize(
    "text",
    [
        "customer.d < customer.e || !(customer.d < customer.e)",
        "customer.d * 2.0 < customer.e ? true : true",
        "customer.d < customer.e ? customer.s.startsWith('a') : customer.b",
    ],
)
def test_an_outcome_that_no_other_rule_asks_about(text: str) -> None:
    """Alone in its index, since another rule about the same outcome would cut it in two."""
    lists = [frozenset([0])]
    found, rules = built([text], lists)
    known: Facts = {"customer.s": "abc", "customer.b": True}
    facts: list[Facts] = [
        known | {"customer.d": 1.0, "customer.e": 2.0},
        known | {"customer.d": 3.0, "customer.e": 2.0},
        known | {"customer.d": 3.0},
    ]
    cases = [Case(rules, each, NOW) for each in facts]
    wanted = [expected(rules, lists, [text], case) for case in cases]
    assert [found.unpacked(found.holding(case)).tolist() for case in cases] == wanted
    assert [True] in wanted

"""What a rule may cost is bounded when it is published, and the bound is about what it takes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from support import catalog_document

from arbitration.catalog import cost
from arbitration.catalog.cost import MOST_STEPS, sizes, steps
from arbitration.catalog.problems import Source
from arbitration.catalog.syntax import Call, Constant, Fold, Name, tree
from arbitration.catalog.validate import check
from arbitration.facts import Declared
from arbitration.rules import Language, Program

DECLARED = {
    "customer.l": Declared("strings"),
    "customer.s": Declared("string"),
    "customer.plan": Declared("string", values=frozenset({"Basic", "Max"})),
    "customer.n": Declared("int"),
    "customer.t": Declared("timestamp"),
}
LANGUAGE = Language(DECLARED)
S, L = "customer.s", "customer.l"
USUAL = [
    "customer.n <= 6",
    'customer.plan == "Basic" && has(customer.n)',
    'customer.t - now < duration("2160h")',
    '"sport" in customer.l',
    'customer.l.exists(x, x == "sport")',
    "customer.l.all(x, x.matches('^[a-z]+$'))",
    "customer.l.exists(x, customer.l.exists(y, x == y + 'x'))",
    "customer.s.split(',').exists(x, x == 'sport')",
    "customer.s.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')",
    "customer.s.lowerAscii().trim().startsWith('a') ? math.greatest(customer.n, 3) > 2 : false",
    "customer.l.filter(x, x.contains('a')).size() > 2",
    "customer.l.join(', ').size() > 10",
    "{'Basic': 1, 'Max': 2}[customer.plan] > 1",
    "'%s %d'.format([customer.s, customer.n]).size() > 3",
    " || ".join(["customer.n > 1"] * 200),
]
COSTLY = [
    # the rule, and what stands where it is too much
    (f"{L}.all(x, {L}.all(y, {L}.all(z, true)))", "(z"),
    (f"[1, 2, 3].all(a, {L}.all(x, {L}.all(y, {L}.all(z, true))))", "(y"),
    (f"{S}.split('').all(x, {S}.split('').all(y, x == y))", "(y"),
    (f"{L}.map(x, {L}.map(y, x + y + x + y)).size() > 3", "(x"),
    (f"{S}.replace('a', {S}).size() > 3", "('a'"),
    (f"{S}.split('').map(x, {S}).join('').size() > 3", "('').size"),
    (f"{S}.split('').all(x, {S}.matches('(a{{0,30}}){{0,30}}b'))", "(x"),
    (f"{L}.all(x, x.matches('(a|b){{1,500}}c'))", "(x"),
    (f"{S}.matches({S})", "(customer.s)"),
    (f"{L}.exists(x, x.matches(x))", "(x))"),
    (f"'a'.replace('a', {S}).replace('a', {S}).size() > 1", "('a', customer.s).size"),
]


def compiled(text: str) -> Program:
    program = LANGUAGE.compile(text)
    assert isinstance(program, Program), program
    return program


@pytest.mark.parametrize("text", USUAL)
def test_what_is_usual_may_be(text: str) -> None:
    found = steps(compiled(text), sizes(DECLARED))
    assert isinstance(found, float), found
    assert found < MOST_STEPS


@pytest.mark.parametrize(("text", "there"), COSTLY)
def test_what_may_take_too_long_is_refused_with_its_place(text: str, there: str) -> None:
    document = catalog_document()
    document["attributes"] += [{"id": "l", "type": "strings"}, {"id": "s", "type": "string"}]
    document["actions"][0]["eligibility"] = ["customer.nps > 1", f"customer.nps > 1 &&\n  {text}"]
    (problem,) = check(Source(document)).problems
    assert problem.path == "actions[0].eligibility[1]"
    assert problem.message.startswith("may take too long")
    assert problem.excerpt is not None
    row, caret = problem.excerpt.split("\n")
    assert row.strip() == text
    assert row[caret.index("^") :].startswith(there)


@pytest.mark.parametrize("text", USUAL)
def test_the_bound_holds(text: str) -> None:
    # 100 ns a step are for the machine it was measured on; ten times that for others.
    facts: dict[str, Any] = {
        "customer.l": ("a" * 4096,) * 256, "customer.s": "a" * 4096, "customer.plan": "Max", "customer.n": 7,
        "customer.t": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    program = compiled(text)
    activation = LANGUAGE.activation(facts, datetime(2026, 1, 2, tzinfo=UTC))
    program.truth(activation)
    begin = time.process_time()
    program.truth(activation)
    found = steps(program, sizes(DECLARED))
    assert isinstance(found, float)
    assert time.process_time() - begin < 0.02 + found * 1e-6


def test_rules_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    document = catalog_document()
    texts = [f"customer.interests.all(x, x.matches('^[a-z]{{{n}}}$'))" for n in range(1, 25)]
    document["actions"][0]["eligibility"] = texts
    assert not check(Source(document)).problems
    monkeypatch.setattr(cost, "MOST_STEPS_TOGETHER", 1_000_000)
    found = check(Source(document)).problems
    assert found
    assert {problem.message for problem in found} == {"takes too long together with the rules before it"}
    monkeypatch.setattr(cost, "MOST_RULES", 4)
    assert "a catalog has at most 4 different rules" in {p.message for p in check(Source(document)).problems}


def test_more_than_memory_is_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MOST_ARMS", 10)
    monkeypatch.setattr(cost, "MOST_WEIGHTS", 1)
    document = catalog_document()
    document["context_weights"] += [{**document["context_weights"][0], "id": "again"}]
    assert [(problem.code, problem.path) for problem in check(Source(document)).problems] == [
        ("too_many", "context_weights")
    ]
    document["actions"][0]["treatments"][0]["incentives"] = [{"id": "a"}, {"id": "b"}]
    found = check(Source(document)).problems
    assert [problem.path for problem in found] == ["actions", "context_weights"]


def test_a_flood_of_rules_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MOST_RULES", 1000)
    document = catalog_document()
    one = document["actions"][3]
    document["actions"] = [
        {**one, "id": f"a{n}", "eligibility": [f"customer.nps > {n}{m}" for m in range(100)]}
        for n in range(15)
    ]
    problems = [problem for problem in check(Source(document)).problems if problem.code == "rule"]
    assert [problem.message for problem in problems] == ["a catalog has at most 1000 different rules"]


def test_equal_rules_are_compiled_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MOST_RULES", 10)
    document = catalog_document()
    document["actions"][0]["eligibility"] = ["customer.nps > 1"] * 100
    assert not check(Source(document)).problems
    document["actions"][0]["eligibility"] += ["customer.nps > 1"] * 2
    (problem,) = check(Source(document)).problems
    assert (problem.code, problem.path) == ("too_many", "actions[0].eligibility[100]")


def test_the_tree_is_what_was_written() -> None:
    found = tree(compiled("customer.l.exists(x, x == 'ä') && 1 < customer.n").expression.serialize())
    assert isinstance(found, Call)
    fold, less = found.given
    assert (found.function, found.at) == ("_&&_", 31)
    assert isinstance(fold, Fold)
    assert (fold.variable, fold.over, fold.at) == ("x", Name(8, "customer.l"), 17)
    assert less == Call(36, "_<_", (Constant(34, None), Name(46, "customer.n")))
    assert isinstance(fold.step, Call)
    assert Call(23, "_==_", (Name(21, "x"), Constant(26, "ä"))) in fold.step.given

"""Derived attributes: worked out in order, typed, bounded, overridden; missing where what they need is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support import NOW, catalog_document

from arbitration import PRIOR, Inputs, decide, explain, serve
from arbitration.catalog.compile import CompiledCatalog, compile_document
from arbitration.catalog.problems import Source
from arbitration.facts import Value
from decision.publishing import check_document


def with_derived(*parts: dict[str, Any]) -> dict[str, Any]:
    document = catalog_document()
    document["attributes"] += parts
    return document


def compiled(*parts: dict[str, Any]) -> CompiledCatalog:
    return compile_document(with_derived(*parts))


def derived(id: str, type: str, text: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": type, "derive": text, **more}


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        ("int", "(customer.contract_end - now).getHours() / 24", 31),
        ("double", "double(customer.nps) / 2.0", 1.5),
        ("bool", "customer.nps <= 6", True),
        ("string", 'customer.nps <= 6 ? "low" : "high"', "low"),
        ("timestamp", 'customer.contract_end - duration("24h")', NOW + timedelta(days=30)),
        ("strings", 'customer.interests.filter(each, each != "sport")', ("music",)),
        ("bool", "has(customer.spend)", False),
        ("string", "customer.plan", "Basic"),
    ],
)
def test_every_type_can_be_derived(type: str, text: str, value: Value) -> None:
    catalog = compiled(derived("it", type, text))
    facts = {
        "customer.nps": 3,
        "customer.plan": "Basic",
        "customer.contract_end": NOW + timedelta(days=31),
        "customer.interests": ("sport", "music"),
    }
    known, unfit = catalog.derivations.derive(facts, NOW)
    assert known == {**facts, "customer.it": value}
    assert unfit == ()
    assert type != "timestamp" or known["customer.it"].tzinfo is not None  # type: ignore[union-attr]


def test_each_is_worked_out_after_those_it_needs() -> None:
    catalog = compiled(
        derived("c", "int", "customer.b + customer.a"),
        derived("b", "int", "customer.a * 2"),
        derived("a", "int", "customer.nps + 1"),
    )
    known, _ = catalog.derivations.derive({"customer.nps": 3}, NOW)
    assert known == {"customer.nps": 3, "customer.a": 4, "customer.b": 8, "customer.c": 12}


def test_what_needs_something_missing_is_missing_and_no_fault() -> None:
    catalog = compiled(
        derived("a", "int", "customer.nps + 1"), derived("b", "bool", "has(customer.a) && customer.a > 3")
    )
    assert catalog.derivations.derive({}, NOW) == ({"customer.b": False}, ())


@pytest.mark.parametrize(
    ("part", "nps"),
    [
        (derived("it", "int", "100 / customer.nps"), 0),
        (derived("it", "int", "customer.nps * 100", max=500), 6),
        (derived("it", "string", 'customer.nps > 5 ? "x" : "y"', values=["y"]), 6),
        (derived("it", "double", "1.0 / double(customer.nps)"), 0),
    ],
)
def test_what_comes_to_nothing_that_fits_is_named(part: dict[str, Any], nps: int) -> None:
    catalog = compiled(part)
    facts = {"customer.nps": nps}
    assert catalog.derivations.derive(facts, NOW) == (facts, ("customer.it",))


def test_a_rule_that_goes_through_too_much_is_an_error_and_no_exception() -> None:
    document = with_derived(
        derived("many", "strings", "customer.interests"),
        derived("both", "bool", "customer.interests.exists(a, customer.many.exists(b, a == b + 'x'))"),
    )
    document["actions"][0]["eligibility"] = [document["attributes"][8]["derive"]]
    document["actions"][0]["value"] = f"{document['attributes'][8]['derive']} ? 1.0 : 2.0"
    catalog = compile_document(document)
    facts = {"customer.interests": tuple(f"i{n}" for n in range(256))}
    known, unfit = catalog.derivations.derive(facts, NOW)
    assert "customer.both" not in known
    assert unfit == ("customer.both",)
    inputs = Inputs("d", NOW, "anna", ("agent",), (("panel", 3),), known)
    snapshots = {name: serve(catalog, name, None, PRIOR) for name in catalog.policies}
    (placement,) = explain(decide(inputs, catalog, snapshots), catalog)["placements"]
    reasons = {each["action"]: each["reason"] for each in placement["removed"]}
    assert reasons["renew_12"] == "rule_error"


def test_a_given_value_overrides_and_is_built_upon() -> None:
    catalog = compiled(derived("a", "int", "customer.nps + 1"), derived("b", "int", "customer.a + 1"))
    known, _ = catalog.derivations.derive({"customer.nps": 3, "customer.a": 10}, NOW)
    assert known == {"customer.nps": 3, "customer.a": 10, "customer.b": 11}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (derived("it", "int", "customer.zork"), "undeclared reference"),
        (derived("it", "int", "double(customer.nps)"), "must come to int, this is of type double"),
        (derived("it", "string", "customer.nps"), "must come to string, this is of type int"),
        (derived("it", "strings", "[1, 2]"), "must come to a list of strings"),
        (derived("it", "bool", "customer.nps"), "must come to true or false"),
        (derived("it", "int", "customer.nps +"), "Syntax error"),
    ],
)
def test_a_rule_of_another_type_is_refused(part: dict[str, Any], message: str) -> None:
    (problem,) = check_document(Source(with_derived(part))).problems
    assert (problem.code, problem.path) == ("rule", "attributes[7].derive")
    assert message in problem.message

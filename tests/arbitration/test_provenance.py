"""Where values come from: faults found at publish, and the order in which sources are asked."""

from __future__ import annotations

from typing import Any

import pytest
from support import catalog_document

from arbitration.catalog.compile import compile_document
from arbitration.catalog.problems import Source
from arbitration.catalog.provenance import Served
from decision.publishing import check_document

CRM = {"id": "crm", "kind": "http", "path": "/customers/{customer_id}"}
DWH = {
    "id": "dwh",
    "kind": "sql",
    "inputs": {"account": "customer.account"},
    "query": "select nps from answers where account = :account",
}
MODEL = {
    "id": "model",
    "kind": "open_inference",
    "model": "churn",
    "inputs": {"nps": "customer.nps", "left": "customer.days_left"},
}
FEAST = {"id": "features", "kind": "feast"}


def sourced() -> dict[str, Any]:
    """The small catalog with values from four sources, one behind the other."""
    document = catalog_document()
    document["sources"] = [dict(MODEL), dict(DWH), dict(FEAST), dict(CRM)]
    attributes = {part["id"]: part for part in document["attributes"]}
    attributes["nps"]["source"] = "dwh"
    attributes["contract_end"] |= {"source": "crm", "path": "contract.end"}
    attributes["spend"] |= {"source": "features", "path": "bills:spend"}
    document["attributes"] += [
        {"id": "account", "type": "string", "source": "crm"},
        {
            "id": "days_left",
            "type": "int",
            "derive": "(customer.contract_end - now).getHours() / 24",
        },
    ]
    document["scores"][1] |= {"source": "model", "path": "proba[1]"}
    document["purposes"][0] |= {"source": "crm", "path": "permissions.marketing"}
    return document


def found(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in check_document(Source(document)).problems]


def test_each_source_comes_after_those_it_is_asked_with() -> None:
    calls = compile_document(sourced()).calls
    by_id = {call.source.id: call for call in calls}
    order = [call.source.id for call in calls]
    assert order.index("crm") < order.index("dwh") < order.index("model")
    assert by_id["crm"].after == by_id["features"].after == frozenset()
    assert by_id["dwh"].after == {"crm"}
    assert by_id["model"].after == {"crm", "dwh"}, "days_left is derived from what the crm says"


def test_a_source_serves_what_names_it() -> None:
    by_id = {call.source.id: call for call in compile_document(sourced()).calls}
    assert by_id["crm"].serves == (
        Served("customer.contract_end", "timestamp", "contract.end"),
        Served("customer.account", "string", "account"),
        Served("consents.marketing", "bool", "permissions.marketing"),
    )
    assert by_id["model"].serves == (Served("scores.churn", "double", "proba[1]"),)


def test_a_body_may_have_braces_of_its_own() -> None:
    document = sourced()
    document["sources"][3] |= {
        "method": "POST",
        "path": "/graphql",
        "body": {"query": "query($id: ID!) {customer(id: $id) {nps}}", "variables": {"id": "{customer_id}"}},
    }
    assert found(document) == []


def test_a_source_that_serves_nothing_is_not_asked() -> None:
    document = sourced()
    document["sources"].append({"id": "idle", "kind": "http", "path": "/{customer_id}"})
    assert "idle" not in {call.source.id for call in compile_document(document).calls}


@pytest.mark.parametrize(
    ("path", "value", "code", "where"),
    [
        ("attributes.1.source", "zork", "unknown_source", "attributes[1].source"),
        ("scores.0.source", "zork", "unknown_source", "scores[0].source"),
        ("purposes.0.source", "zork", "unknown_source", "purposes[0].source"),
        ("attributes.0.path", "x", "value_error", "attributes[0]"),
        ("attributes.1.derive", "1", "value_error", "attributes[1]"),
        ("attributes.3.path", "$.nps", "path", "attributes[3].path"),
        ("attributes.3.path", "a[", "path", "attributes[3].path"),
        ("attributes.3.path", "zork(a)", "path", "attributes[3].path"),
        ("attributes.3.path", "length(complaints)", None, ""),
        ("attributes.5.path", "spend", "path", "attributes[5].path"),
        ("purposes.0", {"id": "marketing-sms", "source": "crm"}, "path", "purposes[0].id"),
        ("attributes.3.path", "ceil(to_number('inf'))", None, ""),
        ("sources.3.path", "/../admin/{customer_id}", "path", "sources[3].path"),
        ("sources.3.path", "/%2e%2E/{customer_id}", "path", "sources[3].path"),
        ("sources.3.timeout", "0ms", "value_error", "sources[3].timeout"),
        ("sources.3.timeout", "61s", "value_error", "sources[3].timeout"),
        ("sources.3.cache", {"ttl": "0s"}, "value_error", "sources[3].cache.ttl"),
        ("sources.3.breaker", {"rest": "0s"}, "value_error", "sources[3].breaker.rest"),
        ("scores.1.path", "proba[x]", "path", "scores[1].path"),
        ("attributes.5.path", "bills:spend\n", "path", "attributes[5].path"),
        ("scores.1.path", "proba[1]\n", "path", "scores[1].path"),
        ("sources.3.id", "store", "reserved", "sources[3].id"),
        ("sources.3.id", "dwh", "duplicate_id", "sources[3].id"),
        ("sources.3.kind", "ftp", "union_tag_invalid", "sources[3]"),
        ("sources.3.path", "customers", "string_pattern_mismatch", "sources[3].path"),
        ("sources.3.path", "/a/{customer_id}/{zork}", "placeholder", "sources[3].path"),
        ("sources.3.path", "/a/{customer_id}/{", "placeholder", "sources[3].path"),
        ("sources.3.path", "/a", "unused_input", "sources[3].inputs.customer_id"),
        ("sources.3.body", {"a": 1}, "value_error", "sources[3]"),
        ("sources.3.inputs", {}, "too_short", "sources[3].inputs"),
        ("sources.3.inputs", {"customer_id": "zork"}, "string_pattern_mismatch", None),
        ("sources.3.inputs", {"customer_id": "customer.zork"}, "unknown_name", None),
        ("sources.3.timeout", "fast", "value_error", "sources[3].timeout"),
        ("sources.3.cache", {"ttl": "1s", "size": 0}, "greater_than_equal", "sources[3].cache.size"),
        ("sources.1.query", "select 1", "unused_input", "sources[1].inputs.account"),
        ("sources.1.query", "select :account, :zork", "placeholder", "sources[1].query"),
        ("sources.1.query", "select nps::int from t where a = :account", None, ""),
        ("sources.0.inputs", {"a": "customer.contract_end"}, "input_type", "sources[0].inputs.a"),
        ("sources.0.inputs", {"a": "customer.interests"}, "input_type", "sources[0].inputs.a"),
        ("sources.0.inputs", {"a": "customer.plan"}, None, ""),
        ("sources.0.tensor", "x", None, ""),
    ],
)
def test_every_fault_is_found_where_it_was_written(
    path: str, value: object, code: str | None, where: str | None
) -> None:
    document = sourced()
    node: Any = document
    *way, last = path.split(".")
    for step in way:
        node = node[int(step) if step.isdigit() else step]
    node[int(last) if last.isdigit() else last] = value
    problems = found(document)
    if code is None:
        assert problems == []
    else:
        assert code in {each for each, _ in problems}, problems
        assert where is None or (code, where) in problems, problems


@pytest.mark.parametrize(
    ("name", "datatype", "sound"),
    [
        ("customer.plan", "FP64", False),
        ("customer_id", "FP64", False),
        ("customer.spend", "INT64", False),
        ("customer.spend", "FP32", True),
        ("customer.nps", "INT64", True),
        ("customer.open_complaint", "INT64", True),
    ],
)
def test_the_columns_of_one_tensor_are_numbers_of_its_type(name: str, datatype: str, *, sound: bool) -> None:
    document = sourced()
    document["sources"][0] |= {"tensor": "x", "datatype": datatype, "inputs": {"a": name}}
    assert found(document) == ([] if sound else [("input_type", "sources[0].inputs.a")])


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"days_left": "customer.days_left + 1"}, {"attributes[8].derive"}),
        ({"days_left": "customer.more", "more": "customer.days_left"}, {"attributes[8].derive"}),
        # The model needs days_left, and days_left the model's score.
        ({"days_left": "scores.churn > 0.5 ? 1 : 2"}, {"attributes[8].derive"}),
        (
            {"days_left": "customer.days_left", "more": "customer.more"},
            {"attributes[8].derive", "attributes[9].derive"},
        ),
    ],
)
def test_what_needs_itself_is_refused(changes: dict[str, str], where: set[str]) -> None:
    document = sourced()
    for name, text in changes.items():
        if name == "days_left":
            document["attributes"][8]["derive"] = text
        else:
            document["attributes"].append({"id": name, "type": "int", "derive": text})
    assert {path for code, path in found(document) if code == "circular"} == where


def test_two_sources_that_wait_for_each_other_are_refused() -> None:
    document = sourced()
    document["sources"][3]["inputs"] = {"customer_id": "customer.nps"}
    assert found(document) == [("circular", "sources[3].inputs")]


def test_a_broken_declaration_is_reported_once() -> None:
    document = sourced()
    document["attributes"][7]["type"] = "zork"  # account, which the dwh is asked with
    assert [code for code, _ in found(document)] == ["literal_error"]

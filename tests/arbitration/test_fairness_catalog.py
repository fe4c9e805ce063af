"""What a catalog may say of sensitive attributes, and what must not be made of them."""

from __future__ import annotations

from typing import Any

import pytest
from support import catalog_document

from arbitration.catalog.compile import CompiledCatalog, compile_document
from arbitration.catalog.problems import Source
from arbitration.catalog.sensitivity import features_with, rules_with, sensitive_facts
from arbitration.catalog.validate import check
from arbitration.errors import CatalogError
from arbitration.snapshot import fingerprint

BORN: dict[str, Any] = {"id": "born", "type": "timestamp", "sensitive": True, "bands": ["1960-01-01"]}
OLD: dict[str, Any] = {
    "id": "old",
    "type": "bool",
    "derive": 'customer.born < timestamp("1970-01-01T00:00:00Z")',
}
OLDER: dict[str, Any] = {"id": "older", "type": "bool", "derive": "customer.old && customer.nps > 3"}
MODEL: dict[str, Any] = {
    "id": "model", "kind": "http", "connection": "m", "path": "/{age}", "inputs": {"age": "customer.old"},
}  # fmt: skip


def document(*attributes: dict[str, Any], features: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    made = catalog_document()
    made["attributes"] += attributes
    made["features"] += features or []
    return made


def problems(made: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in check(Source(made)).problems]


def numeric(source: str, **more: Any) -> dict[str, Any]:
    return {"id": "new", "kind": "numeric", "source": source, **more}


@pytest.mark.parametrize("source", ["customer.born", "customer.old", "customer.older", "scores.risk"])
def test_no_feature_tells_it_unless_that_is_allowed(source: str) -> None:
    made = document(BORN, OLD, OLDER, features=[numeric(source)])
    made["sources"] = [MODEL]
    made["scores"].append({"id": "risk", "source": "model"})
    assert problems(made) == [("sensitive", "features[4].source")]
    made["features"][4]["allow_sensitive"] = True
    assert problems(made) == []


def test_neither_does_a_cross() -> None:
    cross = {"id": "crossed", "kind": "cross", "of": ["churn", "new"]}
    made = document(BORN, features=[numeric("customer.born", allow_sensitive=True), cross])
    assert problems(made) == [("sensitive", "features[5].of")]
    cross["allow_sensitive"] = True
    assert problems(made) == []
    with pytest.raises(CatalogError, match="born"):
        compile_document(document(BORN, features=[numeric("customer.born")]))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"type": "string", "sensitive": True, "bands": [1]}, "numbers and timestamps"),
        ({"type": "int", "bands": [1]}, "sensitive"),
        ({"type": "int", "sensitive": True, "bands": [3, 3]}, "ascend"),
        ({"type": "int", "sensitive": True, "bands": ["1960-01-01"]}, "times for a timestamp"),
        ({"type": "timestamp", "sensitive": True, "bands": [3]}, "times for a timestamp"),
        ({"type": "timestamp", "sensitive": True, "bands": ["1960-13-01"]}, "month"),
        ({"type": "int", "sensitive": True, "bands": list(range(21))}, "at most 20"),
    ],
)
def test_bands_fit_their_attribute(attribute: dict[str, Any], message: str) -> None:
    found = check(Source(document({"id": "a", **attribute}))).problems
    assert any(message in problem.message for problem in found), found
    assert all(problem.path.startswith("attributes[7]") for problem in found)


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        ({"type": "string", "sensitive": True}, "no_values"),
        ({"type": "int", "sensitive": True}, "no_bands"),
        ({"type": "strings", "sensitive": True, "values": ["a"]}, "a_list"),
        ({"type": "bool"}, "not_sensitive"),
    ],
)
def test_a_bound_is_on_levels_that_there_are(attribute: dict[str, Any], code: str) -> None:
    made = document({"id": "a", **attribute})
    made["fairness"] = [{"id": "b", "attribute": "a", "measure": "exposure"}]
    assert problems(made) == [(code, "fairness[0].attribute")]


def test_a_bound_names_what_is_there() -> None:
    made = document(BORN)
    bound = {"attribute": "born", "measure": "exposure"}
    made["fairness"] = [
        {"id": "a", **bound, "action": "none"},
        {"id": "b", **bound, "group": "none"},
        {"id": "b", **bound, "attribute": "none"},
        {"id": "c", **bound, "action": "check", "group": "service"},
        {"id": "d", **bound, "min_ratio": 1.1},
    ]
    assert {path for _, path in problems(made)} == {
        "fairness[0].action", "fairness[1].group", "fairness[2].id", "fairness[2].attribute", "fairness[3]",
        "fairness[4].min_ratio",
    }  # fmt: skip


def test_what_uses_it_is_found() -> None:
    made = document(BORN, OLD, features=[numeric("customer.old", allow_sensitive=True)])
    made["actions"][3]["suitability"] = ["customer.nps > 3", {"rule": "!customer.old", "why": "No."}]
    made["actions"][3]["value"] = "customer.old ? 1.0 : 2.0"
    made["context_weights"][0]["when"] = '"customer.born" == "x"'  # a string is no use of it
    catalog: CompiledCatalog = compile_document(made)
    assert sensitive_facts(catalog.model) == {
        "customer.born": frozenset({"born"}), "customer.old": frozenset({"born"})
    }  # fmt: skip
    assert rules_with(catalog.model) == {
        "born": ["attributes.old.derive", "actions.check.suitability[1]", "actions.check.value"]
    }
    assert features_with(catalog.model) == {"born": ["new"]}


def test_to_allow_a_feature_changes_no_encoding() -> None:
    """What was learned before there was a choice stays learned."""
    plain, allowed = document(), document()
    allowed["features"][0]["allow_sensitive"] = True
    one, other = compile_document(plain), compile_document(allowed)
    assert one.version != other.version
    assert fingerprint(one, "default") == fingerprint(other, "default")
    assert fingerprint(one, "default") == "4f36a79fc06613a1"  # as it was before

"""Which facts and features may leave, and as what."""

from __future__ import annotations

from support import catalog_document

from arbitration import compile_document
from arbitration.facts import Declared
from decision.exporting.columns import fact_types, feature_encoder


def test_a_fact_of_several_types_is_a_double_or_text() -> None:
    catalogs = [
        {"customer.a": Declared("int"), "customer.b": Declared("timestamp"), "customer.c": Declared("bool")},
        {"customer.b": Declared("string"), "customer.a": Declared("double")},
    ]
    assert fact_types(catalogs, pii=False) == {
        "customer.a": "double",
        "customer.b": "string",
        "customer.c": "bool",
    }


def test_what_one_catalog_calls_personal_is_so_in_all() -> None:
    catalogs = [{"customer.plan": Declared("string", pii=True)}, {"customer.plan": Declared("string")}]
    assert fact_types(catalogs, pii=False) == {}
    live = compile_document(catalog_document()).model
    kept = feature_encoder(live, catalogs, pii=False).columns
    assert not any("plan" in name for name in kept)
    assert {"churn", "nps=missing"} <= set(kept)
    assert "plan=Basic" in feature_encoder(live, catalogs, pii=True).columns

"""Traces: off and unloaded by default; whole, and with nothing of a customer's, where they are on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from decision_traced import CALLER, MARKER

from decision import tracing

HERE = Path(__file__).parent


def run(*command: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"PYTHONPATH": str(HERE.parent), **variables}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of traces."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_the_usual_variables_ask_for_it(
    bare: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    assert tracing.wanted() is wanted


def test_without_the_extra_it_says_so_and_goes_on(
    bare: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bare.setenv("OTEL_TRACES_EXPORTER", "otlp")
    bare.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing.set_up()
    assert "need next-best-action[otel]" in caplog.text


def test_without_traces_a_span_is_nothing() -> None:
    assert tracing.span("a", decision_id="x") is tracing.span("b")
    tracing.tell(decision_id="x")


@pytest.fixture
def traced(postgres_url: str) -> dict[str, Any]:
    """What a process of its own has sent; see `decision_traced.py`."""
    found: dict[str, Any] = json.loads(run(str(HERE / "decision_traced.py"), postgres_url))
    return found


def test_a_decision_is_one_trace_and_nothing_in_it_names_a_customer(traced: dict[str, Any]) -> None:
    spans = traced["spans"]
    _, trace, caller, _ = CALLER.split("-")
    mine = [span for span in spans if span["trace"] == trace]
    by_name = {span["name"]: span for span in mine}

    assert traced["loaded"] == []  # before it was asked for

    # The caller's trace goes on, through us, to the web source.
    assert by_name["POST /v1/decisions"]["parent"] == caller
    head = traced["heads"][0]
    assert f"traceparent: 00-{trace}-" in head.lower()

    # Every stage is a span, with the decision's id above them.
    assert by_name["prepare"]["parent"] == "POST /v1/decisions"
    assert by_name["prepare"]["attributes"]["decision.id"] == traced["decision"]
    for stage in ("resolve", "gather", "decide", "render"):
        assert by_name[stage]["parent"] == "prepare"
    assert by_name["commit"]["parent"] == "POST /v1/decisions"

    # So is every call: of the store in its stage, of each source under a span that names it.
    of_store = [span for span in mine if span["name"] in ("SELECT", "WITH", "INSERT", "BEGIN;", "COMMIT;")]
    assert {"resolve", "commit"} <= {span["parent"] for span in of_store}
    sources = {span["attributes"]["source.id"] for span in mine if span["name"] == "source"}
    assert sources == {"web", "base"}
    below = [span for span in mine if span["parent"] == "source"]
    assert {span["attributes"].get("http.method") for span in below} == {"GET", None}
    assert {span["attributes"].get("db.system") for span in below} == {"postgresql", None}

    # The other requests have traces of their own; what the service asks by itself has none.
    routes = {span["attributes"].get("http.route") for span in spans if span["parent"] is None}
    assert routes == {"/v1/customers/{customer_id}"}

    assert MARKER in head
    assert MARKER not in json.dumps(spans)
    assert all(span["events"] == 0 and span["status"][1] is None for span in spans)

"""The dashboard and the alerts speak of metrics and labels that the service really shows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support import Service, asking, treatments

from decision.metrics import LearnerMetrics

DOCS = Path(__file__).parents[2] / "docs"
WATCHING = DOCS / "operations" / "watching.md"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "operations" / "dashboard.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((DOCS / "operations" / "alerts.yaml").read_text("utf-8"))[
    "groups"
][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {query: query for query in QUERIES}
# Not ours: of Prometheus itself. And of things that no test here makes happen.
OF_PROMETHEUS = {"instance", "job"}
UNSEEN = {"source_circuit_open": {"source"}}


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metric and labels of each selector of a query. Raises ValueError where it is none."""
    tree = promql.parse(expression.replace("$__rate_interval", "5m").replace("$instance", "x"))
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        return True

    promql.walk(tree, visit)
    return found


def grouped(expression: str) -> set[str]:
    """The labels that a query groups by."""
    return {
        label.strip() for found in re.findall(r"\bby \(([^)]*)\)", expression) for label in found.split(",")
    }


@pytest.fixture
async def shown(service: Service) -> dict[str, set[str]]:
    """Every sample's name, with the labels it is seen with."""
    document = (await service.client.get("/v1/catalog")).json()["catalog"]
    document["attributes"][0]["source"] = "crm"
    document["sources"] = [{"id": "crm", "kind": "http", "path": "/{customer_id}"}]
    await service.publish(document)
    decision = await service.decide()
    await service.decide("stranger", "hero")
    await service.client.post("/v1/decisions", json=asking() | {"channel": "nowhere"})
    await service.respond(decision, "accepted", "1", treatments(decision)[0])
    service.context.metrics.source_called("crm", "ok", 0.01)
    service.context.metrics.snapshots_refused({"default": "x"})
    text = (await service.client.get("/metrics")).text + LearnerMetrics().exposition().decode()
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found | {name: found.get(name, set()) | labels for name, labels in UNSEEN.items()}


async def test_every_metric_and_label_is_the_services(shown: dict[str, set[str]]) -> None:
    for name, expression in EXPRESSIONS.items():
        labels = set()
        assert selectors(expression), name
        for metric, used in selectors(expression):
            assert metric in shown, name
            assert used <= shown[metric] | OF_PROMETHEUS, name
            labels |= shown[metric]
        assert grouped(expression) <= labels | OF_PROMETHEUS, name


async def test_every_metric_of_ours_is_on_the_dashboard(shown: dict[str, set[str]]) -> None:
    used = {
        re.sub(r"_(bucket|sum|count)$", "", metric) for query in QUERIES for metric, _ in selectors(query)
    }
    ours = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in shown}
    assert ours - used == {
        "process_pid",  # by which the others are found
        "process_virtual_memory_bytes",
        "process_max_fds",
    }


def test_what_is_not_promql_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        selectors("sum(rate(decisions_total[5m])")


def test_what_a_legend_or_summary_says_is_in_the_result() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            names = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = grouped(target["expr"]) if re.search(r"\b(sum|max|min)\b", target["expr"]) else None
            assert kept is None or names <= kept, target["expr"]
    for rule in RULES:
        names = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert names <= grouped(rule["expr"]), rule["alert"]


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_alert_waits_says_how_bad_it_is_and_what_to_do() -> None:
    anchors = {
        re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^#+ (.*)$", WATCHING.read_text("utf-8"), re.MULTILINE)
    }
    for rule in RULES:
        assert re.fullmatch(r"\d+m", rule["for"]), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operations/watching.md"
        assert anchor == rule["alert"].lower()
        assert anchor in anchors, rule["alert"]

"""What-if and evaluation over a real store, filled by the service."""

from __future__ import annotations

import io
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from rich.console import Console
from support import ANNA, CHANNEL_OF, DAY, NOW, Clock, Ids, Service, catalog_document, running

from arbitration.catalog.problems import Source
from decision.errors import Rejected
from decision.publishing import Published, check_document
from decision.storage.port import Customer
from decision.whatif.page import page
from decision.whatif.report import Figure, Report, Verdict
from decision.whatif.running import Options, evaluate, whatif
from decision.whatif.screen import show

CUSTOMERS = 120
PLACEMENTS = ("panel", "side", "block")
LATER = Options(now=NOW + 30 * DAY, examples=3)


def policies(document: dict[str, Any]) -> None:
    """A challenger and a shadow for the champion."""
    document["policies"] = [
        {
            "id": "default",
            "strategy": "thompson",
            "challengers": [{"policy": "greedy", "share": 0.3}, {"policy": "smooth", "shadow": True}],
        },
        {"id": "plain", "strategy": "epsilon_greedy", "features": []},
        {"id": "greedy", "strategy": "epsilon_greedy", "epsilon": 0.3},
        {"id": "smooth", "strategy": "softmax", "features": ["churn"]},
    ]


def catalog() -> dict[str, Any]:
    document = catalog_document()
    policies(document)
    return document


@pytest.fixture
async def log(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Two rounds of a decision for each customer, answered, and learned from: made once, and copied."""
    clock, made = Clock(), tmp_path_factory.getbasetemp() / "whatif.db"
    if not made.exists():
        async with running(made, clock) as service:
            await fill(service)
    clock.now, ids = NOW + 12 * DAY, Ids(10_000)
    async with running(Path(shutil.copy(made, tmp_path / "log.db")), clock, ids) as service:
        yield service


async def fill(service: Service) -> None:
    await service.publish(catalog())
    known = ANNA["attributes"], ANNA["scores"], ANNA["consents"]
    await service.context.store.put_customers(
        [Customer(f"c{number}", *known) for number in range(CUSTOMERS)], NOW
    )
    for round in range(2):
        await visits(service, round)
        service.clock.now += DAY
        await service.learner().step()
        await service.context.live.refresh()


async def visits(service: Service, round: int) -> None:
    requests = []
    for number in range(CUSTOMERS):
        placement = PLACEMENTS[(number + round) % 3]
        requests.append(
            {
                "customer_id": f"c{number}",
                "channel": CHANNEL_OF[placement],
                "placements": [{"id": placement}],
                "profile": {"nps": number % 9},
            }
        )
    reply = await service.client.post("/v1/decisions:batch", json={"requests": requests})
    responses = []
    for number, result in enumerate(reply.json()["results"]):
        assert result["status"] == 200, result
        decision = result["decision"]
        items = [item for placement in decision["placements"] for item in placement["items"]]
        for item in items:
            if item["treatment"] is not None:
                yes = (len(item["treatment"]) + number // 3) % 3 == 0
                responses.append(
                    {
                        "response_id": f"{decision['decision_id']}/{item['treatment']}",
                        "decision_id": decision["decision_id"],
                        "treatment": item["treatment"],
                        "outcome": "accepted" if yes else "no_response",
                    }
                )
    reply = await service.client.post("/v1/responses", json=responses)
    assert reply.status_code in (200, 201, 202), reply.text


def candidate(document: dict[str, Any]) -> Published:
    checked = check_document(Source(document))
    assert checked.published is not None, checked.problems
    return checked.published


def printed(report: Report) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    show(report, console)
    return console.export_text()


def figure(verdict: Verdict, metric: str = "reward") -> Figure:
    return next(each for each in verdict.figures if each.metric == metric and each.of == "all")


async def test_the_catalog_as_it_is_changes_nothing(log: Service) -> None:
    report = await whatif(log.context.store, candidate(catalog()), LATER)
    (verdict,) = report.verdicts
    assert report.judged == report.read == 2 * CUSTOMERS
    assert set(report.states["default"]) == set(report.states["plain"]) == {"then"}
    assert all(each.changed == 0 == each.other_pick for each in verdict.changes)
    said = figure(verdict)
    assert (said.difference.value, said.difference.low, said.difference.high) == (0, 0, 0)
    assert said.target == said.today
    assert said.today.value is not None
    assert not verdict.examples
    for each in (*verdict.groups, *verdict.arms, *verdict.contacts):
        assert each.today == each.target
        assert each.unsupported == 0
    print(printed(report))
    print(report.states, report.notes, report.left_out)


async def test_a_lever_is_judged_with_the_beliefs_of_then(log: Service) -> None:
    document = catalog()
    document["actions"][3]["lever"] = 5.0
    report = await whatif(log.context.store, candidate(document), LATER)
    (verdict,) = report.verdicts
    assert verdict.changes[0].changed > 0.3
    groups = {each.name: each for each in verdict.groups}
    assert groups["service"].target > groups["service"].today
    assert groups["retention"].target < groups["retention"].today
    example = verdict.examples[0]
    assert any("lever 1 → 5" in why for why in example.why.values())
    text = printed(report)
    print(text)
    assert example.decision_id in text
    assert orjson.loads(orjson.dumps(report.to_json()))["verdicts"][0]["examples"]
    document_text = page(report)
    assert document_text.startswith("<!DOCTYPE html>")
    ElementTree.fromstring(document_text.removeprefix("<!DOCTYPE html>\n"))
    assert "http" not in document_text.replace("http://www.w3.org/2000/svg", "")


async def test_what_the_candidate_lacks_or_the_log_does_is_said(log: Service) -> None:
    document = catalog()
    document["attributes"].append({"id": "vip", "type": "bool"})
    document["actions"][3]["eligibility"] = ["customer.vip"]
    document["placements"] = [each for each in document["placements"] if each["id"] != "side"]
    for action in document["actions"]:
        action["treatments"] = [each for each in action["treatments"] if each["placement"] != "side"]
    report = await whatif(log.context.store, candidate(document), LATER)
    (verdict,) = report.verdicts
    assert report.missing == {"customer.vip": 2 * CUSTOMERS}
    assert set(report.lacking) == {"side"}
    arms = {each.name: each for each in verdict.arms}
    assert arms["check_agent"].note == "goes"
    assert arms["check_side"].note == "goes"
    web = next(each for each in verdict.changes if each.channel == "web")
    assert web.changed == 1
    text = printed(report)
    assert "customer.vip is not in the log" in text
    assert "the placement side is not in the candidate" in text


async def test_only_what_is_asked_for_is_read(log: Service) -> None:
    options = Options(now=LATER.now, since=NOW + DAY, limit=10)
    report = await whatif(log.context.store, candidate(catalog()), options)
    assert (report.read, report.judged) == (10, 10)
    assert report.since is not None
    assert report.since >= "2026-03-02"
    empty = await whatif(log.context.store, candidate(catalog()), Options(now=LATER.now, until=NOW))
    assert (empty.read, empty.judged) == (0, 0)
    assert "no decision to judge by" in printed(empty)
    page(empty)


async def test_where_outcomes_are_awaited_nothing_is_judged(log: Service) -> None:
    await visits(log, 0)
    for number in range(4):
        decision = await log.decide(f"open{number}", "panel", profile={"nps": 3, "plan": "Basic"})
        assert decision["placements"][0]["items"]
    report = await whatif(log.context.store, candidate(catalog()), Options(now=log.clock.now))
    # The learner has not come to any of them; of the web it could not be told.
    assert report.left_out == {"awaited": CUSTOMERS * 2 // 3 + 4}
    await log.learner().step()
    report = await whatif(log.context.store, candidate(catalog()), Options(now=log.clock.now))
    assert report.left_out == {"awaited": 3}  # of 120 on the channel, one may be awaited
    assert report.judged == 3 * CUSTOMERS + 1
    report = await whatif(log.context.store, candidate(catalog()), LATER)
    assert report.left_out == {}


async def test_a_policy_of_other_features_learns_from_the_first_half(log: Service) -> None:
    document = catalog()
    document["policies"][0]["features"] = ["churn"]
    report = await whatif(log.context.store, candidate(document), LATER)
    assert set(report.states["default"]) == {"first_half"}
    assert set(report.states["plain"]) == {"then"}
    assert report.left_out == {"first_half": CUSTOMERS}
    assert report.judged == CUSTOMERS


async def test_every_policy_is_evaluated_as_if_it_decided_for_all(log: Service) -> None:
    report = await evaluate(log.context.store, LATER)
    print(printed(report))
    named = {each.name: each for each in report.verdicts}
    assert set(named) == {"default", "plain", "greedy", "smooth"}
    assert "challenger with 30%" in named["greedy"].description
    assert "shadow" in named["smooth"].description
    assert named["plain"].decisions < 2 * CUSTOMERS
    assert named["default"].decisions + named["plain"].decisions == 2 * CUSTOMERS
    # The champion decides for most already.
    assert 0 < named["default"].changes[0].changed < named["greedy"].changes[0].changed < 1
    assert named["plain"].changes[0].changed == 0
    page(report)
    (one,) = (await evaluate(log.context.store, LATER, ["greedy"])).verdicts
    assert one == named["greedy"]
    with pytest.raises(Rejected):
        await evaluate(log.context.store, LATER, ["nobody"])

"""The fairness report over a real store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import DAY, NOW, Service
from unequal import AGAIN, FEW, MEN, UNKNOWN, WOMEN, sensitive_catalog

from arbitration.evaluation.ratios import Rate
from decision.storage.fairness import Counting, Measured


async def report(service: Service, **asked: str) -> dict[str, Any]:
    reply = await service.client.get("/v1/reports/fairness", params=asked)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def of(found: dict[str, Any], attribute: str) -> dict[str, Any]:
    return next(each for each in found["attributes"] if each["attribute"] == attribute)


def line(found: dict[str, Any], by: str, name: str | None, measure: str) -> dict[str | None, dict[str, Any]]:
    (levels,) = (
        each["levels"]
        for each in found["lines"]
        if (each["by"], each["name"], each["measure"]) == (by, name, measure)
    )
    return {"pooled" if each["pooled"] else each["level"]: each for each in levels}


async def test_exposure_and_acceptance_by_level(judged: Service) -> None:
    found = await report(judged)
    assert (found["since"], found["until"], found["channel"]) == (None, None, None)
    gender = of(found, "gender")
    assert gender["reference"] == "f"
    shown = line(gender, "action", "upgrade", "exposure")
    for level, count, more in (("f", WOMEN, AGAIN), ("m", MEN, 0), ("pooled", UNKNOWN + FEW, 0)):
        assert (shown[level]["customers"], shown[level]["chances"]) == (count, count + more)
    assert shown["m"]["rate"] > 0.5 > 0.3 > shown["f"]["rate"]
    assert shown["f"]["reason"] == "reference"
    assert shown["m"]["ratio"] == pytest.approx(shown["m"]["rate"] / shown["f"]["rate"])
    assert 1 < shown["m"]["low"] < shown["m"]["ratio"] < shown["m"]["high"]
    assert shown["m"]["stands_out"]
    assert (shown["pooled"]["taken"], shown["pooled"]["ratio"], shown["pooled"]["low"]) == (0, 0, 0)
    anything = line(gender, "overall", None, "exposure")
    assert [anything[level]["rate"] for level in ("f", "m", "pooled")] == [1, 1, 1]
    accepted = line(gender, "overall", None, "acceptance")
    assert accepted["f"]["rate"] > 0.5
    assert {each["reason"] for each in accepted.values()} <= {"reference", "withheld", "no_reference", None}
    ratios = [each["ratio"] for attribute in found["attributes"] for of in attribute["lines"]
              for each in of["levels"] if each["low"] is not None]  # fmt: skip
    assert len(ratios) == found["ratios"] > 10


async def test_few_customers_are_not_told(judged: Service) -> None:
    gender = of(await report(judged), "gender")
    # With the next smallest, as all but these few could be subtracted from what another attribute adds up to.
    assert gender["levels"][-1] == {"level": None, "pooled": ["x", None], "customers": FEW + UNKNOWN}
    # Nor few of a large level that were shown something, nor what that follows from.
    accepted = line(gender, "action", "check", "acceptance")
    assert accepted["m"]["reason"] == "too_few_customers"
    assert sorted(each["reason"] for each in accepted.values()).count("withheld") >= 1
    names = ("customers", "chances", "taken", "rate", "ratio", "low", "high")
    for each in accepted.values():
        if each["reason"] in ("withheld", "too_few_customers"):
            assert {each[name] for name in names} == {None}


async def test_one_report_is_made_at_a_time(judged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    store, running, most = judged.context.store, 0, 0
    counted = store.fairness

    async def fairness(counting: Counting) -> dict[Measured, Rate]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        found = await counted(counting)
        running -= 1
        return found

    monkeypatch.setattr(store, "fairness", fairness)
    first, second = await asyncio.gather(report(judged), report(judged))
    assert first["attributes"] == second["attributes"]
    assert most == 1
    monkeypatch.setattr("decision.fairness.report._WAIT", 0.001)
    replies = await asyncio.gather(*(judged.client.get("/v1/reports/fairness") for _ in range(2)))
    assert sorted(each.status_code for each in replies) == [200, 503]
    assert (await report(judged))["attributes"] == first["attributes"]


async def test_bands_and_what_has_none(judged: Service) -> None:
    found = await report(judged)
    age, creed = of(found, "age"), of(found, "creed")
    assert [each["level"] for each in age["levels"]] == ["below 30", "from 50"]
    assert (creed["unreported"], creed["lines"], creed["levels"]) == ("no_values", [], [])
    assert age["unreported"] is None
    assert age["rules"] == ["attributes.adult.derive", "actions.check.eligibility[0]"]
    assert age["features"] == []


async def test_by_time_channel_and_attribute(judged: Service) -> None:
    until = (NOW + DAY).isoformat().replace("+00:00", "Z")
    found = await report(judged, attribute="gender", until=until)
    assert [each["attribute"] for each in found["attributes"]] == ["gender"]
    shown = line(of(found, "gender"), "overall", None, "exposure")
    assert shown["f"]["chances"] == WOMEN
    assert of(await report(judged, channel="web"), "gender")["lines"] == []
    assert of(await report(judged, channel="agent"), "gender")["lines"]
    later = (NOW + 5 * DAY).isoformat().replace("+00:00", "Z")
    assert of(await report(judged, since=later), "gender")["levels"] == []


@pytest.mark.parametrize(
    ("asked", "field", "code"),
    [
        ({"attribute": "plan"}, "attribute", "unknown_attribute"),
        ({"channel": "fax"}, "channel", "unknown_channel"),
        ({"since": "2026-03-01T00:00:00Z", "until": "2026-03-01T00:00:00Z"}, "until", "empty_window"),
        ({"since": "2026-03-01"}, "since", None),
    ],
)
async def test_what_makes_no_sense_is_refused(
    judged: Service, asked: dict[str, str], field: str, code: str | None
) -> None:
    reply = await judged.client.get("/v1/reports/fairness", params=asked)
    assert reply.status_code == 422, reply.text
    (error,) = reply.json()["errors"]
    assert error["field"].endswith(field)
    assert code in (None, error["code"])


async def test_a_correction_revises_acceptance(judged: Service) -> None:
    before = line(of(await report(judged), "gender"), "overall", None, "acceptance")["f"]
    records = [
        record
        async for record, _ in judged.context.store.decided()
        if record.customer_id.startswith("f") and b'"check_agent"' in record.reply
    ]
    record = records[0]
    message = {
        "response_id": "later",
        "decision_id": record.decision_id,
        "treatment": "check_agent",
        "outcome": "rejected",
        "corrects": record.decision_id,
    }
    reply = await judged.client.post("/v1/responses", json=message)
    assert reply.status_code in (200, 201, 202), reply.text
    await judged.learner().step()
    after = line(of(await report(judged), "gender"), "overall", None, "acceptance")["f"]
    assert (after["chances"], after["taken"]) == (before["chances"], before["taken"] - 1)


async def test_without_sensitive_attributes_there_is_nothing_to_tell(service: Service) -> None:
    assert (await report(service))["attributes"] == []
    await service.publish(sensitive_catalog())
    found = await report(service)
    assert [each["levels"] for each in found["attributes"]] == [[], [], []]

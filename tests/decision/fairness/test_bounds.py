"""Bounds on a catalog that is not released yet: judged by a what-if, kept in the audit trail, enforced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support import DAY, NOW, Service
from typer.testing import CliRunner
from unequal import MEN, WOMEN, customers, sensitive_catalog

from arbitration.catalog.problems import Source
from decision.cli import app
from decision.errors import Rejected
from decision.fairness.bounds import Bounds, BoundVerdict
from decision.fairness.verdicts import Violation, check_publishable, verdict
from decision.publishing import Published, check_document
from decision.register import Register
from decision.storage.port import Event, Json
from decision.whatif.page import page
from decision.whatif.report import Report
from decision.whatif.running import Options, whatif

LATER = Options(now=NOW + 30 * DAY, examples=0)


def bounded(*bounds: dict[str, Any], **actions: Any) -> dict[str, Any]:
    """The catalog with bounds; `actions`: what is said otherwise of them."""
    document = sensitive_catalog()
    document["fairness"] = [{"attribute": "gender", "measure": "exposure"} | each for each in bounds]
    for action in document["actions"]:
        action.update(actions.get(action["id"], {}))
    return document


def published(document: dict[str, Any]) -> Published:
    checked = check_document(Source(document))
    assert checked.published is not None, checked.problems
    return checked.published


async def judge(service: Service, document: dict[str, Any]) -> tuple[Report, dict[str, BoundVerdict]]:
    report = await whatif(service.context.store, published(document), LATER)
    return report, {bound.id: bound for bound in report.bounds}


UPGRADE = {"id": "upgrades", "action": "upgrade"}


async def test_the_catalog_as_it_is_is_judged_by_what_it_showed(judged: Service) -> None:
    report, found = await judge(judged, bounded(UPGRADE, {"id": "anything"}))
    reply = (await judged.client.get("/v1/reports/fairness", params={"attribute": "gender"})).json()
    lines = reply["attributes"][0]["lines"]
    (shown,) = (
        each["levels"] for each in lines if (each["name"], each["measure"]) == ("upgrade", "exposure")
    )
    rates = {each["level"]: each["rate"] for each in shown if not each["pooled"]}
    bound = found["upgrades"]
    assert bound.verdict == "violated"
    assert (bound.level, bound.reference, bound.customers) == ("f", "m", WOMEN + MEN)
    assert (bound.rate, bound.reference_rate) == (rates["f"], rates["m"])
    assert bound.ratio == pytest.approx(rates["f"] / rates["m"])
    assert bound.today == bound.ratio
    assert bound.low is not None
    assert bound.high is not None
    assert bound.low < bound.ratio < bound.high
    assert bound.left_out == ("x",)
    assert (found["anything"].verdict, found["anything"].ratio) == ("kept", 1)
    assert "upgrades" in page(report)


async def test_a_candidate_is_judged_by_what_it_would_show(judged: Service) -> None:
    fair = bounded(UPGRADE, upgrade={"eligibility": []}, check={"eligibility": ["false"]})
    _, found = await judge(judged, fair)
    assert (found["upgrades"].verdict, found["upgrades"].ratio) == ("kept", 1)
    assert found["upgrades"].today is not None
    assert found["upgrades"].today < 0.8
    gone = bounded(UPGRADE, upgrade={"eligibility": ["false"]})
    _, found = await judge(judged, gone)  # shown to nobody
    assert (found["upgrades"].verdict, found["upgrades"].ratio) == ("kept", None)


async def test_acceptance_is_weighed_by_what_the_candidate_would_show(judged: Service) -> None:
    everybody = {"id": "all", "measure": "acceptance"}
    _, found = await judge(judged, bounded(everybody, everybody | {"id": "upgrades", "action": "upgrade"}))
    assert found["all"].verdict == "violated"  # only women accept anything
    assert (found["all"].level, found["all"].ratio) == ("m", 0)
    assert found["upgrades"].verdict == "too_few"
    assert found["upgrades"].ratio is None


def weighed(target: float) -> BoundVerdict:
    """40 women, of whom 20 accept what has the probability `target` instead of 0.4; and 40 men, of whom 20
    accept."""
    compiled = published(bounded({"id": "all", "measure": "acceptance"})).compiled
    bounds = Bounds(compiled, None)
    for number in range(80):
        facts, yes = {"customer.gender": "f" if number < 40 else "m"}, number % 2 == 0
        decision = SimpleNamespace(inputs=SimpleNamespace(objects=False, facts=facts), channel="agent")
        picks = [SimpleNamespace(treatment="check_agent"), SimpleNamespace(treatment="renew_12_agent")]
        logged: Any = SimpleNamespace(decision=decision, customer=str(number), catalog=compiled, picks=picks)
        chances = [target if yes and number < 40 else 0.4, 0.0]
        followed: Any = SimpleNamespace(target=chances, logging=[0.4, 0.1])
        said = {"check_agent": ["accepted" if yes else "rejected"]}  # of the other nothing is known yet
        bounds.add(logged, said, cast(Any, SimpleNamespace(inputs=None)), followed)
    (found,) = bounds.verdicts()
    return found


def test_items_weigh_by_how_much_likelier_they_would_be_shown() -> None:
    found = weighed(0.2)
    assert (found.level, found.reference, found.customers) == ("f", "m", 80)
    assert (found.rate, found.reference_rate) == (pytest.approx(20 / 2 / (20 / 2 + 20)), 0.5)
    assert (found.ratio, found.today, found.verdict) == (pytest.approx(2 / 3), 1, "violated")
    # Where some weigh so little, 40 customers are worth 24.
    found = weighed(0.04)
    assert (found.ratio, found.left_out, found.verdict) == (None, ("f",), "too_few")


async def test_the_bounds_of_the_live_catalog_hold_too(judged: Service) -> None:
    await judged.publish(bounded(UPGRADE, {"id": "anything"}))
    report, _ = await judge(judged, bounded(UPGRADE | {"min_ratio": 0.01}, {"id": "anything"}))
    assert [(bound.id, bound.of, bound.verdict) for bound in report.bounds] == [
        ("upgrades", ("candidate",), "kept"),
        ("anything", ("candidate", "live"), "kept"),
        ("upgrades", ("live",), "violated"),
    ]


async def test_few_customers_are_not_judged(judged: Service) -> None:
    options = replace(LATER, limit=WOMEN + 20)
    report = await whatif(judged.context.store, published(bounded(UPGRADE)), options)
    (bound,) = report.bounds
    assert (bound.verdict, bound.ratio, bound.left_out) == ("too_few", None, ("m",))


async def test_a_bound_of_the_live_catalog_follows_what_is_renamed(judged: Service) -> None:
    await judged.publish(bounded(UPGRADE))
    renamed = sensitive_catalog()
    action = next(each for each in renamed["actions"] if each["id"] == "upgrade")
    action["id"] = "upgrade_2"
    report, found = await judge(judged, renamed)
    assert (found["upgrades"].of, found["upgrades"].verdict) == (("live",), "violated")
    assert found["upgrades"].today == found["upgrades"].ratio
    for each in action["treatments"]:
        each["id"] += "_2"
    report, found = await judge(judged, renamed)
    assert (found["upgrades"].verdict, found["upgrades"].ratio) == ("not_judged", None)
    assert "upgrades: a bound of the live catalog on upgrade, which is gone: not judged" in page(report)
    register = Register(judged.context.store)
    await register.act(lambda _: [verdict(report, "cli:operator")], NOW)
    assert register.verdicts.not_judged(report.candidate) == ("upgrades",)
    check_publishable(register, report.candidate)  # it is shown, and does not stand in the way


async def test_only_the_whole_log_lifts_a_violation(judged: Service) -> None:
    report, _ = await judge(judged, bounded(UPGRADE))
    register, (bound,) = Register(judged.context.store), report.bounds

    async def standing(*found: BoundVerdict, narrowed: bool = False) -> list[str]:
        event = verdict(replace(report, bounds=found), "cli:operator", narrowed=narrowed)
        await register.act(lambda _: [event], NOW)
        return [each.bound for each in register.verdicts.violations(report.candidate) or ()]

    kept, few = replace(bound, verdict="kept"), replace(bound, verdict="too_few", ratio=None)
    assert await standing(bound) == ["upgrades"]
    assert await standing(few) == ["upgrades"]
    assert await standing(replace(few, verdict="not_judged")) == ["upgrades"]
    assert await standing(kept, narrowed=True) == ["upgrades"]
    assert await standing(replace(bound, id="other"), narrowed=True) == ["upgrades", "other"]
    assert await standing(kept, replace(bound, of=("live",))) == ["upgrades", "other"]  # two of that id
    assert await standing(kept) == ["other"]
    assert await standing(replace(kept, id="other")) == []


async def test_what_violates_a_bound_is_not_published(judged: Service) -> None:
    report, _ = await judge(judged, bounded(UPGRADE))
    store, version = judged.context.store, report.candidate
    register = Register(store)
    await register.refresh()
    check_publishable(register, version)  # never judged
    await register.act(lambda _: [verdict(report, "cli:operator")], NOW)
    (found,) = register.verdicts.violations(version) or ()
    assert found == Violation("upgrades", report.bounds[0].ratio or 0, 0.8)
    with pytest.raises(Rejected) as refused:
        check_publishable(register, version)
    assert (refused.value.status, refused.value.code) == (409, "fairness_bound")
    assert refused.value.errors[0].field == "fairness.upgrades"
    # The newest verdict counts, and only of this version.
    check_publishable(register, "another")
    entry = (await store.entries(state=True))[-1]
    assert (entry.event.kind, entry.event.subject) == ("verdict.fairness", f"catalog:{version}")
    written = json.dumps(entry.event.detail)
    assert not any(each.customer_id in written for each in customers())
    again = Register(store)
    await again.refresh()
    assert again.verdicts.violations(version) == (found,)
    kept = replace(report, bounds=(replace(report.bounds[0], verdict="kept"),))
    await register.act(lambda _: [verdict(kept, "cli:operator")], NOW)
    check_publishable(register, version)


def test_the_command_writes_down_what_it_found(judged: Service, tmp_path: Path) -> None:
    file = tmp_path / "candidate.json"
    file.write_text(json.dumps(bounded(UPGRADE)))
    found = CliRunner().invoke(app, ["whatif", str(file), f"--store=sqlite:{judged.path}"])
    assert found.exit_code == 0, found.output
    assert "violated" in found.output
    few = CliRunner().invoke(app, ["whatif", str(file), f"--store=sqlite:{judged.path}", "--limit=20"])
    assert "too few" in few.output
    assert "no bound that was found violated is lifted" in " ".join(few.output.split())
    assert "no bound" not in found.output
    out = CliRunner().invoke(app, ["catalog", "publish", str(file), f"--store=sqlite:{judged.path}"])
    assert out.exit_code != 0, out.output
    assert "fairness" in out.output + str(out.exception)


async def test_no_way_to_publish_it_is_left(judged: Service) -> None:
    document = bounded(UPGRADE)
    found: dict[str, Json] = {"id": "upgrades", "verdict": "violated", "ratio": 0.5, "min_ratio": 0.8}
    subject = f"catalog:{published(document).version}"
    event = Event("verdict.fairness", "cli:operator", subject, {"bounds": [found]}, state=True)
    await Register(judged.context.store).act(lambda _: [event], NOW)
    reply = await judged.client.post("/v1/catalog/publish", json=document)
    assert reply.status_code == 409, reply.text
    assert reply.json()["code"] == "fairness_bound"

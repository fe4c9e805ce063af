"""Lift: treated against control customers, through the service and from counts made by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support import DAY, Clock, Service, asking, catalog_document, running

from arbitration.catalog.compile import CompiledCatalog, compile_document
from arbitration.control import sample_ratio
from arbitration.evaluation import Sample, difference_in_means
from decision.lift import comparisons
from decision.messages import LiftReply
from decision.storage.port import Cohort, OutcomeSums

CUSTOMERS = 900
OVERALL, UNTREATED = ("overall", ""), ("untreated", "")


def document(behaviour: str = "random_eligible", **more: Any) -> dict[str, Any]:
    found = catalog_document()
    found["control_groups"] = [{"id": "holdout", "share": 0.4, "behaviour": behaviour} | more]
    return found


@cache
def catalog(behaviour: str, *groups: str) -> CompiledCatalog:
    covered = {"groups": list(groups)} if groups else {}
    return compile_document(document(behaviour, **covered))


def cohorts(
    control: dict[tuple[str, str], OutcomeSums],
    treated: dict[tuple[str, str], OutcomeSums],
    share: float = 0.4,
) -> list[Cohort]:
    """2,000 customers, of whom 800 are in the group; a quarter of all are not mature yet."""
    return [
        Cohort("holdout", "", share, False, 1200, 900, treated),
        Cohort("holdout", "", share, True, 800, 600, control),
    ]


def sums(customers: int, each: float = 10.0) -> OutcomeSums:
    return OutcomeSums(customers, customers * each, customers * each * each)


def reasons(comparison: dict[str, Any]) -> dict[str, str | None]:
    return {line["name"] or line["by"]: line["rate"]["reason"] for line in comparison["lines"]}


async def report(service: Service, **asked: Any) -> dict[str, Any]:
    reply = await service.client.get("/v1/reports/lift", params=asked)
    assert reply.status_code == 200, reply.text
    LiftReply.model_validate_json(reply.content)
    found: dict[str, Any] = reply.json()
    return found


async def test_a_known_lift_is_found_overall_and_where_it_is(tmp_path: Path) -> None:
    """Of the treated, 1 in 2 accepts the check for 8 euros; of the control customers 1 in 4. Of both, 1 in 5
    takes the upgrade."""
    clock = Clock()
    async with running(tmp_path / "x.db", clock) as service:
        await service.publish(document())
        customers = [f"c-{number}" for number in range(CUSTOMERS)]
        asked = {"requests": [asking(id, profile={"plan": "Basic"}) for id in customers]}
        results = (await service.client.post("/v1/decisions:batch", json=asked)).json()["results"]
        sides: dict[bool, int] = {True: 0, False: 0}
        expected: dict[bool, dict[str, int]] = {side: {"check": 0, "upgrade": 0} for side in sides}
        answers = []
        for id, result in zip(customers, results, strict=True):
            made = result["decision"]
            member = made["control_group"] == "holdout"
            sides[member] += 1
            for action, value, one_in in (("check", 8.0, 4 if member else 2), ("upgrade", 30.0, 5)):
                if sides[member] % one_in == 0:
                    expected[member][action] += 1
                    answer = {"response_id": f"{id}-{action}", "decision_id": made["decision_id"]}
                    answer |= {"treatment": f"{action}_agent", "outcome": "accepted"}
                    answers.append(answer | {"value": value})
        reply = await service.client.post("/v1/responses", json=answers)
        assert reply.status_code == 200, reply.text
        (early,) = (await report(service))["comparisons"]
        assert (early["treated"]["customers"], early["treated"]["mature"]) == (sides[False], 0)
        assert reasons(early) == {"overall": "too_few_customers"}
        clock.now += 28 * DAY
        (found,) = (await report(service))["comparisons"]
    assert {name: found[name] for name in ("control_group", "since", "share", "behaviour")} == {
        "control_group": "holdout", "since": None, "share": 0.4, "behaviour": "random_eligible"
    }  # fmt: skip
    assert found["control"] == {"customers": sides[True], "mature": sides[True], "untreated": 0}
    p_value = sample_ratio(CUSTOMERS, sides[True], CUSTOMERS * 0.4, CUSTOMERS * 0.24)
    assert found["p_value"] == pytest.approx(p_value)
    assert not found["sample_ratio_mismatch"]
    lines = {(line["by"], line["name"]): line for line in found["lines"]}
    assert list(lines) == [
        ("overall", None), ("group", "sales"), ("group", "service"), ("channel", "agent"),
        ("action", "check"), ("action", "upgrade"),
    ]  # fmt: skip
    for action, value in (("check", 8.0), ("upgrade", 30.0)):
        line = lines["action", action]
        for side, member in (("treated", False), ("control", True)):
            accepted = expected[member][action]
            assert line[side] == {
                "customers": sides[member],
                "with_outcome": accepted,
                "rate": accepted / sides[member],
                "value": accepted * value,
                "value_per_customer": accepted * value / sides[member],
            }
        samples = [
            Sample(sides[member], expected[member][action], expected[member][action])
            for member in (False, True)
        ]
        lift = difference_in_means(*samples)
        figure = line["rate"]
        assert (figure["difference"], figure["low"], figure["high"]) == (lift.estimate, lift.low, lift.high)
        assert (figure["relative"], figure["relative_low"]) == (lift.ratio, lift.ratio_low)
        for name in ("difference", "low", "high"):
            assert line["value"][name] == pytest.approx(value * figure[name])
    assert 0 < lines["action", "check"]["rate"]["low"] < 0.25 < lines["action", "check"]["rate"]["high"]
    assert lines["action", "upgrade"]["rate"]["low"] < 0 < lines["action", "upgrade"]["rate"]["high"]
    assert lines["overall", None]["rate"] == lines["channel", "agent"]["rate"]
    assert lines["group", "service"]["rate"] == lines["action", "check"]["rate"]


async def test_what_is_asked_for(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "x.db", clock) as service:
        await service.publish(document())
        assert (await report(service))["comparisons"] == []
        assert (await report(service, control_group="holdout"))["comparisons"] == []
        decision = await service.decide("anna", profile={"plan": "Basic"})
        await service.respond(decision, "rejected", "r-1", "check_agent")
        clock.now += DAY
        found = await report(service, days=1, outcome=["rejected", "accepted"], control_group="holdout")
        assert (found["days"], found["outcomes"]) == (1, ["accepted", "rejected"])
        assert (found["currency"], found["confidence"]) == ("EUR", 0.95)
        (comparison,) = found["comparisons"]
        assert sum(comparison["lines"][0][side]["with_outcome"] for side in ("treated", "control")) == 1
        await service.publish(catalog_document())  # what was recorded can be asked for, also when it is over
        (comparison,) = (await report(service, control_group="holdout"))["comparisons"]
        assert comparison["behaviour"] is None
        for asked, field, code in (
            ({"control_group": "nobody"}, "control_group", "unknown_control_group"),
            ({"outcome": ["accepted", "converted"]}, "outcome", "unknown_outcome"),
            ({"outcome": ["accepted", "sold"]}, "outcome[1]", "literal_error"),
            ({"days": 0}, "days", "greater_than_equal"),
        ):
            reply = await service.client.get("/v1/reports/lift", params=asked)
            assert reply.status_code == 422
            assert [(error["field"], error["code"]) for error in reply.json()["errors"]] == [(field, code)]


def test_each_share_is_a_comparison_of_its_own() -> None:
    """Pooled, the many members of a raised share would be compared with others who mostly came before it."""
    early = [
        Cohort("holdout", "2026-01-01", 0.1, False, 900, 900, {OVERALL: sums(450)}),
        Cohort("holdout", "2026-01-01", 0.1, True, 100, 100, {OVERALL: sums(50)}),
    ]
    late = [
        Cohort("holdout", "2026-01-01", 0.5, False, 500, 500, {OVERALL: sums(50)}),
        Cohort("holdout", "2026-01-01", 0.5, True, 500, 500, {OVERALL: sums(50)}),
    ]
    found = comparisons(early + late, catalog("random_eligible"))
    assert [(each["share"], each["lines"][0]["rate"]["difference"]) for each in found] == [(0.1, 0), (0.5, 0)]
    assert all(each["p_value"] == 1 for each in found)


def test_a_side_without_anybody_is_a_mismatch_and_no_figure() -> None:
    (found,) = comparisons([Cohort("holdout", "", 0.4, True, 50, 50, {})], catalog("no_levers"))
    assert found["treated"] == {"customers": 0, "mature": 0, "untreated": 0}
    assert found["lines"][0]["treated"]["rate"] is None
    assert found["sample_ratio_mismatch"]
    figure = found["lines"][0]["rate"]
    assert (figure["reason"], figure["measured"], figure["bound"]) == ("too_few_customers", 0, 100)


ALL = {OVERALL: sums(200), ("channel", "agent"): sums(200), ("action", "check"): sums(100)}
ALL |= {("action", "upgrade"): sums(100), ("group", "service"): sums(100), ("group", "sales"): sums(100)}


def test_who_is_shown_nothing_is_compared_by_what_is_reported_without_a_treatment() -> None:
    (blind,) = comparisons(cohorts({}, ALL), catalog("no_action"))
    assert reasons(blind) == {
        **dict.fromkeys(("overall", "agent"), "nothing_untreated_reported"),
        **dict.fromkeys(("check", "upgrade", "service", "sales"), "held_out_of_control"),
    }
    bought = {OVERALL: sums(90), ("channel", "agent"): sums(90), UNTREATED: sums(90)}
    (seen,) = comparisons(cohorts(bought, ALL), catalog("no_action"))
    assert reasons(seen) == {**reasons(blind), "overall": None, "agent": None}
    assert seen["control"]["untreated"] == 90
    assert seen["lines"][0]["rate"]["difference"] == pytest.approx(200 / 900 - 90 / 600)
    assert seen["lines"][0]["value"]["difference"] == pytest.approx(2000 / 900 - 900 / 600)


def test_what_is_not_held_out_of_control_customers_is_compared() -> None:
    """Which tells what holding out the others does to it."""
    bought = {OVERALL: sums(90), UNTREATED: sums(20), ("action", "check"): sums(70)}
    (found,) = comparisons(cohorts(bought, ALL), catalog("no_action", "sales"))
    assert {name for name, why in reasons(found).items() if why == "held_out_of_control"} == {
        "upgrade", "sales"
    }  # fmt: skip
    assert reasons(found)["check"] is None


def test_every_other_behaviour_shows_something() -> None:
    for behaviour in ("random_eligible", "propensity_only", "no_levers", "random_propensity"):
        (found,) = comparisons(cohorts(ALL, ALL), catalog(behaviour))
        assert set(reasons(found).values()) == {None}


def test_values_that_mean_nothing_are_not_compared() -> None:
    for each in (-5.0, 1e200):  # below 0 together; or with squares beyond the floats
        (found,) = comparisons(cohorts({OVERALL: sums(90, each)}, ALL), catalog("no_levers"))
        assert found["lines"][0]["rate"]["difference"] is not None
        assert found["lines"][0]["value"]["reason"] == "value_out_of_range"


async def test_what_held_out_customers_do_is_reported_without_a_treatment(tmp_path: Path) -> None:
    """One buys twice, which is one customer; another's purchase was a mistake."""
    clock = Clock()
    async with running(tmp_path / "x.db", clock) as service:
        await service.publish(document("no_action", share=1.0))
        for number, customer in enumerate(("anna", "anna", "bert")):
            decision = await service.decide(customer)
            assert decision["placements"][0]["items"] == []
            answer = {"decision_id": decision["decision_id"], "outcome": "accepted", "value": 20}
            mistake = {"response_id": "r-3", "outcome": "rejected", "corrects": "r-2"}
            for more in ({"response_id": f"r-{number}"}, *((mistake,) if customer == "bert" else ())):
                reply = await service.client.post("/v1/responses", json=answer | more)
                assert reply.status_code == 200, reply.text
        clock.now += 28 * DAY
        (found,) = (await report(service))["comparisons"]
        assert found["control"] == {"customers": 2, "mature": 2, "untreated": 1}
        control = [line["control"] for line in found["lines"]]
        assert [(line["by"], line["name"]) for line in found["lines"]] == [
            ("overall", None),
            ("channel", "agent"),
        ]
        assert [(side["with_outcome"], side["value"]) for side in control] == [(1, 40), (1, 40)]
        (group,) = (await service.client.get("/v1/reports/control-groups")).json()["control_groups"]
        assert group["members"]["outcomes"] == {"accepted": 1, "rejected": 1}

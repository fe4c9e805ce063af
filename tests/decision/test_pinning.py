"""Snapshots can be listed, compared, pinned, and gone back from."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support import Service, catalog_document

from arbitration.snapshot import PRIOR
from decision.learner import Learner

ASKED = {"profile": {"nps": 9, "plan": "Max"}}


async def learned(service: Service, outcomes: list[str]) -> list[str]:
    """The snapshots of the policy `default` after each of these answers."""
    learner, versions = Learner(service.context.store, service.clock), []
    for number, outcome in enumerate(outcomes):
        service.clock.now += timedelta(minutes=1)
        decision = await service.decide(**ASKED)
        await service.respond(
            decision, outcome, f"{outcome}-{number}-{service.clock.now:%H%M}", "check_agent"
        )
        while await learner.step():
            pass
        await service.context.live.refresh()
        versions.append(served(service))
    return versions


def served(service: Service) -> str:
    return service.context.live.serving.snapshots["default"].version


async def call(service: Service, method: str, path: str, body: object = None) -> tuple[int, Any]:
    reply = await service.client.request(method, f"/v1/snapshots{path}", json=body)
    return reply.status_code, reply.json()


async def test_a_policy_that_has_learned_nothing_stands_at_its_prior(service: Service) -> None:
    status, reply = await call(service, "GET", "")
    assert status == 200
    assert [policy["policy"] for policy in reply["policies"]] == ["default", "plain"]
    assert reply["policies"][0] == {
        "policy": "default", "snapshot": PRIOR, "newest": PRIOR, "pinned": None, "refused": None,
        "learned": 0.0,
    }  # fmt: skip
    assert await call(service, "GET", "/default") == (200, {"snapshots": []})
    status, problem = await call(service, "POST", "/default/rollback")
    assert (status, problem["code"]) == (409, "no_earlier_snapshot")


async def test_a_pinned_snapshot_is_served_whatever_is_learned(service: Service) -> None:
    first, second = await learned(service, ["rejected", "accepted"])
    assert first != second
    status, reply = await call(service, "PUT", "/default/pin", {"version": first})
    assert status == 200
    assert (reply["policies"][0]["snapshot"], reply["policies"][0]["pinned"]) == (first, first)
    assert reply["policies"][0]["newest"] == second
    (third,) = await learned(service, ["rejected"])
    assert third == first
    decision = await service.decide(**ASKED)
    replayed = await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")
    assert replayed.json()["identical"]
    status, reply = await call(service, "DELETE", "/default/pin")
    policy = reply["policies"][0]
    assert (status, policy["pinned"]) == (200, None)
    assert policy["snapshot"] == policy["newest"] not in (first, second)
    assert policy["learned"] == 3.0
    # and now everything that was learned meanwhile counts


async def test_going_back_goes_one_back_each_time(service: Service) -> None:
    versions = await learned(service, ["rejected", "accepted", "accepted"])
    for before in reversed(versions[:-1]):
        status, reply = await call(service, "POST", "/default/rollback")
        assert status == 200
        assert reply["policies"][0]["snapshot"] == before
    assert (await call(service, "POST", "/default/rollback"))[0] == 409
    assert served(service) == versions[0]


async def test_other_processes_take_a_pin_up(service: Service) -> None:
    first, _ = await learned(service, ["rejected", "accepted"])
    store = service.context.store
    (lineage,) = [line for line in await store.live_snapshots() if line.startswith("default-")]
    await store.pin(lineage, first, service.clock.now)
    await service.context.live.refresh()
    assert served(service) == first


async def test_snapshots_are_listed_and_compared(service: Service) -> None:
    first, second = await learned(service, ["rejected", "accepted"])
    status, reply = await call(service, "GET", "/default")
    assert [each["version"] for each in reply["snapshots"]] == [second, first]
    assert [each["created_at"] for each in reply["snapshots"]] == [
        "2026-03-01T12:32:15.250000Z", "2026-03-01T12:31:15.250000Z"
    ]  # fmt: skip
    status, reply = await call(service, "GET", f"/default/comparison?before={first}&after={second}")
    assert (status, reply) == (
        200,
        {
            "treatments": [
                {"treatment": "check_agent", "count_before": 1.0, "count_after": 2.0, "mean_before": 0.0,
                 "mean_after": 0.5}
            ]
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/none", None, 404, "policy"),
        ("PUT", "/none/pin", {"version": "v"}, 404, "policy"),
        ("PUT", "/default/pin", {"version": "v"}, 404, "version"),
        ("PUT", "/default/pin", {}, 422, "version"),
        ("DELETE", "/none/pin", None, 404, "policy"),
        ("POST", "/none/rollback", None, 404, "policy"),
        ("GET", "/default/comparison?before=a&after=b", None, 404, "before"),
        ("GET", "/default/comparison?before=a", None, 422, "after"),
    ],
)
async def test_what_cannot_be_is_refused(
    service: Service, method: str, path: str, body: object, status: int, field: str
) -> None:
    found, problem = await call(service, method, path, body)
    assert found == status, problem
    assert [error["field"] for error in problem["errors"]] == [field]
    assert await service.context.store.pins() == {}


async def test_a_snapshot_of_another_lineage_cannot_be_pinned(service: Service) -> None:
    (version,) = await learned(service, ["accepted"])
    document = catalog_document()
    document["channels"][0]["combine"] = "sum"
    await service.publish(document)
    status, problem = await call(service, "PUT", "/default/pin", {"version": version})
    assert (status, problem["errors"][0]["code"]) == (404, "unknown_snapshot")


async def test_a_state_that_comes_back_is_the_newest_again(service: Service) -> None:
    learner, store = Learner(service.context.store, service.clock), service.context.store
    decision = await service.decide(**ASKED)
    versions = []
    for number, outcome in enumerate(["accepted", "rejected", "accepted"]):
        message = {
            "response_id": f"r-{number}", "decision_id": decision["decision_id"], "treatment": "check_agent",
            "outcome": outcome, "corrects": f"r-{number - 1}" if number else None,
        }  # fmt: skip
        assert (await service.client.post("/v1/responses", json=message)).status_code == 200
        await learner.step()
        await service.context.live.refresh()
        versions.append(served(service))
    assert versions[0] == versions[2] != versions[1]
    listed = [each["version"] for each in (await call(service, "GET", "/default"))[1]["snapshots"]]
    assert listed == [versions[0], versions[1]]
    policy = (await call(service, "GET", ""))[1]["policies"][0]
    assert (policy["snapshot"], policy["newest"]) == (versions[2], versions[2])
    await call(service, "POST", "/default/rollback")
    assert served(service) == versions[1]
    assert await store.pins() != {}

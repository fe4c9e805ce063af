"""Two customers, and a stranger's cookie, prove to be one person: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ANNA, Service, actions, catalog_document, running, treatments

from arbitration.policy.state import State
from arbitration.snapshot import lineage
from decision.learner import Learner
from decision.storage.port import DecisionRecord
from decision.storage.sqlite.store import SqliteStore

PHONE = {"type": "phone", "value": "1"}
TABLET = {"type": "cookie", "value": "tablet"}
BERT = {**ANNA, "identities": [PHONE]}


async def history(service: Service, customer: str) -> list[dict[str, Any]]:
    reply = await service.client.get(f"/v1/customers/{customer}/history")
    found: list[dict[str, Any]] = reply.json()["decisions"]
    return found


async def learned(service: Service, learner: Learner) -> tuple[float, dict[str, Any]]:
    """How many events the default policy has learned, and its sums."""
    while await learner.step():
        pass
    catalog = service.context.live.serving.published.compiled
    version = (await service.context.store.current_snapshots())[lineage(catalog, "default")]
    record = await service.context.store.snapshot(version)
    assert record is not None
    state = State.from_bytes(record.content)
    return float(state.count.sum()), {
        arm: (state.outer[row], state.moment[row]) for arm, row in state.rows.items()
    }


async def answered(
    service: Service, id: str, outcome: str, customer: str = "anna", **more: Any
) -> dict[str, Any]:
    decision = await service.decide(customer, **more)
    reply = await service.respond(decision, outcome, id, treatments(decision)[0])
    assert reply.json()["recorded"] == 1
    return decision


async def test_two_customers_become_one(tmp_path: Path) -> None:
    async with running(tmp_path / "db") as service:
        client = service.client
        await service.publish(catalog_document())
        await client.put("/v1/customers/anna", json=ANNA)
        await client.put("/v1/customers/bert", json=BERT)
        learner = service.learner()
        # The same ids on purpose: they were unique per customer.
        made = [await answered(service, f"r{n}", "rejected", who, request_id=f"q{n}")
                for who in ("anna", "bert") for n in range(3)]  # fmt: skip
        stranger: dict[str, Any] = {"placement": "side", "identity": TABLET, "profile": {"plan": "Basic"}}
        made.append(await answered(service, "s", "accepted", None, **stranger))  # type: ignore[arg-type]
        accepted = await service.decide("bert")
        renewal = next(name for name in treatments(accepted) if name.startswith("renew"))
        await service.respond(accepted, "accepted", "yes", renewal)
        made.append(accepted)
        replies = [(await client.get(f"/v1/decisions/{each['decision_id']}")).content for each in made]
        count, sums = await learned(service, learner)
        assert any(action.startswith("renew") for action in actions(await service.decide("anna")))

        reply = await client.post("/v1/customers/anna/identities", json={"identities": [PHONE, TABLET]})

        assert reply.status_code == 200, reply.text
        assert reply.json() == {
            "customer_id": "anna",
            "merged": ["bert"],
            "identities": sorted([*ANNA["identities"], PHONE, TABLET], key=lambda e: (e["type"], e["value"])),
        }
        # Nothing is lost: one history under either id, the stranger's time included.
        ids = {each["decision_id"] for each in made}
        for who in ("anna", "bert"):
            found = await history(service, who)
            assert ids < {each["decision_id"] for each in found}, "and the one that was only looked at"
            assert sum(len(each["responses"]) for each in found) == 8
        # What bert accepted, and what the stranger did, rests for anna too, by whatever name she is called.
        for asked in ({"customer": "anna"}, {"customer": "bert"}, {"customer": None, "identity": PHONE}):
            decision = await service.decide(**asked)  # type: ignore[arg-type]
            assert decision["customer_id"] == "anna"
            assert not any(action.startswith("renew") for action in actions(decision))
        # Requests of both are remembered: a retry is answered as before.
        again = await service.decide("bert", request_id="q1")
        assert again == made[4], "bert's own, though anna used the same id"
        assert await service.decide("anna", request_id="q1") == made[1]
        # Responses to decisions made before still find them, and count once.
        late = await service.respond(made[3], "rejected", "r0", treatments(made[3])[0])
        assert late.json() == {"recorded": 0, "duplicates": 1}
        # Decisions of both replay, byte for byte.
        for each, before in zip(made, replies, strict=True):
            path = f"/v1/decisions/{each['decision_id']}"
            assert (await client.get(path)).content == before
            assert (await client.post(f"{path}/replay")).json()["identical"]
        # Learning does not count twice: not as it goes on, and not when it is learned again.
        assert (await learned(service, learner))[0] == count > 6
        relearned, again_sums = await learned(service, service.learner())
        assert relearned == count
        for arm, parts in sums.items():
            for part, again in zip(parts, again_sums[arm], strict=True):
                np.testing.assert_allclose(again, part, atol=1e-9)


async def lines(service: Service, way: str, *rows: dict[str, Any]) -> None:
    """Imports or pushes rows, which must all be taken."""
    body = "\n".join(json.dumps(row) for row in rows)
    headers = {"content-type": "application/x-ndjson"}
    reply = await service.client.post(f"/v1/customers:{way}", content=body.encode(), headers=headers)
    assert reply.json() == {"imported": len(rows), "rejected": 0, "errors": []}


async def offers(service: Service, **asked: Any) -> set[str]:
    """What there is for a customer; retention is left out, so that there is room for all."""
    return set(actions(await service.decide(**asked, profile={"open_complaint": True})))


async def told_as_stranger(service: Service) -> str:
    """Somebody we do not know accepts an upgrade on their tablet; the id of that decision."""
    asked: dict[str, Any] = {"identity": TABLET, "profile": {"plan": "Basic"}}
    decision = await service.decide(None, "side", **asked)  # type: ignore[arg-type]
    upgrade = next(name for name in treatments(decision) if name.startswith("upgrade"))
    await service.respond(decision, "accepted", "s", upgrade)
    return str(decision["decision_id"])


@pytest.mark.parametrize("way", ["identities", "put", "import", "patch", "push"])
async def test_a_strangers_time_stays_with_who_proved_to_be_the_stranger(tmp_path: Path, way: str) -> None:
    async with running(tmp_path / "db") as service:
        client = service.client
        await service.publish(catalog_document())
        await client.put("/v1/customers/anna", json=ANNA)
        assert await offers(service) == {"check", "upgrade"}
        made = await told_as_stranger(service)
        both = [*ANNA["identities"], TABLET]
        if way == "identities":
            await client.post("/v1/customers/anna/identities", json={"identities": [TABLET]})
        elif way == "put":
            await client.put("/v1/customers/anna", json={**ANNA, "identities": both})
        elif way == "patch":
            await client.patch("/v1/customers/anna", json={"identities": [TABLET]})
        else:
            await lines(service, way, {"customer_id": "anna", **ANNA, "identities": both})
        assert made in {each["decision_id"] for each in await history(service, "anna")}
        assert await offers(service) == {"check"}

        # The nightly import does not know of the tablet.
        await lines(service, "import", {"customer_id": "anna", **ANNA})
        assert (await client.get("/v1/customers/anna")).json()["identities"] == ANNA["identities"]
        assert await offers(service) == {"check"}
        assert made in {each["decision_id"] for each in await history(service, "anna")}

        # Somebody else gets the tablet: what anna did on it is none of their business.
        carl = {**ANNA, "identities": [TABLET]}
        assert (await client.put("/v1/customers/carl", json=carl)).status_code == 200
        assert await history(service, "carl") == []
        assert await offers(service, customer="carl") == {"check", "upgrade"}
        assert await offers(service, customer=None, identity=TABLET) == {"check", "upgrade"}
        assert len(await history(service, "carl")) == 2
        await client.post("/v1/customers/bert/identities", json={"identities": ANNA["identities"]})
        assert made in {each["decision_id"] for each in await history(service, "bert")}
        # A pseudonym is no name to show.
        assert (await client.get("/v1/customers/bert")).json()["merged"] == ["anna"]
        proof = await client.post("/v1/customers/carl/identities", json={"identities": [TABLET]})
        assert proof.json() == {"customer_id": "carl", "merged": [], "identities": [TABLET]}


@pytest.mark.parametrize("order", [("anna", "bert"), ("bert", "anna")])
async def test_systems_that_have_not_merged_yet_undo_nothing(tmp_path: Path, order: tuple[str, str]) -> None:
    async with running(tmp_path / "db") as service:
        client = service.client
        await service.publish(catalog_document())
        rows: dict[str, dict[str, Any]] = {
            "anna": {**ANNA, "consents": {"marketing": "given"}},
            "bert": {**BERT, "attributes": {"plan": "Max"}, "consents": {"marketing": "withdrawn"}},
        }
        for id, row in rows.items():
            await client.put(f"/v1/customers/{id}", json=row)
        await client.post("/v1/customers/anna/identities", json={"identities": [PHONE]})
        rows["bert"]["consents"] = {}  # it has forgotten since
        for _ in range(2):
            await lines(service, "import", *({"customer_id": id, **rows[id]} for id in order))
            found = (await client.get("/v1/customers/anna")).json()
            assert found["consents"] == {"marketing": "withdrawn"}
            plan = "Max" if order[-1] == "bert" else ANNA["attributes"]["plan"]
            assert found["attributes"] == {**ANNA["attributes"], "plan": plan}
            assert found["scores"] == ANNA["scores"]
            assert found["identities"] == [*ANNA["identities"], PHONE]
        for id in order:
            reply = await client.put(f"/v1/customers/{id}", json={"consents": {"marketing": "given"}})
            names = ("customer_id", *ANNA, "consent_records", "restricted")
            assert reply.json() == {name: found[name] for name in names}, "as stored"
        await lines(service, "push", {"customer_id": order[0], "consents": {"marketing": "given"}})
        await lines(service, "import", *({"customer_id": id, **rows[id]} for id in order))
        assert (await client.get("/v1/customers/bert")).json()["consents"] == {"marketing": "given"}


class Slow(SqliteStore):
    """Its first commit waits for `go_on`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waiting, self.go_on = asyncio.Event(), asyncio.Event()

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
        if not self.waiting.is_set():
            self.waiting.set()
            await self.go_on.wait()
        return await super().commit_decisions(records)


@pytest.mark.parametrize("retried", [True, False])
@pytest.mark.parametrize("asked", [{"customer": "bert"}, {"customer": None, "identity": TABLET}])
async def test_a_request_is_answered_once_though_its_customer_is_merged_meanwhile(
    tmp_path: Path, asked: dict[str, Any], retried: bool
) -> None:
    store = Slow(tmp_path / "db")
    async with running(tmp_path / "db", store=store) as service:
        await service.publish(catalog_document())
        await service.client.put("/v1/customers/anna", json=ANNA)
        await service.client.put("/v1/customers/bert", json=BERT)
        first = asyncio.create_task(service.decide(**asked, request_id="r"))
        await store.waiting.wait()
        await service.client.post("/v1/customers/anna/identities", json={"identities": [PHONE, TABLET]})
        retry = await service.decide(**asked, request_id="r") if retried else None
        store.go_on.set()
        answer = await first
        assert retry in (answer, None)
        assert await service.decide(**asked, request_id="r") == answer
        for who in ("anna", "bert"):
            assert [each["decision_id"] for each in await history(service, who)] == [answer["decision_id"]]

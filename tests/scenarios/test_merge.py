"""Two customers, and a stranger's cookie, prove to be one person: nothing is lost, nothing counts twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support import ANNA, Service, actions, catalog_document, running, treatments

from arbitration.policy.state import State
from arbitration.snapshot import lineage
from decision.learner import Learner

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

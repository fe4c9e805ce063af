"""Outcomes over time: in whatever order they come, what is learned is what the final labels say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from support import ANNA, Service, asking, catalog_document, running, treatments

from arbitration.errors import SnapshotError
from arbitration.inputs import Inputs
from arbitration.policy.state import State
from decision.storage.port import DecisionRecord

HALF_LIFE = timedelta(days=3)
SCALE = 50.0
COMBINE = {"agent": "last", "web": "sum", "mail": "max"}
OUTCOMES = {
    "panel": ["accepted", "rejected", "no_response"],
    "hero": ["impression", "click", "accepted", "no_response"],
    "side": ["impression", "click", "accepted"],
    "block": ["impression", "click", "accepted"],
}
CUSTOMERS = ("anna", "bert", "cleo")


def document() -> dict[str, Any]:
    """Every way to learn at once: by reward and by value, for ever and forgetting."""
    made = catalog_document()
    for channel in made["channels"]:
        channel["combine"] = COMBINE[channel["id"]]
    made["policies"] += [
        {"id": "fading", "strategy": "thompson", "half_life": "3d"},
        {"id": "money", "strategy": "thompson", "value_scale": SCALE},
        {"id": "recent_money", "strategy": "ucb", "value_scale": SCALE, "half_life": "3d", "features": []},
    ]
    return made


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path / "store.db") as started:
        await started.publish(document())
        for customer in CUSTOMERS:
            profile = {key: value for key, value in ANNA.items() if key != "identities"}
            await started.client.put(f"/v1/customers/{customer}", json=profile)
        yield started


async def lived(service: Service, rng: random.Random) -> list[dict[str, Any]]:
    """Some decisions, and what comes back of them: several answers each, some of them corrected."""
    messages: list[dict[str, Any]] = []
    for number in range(14):
        service.clock.now += timedelta(minutes=rng.randint(1, 600))
        placement = rng.choice(list(OUTCOMES))
        asked = asking(rng.choice(CUSTOMERS), placement, profile={"nps": rng.randint(0, 10)})
        reply = (await service.client.post("/v1/decisions", json=asked)).json()
        for treatment in filter(None, treatments(reply)):
            for answer in range(rng.randint(0, 3)):
                id = f"{number}-{treatment}-{answer}"
                occurred = service.clock.now + timedelta(minutes=rng.randint(0, 60))
                messages.append(
                    {
                        "response_id": id,
                        "decision_id": reply["decision_id"],
                        "treatment": treatment,
                        "outcome": rng.choice(OUTCOMES[placement]),
                        "value": rng.choice([None, 10.0, 35.5]),
                        "occurred_at": occurred.isoformat(),
                        "corrects": f"{number}-{treatment}-{answer - 1}" if rng.random() < 0.3 else None,
                    }
                )
    return messages


async def told(service: Service, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        reply = await service.client.post("/v1/responses", json=message)
        assert reply.status_code == 200, reply.text


async def finish(service: Service, limit: int = 5000, restart: bool = False) -> None:
    learner = service.learner()
    while await learner.step(limit):
        if restart:
            learner = service.learner()


async def states(service: Service) -> dict[str, State]:
    store = service.context.store
    found = {}
    for lineage, version in (await store.current_snapshots()).items():
        record = await store.snapshot(version)
        assert record is not None
        found[lineage.rpartition("-")[0]] = State.from_bytes(record.content)
    return found


async def oracle(
    service: Service, messages: list[dict[str, Any]], but: str = ""
) -> dict[str, dict[str, np.ndarray]]:
    """What each policy must have learned, worked out from the messages alone; `but`: of all but one."""
    catalog = service.context.live.serving.published.compiled
    now = service.clock.now
    sums: dict[str, dict[str, np.ndarray]] = {policy: {} for policy in catalog.policies}
    corrected = {(m["decision_id"], m["corrects"]) for m in messages if m["corrects"]}
    async for decision, _ in service.context.store.decided():
        if decision.customer_id == but:
            continue
        channel = catalog.channels[decision.channel]
        for treatment in _shown(decision):
            mine = [
                m for m in messages if (m["decision_id"], m["treatment"]) == (decision.decision_id, treatment)
            ]
            valid = [m for m in mine if (m["decision_id"], m["response_id"]) not in corrected]
            valid.sort(key=lambda m: (datetime.fromisoformat(m["occurred_at"]), m["response_id"]))
            answers = [m for m in valid if m["outcome"] not in ("impression", "no_response")]
            if not mine and channel.contact == "impression":
                continue  # nobody knows whether it was seen
            rewards = [channel.rewards[m["outcome"]] for m in answers] or [0.0]
            money = [m["value"] or 0.0 for m in answers]
            if not answers:  # silence: reported, with whatever value the first said, or by the window's end
                money = [next((m["value"] or 0.0 for m in valid if m["outcome"] == "no_response"), 0.0)]
            combined = {"last": lambda parts: parts[-1], "sum": sum, "max": max}[channel.combine]
            for policy, declared in catalog.policies.items():
                inputs = Inputs.from_json(orjson.loads(decision.inputs))
                x = catalog.encoders[policy].encode(inputs.facts, inputs.now)
                r = combined(money) / SCALE if declared.value_scale else combined(rewards)
                step = HALF_LIFE / 64
                landmark = now.timestamp() // step.total_seconds() * step.total_seconds()
                age = (landmark - decision.decided_at.timestamp()) / HALF_LIFE.total_seconds()
                weight = 0.5**age if declared.half_life else 1.0
                upper = np.outer(x, x)[np.triu_indices(len(x))]
                row = weight * np.concatenate([upper, r * x, [r * r, 1.0]])
                sums[policy][treatment] = sums[policy].get(treatment, 0.0) + row
    return sums


def _shown(decision: DecisionRecord) -> list[str]:
    return [name for name in treatments(orjson.loads(decision.reply)) if name is not None]


def compare(learned: dict[str, State], wanted: dict[str, dict[str, np.ndarray]]) -> None:
    assert any(wanted.values())
    for policy, arms in wanted.items():
        state = learned.get(policy)
        rows = {} if state is None else state.rows
        assert arms.keys() <= rows.keys()
        for arm, row in rows.items():
            assert state is not None
            found = np.concatenate(
                [state.outer[row], state.moment[row], [state.squares[row], state.count[row]]]
            )
            assert found == pytest.approx(arms.get(arm, np.zeros(len(found))), abs=1e-9), (policy, arm)


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_arrivals_learns_the_final_labels(service: Service, seed: int) -> None:
    rng = random.Random(seed)
    messages = await lived(service, rng)
    if seed:
        await finish(service)  # silence is learned before anything comes back
    arrivals = messages.copy()
    rng.shuffle(arrivals)
    while arrivals:
        some = rng.randint(1, 9)
        await told(service, arrivals[:some])
        del arrivals[:some]
        service.clock.now += timedelta(hours=rng.randint(0, 30))  # what fades meanwhile fades exactly
        if rng.random() < 0.6:
            await finish(service, rng.randint(1, 7), restart=rng.random() < 0.5)
    service.clock.now += timedelta(days=9)
    await finish(service)
    wanted = await oracle(service, messages)
    compare(await states(service), wanted)
    learner = service.learner()
    catalog = service.context.live.serving.published.compiled
    compare({policy: await learner._relearn(catalog, policy) for policy in catalog.policies}, wanted)


async def test_fading_without_news_leaves_a_new_snapshot_now_and_then(service: Service) -> None:
    messages = await lived(service, random.Random(4))
    await told(service, messages)
    service.clock.now += timedelta(days=9)
    await finish(service)
    before = await service.context.store.live_snapshots()
    service.clock.now += HALF_LIFE / 128
    await finish(service)
    service.clock.now += HALF_LIFE
    await finish(service)
    after = await service.context.store.live_snapshots()
    changed = {line.rpartition("-")[0] for line in before if before[line] != after[line]}
    assert changed == {"fading", "recent_money"}
    compare(await states(service), await oracle(service, messages))


@pytest.mark.parametrize("learned_before", [False, True])
async def test_an_erased_customer_was_never_learned_from(service: Service, learned_before: bool) -> None:
    messages = await lived(service, random.Random(5))
    early = messages[: len(messages) // 2]
    await told(service, early)
    service.clock.now += timedelta(days=9)
    if learned_before:
        await finish(service)
    assert (await service.client.delete("/v1/customers/anna")).status_code == 204
    await finish(service, 2)
    await told(service, messages[len(early) :])  # what is heard of an erased customer later
    service.clock.now += timedelta(days=9)
    await finish(service)
    compare(await states(service), await oracle(service, messages, but="anna"))
    # Whoever comes back under the same id is learned from again.
    await service.client.put("/v1/customers/anna", json={"attributes": {"nps": 9, "plan": "Max"}})
    decision = await service.decide()
    await service.respond(decision, "accepted", "new", treatments(decision)[0])
    before = (await states(service))["default"].count.sum()
    await finish(service)
    assert (await states(service))["default"].count.sum() == pytest.approx(before + 1)


async def test_corrections_are_checked_and_kept(service: Service) -> None:
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    message = {
        "response_id": "a",
        "decision_id": decision["decision_id"],
        "treatment": "check_agent",
        "outcome": "accepted",
        "corrects": "a",
    }
    refused = await service.client.post("/v1/responses", json=message)
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["corrects"]
    assert (await service.client.post("/v1/responses", json=message | {"corrects": "z"})).status_code == 200
    other = await service.client.post("/v1/responses", json=message | {"corrects": "y"})
    assert other.status_code == 409
    overview = (await service.client.get("/v1/customers/anna/history")).json()
    assert [each["corrects"] for each in overview["decisions"][0]["responses"]] == ["z"]


async def test_a_response_without_a_treatment_teaches_nothing(service: Service) -> None:
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    message = {
        "response_id": "a",
        "decision_id": decision["decision_id"],
        "outcome": "accepted",
        "value": 9.0,
    }
    assert (await service.client.post("/v1/responses", json=message)).status_code == 200
    seen = message | {"response_id": "b", "outcome": "impression"}
    refused = await service.client.post("/v1/responses", json=seen)
    assert [error["field"] for error in refused.json()["errors"]] == ["treatment"]
    await finish(service)
    assert await states(service) == {}
    overview = (await service.client.get("/v1/customers/anna/history")).json()
    assert [each["treatment"] for each in overview["decisions"][0]["responses"]] == [None]
    again = await service.decide(profile={"nps": 9, "plan": "Max"})
    assert treatments(again) == ["check_agent"]  # nothing rests because of it


async def test_each_erasure_is_subtracted_once_however_many_are_pending(service: Service) -> None:
    messages = await lived(service, random.Random(6))
    await told(service, messages)
    service.clock.now += timedelta(days=9)
    await finish(service)
    await service.client.delete("/v1/customers/anna")
    anna = [record async for record, _ in service.context.store.decided() if record.customer_id == "anna"]
    assert anna == []
    # Something is heard of one whose turn has not come: more are pending than a step takes.
    erased = sorted({message["decision_id"] for message in messages})
    for number, message in enumerate(messages):
        if message["decision_id"] in erased:
            late = message | {"response_id": f"late-{number}", "corrects": None}
            await service.client.post("/v1/responses", json=late)
            messages = [*messages, late]
    learner = service.learner()
    await learner.step(2)
    await finish(service, 2)
    service.clock.now += timedelta(days=9)
    await finish(service)
    compare(await states(service), await oracle(service, messages, but="anna"))


async def test_a_customer_erased_within_a_step_is_subtracted_once(service: Service) -> None:
    messages = await lived(service, random.Random(7))
    await told(service, messages)
    service.clock.now += timedelta(days=9)
    await finish(service)
    store = service.context.store
    late = messages[-1] | {"response_id": "late", "corrects": None}
    await service.client.post("/v1/responses", json=late)
    record = await store.decision(late["decision_id"])
    assert record is not None
    before = store.erasures

    async def erasures(limit: int) -> list[str]:
        found = await before(limit)
        await service.client.delete(f"/v1/customers/{record.customer_id}")
        return found

    learner = service.learner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "erasures", erasures)
        await learner.step()
    while await learner.step():
        pass
    compare(await states(service), await oracle(service, [*messages, late], but=record.customer_id))


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=5), timedelta(days=20_000)])
async def test_a_clock_that_was_ahead_leaves_nothing_wrong(service: Service, ahead: timedelta) -> None:
    messages = await lived(service, random.Random(8))
    await told(service, messages)
    service.clock.now += timedelta(days=9)
    learner = service.learner()
    while await learner.step():
        pass
    right = service.clock.now
    service.clock.now = right + ahead
    await learner.step()
    service.clock.now = right + timedelta(minutes=1)
    await learner.step()
    compare(await states(service), await oracle(service, messages))


async def test_a_policy_that_cannot_learn_does_not_stop_the_others(service: Service) -> None:
    messages = await lived(service, random.Random(9))
    await told(service, messages)
    service.clock.now += timedelta(days=9)
    add = State.add

    def failing(state: State, *given: Any) -> None:
        if state.half_life is not None:
            raise SnapshotError("not this one")
        add(state, *given)

    learner = service.learner()
    await learner.step(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "add", failing)
        while await learner.step():
            if "fading" not in learner._learned.states:  # type: ignore[union-attr]
                break
    while await learner.step():
        pass
    compare(await states(service), await oracle(service, messages))


async def test_an_arm_that_comes_back_has_its_history(service: Service) -> None:
    document = catalog_document()
    await service.publish(document)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    await finish(service)
    await service.publish({**document, "actions": document["actions"][:3]})
    decision = await service.decide(profile={"nps": 9, "plan": "Basic"})
    await service.respond(decision, "rejected", "b", "upgrade_agent")
    await finish(service)
    await service.publish(document)
    await finish(service)
    await service.context.live.refresh()
    learned = (await states(service))["default"]
    assert {arm: learned.count[row] for arm, row in learned.rows.items()} == {
        "check_agent": 1.0, "upgrade_agent": 1.0
    }  # fmt: skip
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    (item,) = decision["placements"][0]["items"]
    assert item["treatment"] == "check_agent"
    assert item["propensity"] > 0.4

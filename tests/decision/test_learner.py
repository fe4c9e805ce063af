"""The learner counts every event exactly once, whatever happens to it on the way."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from support import NOW, Clock, Service, asking, catalog_document, treatments

from arbitration.inputs import Inputs
from arbitration.policy.state import State
from arbitration.snapshot import PRIOR
from decision.errors import Conflict, StoreUnavailable
from decision.learner import Learner, _context
from decision.publishing import load_published
from decision.storage.port import Cursor
from decision.storage.sqlite.store import SqliteStore

HOUR = timedelta(hours=1)
OUTCOMES = {
    "panel": ["accepted", "rejected", "impression", "no_response"],
    "hero": ["impression", "click", "accepted", "no_response"],
    "side": ["impression", "click", "accepted"],
    "block": ["impression", "click", "accepted"],
}


async def states(store: SqliteStore) -> dict[str, State]:
    """What the current snapshots hold, by policy."""
    found = {}
    for lineage, version in (await store.current_snapshots()).items():
        record = await store.snapshot(version)
        assert record is not None
        found[lineage.rpartition("-")[0]] = State.from_bytes(record.content)
    return found


def sums(state: State | None) -> dict[str, tuple[float, ...]]:
    """A state by arm, whatever the order of its rows."""
    if state is None:
        return {}
    table = np.column_stack([state.outer, state.moment, state.squares, state.count])
    return {arm: tuple(table[row]) for arm, row in state.rows.items()}


def same(left: State | None, right: State | None) -> None:
    one, other = sums(left), sums(right)
    for arm in one.keys() | other.keys():
        width = len(next(iter((one or other).values())))
        nothing = (0.0,) * width
        assert one.get(arm, nothing) == pytest.approx(other.get(arm, nothing), abs=1e-9), arm


def counts(state: State) -> dict[str, tuple[float, float]]:
    """(events, bias moment: the sum of the rewards) per arm."""
    return {
        arm: (round(state.count[row], 9), round(state.moment[row, 0], 9)) for arm, row in state.rows.items()
    }


async def relearned(store: SqliteStore, clock: Clock) -> dict[str, State]:
    """Every policy, from the ledger alone."""
    publication = await store.live_catalog()
    assert publication is not None
    document = await store.catalog(publication.version)
    assert document is not None
    catalog = load_published(publication.version, document).compiled
    learner = Learner(store, clock)
    return {policy: await learner._relearn(catalog, policy) for policy in catalog.policies}


async def finish(learner: Learner, limit: int = 5000) -> None:
    for _ in range(1000):
        if not await learner.step(limit):
            return
    raise AssertionError("learning has no end")


@pytest.fixture
def store(service: Service) -> SqliteStore:
    assert isinstance(service.context.store, SqliteStore)
    return service.context.store


async def history(service: Service, rng: random.Random, count: int) -> None:
    """Random decisions with random answers: early, late, doubled, contradicting, after the silence."""
    shown: list[tuple[dict[str, Any], str, str]] = []
    for _ in range(count):
        service.clock.now += timedelta(minutes=rng.randint(1, 400))
        placement = rng.choice(list(OUTCOMES))
        asked = asking("anna", placement, profile={"nps": rng.randint(0, 10)})
        asked["mode"] = rng.choice(["live", "live", "live", "dry_run"])
        reply = (await service.client.post("/v1/decisions", json=asked)).json()
        if asked["mode"] == "live":
            shown += [(reply, treatment, placement) for treatment in treatments(reply) if treatment]
        for answer in range(rng.randint(0, 3) if shown else 0):
            decision, treatment, where = rng.choice(shown[-12:])
            outcome = rng.choice(OUTCOMES[where])
            for _ in range(rng.choice([1, 1, 2])):  # a retry changes nothing
                message = await service.respond(
                    decision, outcome, f"r-{service.clock.now:%d%H%M}-{answer}", treatment
                )
                assert message.status_code == 200, message.text


@pytest.mark.parametrize("seed", range(4))
async def test_the_state_is_the_sum_over_the_ledger(service: Service, store: SqliteStore, seed: int) -> None:
    rng = random.Random(seed)
    learner = Learner(store, service.clock)
    for _ in range(6):
        await history(service, rng, rng.randint(1, 8))
        if rng.random() < 0.4:
            learner = Learner(store, service.clock)  # a restart, with all in memory lost
        for _ in range(rng.randint(0, 3)):
            await learner.step(rng.randint(1, 7))
    service.clock.now += timedelta(days=8)
    await finish(learner, rng.randint(1, 9))
    learned, whole = await states(store), await relearned(store, service.clock)
    assert sum(state.count.sum() for state in whole.values()) > 0
    for policy, state in whole.items():
        same(learned.get(policy), state)


async def test_a_dry_run_is_not_learned(service: Service, store: SqliteStore) -> None:
    await service.decide(mode="dry_run")
    service.clock.now += timedelta(days=2)
    await finish(Learner(store, service.clock))
    assert await states(store) == {}


async def test_silence_counts_from_the_contact(service: Service, store: SqliteStore) -> None:
    learner = Learner(store, service.clock)
    asked = {"profile": {"nps": 9, "plan": "Max"}}
    called = await service.decide(**asked)  # the decision is the contact, 24 h
    shown = await service.decide(placement="side", **asked)  # the impression is, 2 h
    assert treatments(called) == ["check_agent"]
    assert treatments(shown) == ["check_side"]
    service.clock.now += timedelta(hours=23)
    await finish(learner)
    assert await states(store) == {}
    await service.respond(shown, "impression", "i", "check_side")
    service.clock.now += HOUR
    await finish(learner)
    assert counts((await states(store))["default"]) == {"check_agent": (1, 0)}
    service.clock.now += HOUR
    await finish(learner)
    assert counts((await states(store))["default"]) == {"check_agent": (1, 0), "check_side": (1, 0)}
    await service.respond(shown, "click", "c", "check_side")  # late: the silence is taken back
    await service.respond(called, "accepted", "a", "check_agent")
    await finish(learner)
    expected = {"check_agent": (1, 1.0), "check_side": (1, 0.3)}
    assert counts((await states(store))["default"]) == expected
    assert counts((await states(store))["plain"]) == expected
    await service.respond(called, "rejected", "b", "check_agent")  # the better answer stays
    await finish(learner)
    assert counts((await states(store))["default"]) == expected


class Breaking(SqliteStore):
    """Fails at `commit_learning`, before or after it was done."""

    when = ""
    failed = 0

    async def commit_learning(self, *given: Any, **named: Any) -> Cursor:
        if self.when == "before":
            raise StoreUnavailable("killed")
        if self.when == "unknown":
            self.failed += 1
            raise RuntimeError("nobody thought of this")
        moved = await super().commit_learning(*given, **named)
        if self.when == "after":
            raise StoreUnavailable("committed, but nobody heard")
        if self.when == "cancelled":
            raise asyncio.CancelledError
        return moved


@pytest.mark.parametrize("when", ["before", "after", "unknown", "cancelled"])
async def test_a_death_at_the_commit_counts_nothing_twice(
    service: Service, store: SqliteStore, when: str
) -> None:
    broken = Breaking(service.path)
    await broken.open()
    learner = Learner(broken, service.clock)
    for number in range(4):
        decision = await service.decide(profile={"nps": 9, "plan": "Max"})
        await service.respond(decision, "accepted", f"a-{number}", "check_agent")
        broken.when = when if number % 2 else ""
        try:
            await learner.step()
        except (StoreUnavailable, RuntimeError, asyncio.CancelledError):
            assert number % 2
    broken.when = ""
    await finish(learner)
    await broken.close()
    assert counts((await states(store))["default"]) == {"check_agent": (4, 4.0)}


async def test_running_outlives_what_nobody_thought_of(service: Service, store: SqliteStore) -> None:
    broken = Breaking(service.path)
    await broken.open()
    broken.when = "unknown"
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    running_task = asyncio.create_task(Learner(broken, service.clock).run(0.01))
    async with asyncio.timeout(5):
        while broken.failed < 2:  # it went on after the first
            await asyncio.sleep(0.01)
        broken.when = ""
        while not await store.live_snapshots():
            await asyncio.sleep(0.01)
    running_task.cancel()
    await asyncio.gather(running_task, return_exceptions=True)
    await broken.close()
    assert counts((await states(store))["default"]) == {"check_agent": (1, 1.0)}


async def test_two_learners_count_once(service: Service, store: SqliteStore) -> None:
    learners = [Learner(store, service.clock), Learner(store, service.clock)]
    rng, conflicts = random.Random(1), 0
    for number in range(12):
        decision = await service.decide(profile={"nps": 9, "plan": "Max"})
        await service.respond(decision, "accepted", f"a-{number}", "check_agent")
        if rng.random() < 0.5:
            results = await asyncio.gather(*(learner.step() for learner in learners), return_exceptions=True)
        else:
            results = [*await asyncio.gather(rng.choice(learners).step(), return_exceptions=True)]
        conflicts += sum(isinstance(result, Conflict) for result in results)
    for learner in learners:
        try:
            await finish(learner)
        except Conflict:
            await finish(learner)
    assert conflicts
    assert counts((await states(store))["default"]) == {"check_agent": (12, 12.0)}


async def test_two_learners_keep_the_silence_the_other_learned(service: Service, store: SqliteStore) -> None:
    one, other = Learner(store, service.clock), Learner(store, service.clock)
    await service.decide(profile={"nps": 9, "plan": "Max"})
    await finish(one)
    await finish(other)  # both stand at the same cursor
    service.clock.now += timedelta(hours=25)
    await finish(one)  # silence comes due: nothing was read, but the cursor is a round on
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    with pytest.raises(Conflict):
        await finish(other)
    await finish(other)  # from what the store holds
    assert counts((await states(store))["default"]) == {"check_agent": (2, 1.0)}


class Interrupted(SqliteStore):
    """Lets another learner commit just before this one does."""

    other: Learner | None = None

    async def commit_learning(self, *given: Any, **named: Any) -> Cursor:
        other, self.other = self.other, None
        if other is not None:
            await finish(other)
        return await super().commit_learning(*given, **named)


async def test_silence_learned_within_a_step_of_the_other_is_kept(
    service: Service, store: SqliteStore
) -> None:
    slow = Interrupted(service.path)
    await slow.open()
    learner = Learner(slow, service.clock)
    await service.decide(profile={"nps": 9, "plan": "Max"})
    await finish(learner)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    # The slow one has asked what is due just before the silence came due; the other asks just after.
    late = Clock(service.clock.now + timedelta(hours=25))
    blind = _OnlyDue(service.path)  # it reads before the answer is committed
    await blind.open()
    slow.other = Learner(blind, late)
    try:
        await finish(learner)
    except Conflict:
        await finish(learner)
    finally:
        await slow.close()
        await blind.close()
    await finish(Learner(store, late))
    learned, whole = await states(store), await relearned(store, late)
    same(learned["default"], whole["default"])


class _OnlyDue(SqliteStore):
    """Sees no new events."""

    async def unread(self, cursor: Cursor, limit: int):  # type: ignore[no-untyped-def]
        return [], [], cursor


async def test_another_encoding_is_relearned(service: Service, store: SqliteStore) -> None:
    learner = Learner(store, service.clock)
    await history(service, random.Random(3), 12)
    service.clock.now += timedelta(days=8)
    await finish(learner)
    document = catalog_document()
    document["features"][2]["edges"] = [5, 8]
    document["channels"][1]["rewards"]["click"] = 0.5
    document["policies"].append({"id": "third", "strategy": "ucb", "features": ["nps"]})
    await service.publish(document)
    await finish(learner)
    learned, whole = await states(store), await relearned(store, service.clock)
    assert set(whole) == {"default", "plain", "third"}
    for policy, state in whole.items():
        assert learned[policy].fingerprint == state.fingerprint
        same(learned[policy], state)
    await service.context.live.refresh()
    assert PRIOR not in {snapshot.version for snapshot in service.context.live.serving.snapshots.values()}


async def test_a_damaged_snapshot_is_learned_again(service: Service, store: SqliteStore) -> None:
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    await finish(Learner(store, service.clock))
    before = await states(store)
    live = await store.live_snapshots()
    (version,) = (version for lineage, version in live.items() if lineage.startswith("default-"))
    good = await store.snapshot(version)
    assert good is not None
    for position in range(0, len(good.content), len(good.content) // 15):
        content = bytearray(good.content)
        content[position] ^= 0xFF
        damaged = replace(good, content=bytes(content))
        cursor = await store.cursor()
        lineages = list(await store.current_snapshots())
        await store.commit_learning([], [damaged], cursor, expected=cursor, lineages=lineages)
        assert await store.snapshot(good.version) == damaged
        await finish(Learner(store, service.clock))
        assert await store.snapshot(good.version) == good
        same((await states(store))["default"], before["default"])


async def test_rewards_that_change_are_relearned_and_going_back_finds_the_old_snapshot(
    service: Service, store: SqliteStore
) -> None:
    learner = Learner(store, service.clock)
    live = service.context.live
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    await finish(learner)
    await live.refresh()
    first = live.serving.snapshots["default"].version
    document = catalog_document()
    (agent,) = (channel for channel in document["channels"] if "rejected" in channel["rewards"])
    agent["rewards"]["accepted"] = 0.75
    await service.publish(document)
    assert live.serving.snapshots["default"].version == PRIOR
    await finish(learner)
    assert counts((await states(store))["default"]) == {"check_agent": (1, 0.75)}
    await live.refresh()
    assert live.serving.snapshots["default"].version not in (PRIOR, first)
    await service.publish(catalog_document())
    assert live.serving.snapshots["default"].version == first
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "rejected", "b", "check_agent")
    await finish(Learner(store, service.clock))  # what the old snapshot missed is learned with it
    assert counts((await states(store))["default"]) == {"check_agent": (2, 1.0)}


async def test_a_policy_that_comes_back_is_learned_again(service: Service, store: SqliteStore) -> None:
    learner = Learner(store, service.clock)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    await finish(learner)
    document = catalog_document()
    without = {**document, "policies": [document["policies"][0]]}
    without["placements"] = [{**placement, "policy": None} for placement in document["placements"]]
    await service.publish(without)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "rejected", "b", "check_agent")
    await finish(learner)
    assert set(await states(store)) == {"default"}
    await service.publish(document)
    await finish(Learner(store, service.clock))  # a new process, which knows nothing of what went before
    assert counts((await states(store))["plain"]) == {"check_agent": (2, 1.0)}


def test_a_context_is_what_the_inputs_say() -> None:
    facts = {
        "customer.nps": 3,
        "scores.clv": 0.25,
        "customer.plan": "Max",
        "customer.open_complaint": False,
        "customer.contract_end": NOW + HOUR,
        "customer.interests": ("sport", "music"),
    }
    inputs = Inputs("d", NOW, "anna", ("agent",), (("panel", 1),), facts)
    assert _context(orjson.dumps(inputs.to_json())) == (facts, NOW)
    assert _context(orjson.dumps(replace(inputs, objects=True).to_json())) is None
    before = inputs.to_json()
    del before["objects"]  # recorded when nobody could object yet
    assert _context(orjson.dumps(before)) == (facts, NOW)


async def test_catalogs_of_long_ago_are_not_held_for_ever(service: Service, store: SqliteStore) -> None:
    learner = Learner(store, service.clock)
    versions = [await service.publish(catalog_document() | {"name": f"of {day}"}) for day in range(20)]
    for version in [*versions, versions[-16], *versions[-3:], versions[0]]:
        assert (await learner._catalog(version)).version == version
    kept = list(learner._catalogs)
    assert kept == [*versions[-14:-3], versions[-16], *versions[-3:], versions[0]]

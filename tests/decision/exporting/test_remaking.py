"""What is exported of a decision is what was answered, and all that it could have been."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from past import OBJECTS, History, Told, read
from support import NOW, catalog_document, running

from decision.exporting.errors import ExportError
from decision.exporting.remaking import Window
from decision.exporting.rows import Item, Row
from decision.storage.sqlite.store import SqliteStore


def live(history: History) -> list[dict[str, Any]]:
    return [reply for reply in history.replies if reply["asked"].get("mode") != "dry_run"]


def items(rows: list[Row]) -> list[tuple[Row, Item]]:
    return [(row, row.item) for row in rows if row.item is not None]


def test_every_item_shown_is_a_row_with_the_probability_of_the_reply(history: History, told: Told) -> None:
    log, rows = told
    assert (log.decisions, log.lost) == (len(live(history)), [])
    shown = {
        (reply["decision_id"], placement["id"], item["rank"]): item
        for reply in live(history)
        for placement in reply["placements"]
        for item in placement["items"]
        if not item["is_fallback"]
    }
    found = items(rows)
    assert len(found) == len(shown) > 60
    for row, item in found:
        reply = shown[row.decision_id, row.placement, item.rank]
        assert item.selection_probability == reply["selection_probability"]
        # The other policies' features are made from what is marked pii, so what they estimate stays here.
        estimates = (reply["propensity"], reply["priority"]) if row.policy == "plain" else (None, None)
        assert (item.propensity, item.arm.priority) == estimates
        assert (item.arm.treatment, item.arm.action, item.arm.group) == (
            reply["treatment"],
            reply["action"],
            reply["group"],
        )
    assert {row.channel for row, _ in found} == {"agent", "web", "mail"}
    assert max(item.rank for _, item in found) == 3
    assert {"shuffled"} in [set(row.control_groups) for row, _ in found]
    assert {row.policy for row, _ in found} == {"default", "money", "plain"}
    assert len({row.snapshot for row, _ in found}) > 4
    assert len({row.catalog_version for row, _ in found}) == 2
    assert sum(item.selection_probability < 0.9 for _, item in found) / len(found) > 0.05


def test_the_arms_of_a_draw_are_all_it_could_fall_on(told: Told) -> None:
    _, rows = told
    channels = set()
    for _, item in items(rows):
        assert math.fsum(arm.probability for arm in item.arms) == pytest.approx(1, abs=1e-9)
        assert item.arm in item.arms
        channels.add(len({arm.placement for arm in item.arms}))
    assert channels == {1, 2}  # of several channels, the first draw is among the arms of all


def test_probabilities_multiply_along_a_decision(told: Told) -> None:
    _, rows = told
    decisions: dict[str, list[Item]] = defaultdict(list)
    for row, item in items(rows):
        decisions[row.decision_id].append(item)
    for drawn in decisions.values():
        assert [item.draw for item in drawn] == list(range(1, len(drawn) + 1))
        product = math.prod(item.selection_probability for item in drawn)
        assert drawn[-1].cumulative_probability == pytest.approx(product, rel=1e-9)
    assert max(map(len, decisions.values())) == 3


def test_a_placement_that_shows_nothing_has_a_row_that_says_why(history: History, told: Told) -> None:
    _, rows = told
    empty = {
        (reply["decision_id"], placement["id"]): placement
        for reply in live(history)
        for placement in reply["placements"]
        if not placement["items"] or placement["items"][0]["is_fallback"]
    }
    found = {(row.decision_id, row.placement): row for row in rows if row.item is None}
    assert found.keys() == empty.keys()
    for key, row in found.items():
        assert row.fallback == bool(empty[key]["items"])
        assert row.no_action_reason is not None
        assert row.fallback or row.no_action_reason == empty[key]["no_action_reason"]
    reasons = Counter(row.no_action_reason for row in found.values())
    assert {"control_group", "other_channel"} < reasons.keys()
    assert any(row.fallback for row in found.values())


def test_rewards_are_those_of_the_outcomes(history: History, told: Told) -> None:
    """The best outcome counts, as the channels of the catalog say."""
    worth = {"accepted": 1.0, "rejected": 0.0}
    heard: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for response in history.responses:
        heard[response["decision_id"], response["treatment"]].append(response)
    _, rows = told
    seen = Counter[str]()
    for row, item in items(rows):
        said = heard[row.decision_id, item.arm.treatment]
        answers = [each for each in said if each["outcome"] != "impression"]
        seen[item.label] += 1
        if answers:
            clicks = {"web": 0.3, "mail": 0.2}.get(row.channel, 0.0)
            rewards = [worth.get(each["outcome"], clicks) for each in answers]
            assert (item.reward, item.label) == (max(rewards), "closed")
            assert item.value == max(each["value"] or 0.0 for each in answers)
            assert sorted(name for name, _ in item.outcomes or ()) == sorted(a["outcome"] for a in answers)
        elif item.label == "closed":
            assert item.outcomes == (("no_response", None),)
            assert item.reward == 0
        else:
            assert (item.outcomes, item.reward, item.value) == (None, None, None)
            assert item.label == ("open" if said or row.channel != "web" else "none")
    assert seen.keys() == {"closed", "open", "none"}


def test_who_objects_to_profiling_is_not_told_of(told: Told) -> None:
    _, rows = told
    objecting = [row for row in rows if row.objects]
    assert len(objecting) > 2
    for row in objecting:
        assert row.customer is None
        assert row.x is None
        assert all(name.startswith("context.") for name in row.facts)
        assert row.item is None or row.item.arm.mean is None
    assert OBJECTS.isdisjoint(row.customer for row in rows)
    assert any(row.item is not None and row.item.label == "closed" for row in objecting)


@pytest.mark.parametrize("pii", [False, True])
async def test_personal_data_leaves_only_when_asked_for(store: SqliteStore, pii: bool) -> None:
    """Nor do features made of it."""
    log, rows = await read(store, pii=pii)
    names = {"customer.first_name", "customer.birth_year"}
    columns = {name.partition("&")[0].partition("=")[0] for name in log.encoder.columns}
    known = {name for row in rows for name in row.facts}
    if pii:
        assert names <= log.facts.keys() & known
        assert "age" in columns
        assert any("&" in name and name.startswith("age") for name in log.encoder.columns)
    else:
        assert names.isdisjoint(log.facts.keys() | known)
        assert not any("age" in name for name in log.encoder.columns)
    assert {"churn", "plan", "nps", "tenure"} <= columns  # of the live catalog, for all rows
    for row in rows:
        assert row.x is None or len(row.x) == len(log.encoder.columns) - 1


async def test_customers(told: Told, store: SqliteStore) -> None:
    plain = [row.customer for row in told[1]]
    assert any(name is not None and name.startswith("customer-") for name in plain)
    hashed = [row.customer for row in (await read(store, customers="hashed"))[1]]
    other = [row.customer for row in (await read(store, customers="hashed", key=b"another"))[1]]
    pairs = {(a, b) for a, b in zip(plain, hashed, strict=True) if a is not None}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert {b for _, b in pairs}.isdisjoint(set(other) - {None})
    assert {row.customer for row in (await read(store, customers="none"))[1]} == {None}


async def test_a_window(history: History, store: SqliteStore) -> None:
    times = [datetime.fromisoformat(reply["decided_at"]) for reply in live(history)]
    since, until = times[20], times[40]
    _, rows = await read(store, Window(since, until))
    assert {row.decided_at for row in rows} == set(times[20:40])
    log, rows = await read(store, Window(until=NOW))
    assert (log.decisions, rows) == (0, [])


async def test_what_does_not_come_out_again_is_left_out_and_named(
    history: History, told: Told, tmp_path: Path
) -> None:
    """An answer that says another probability, and a snapshot that is gone."""
    path = tmp_path / "copy.db"
    with closing(sqlite3.connect(history.path)) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        agent = [reply for reply in live(history) if reply["channel"] == "agent"]
        id, text = next(
            (reply["decision_id"], orjson.dumps(reply)) for reply in agent if reply["placements"][0]["items"]
        )
        changed = orjson.loads(text)
        changed["placements"][0]["items"][0]["selection_probability"] -= 0.01
        given = (orjson.dumps(changed), id)
        copy.execute("UPDATE decisions SET reply = ? WHERE decision_id = ?", given)
        (gone,) = copy.execute("SELECT snapshots FROM decisions WHERE snapshots LIKE '%default-%'").fetchone()
        version = orjson.loads(gone)["default"]
        copy.execute("DELETE FROM snapshots WHERE version = ?", (version,))
        copy.commit()
    opened = SqliteStore(path)
    await opened.open()
    try:
        log, rows = await read(opened)
    finally:
        await opened.close()
    without = {row.decision_id for row in told[1] if row.snapshot == version}
    assert without
    assert set(log.lost) == without | {id}
    assert set(log.lost).isdisjoint(row.decision_id for row in rows)
    assert log.decisions == len(live(history))


async def test_without_a_catalog_there_is_nothing(tmp_path: Path) -> None:
    opened = SqliteStore(tmp_path / "empty.db")
    await opened.open()
    try:
        with pytest.raises(ExportError, match="no catalog"):
            await read(opened)
    finally:
        await opened.close()


async def test_with_pii_what_is_estimated_is_what_was_replied(history: History, store: SqliteStore) -> None:
    _, rows = await read(store, pii=True)
    replied = {
        (reply["decision_id"], placement["id"], item["rank"]): (item["propensity"], item["priority"])
        for reply in live(history)
        for placement in reply["placements"]
        for item in placement["items"]
    }
    found = items(rows)
    assert len({item.propensity for _, item in found}) > 10
    for row, item in found:
        estimates = replied[row.decision_id, row.placement, item.rank]
        assert (item.propensity, item.arm.priority) == estimates


async def test_a_value_made_from_what_is_personal_stays_here(tmp_path: Path) -> None:
    document = catalog_document()
    document["policies"][0]["features"] = []
    document["attributes"].append({"id": "salary", "type": "double", "pii": True})
    document["actions"][3]["value"] = "customer.salary * 1.0"
    document["context_weights"].append(
        {"id": "rich", "when": "customer.salary > 1000.0", "weight": 2.0, "action": "upgrade"}
    )
    async with running(tmp_path / "a.db") as service:
        await service.publish(document)
        for plan in ("Basic", "Max"):
            await service.decide("c", profile={"plan": plan, "salary": 4321.5})
        assert isinstance(service.context.store, SqliteStore)
        for pii in (False, True):
            _, rows = await read(service.context.store, pii=pii)
            arms = {arm.action: arm for _, item in items(rows) for arm in item.arms}
            assert arms.keys() == {"upgrade", "check"}
            assert [arms[action].priority is None for action in arms] == [not pii, not pii]
            assert all(arm.mean is not None for arm in arms.values())

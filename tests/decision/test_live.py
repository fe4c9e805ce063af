"""What is served: newer versions are taken up in time, and nothing broken ever is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from support import ANNA, NOW, Service, catalog_document, running

from arbitration.catalog.problems import Source
from arbitration.policy.state import State
from arbitration.snapshot import PRIOR, fingerprint, lineage
from decision.errors import StoreUnavailable
from decision.publishing import check_document
from decision.storage.port import SnapshotRecord
from decision.storage.sqlite.store import SqliteStore


async def until(done: Callable[[], bool], seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.01)


async def learn(store: SqliteStore, record: SnapshotRecord) -> None:
    cursor = await store.cursor()
    await store.commit_learning([], [record], cursor, expected=cursor, lineages=[])


def learned(service: Service, reward: float) -> SnapshotRecord:
    """A snapshot of the context-free policy in which `check_side` was answered once."""
    state = State(fingerprint(service.context.live.serving.published.compiled, "plain"), 1)
    state.add(["check_side"], np.ones((1, 1)), np.array([reward]), np.ones(1))
    version, content = state.to_bytes()
    line = lineage(service.context.live.serving.published.compiled, "plain")
    return SnapshotRecord(f"plain-{version}", line, NOW, content)


async def test_what_another_process_writes_is_taken_up(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db", poll=0.05) as service:
        assert not service.context.live.ready
        other = SqliteStore(tmp_path / "a.db")
        await other.open()
        live = service.context.live
        first = check_document(Source(catalog_document()))
        assert first.published is not None
        await other.publish_catalog(first.published.version, first.document, NOW)
        await until(lambda: live.ready)
        assert live.serving.published.version == first.published.version
        document = catalog_document()
        document["actions"][3]["value"] = 21
        second = check_document(Source(document))
        assert second.published is not None
        await other.publish_catalog(second.published.version, second.document, NOW)
        await until(lambda: live.serving.published.version == second.published.version)
        record = learned(service, 1.0)
        await learn(other, record)
        await until(lambda: live.serving.snapshots["plain"].version == record.version)
        assert live.serving.snapshots["default"].version == PRIOR
        await other.publish_catalog(first.published.version, first.document, NOW)  # a rollback
        await until(lambda: live.serving.published.version == first.published.version)
        await other.close()


def alarm(service: Service) -> tuple[float, float]:
    """(whether the policy's snapshot is refused now, how many were), as Prometheus would read them."""
    lines = service.context.metrics.exposition().decode().splitlines()
    names = ('snapshot_refused{policy="plain"} ', 'snapshot_refusals_total{policy="plain"} ')
    values = [next((line for line in lines if line.startswith(name)), "x 0").split()[-1] for name in names]
    return float(values[0]), float(values[1])


def unsound(service: Service, kind: str, good: SnapshotRecord) -> SnapshotRecord:
    """A snapshot that is whole, and yet none to decide with."""
    state = State.from_bytes(good.content)
    match kind:
        case "nan":
            state.moment[0, 0] = np.nan
        case "another policy":
            state.fingerprint = fingerprint(service.context.live.serving.published.compiled, "default")
        case "another version":
            other = learned(service, 0.25)
            return replace(good, version=other.version, content=good.content)
        case "another release":
            with patch("arbitration.policy.state._FORMATS", (1, 2, 3)):
                version, content = state.to_bytes()
            return replace(good, version=f"plain-{version}", content=content)
    version, content = state.to_bytes()
    return replace(good, version=f"plain-{version}", content=content)


@pytest.mark.parametrize("kind", ["nan", "another policy", "another version", "another release"])
async def test_a_whole_but_unsound_snapshot_is_refused_with_an_alarm(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path / "a.db") as service:
        await service.publish(catalog_document())
        store, live = service.context.store, service.context.live
        assert isinstance(store, SqliteStore)
        good = learned(service, 1.0)
        await learn(store, good)
        await live.refresh()
        assert (live.serving.snapshots["plain"].version, alarm(service)) == (good.version, (0, 0))
        bad = unsound(service, kind, good)
        assert bad.version != good.version
        await learn(store, bad)
        for _ in range(3):  # looking again does not make it more
            await live.refresh()
        assert (live.serving.snapshots["plain"].version, alarm(service)) == (good.version, (1, 1))
        listed = (await service.client.get("/v1/snapshots")).json()["policies"]
        assert {each["policy"]: each["refused"] for each in listed} == {"default": None, "plain": bad.version}
        better = learned(service, 0.5)
        await learn(store, better)
        await live.refresh()
        assert (live.serving.snapshots["plain"].version, alarm(service)) == (better.version, (0, 1))


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "flipped", "method"])
async def test_a_broken_snapshot_is_refused_and_the_old_one_serves(tmp_path: Path, damage: str) -> None:
    async with running(tmp_path / "a.db", poll=0.03) as service:
        await service.publish(catalog_document())
        await service.client.put("/v1/customers/anna", json=ANNA)
        store, live = SqliteStore(tmp_path / "a.db"), service.context.live
        await store.open()
        good = learned(service, 1.0)
        await learn(store, good)
        await until(lambda: live.serving.snapshots["plain"].version == good.version)
        method = good.content.index(b"PK\x01\x02") + 10
        content = {
            "empty": b"",
            "cut": good.content[:-40],
            "noise": b"\x00\x01" * 400,
            # within the compressed sums, where the archive itself notices
            "flipped": good.content[:700]
            + bytes(byte ^ 0xFF for byte in good.content[700:900])
            + good.content[900:],
            "method": good.content[:method] + b"\x63" + good.content[method + 1 :],  # one no archive knows
        }[damage]
        await learn(store, replace(good, version="broken", content=content))
        await until(lambda: "broken" in live.serving.learned.values())
        assert live.serving.snapshots["plain"].version == good.version
        assert alarm(service) == (1, 1)
        decision = await service.decide(placement="side")
        replayed = await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")
        assert replayed.json()["identical"]
        # and the next sound one is served again, under a new catalog too
        document = catalog_document()
        document["name"] = "next"
        await service.publish(document)
        better = learned(service, 0.0)
        await learn(store, better)
        await until(lambda: live.serving.snapshots["plain"].version == better.version)
        await store.close()


async def test_a_start_with_a_broken_snapshot_serves_the_prior(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db") as service:
        await service.publish(catalog_document())
        store = service.context.store
        assert isinstance(store, SqliteStore)
        await learn(store, replace(learned(service, 1.0), version="broken", content=b"PK\x03\x04"))
    async with running(tmp_path / "a.db") as again:
        assert again.context.live.serving.snapshots["plain"].version == PRIOR


async def test_the_watch_outlives_a_failing_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "a.db", poll=0.02) as service:
        await service.publish(catalog_document())
        live, store = service.context.live, service.context.store
        for error in (StoreUnavailable("gone"), RuntimeError("nobody thought of this")):
            failures: list[Exception] = []

            async def failing(error: Exception = error, failures: list[Exception] = failures) -> None:
                failures.append(error)
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(store, "live_catalog", failing)
                await until(lambda failures=failures: len(failures) >= 2)  # it looked again after the first
                assert (await service.client.post("/v1/decisions", json={})).status_code == 422
        document = catalog_document()
        document["name"] = "after"
        checked = check_document(Source(document))
        assert checked.published is not None
        await store.publish_catalog(checked.published.version, checked.document, NOW)
        await until(lambda: live.serving.published.version == checked.published.version)


async def test_rolling_back_decides_as_before(service: Service) -> None:
    versions = [service.context.live.serving.published.version]
    document = catalog_document()
    del document["actions"][3]["treatments"][0]
    versions.append(await service.publish(document))
    asked = {"profile": {"nps": 9, "plan": "Max"}}
    assert (await service.decide(**asked))["placements"][0]["no_action_reason"] == "none_applicable"
    reply = await service.client.post("/v1/catalog/rollback", json={"version": versions[0]})
    assert reply.json()["version"] == versions[0]
    assert (await service.decide(**asked))["catalog_version"] == versions[0]
    listed = (await service.client.get("/v1/catalog/versions")).json()["versions"]
    assert [item["version"] for item in listed] == [versions[0], versions[1], versions[0]]
    assert [item["live"] for item in listed] == [True, False, False]


async def test_the_newest_sound_snapshot_serves_also_after_a_publish_or_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db") as service:
        await service.publish(catalog_document())
        store, live = service.context.store, service.context.live
        assert isinstance(store, SqliteStore)
        older, good = learned(service, 0.25), learned(service, 1.0)
        await learn(store, older)
        await learn(store, good)
        await live.refresh()
        await learn(store, replace(good, version="broken", content=good.content[:-9]))
        document = catalog_document()
        document["actions"][3]["value"] = 21  # the lineage stays
        await service.publish(document)
        assert (live.serving.snapshots["plain"].version, alarm(service)) == (good.version, (1, 1))
    async with running(tmp_path / "a.db") as again:
        assert again.context.live.serving.snapshots["plain"].version == good.version
        reply = await again.client.post("/v1/snapshots/plain/rollback")
        assert reply.json()["policies"][1]["snapshot"] == good.version
        assert alarm(again) == (0, 1)

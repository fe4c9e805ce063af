"""An erased customer: nothing that tells of them is found anywhere, and everybody else's numbers are as they
were, or as if they had never been."""

from __future__ import annotations

import copy
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ANNA, Clock, Ids, Service, asking, catalog_document, running, treatments

from arbitration.policy.mabwiser.history import History
from arbitration.policy.state import State
from decision.exporting.export import Format, export
from decision.exporting.remaking import Window
from decision.learner import Learner
from decision.logs import JsonLines
from decision.storage.port import DecisionRecord, Store
from decision.storage.postgres.store import PostgresStore
from decision.storage.sqlite.store import SqliteStore

MARKERS = (
    "zyzzyva-id", "zyzzyva-twin", "zyzzyva-cookie", "zyzzyva-mail", "zyzzyva-name", "zyzzyva-spouse",
    "zyzzyva-page", "zyzzyva-request", "zyzzyva-response", "zyzzyva-source", "zyzzyva-interest",
)  # fmt: skip
ME, TWIN = "zyzzyva-id", "zyzzyva-twin"
PATH = f"/v1/customers/{ME}"
COOKIE = {"type": "cookie", "value": "zyzzyva-cookie"}
MAIL = {"type": "mail", "value": "zyzzyva-mail"}
OTHERS = ("anna", "bert", "cleo")
FORMATS: tuple[Format, ...] = ("parquet", "obp", "vw")


def document() -> dict[str, Any]:
    """All that is counted and learned in any way at all, and nothing that one decision changes for another
    customer."""
    made = catalog_document()
    made["policies"] += [
        {"id": "fading", "strategy": "thompson", "half_life": "3d"},
        {"id": "money", "strategy": "ucb", "value_scale": 50.0},
        {"id": "near", "library": "mabwiser", "learning_policy": {"name": "EpsilonGreedy"},
         "neighborhood_policy": {"name": "KNearest", "k": 3}},
        {"id": "lin", "library": "mabwiser", "learning_policy": {"name": "LinUCB", "alpha": 1.25}},
    ]  # fmt: skip
    made["contact_policies"] = [{"id": "often", "at_most": 50, "within": "30d"}]
    made["control_groups"] = [{"id": "holdout", "share": 0.5, "behaviour": "random_eligible"}]
    for action in made["actions"]:
        action |= {"stop": {"on": ["rejected"]}, "eligibility": [], "applicability": []}
    next(each for each in made["actions"] if each["id"] == "check")["budget"] = {"total": 500}
    return made


def profile(name: str, **more: Any) -> dict[str, Any]:
    made = copy.deepcopy(ANNA)
    made["attributes"]["first_name"] = name
    made["identities"] = []
    return made | more


MINE = profile("zyzzyva-name", identities=[MAIL])
MINE["attributes"]["interests"] = ["zyzzyva-interest"]
MINE["consents"] = {"marketing": {"status": "given", "source": "zyzzyva-source"}}


async def told(service: Service) -> None:
    await service.publish(document())
    for number, name in enumerate(OTHERS):
        given = profile(name, identities=[{"type": "cookie", "value": name}])
        given["attributes"]["nps"] = number
        assert (await service.client.put(f"/v1/customers/{name}", json=given)).status_code == 200


async def lived(service: Service, ids: Ids, *, without: bool) -> list[dict[str, Any]]:
    """Decisions for all, in turns, by what was known at first, and what came of them. `without` one customer,
    the others have the same decisions."""
    if not without:
        assert (await service.client.put(PATH, json=MINE)).status_code == 200
        twin = profile("zyzzyva-spouse", identities=[{"type": "mail", "value": "zyzzyva-mail-2"}])
        assert (await service.client.put(f"/v1/customers/{TWIN}", json=twin)).status_code == 200
    said = []
    # Each as who, and where; the one who is to go also as a stranger, and as two.
    mine = [{"customer_id": ME}, {"identity": COOKIE}, {"customer_id": TWIN}, {"identity": MAIL}]
    for number in range(12):
        service.clock.now += timedelta(minutes=7)
        placement = ("panel", "hero", "side", "block")[number % 4]
        for who in (*({"customer_id": name} for name in OTHERS), mine[number // 3]):
            own = who in mine
            if own and without:
                ids.last += 1
                continue
            request = asking(None, placement, **who)
            if own:
                request["request_id"] = f"zyzzyva-request-{number}"
            if own and placement in ("hero", "side"):
                request["context"] = {"page": "zyzzyva-page"}
            if number % 3 == 1:
                request["activation"] = "deferred"
            reply = await service.client.post("/v1/decisions", json=request)
            assert reply.status_code == 200, reply.text
            for treatment in filter(None, treatments(reply.json())):
                if (number + len(treatment)) % 3 == 0:
                    continue
                said.append(
                    {
                        "response_id": f"{'zyzzyva-response' if own else 'e'}-{number}-{treatment}-{who}",
                        "decision_id": reply.json()["decision_id"],
                        "treatment": treatment,
                        "outcome": "accepted" if (number + len(treatment)) % 2 else "no_response",
                        "value": 12.5,
                    }
                )
    reply = await service.client.post("/v1/responses", json=said)
    assert reply.status_code == 200, reply.text
    return said


async def reports(service: Service) -> list[Any]:
    """As analysts see them."""
    found = []
    for path in ("control-groups", "lift?days=1", "lift?days=1&outcome=click&outcome=accepted", "budgets"):
        reply = await service.client.get(f"/v1/reports/{path}")
        assert reply.status_code == 200, reply.text
        found.append(reply.json())
    return found


async def learned(learner: Learner) -> dict[str, State | History]:
    while await learner.step():
        pass
    assert learner._learned is not None
    return learner._learned.states


def same(found: dict[str, State | History], wanted: dict[str, State | History]) -> None:
    """To 1e-9; neighbours exactly. What is left of an arm that only the erased were shown is zeros."""
    assert found.keys() == wanted.keys()
    for policy, state in found.items():
        other = wanted[policy]
        if isinstance(state, History):
            assert isinstance(other, History)
            assert state.rows == other.rows
            continue
        assert isinstance(state, State)
        assert isinstance(other, State)
        assert other.rows.keys() <= state.rows.keys()
        assert other.rows
        for arm, row in state.rows.items():
            for mine, theirs in zip(state._sums(), other._sums(), strict=True):
                expected = theirs[other.rows[arm]] if arm in other.rows else np.zeros_like(mine[row])
                assert mine[row] == pytest.approx(expected, abs=1e-9), (policy, arm)


def found_in(content: bytes) -> list[str]:
    return [marker for marker in MARKERS if marker.encode() in content]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    (tmp_path / "with").mkdir()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "with" / "store.db")
    return PostgresStore(request.getfixturevalue("postgres_url"))


async def test_nothing_is_found_of_them_and_nothing_is_changed_for_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: Store
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "decision.access")  # as it is unless asked for: it has request ids
    folder, ids, clock = tmp_path / "with", Ids(), Clock()
    async with running(folder / "store.db", clock, ids, store=given) as service:
        store = service.context.store
        await told(service)
        said = await lived(service, ids, without=False)
        learner = service.learner()
        assert await learner.step(17)  # it has read some of it
        await service.client.post(
            f"{PATH}/identities", json={"identities": [COOKIE, {"type": "mail", "value": "zyzzyva-mail-2"}]}
        )
        before = await learned(learner)
        assert sum(state.count.sum() for state in before.values() if isinstance(state, State)) > 30
        changed = document() | {"name": "changed"}
        await service.publish(changed)  # what was learned is served
        assert (await service.decide(ME, request_id="zyzzyva-request"))["customer_id"] == ME
        kept = await service.decide("anna")
        last = await service.decide(ME, "hero")
        if isinstance(store, SqliteStore):
            assert found_in(b"".join(path.read_bytes() for path in folder.iterdir()))
        clock.now += timedelta(days=2)
        counted = await reports(service)
        assert any(each["lines"] for each in counted[1]["comparisons"])
        assert counted[3]["budgets"][0]["used"] > 0

        assert (await service.client.delete(PATH)).status_code == 204
        assert await reports(service) == counted
        # Something is heard late, before the learner has come to it.
        late = said[-1] | {"response_id": "zyzzyva-response-late"}
        mine = next(each for each in said if each["response_id"].startswith("zyzzyva"))
        for message in (late | {"response_id": "e-late"}, mine | {"response_id": "zyzzyva-response-late"}):
            assert (await service.client.post("/v1/responses", json=message)).status_code in (200, 422)
        after = await learned(learner)
        assert await store.erasures(1) == []
        assert (await service.client.delete(PATH)).status_code == 204
        assert (await service.client.delete(f"/v1/customers/{TWIN}")).status_code == 204
        assert await store.broken() is None
        for format in FORMATS:
            out = tmp_path / f"log.{format}"
            summary = await export(store, format, out, Window(), customers="plain", pii=True)
            assert summary.decisions > 30
            assert summary.lost == ()
            assert not found_in(out.read_bytes())
        if isinstance(store, PostgresStore):
            await store.scrub()
            [(data,)] = await store._read("SHOW data_directory")
            folder = Path(data, "base")
        # Of the database no file has anything, while it is in use.
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert [path.name for path in files if found_in(path.read_bytes())] == []
        replayed = await service.client.post(f"/v1/decisions/{kept['decision_id']}/replay")
        assert replayed.json()["identical"]
        gone = await service.client.get(f"/v1/decisions/{last['decision_id']}")
        assert (gone.status_code, gone.json()["code"]) == (410, "erased")
        assert (await service.client.get(PATH)).status_code == 404
        restarted = await learned(service.learner())
        relearned = await relearn(service)
    lines = "\n".join(map(JsonLines().format, caplog.records)).encode()
    lines = b"\n".join(
        line for line in lines.split(b"\n") if b'"logger": "httpx"' not in line
    )  # the test's own
    assert not found_in(lines)

    ids, clock = Ids(), Clock()
    async with running(tmp_path / "without.db", clock, ids) as other:
        await told(other)
        await lived(other, ids, without=True)
        await learned(other.learner())
        await other.publish(changed)
        await other.decide("anna")
        clock.now += timedelta(days=2)
        never = await learned(other.learner())
        same(after, never)
        same(restarted, never)
        same(relearned, never)


async def relearn(service: Service) -> dict[str, State | History]:
    """What the ledger says, from the beginning."""
    learner = service.learner()
    catalog = service.context.live.serving.published.compiled
    return {policy: await learner._relearn(catalog, policy) for policy in catalog.policies}


@pytest.mark.parametrize("mode", ["live", "dry_run"])
async def test_who_is_erased_while_being_decided_for_is_decided_for_as_a_stranger(
    service: Service, mode: str
) -> None:
    """Not with the facts that were read before."""
    store = service.context.store
    await service.client.put(PATH, json=profile("zyzzyva-name"))
    commit = store.commit_decisions

    async def erased_first(records: list[DecisionRecord]) -> Any:
        store.commit_decisions = commit  # type: ignore[method-assign]
        assert b"zyzzyva-name" in records[0].reply
        assert (await service.client.delete(PATH)).status_code == 204
        return await commit(records)

    store.commit_decisions = erased_first  # type: ignore[method-assign,assignment]
    decision = await service.decide(ME, "hero", mode=mode)
    assert decision["degraded"] == ["profile:not_found"]
    record = await store.decision(decision["decision_id"])
    assert record is not None
    assert not found_in(record.inputs.replace(ME.encode(), b"") + record.reply.replace(ME.encode(), b""))

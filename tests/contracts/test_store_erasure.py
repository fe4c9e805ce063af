"""What every storage backend promises of an erased customer: nothing that names them is left, and every
number is as it was. In one file, as a backend is held to the whole of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from records import DAY, NOW, answered, mark, snapshot
from test_store_limits import BUDGET, GAP, heard, made, used
from test_store_reports import CATALOG, IN

from decision.storage.port import (
    ERASED,
    Change,
    Customer,
    DecisionRecord,
    Identity,
    Label,
    Membership,
    Names,
    Situation,
    Stop,
    Store,
    pseudonym,
)
from decision.storage.sqlite.store import SqliteStore

MARKER = "zyzzyva"
ME, TWIN = f"{MARKER}-id", f"{MARKER}-twin"
COOKIE, PHONE = Identity("cookie", f"{MARKER}-cookie"), Identity("phone", f"{MARKER}-phone")
STRANGER = pseudonym(COOKIE)
LATER = NOW + DAY
OTHER = Membership("holdout", "", False, 0.25)


async def read(store: Store, sql: str) -> list[Any]:
    found = store._read(sql)  # type: ignore[attr-defined]
    return list(await found if asyncio.iscoroutine(found) else found)


async def everything(store: Store) -> bytes:
    """All that is in any table, a line for each cell."""
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    if not isinstance(store, SqliteStore):
        tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    found = [await read(store, f"SELECT * FROM {name}") for (name,) in await read(store, tables)]
    cells = [cell for table in found for row in table for cell in row]
    return b"\n".join(
        [b"", *(each if isinstance(each, bytes) else str(each).encode() for each in cells), b""]
    )


def personal(record: DecisionRecord) -> DecisionRecord:
    """A decision that says more than it has to."""
    reply = orjson.loads(record.reply)
    reply["customer_id"] = reply["placements"][0]["title"] = f"{MARKER} in the reply"
    inputs = orjson.dumps({"facts": {"customer.first_name": f"{MARKER} in the inputs"}})
    return replace(record, inputs=inputs, reply=orjson.dumps(reply), request_hash=f"{MARKER} in the hash")


async def commit(store: Store, record: DecisionRecord) -> DecisionRecord:
    [kept] = await store.commit_decisions([record])
    assert kept == record
    return record


async def lived(store: Store) -> list[DecisionRecord]:
    """Two customers who become one, a stranger who becomes it too, and somebody else."""
    await store.publish_catalog("v1", orjson.dumps(CATALOG), NOW)
    await store.put_customers(
        [
            Customer(ME, {"first_name": f"{MARKER} Anna"}, {}, {"news": "given"}, (PHONE,)),
            Customer(TWIN, {"nps": 3}, identities=(Identity("mail", f"{MARKER}-mail"),)),
            Customer("c-2", {"nps": 9}),
        ],
        NOW,
    )
    names = {
        id: (await store.situation(id, NOW)).names.keys if id != STRANGER else (STRANGER,)
        for id in (ME, TWIN, STRANGER, "c-2")
    }
    taking: dict[str, Any] = {"takes": (("a_1", BUDGET, 2),)}
    records = []
    for number, keys in enumerate(names.values()):
        hour = timedelta(hours=number)
        decision = made(
            f"d-{number}", "a_1", limits=GAP, keys=keys, request_id=f"{MARKER}-r-{number}", at=NOW + hour,
            joins=(IN,) if number in (1, 2) else (OTHER,), **taking,
        )  # fmt: skip
        records.append(await commit(store, personal(decision)))
    first = await commit(
        store, personal(made("d-8", "a_1", keys=names[ME], at=NOW + DAY, due=NOW + 2 * DAY, **taking))
    )
    dry = await commit(store, personal(made("d-9", "a_1", keys=names[ME], mode="dry_run")))
    said = [
        heard(f"{MARKER}-e-1", "d-0", "click", LATER, key=ME),
        # Another customer's response of the same name, and one that corrects it.
        heard(f"{MARKER}-e-1", "d-1", "converted", LATER, key=TWIN),
        replace(heard(f"{MARKER}-e-2", "d-1", "accepted", LATER, key=TWIN), corrects=f"{MARKER}-e-1"),
        heard(f"{MARKER}-e-3", "d-2", "accepted", LATER, key=STRANGER),
        heard("e-1", "d-3", "accepted", LATER, key="c-2"),
    ]
    await store.commit_responses([replace(said[0], stops=(Stop("group", "g", None),)), *said[1:]], GAP)
    await store.merge(ME, [Identity("mail", f"{MARKER}-mail"), COOKIE], NOW)
    await store.standing((await store.names(ME)).keys, NOW, GAP)
    return [*records, first, dry]


def resting(record: DecisionRecord, situation: Situation) -> DecisionRecord:
    """A decision that rests on what was read."""
    assert record.claim is not None
    standing = situation.standing
    return replace(record, claim=replace(record.claim, standing=standing), life=standing.life)


async def reports(store: Store) -> tuple[Any, ...]:
    return (
        await store.control_groups(),
        await store.cohorts(NOW + 40 * DAY, 28),
        await store.cohorts(NOW + 40 * DAY, 28, ["click", "converted"]),
        await store.budgets(),
    )


async def unlearn(store: Store) -> None:
    """As the learner does it."""
    before, pending = await store.cursor(), await store.erasures(99)
    *_, cursor = await store.unread(before, 100)
    await store.commit_learning([], [], cursor, expected=before, lineages=[], unlearned=pending)


async def test_nothing_that_names_them_is_left_and_every_report_is_as_it_was(store: Store) -> None:
    records = await lived(store)
    before = await reports(store)
    assert any(cohort.outcomes for cohort in before[1])
    keys = (await store.names(ME)).keys
    assert len(keys) == 5
    assert await store.recorded(keys) == ["d-0", "d-1", "d-2", "d-8", "d-9"]
    assert MARKER.encode() in await everything(store)

    assert await store.delete_customer(TWIN, mark, LATER) == LATER
    assert await reports(store) == before
    assert [pending async for pending, _ in store.decided()] == [records[3]]
    kept = await store.decisions([record.decision_id for record in records])
    assert len({record.customer_id for record in kept.values() if record.erased}) == 1
    for record in records:
        found = kept[record.decision_id]
        assert found.erased == (record.decision_id != "d-3")
        if found.erased:
            live = record.mode == "live"
            assert found == replace(
                record,
                customer_id=found.customer_id,
                request_id=None,
                request_hash="",
                reply=found.reply,
                inputs=record.inputs if live else b"",  # for the learner only
            )
            shown = {"treatment": "a_1", "action": "a", "group": "g"}
            assert orjson.loads(found.reply) == {"placements": [{"items": [shown]}]}
    held = {kept["d-0"].customer_id: ""}
    for key in keys:
        assert await store.names(key) == Names(key)
        assert await store.recorded((key,)) == []
        assert (await store.standing((key,), NOW, GAP)).stops == ()
        assert (await store.standing((key,), NOW, GAP)).holds == {}
        assert key not in held
    await unlearn(store)
    text = await everything(store)
    left = {line for line in text.split(b"\n") if MARKER.encode() in line}
    # Of somebody else, and what stands for the ids in tombstones.
    other = {records[3].inputs, records[3].reply, b"zyzzyva-r-3", b"zyzzyva in the hash"}
    assert left - other == {mark(ME).encode(), mark(TWIN).encode()}
    assert STRANGER.encode() not in text
    assert await reports(store) == before
    erased = await store.decisions(["d-0", "d-1", "d-2", "d-8", "d-9"])
    assert {record.inputs for record in erased.values()} == {b""}
    assert await store.decision("d-3") == records[3]


async def test_to_erase_twice_is_harmless_and_a_tombstone_stays(store: Store) -> None:
    await lived(store)
    assert await store.erased_at(mark(ME)) is None
    assert await store.delete_customer("nobody", mark, NOW) is None
    assert b"nobody" not in await everything(store)
    await store.delete_customer(ME, mark, LATER)
    after = await everything(store)
    for id in (ME, TWIN):
        assert await store.delete_customer(id, mark, LATER + DAY) == LATER
        assert await store.erased_at(mark(id)) == LATER
    assert await everything(store) == after
    # Whoever comes back under the same id is somebody new, who can be erased again.
    await store.put_customers([Customer(TWIN, {"nps": 1})], LATER)
    assert await store.names(TWIN) == Names(TWIN)
    assert await store.delete_customer(TWIN, mark, LATER + DAY) == LATER + DAY
    assert (await store.erased_at(mark(TWIN)), await store.erased_at(mark(ME))) == (LATER + DAY, LATER)


async def test_what_is_in_the_ledger_only_is_erased_too(store: Store) -> None:
    await commit(store, made("d-1", "a_1", keys=(ME,), mode="dry_run"))
    assert await store.delete_customer(ME, mark, LATER) == LATER
    said = replace(answered("e-1", Stop("group", "g", None), TWIN), decision_id="d-7")
    await store.commit_responses([said])
    assert await store.delete_customer(TWIN, mark, LATER) == LATER
    text = await everything(store)
    assert text.count(MARKER.encode()) == 2  # tombstones


@pytest.mark.parametrize("known", [False, True])
async def test_a_decision_under_way_is_not_committed_with_what_was_erased(
    store: Store, other: Store, known: bool
) -> None:
    """Also where the customer came back meanwhile, and was changed as often as before."""
    for back in range(7):
        id = f"c-{back}"
        await store.put_customers(
            [Customer(id, {"nps": 3}, identities=(Identity("i", id),) if known else ())], NOW
        )
        await commit(store, made(f"{id}-1", keys=(await store.names(id)).keys, limits=GAP))
        situation = await store.situation(id, NOW, GAP)
        late = resting(made(f"{id}-9", "a_1", keys=situation.names.keys, limits=GAP), situation)
        if back == 6:  # also where it keeps every limit there could be
            assert late.claim is not None
            late = replace(late, claim=replace(late.claim, standing=None))
        await other.delete_customer(id, mark, LATER)
        for _ in range(back):
            await other.put_customers([replace(situation.profile or Customer(id), attributes={})], NOW)
        assert await store.commit_decisions([late]) == [None]
        assert await store.decision(f"{id}-9") is None
        if not back:  # nor does it leave anything behind
            assert b"\n" + id.encode() + b"\n" not in await everything(store)
        # What is read now is somebody else's, and can be decided by.
        again = await store.situation(id, NOW, GAP)
        assert (again.profile is None) == (back == 0)
        assert again.standing.life != situation.standing.life
        fresh = resting(made(f"{id}-10", "a_1", keys=again.names.keys, limits=GAP), again)
        assert fresh.claim is not None
        mixed = replace(fresh, life=situation.standing.life)
        assert await store.commit_decisions([mixed]) == [None]  # its facts are of before
        assert await store.commit_decisions([fresh]) == [fresh]


async def test_a_dry_run_under_way_is_not_committed_with_what_was_erased(store: Store, other: Store) -> None:
    await store.put_customers([Customer(ME, {"nps": 3})], NOW)
    situation = await store.situation(ME, NOW, GAP)
    dry = personal(made("d-9", "a_1", keys=(ME,), mode="dry_run"))
    late = replace(dry, life=situation.standing.life)
    await other.delete_customer(ME, lambda _: "a mark", LATER)
    assert await store.commit_decisions([late]) == [None]
    assert MARKER.encode() not in await everything(store)
    again = replace(late, life=(await store.situation(ME, NOW, GAP)).standing.life)
    assert await store.commit_decisions([again]) == [again]


async def test_who_was_never_met_is_decided_for_while_others_are_erased(store: Store) -> None:
    """It may have to be decided anew; then it is committed."""
    await store.put_customers([Customer("c-2")], NOW)
    for attempt in range(2):
        situation = await store.situation("c-1", NOW, GAP)
        record = resting(made("d-1", "a_1", limits=GAP), situation)
        if attempt == 0:
            await store.delete_customer("c-2", mark, NOW)
        kept = await store.commit_decisions([record])
        if kept == [record]:
            return
    raise AssertionError


async def test_a_late_response_changes_nothing_but_what_was_reserved(store: Store, other: Store) -> None:
    await store.put_customers([Customer(ME), Customer("c-2")], NOW)
    reserving: dict[str, Any] = {"due": NOW + 2 * DAY, "takes": (("a_1", BUDGET, 2),)}
    await commit(store, made("d-1", "a_1", keys=(ME,), **reserving))
    await commit(store, made("d-2", "a_1", keys=(ME,), **reserving))
    await commit(store, made("d-3", "a_1", keys=("c-2",), **reserving))
    await store.delete_customer(ME, mark, NOW)
    await unlearn(store)
    [erased] = [record.customer_id for record in (await store.decisions(["d-1"])).values()]
    before = await everything(store)
    # One who had read the decision before, and one who reads it now; the rest of the call is kept.
    for number, key in enumerate((ME, erased)):
        said = [
            replace(
                heard(f"{MARKER}-e", "d-1", "accepted", LATER, key=key), stops=(Stop("group", "g", None),)
            ),
            heard(f"e-{number}", "d-3", "accepted", LATER, key="c-2"),
        ]
        assert await other.commit_responses(said, GAP) == [False, True]
    assert await store.responses(["d-1"]) == []
    assert ME.encode() not in (await everything(store)).replace(mark(ME).encode(), b"")
    assert len(await everything(store)) > len(before)  # of the other customer
    states = {each.decision_id: each.state for each in await store.reservations(["d-1", "d-2", "d-3"])}
    assert states == {"d-1": "firm", "d-2": "reserved", "d-3": "firm"}
    assert await used(store) == 6
    assert await store.release(NOW + 3 * DAY, GAP, 9) == 1
    assert await used(store) == 4
    assert ME.encode() not in (await everything(store)).replace(mark(ME).encode(), b"")


async def test_silence_and_what_is_said_of_a_decision_nobody_knows_go_their_way(store: Store) -> None:
    await commit(store, made("d-1", "a_1", keys=(ME,), due=NOW + DAY, takes=(("a_1", BUDGET, 2),)))
    await store.delete_customer(ME, mark, NOW)
    silence = heard("e-1", "d-1", "no_response", LATER, key=ME)
    assert await store.commit_responses([silence, heard("e-2", "d-7", "click", LATER, key="c-2")]) == [
        False,
        True,
    ]
    assert [each.state for each in await store.reservations(["d-1"])] == ["reserved"]


async def test_the_learner_reads_what_is_left(store: Store) -> None:
    """Whatever is erased between two looks, none of the others is lost, and none is read twice."""
    seen: list[str] = []

    async def look() -> None:
        before = await store.cursor()
        decisions, responses, cursor = await store.unread(before, 100)
        seen.extend([*(each.decision_id for each in decisions), *(each.response_id for each in responses)])
        pending = await store.erasures(99)
        await store.commit_learning([], [], cursor, expected=before, lineages=[], unlearned=pending)

    for turn in range(3):
        ids = [f"c-{turn}-{number}" for number in range(3)]
        for id in ids:
            await commit(store, made(f"d-{id}", "a_1", keys=(id,)))
            await store.commit_responses([heard(f"e-{id}", f"d-{id}", "click", key=id)])
        if turn == 1:
            await store.unread(await store.cursor(), 100)  # they have their places
        await store.delete_customer(ids[1], mark, NOW)
        await look()
    await look()
    erased = {f"{kind}-c-{turn}-1" for kind in "de" for turn in range(3)}
    others = [each for each in seen if each not in erased and each[0] in "de" and each[1] == "-"]
    assert sorted(others) == sorted(
        f"{kind}-c-{turn}-{n}" for kind in "de" for turn in range(3) for n in (0, 2)
    )
    assert await store.erasures(9) == []


async def test_what_was_learned_is_forgotten_with_the_inputs(store: Store) -> None:
    await commit(store, made("d-1", "a_1", keys=(ME,)))
    await commit(store, made("d-2", "a_1", keys=("c-2",)))
    labels = [Label(id, "a_1", (("click", None),), None) for id in ("d-1", "d-2")]
    before = await store.cursor()
    *_, cursor = await store.unread(before, 100)
    await store.commit_learning(labels, [], cursor, expected=before, lineages=[])
    await store.delete_customer(ME, mark, NOW)
    # It is still there to be subtracted.
    assert {record.decision_id: record.inputs for record, _ in [each async for each in store.learned()]} == {
        "d-1": made("d-1").inputs,
        "d-2": made("d-2").inputs,
    }
    await unlearn(store)
    assert [record.decision_id async for record, _ in store.learned()] == ["d-2"]
    # Who names decisions of others as unlearned blanks none of them.
    at = await store.cursor()
    await store.commit_learning([], [], at, expected=at, lineages=[], unlearned=["d-2"])
    kept = await store.decisions(["d-1", "d-2"])
    assert (kept["d-1"].inputs, kept["d-2"].inputs) == (b"", made("d-2").inputs)


async def erased_by_a_release_before(store: Store, id: str) -> None:
    """The ledger stayed as it was."""
    named = f"('{id}', '{TWIN}', '{STRANGER}')"
    statements = (
        f"DELETE FROM identities WHERE customer_id = '{id}'",
        f"DELETE FROM stops WHERE customer_id IN {named}",
        "INSERT INTO erasures (decision_id) SELECT decision_id FROM decisions"
        f" WHERE customer_id IN {named} AND mode = 'live' ON CONFLICT DO NOTHING",
        f"DELETE FROM customers WHERE customer_id = '{id}'",
    )

    async def work(connection: Any) -> None:
        for statement in statements:
            await connection.execute(statement)

    def write(connection: Any) -> None:
        for statement in statements:
            connection.execute(statement)

    if isinstance(store, SqliteStore):
        await store._write(write)
    else:
        await store._transact(work)  # type: ignore[attr-defined]


@pytest.mark.parametrize("unlearned", [False, True])
async def test_whom_a_release_before_erased_by_half_is_erased_whole(store: Store, unlearned: bool) -> None:
    records = await lived(store)
    assert await store.half_erased(9) == []
    before = await reports(store)
    await erased_by_a_release_before(store, ME)
    if unlearned:  # without a word of the erasure in the record, what it rests on is still asked for
        await unlearn(store)
        assert await store.decisions([each.decision_id for each in records]) == {
            each.decision_id: each for each in records
        }
    assert await store.half_erased(9) == [ME]
    assert await store.delete_customer(ME, lambda id: f"mark {len(id)}", LATER, LATER + DAY) == LATER
    assert await store.half_erased(9) == []
    await unlearn(store)
    text = await everything(store)
    other = [records[3].inputs, records[3].reply, b"zyzzyva-r-3", b"zyzzyva in the hash"]
    assert {line for line in text.split(b"\n") if MARKER.encode() in line} == set(other)
    assert await reports(store) == before
    kept = await store.decisions([each.decision_id for each in records])
    assert [id for id, each in sorted(kept.items()) if not each.erased] == ["d-3"]


async def test_who_came_back_after_a_release_before_erased_them_is_left_alone(store: Store) -> None:
    records = await lived(store)
    await erased_by_a_release_before(store, ME)
    await unlearn(store)
    await store.put_customers([Customer(ME, {"nps": 1})], LATER)
    assert await store.half_erased(9) == []
    assert await store.decision("d-0") == records[0]


async def test_restricted_stays_until_it_is_lifted_and_a_merge_keeps_it(store: Store) -> None:
    async def restricted(id: str) -> bool | None:
        found = await store.customer(id)
        assert found is not None
        assert (await store.situation(id, NOW)).profile == found
        return found.restricted

    mine = Identity("i", "1")
    await store.put_customers([Customer("c-1", identities=(mine,)), Customer("c-2", restricted=True)], NOW)
    assert [await restricted(id) for id in ("c-1", "c-2")] == [None, True]
    await store.put_customers([Customer("c-2", {"nps": 3})], NOW)
    await store.patch_customers([Change(Customer("c-2", {"plan": "Max"}))], NOW)
    assert await restricted("c-2") is True
    await store.merge("c-2", [mine], NOW)
    assert await restricted("c-1") is True
    await store.patch_customers([Change(Customer("c-2", restricted=False))], NOW)
    assert not await restricted("c-2")
    await store.put_customers(
        [Customer("c-3", {"nps": 3}, restricted=True, identities=(Identity("i", "3"),))], NOW
    )
    await store.merge("c-2", [Identity("i", "3")], NOW)
    assert await restricted("c-2") is True
    await store.put_customers([Customer("c-2", restricted=False)], NOW)  # of several: told, not replaced
    assert not await restricted("c-2")


async def test_who_is_idle(store: Store) -> None:
    """Of whom nothing was told, decided or received since; by whatever name."""
    await store.put_customers(
        [Customer(id, {"nps": 1}) for id in ("told", "changed", "decided", "said", "idle", "named")], NOW
    )
    await store.put_customers([Customer("held", {"nps": 1}, restricted=True)], NOW)
    twin = Identity("i", "t")
    await store.put_customers([Customer("twin", identities=(twin,)), Customer("merged")], NOW)
    await store.put_customers([Customer("told", {"nps": 2})], LATER)
    await store.patch_customers([Change(Customer("changed", scores={"clv": 1.0}))], LATER)
    await commit(store, made("d-1", keys=("decided",), at=LATER))
    await commit(store, made("d-2", keys=("said",)))
    await commit(store, made("d-3", keys=("idle",)))
    await store.commit_responses([heard("e-1", "d-2", "click", LATER, key="said")])
    await commit(store, made("d-4", keys=(await store.names("twin")).keys, at=LATER))
    await store.merge("merged", [twin], NOW)
    await store.merge("named", [Identity("i", "n")], LATER)
    assert await store.idle_customers(NOW, 9) == []
    assert await store.idle_customers(LATER, 9) == ["idle"]
    # So it is when they are to be erased: whoever became active since they were looked for stays.
    everybody = ("told", "changed", "decided", "said", "merged", "named", "held", "idle")
    for id in everybody[:-1]:
        assert await store.delete_customer(id, mark, LATER, LATER) is None
        assert await store.customer(id) is not None
        assert await store.erased_at(mark(id)) is None
    assert sorted(await store.idle_customers(LATER + DAY, 9)) == [
        "changed",
        "decided",
        "idle",
        "merged",
        "named",
        "said",
        "told",
    ]
    assert len(await store.idle_customers(LATER + DAY, 2)) == 2
    assert await store.delete_customer("idle", mark, LATER, LATER) == LATER
    assert await store.customer("idle") is None


async def test_old_snapshots_go_also_those_that_something_was_decided_with(store: Store) -> None:
    names = ("s1", "s2", "s3")
    for name in names:
        at = await store.cursor()
        await store.commit_learning(
            [], [replace(snapshot(name), created_at=NOW)], at, expected=at, lineages=[]
        )
    await store.pin("renewal", "s2", NOW)
    await commit(store, made("d-1"))  # with s1
    assert await store.prune_snapshots(NOW) == 0
    assert await store.prune_snapshots(LATER) == 1
    assert {version for version, _ in await store.snapshots("renewal", 9)} == {"s2", "s3"}


def searched(files: Sequence[Path]) -> list[Path]:
    return [path for path in files if MARKER.encode() in path.read_bytes()]


async def test_the_log_holds_nothing_of_whom_nothing_was_learned(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    try:
        await store.put_customers([Customer(ME, {"first_name": MARKER}, identities=(COOKIE,))], NOW)
        await commit(store, personal(made("d-1", "a_1", keys=(ME,), mode="dry_run")))
        assert searched(list(tmp_path.iterdir()))
        await store.delete_customer(ME, lambda _: "a mark", LATER)
        assert await store.erasures(1) == []
        assert not searched(list(tmp_path.iterdir()))
    finally:
        await store.close()


async def test_the_files_hold_nothing_once_they_are_scrubbed(store: Store, tmp_path: Path) -> None:
    await lived(store)
    await store.delete_customer("c-2", mark, LATER)
    await store.delete_customer(ME, lambda id: f"mark {len(id)}", LATER)
    await unlearn(store)
    if isinstance(store, SqliteStore):
        files = lambda: list(tmp_path.iterdir())  # noqa: E731
        # Already now: what is deleted is overwritten, and the log is emptied when it is unlearned.
        assert not searched(files())
    else:
        [(folder,)] = await read(store, "SHOW data_directory")
        files = lambda: [each for each in Path(folder, "base").rglob("*") if each.is_file()]  # noqa: E731
    await store.scrub()
    assert len(files()) >= 1
    assert not searched(files())
    assert ERASED.encode() in await everything(store)


@pytest.mark.long
async def test_whatever_happens_at_once_is_of_before_or_of_somebody_new(store: Store, other: Store) -> None:
    """Decisions, responses, releases and erasures of one customer, all at the same time. Every decision that
    rests on the profile is erased with it; what comes later rests on none."""
    rounds, dice = 60, random.Random(11)
    for number in range(rounds):
        id = f"{MARKER}-{number}"
        await store.put_customers([Customer(id, {"nps": 1}, identities=(Identity("i", id),))], NOW)
        early = made(f"d-{number}", "a_1", limits=GAP, keys=(await store.names(id)).keys, due=NOW)
        await commit(store, personal(early))

        async def decide(at: Store, name: str, id: str = id) -> None:
            await asyncio.sleep(dice.random() / 200)
            for attempt in range(5):
                found = await at.situation(id, NOW, GAP)
                await asyncio.sleep(dice.random() / 200)
                record = resting(made(f"{name}-{attempt}", limits=GAP, keys=found.names.keys), found)
                known = b"known" if found.profile else b"unknown"
                if await at.commit_decisions([replace(record, inputs=known)]) != [None]:
                    return
            raise AssertionError("overtaken again and again")

        async def respond(at: Store, name: str, id: str = id, number: int = number) -> None:
            await asyncio.sleep(dice.random() / 200)
            await at.commit_responses([heard(name, f"d-{number}", "click", key=id)], GAP)

        async def release(at: Store) -> None:
            await asyncio.sleep(dice.random() / 200)
            await at.release(NOW + DAY, GAP, 9)

        async def erase(at: Store, id: str = id) -> None:
            await asyncio.sleep(dice.random() / 200)
            assert await at.delete_customer(id, lambda _: "a mark", LATER) == LATER

        work = [erase(store), release(other)]
        work += [
            decide(each, f"{name}-{number}") for each, name in ((store, "x"), (other, "y"), (other, "z"))
        ]
        work += [respond(each, f"{name}-{number}") for each, name in ((store, "p"), (other, "q"))]
        await asyncio.gather(*work)
        left = await store.decisions(await store.recorded((id, pseudonym(Identity("i", id)))))
        assert {record.inputs for record in left.values()} <= {b"unknown"}
        assert (await store.decisions([f"d-{number}"]))[f"d-{number}"].erased
        assert {each.customer_id[:1] for each in await store.responses([f"d-{number}"])} <= {ERASED}
        assert {each.state for each in await store.reservations([f"d-{number}"])} <= {
            "firm",
            "released",
            "reserved",
        }
        for name in left:  # and somebody new they are
            assert left[name].customer_id == id
        if not left:
            text = await everything(store)
            assert id.encode() + b"\n" not in text
        await store.delete_customer(id, lambda _: "a mark", LATER)
    await unlearn(store)
    while await store.erasures(1):
        await unlearn(store)
    assert MARKER.encode() not in await everything(store)


async def test_who_is_erased_while_being_counted_leaves_nothing(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look at a customer may have to write: what was counted."""
    await commit(store, made("d-1", "a_1", keys=(ME,)))
    name = "_write" if isinstance(store, SqliteStore) else "_transact"
    write = getattr(store, name)

    async def late(*given: Any) -> Any:
        await other.delete_customer(ME, lambda _: "a mark", NOW)
        return await write(*given)

    monkeypatch.setattr(store, name, late)
    assert (await store.standing((ME,), NOW, GAP)).holds == {}
    monkeypatch.undo()
    await unlearn(store)
    assert MARKER.encode() not in await everything(store)

"""What every storage backend promises of retention: whole months go, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from records import NOW, answered, learn, mark, snapshot
from support import id_of
from test_store_limits import BUDGET, GAP, made, used

from decision.errors import Conflict
from decision.storage.port import Cursor, Customer, DecisionRecord, Label, Store

JANUARY, FEBRUARY = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def at(id: str, moment: datetime, **more: object) -> DecisionRecord:
    return made(id, "a_1", at=moment, **more)  # type: ignore[arg-type]


async def test_months_that_are_over_go_with_all_that_belongs_to_them(store: Store) -> None:
    for ids in (("d-1", "d-2"), (id_of(JANUARY), id_of(FEBRUARY))):
        old = at(ids[0], JANUARY, request_id=f"r-{ids[0]}", takes=(("a_1", BUDGET, 1),), due=NOW)
        kept = at(ids[1], FEBRUARY, request_id=f"r-{ids[1]}")
        for record in (old, kept):
            assert None not in await store.commit_decisions([record])
        said = [answered(f"e-{record.decision_id}") for record in (old, kept)]
        said = [
            replace(each, decision_id=record.decision_id)
            for each, record in zip(said, (old, kept), strict=True)
        ]
        await store.commit_responses(said)
        with pytest.raises(Conflict):  # nobody has learned from them yet
            await store.prune(FEBRUARY)
        labels = [Label(id, "a_1", (("click", None),), None) for id in ids]
        await read(store, labels)

        assert await store.prune(FEBRUARY.replace(day=28)) == 1
        assert await store.prune(FEBRUARY) == 0
        assert await store.decisions(ids) == {ids[1]: kept}
        assert await store.responses(ids) == [said[1]]
        assert await store.labels(ids) == {(ids[1], "a_1"): labels[1]}
        assert await store.reservations(ids) == []
        assert await store.decision_of_request(("c-1",), f"r-{ids[0]}") is None
        assert await store.decision_of_request(("c-1",), f"r-{ids[1]}") == kept
    assert await used(store) == 2
    assert {record.decision_id async for record, _ in store.decided()} == {"d-2", ids[1]}


async def read(store: Store, labels: Sequence[Label] = (), unlearned: Sequence[str] = ()) -> None:
    """As the learner does it."""
    before = await store.cursor()
    *_, cursor = await store.unread(before, 100)
    await store.commit_learning(labels, [], cursor, expected=before, lineages=[], unlearned=unlearned)


async def test_what_is_to_be_unlearned_is_kept_until_it_is(store: Store) -> None:
    await store.put_customers([Customer("c-1")], NOW)
    for id in ("d-1", id_of(JANUARY)):
        await store.commit_decisions([at(id, JANUARY)])
        await read(store)
        await store.delete_customer("c-1", mark, NOW)
        with pytest.raises(Conflict) as refused:
            await store.prune(FEBRUARY)
        assert refused.value.field == "before"
        assert await store.erasures(9) == [id]
        await read(store, unlearned=[id])
        assert await store.prune(FEBRUARY) == 1


async def test_snapshots_stay_that_are_live_or_that_something_was_decided_with(store: Store) -> None:
    for name in ("s1", "s2", "s3", "s4", "s5"):
        await learn(store, [], [replace(snapshot(name), created_at=JANUARY)], Cursor())
    await learn(store, [], [replace(snapshot("s6"), created_at=FEBRUARY)], Cursor())
    await learn(store, [], [replace(snapshot("s5"), created_at=JANUARY)], Cursor())
    await store.pin("renewal", "s3", NOW)
    await store.commit_decisions(
        [
            replace(at("d-1", JANUARY), snapshots={"default": "s1"}),
            replace(at("d-2", FEBRUARY), snapshots={"default": "s2", "plain": "prior"}),
        ]
    )
    await read(store)
    await store.prune(FEBRUARY)
    assert {version for version, _ in await store.snapshots("renewal", 9)} == {"s2", "s3", "s5", "s6"}


async def test_who_is_limited_stays_so(store: Store) -> None:
    await store.commit_decisions([at("d-1", JANUARY, limits=GAP)])
    held = (await store.standing(("c-1",), FEBRUARY, GAP)).holds
    assert held
    await read(store)
    await store.prune(FEBRUARY)
    assert (await store.standing(("c-1",), FEBRUARY, GAP)).holds == held

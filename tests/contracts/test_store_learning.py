"""What every storage backend promises the learner."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from records import DAY, LINEAGES, NOW, answered, decided, learn, learned, snapshot

from decision.errors import Conflict
from decision.storage.port import (
    Cursor,
    Label,
    Store,
)


async def test_the_learner_starts_at_zero(store: Store) -> None:
    assert await store.cursor() == Cursor(0, 0)
    assert await store.unread(Cursor(), 10) == ([], [], Cursor())
    assert await store.live_snapshots() == {}
    assert await store.snapshot("s1") is None
    assert await store.labels(["d-1"]) == {}
    assert await store.due_labels(NOW, 10) == []
    assert await learned(store) == []


async def test_unread_goes_through_the_ledger_in_the_order_of_commits(store: Store, other: Store) -> None:
    for n in range(7):
        each = (store, other)[n % 2]
        await each.commit_decisions([decided(f"d-{9 - n}")])  # ids in another order than commits
        await each.commit_responses([answered(f"e-{n}")])
    await store.commit_responses([answered("e-7"), answered("e-0")])
    cursor, decisions, responses = Cursor(), [], []
    for _ in range(4):
        some, answers, cursor = await store.unread(cursor, 3)
        assert len(some) <= 3
        assert len(answers) <= 3
        decisions += some
        responses += answers
    assert [record.decision_id for record in decisions] == [f"d-{9 - n}" for n in range(7)]
    assert responses == [answered(f"e-{n}") for n in range(8)]
    assert await store.unread(cursor, 3) == ([], [], cursor)


async def test_unread_skips_nothing_under_concurrent_commits(store: Store, other: Store) -> None:
    async def write(each: Store, name: str) -> None:
        for n in range(40):
            await each.commit_decisions([decided(f"{name}-{n}")])

    seen: list[str] = []
    cursor = Cursor()
    writes = asyncio.gather(write(store, "a"), write(store, "b"), write(other, "c"))
    while len(seen) < 120:
        finished = writes.done()
        some, _, cursor = await store.unread(cursor, 7)
        seen += [record.decision_id for record in some]
        assert some or not finished
        await asyncio.sleep(0)
    await writes
    assert len(set(seen)) == 120


async def test_labels_are_kept_and_replaced(store: Store) -> None:
    shown = [Label("d-1", "a", None, NOW), Label("d-1", "b", None, NOW + DAY), Label("d-2", "a", None, NOW)]
    await learn(store, shown, [], Cursor(3, 0))
    clicked = Label("d-1", "a", (("click", None),), None)
    await learn(store, [clicked], [], Cursor(3, 1))
    assert await store.labels(["d-1", "unknown"]) == {("d-1", "a"): clicked, ("d-1", "b"): shown[1]}
    assert await store.labels([]) == {}
    assert await store.cursor() == Cursor(3, 1, 2)


async def test_due_labels_come_oldest_first(store: Store) -> None:
    second = timedelta(microseconds=1)
    labels = [
        Label("d-1", "t", None, NOW),
        Label("d-2", "t", None, NOW - DAY),
        Label("d-3", "t", None, NOW + second),
        Label("d-4", "t", (("click", None),), None),
        Label("d-5", "t", None, NOW - second),
    ]
    await learn(store, labels, [], Cursor())
    assert await store.due_labels(NOW, 10) == [labels[1], labels[4], labels[0]]
    assert await store.due_labels(NOW, 1) == [labels[1]]


async def test_learned_is_every_label_with_an_outcome_and_its_decision(store: Store) -> None:
    many = 1_300  # more than one chunk of any backend
    await store.commit_decisions([decided(f"d-{n:04}") for n in range(many)])
    labels = [
        Label(f"d-{n:04}", arm, (("no_response", None),), None)
        for n in range(many)
        for arm in ("a", "b", "c")
    ]
    open_label = Label("d-0003", "d", None, NOW)
    await learn(store, [*labels, open_label], [], Cursor())
    met = [(record, label) async for record, label in store.learned()]
    assert sorted((label for _, label in met), key=str) == sorted(labels, key=str)
    assert all(record == decided(label.decision_id) for record, label in met)


async def test_learned_can_be_left_early(store: Store) -> None:
    await store.commit_decisions([decided("d-1"), decided("d-2")])
    await learn(store, [Label(f"d-{n}", "t", (("click", None),), None) for n in (1, 2)], [], Cursor())
    met = store.learned()
    async for _ in met:
        break
    await met.aclose()  # type: ignore[attr-defined]
    assert len(await learned(store)) == 2


async def test_the_newest_snapshot_of_each_policy_is_live(store: Store, other: Store) -> None:
    await learn(store, [], [snapshot("s1"), snapshot("w1", "welcome", b"w")], Cursor(1, 1))
    await learn(store, [], [snapshot("s2", content=b"2"), snapshot("s3", content=b"3")], Cursor(2, 2))
    assert await other.live_snapshots() == {"renewal": "s3", "welcome": "w1"}
    assert await other.snapshot("s1") == snapshot("s1")


async def test_a_snapshot_that_comes_back_is_the_newest_again(store: Store) -> None:
    for version in ("s1", "s2"):
        await learn(store, [], [snapshot(version)], Cursor())
    await learn(store, [], [replace(snapshot("s1"), created_at=NOW + DAY)], Cursor())
    assert await store.live_snapshots() == {"renewal": "s1"}
    assert await store.snapshot("s1") == snapshot("s1")


async def test_a_failing_learning_commit_leaves_everything_as_it_was(store: Store) -> None:
    label = Label("d-1", "t", None, NOW)
    await learn(store, [label], [snapshot("s1")], Cursor(1, 1))
    with pytest.raises(Conflict) as refused:
        await learn(
            store,
            [Label("d-1", "t", (("click", None),), None), Label("d-2", "t", None, NOW)],
            [snapshot("s2", content=b"2"), snapshot("s1", "welcome")],
            Cursor(2, 2),
        )
    assert refused.value.field == "snapshots"
    assert await store.cursor() == Cursor(1, 1, 1)
    assert await store.labels(["d-1", "d-2"]) == {("d-1", "t"): label}
    assert await store.live_snapshots() == {"renewal": "s1"}
    assert await store.snapshot("s2") is None


async def test_learning_from_another_cursor_is_refused_whole(store: Store) -> None:
    await learn(store, [], [snapshot("s1")], Cursor(3, 3))
    with pytest.raises(Conflict) as refused:
        await store.commit_learning(
            [Label("d-1", "t", (("click", None),), None)],
            [snapshot("s2")],
            Cursor(4, 4),
            expected=Cursor(3, 3, 0),
            lineages=LINEAGES,
        )
    assert refused.value.field == "cursor"
    assert await store.cursor() == Cursor(3, 3, 1)
    assert await store.live_snapshots() == {"renewal": "s1"}
    assert await store.labels(["d-1"]) == {}


async def test_a_lineage_that_is_not_learned_any_more_is_not_current(store: Store) -> None:
    await learn(store, [], [snapshot("s1"), snapshot("w1", "welcome", b"w")], Cursor())
    expected = await store.cursor()
    moved = await store.commit_learning([], [], expected, expected=expected, lineages=["renewal"])
    assert moved == await store.cursor() == Cursor(0, 0, 2)
    assert await store.live_snapshots() == {"renewal": "s1", "welcome": "w1"}
    assert await store.current_snapshots() == {"renewal": "s1"}


async def test_a_snapshot_stored_again_is_written_anew(store: Store) -> None:
    await learn(store, [], [snapshot("s1", content=b"damaged")], Cursor())
    await learn(store, [], [snapshot("s1", content=b"whole")], Cursor())
    assert await store.snapshot("s1") == snapshot("s1", content=b"whole")


async def test_one_store_at_a_time_leads(store: Store, other: Store) -> None:
    assert await store.lead()
    assert not await other.lead()
    assert await store.lead()
    await store.close()
    assert await other.lead()
    await store.open()
    assert not await store.lead()

"""What every storage backend promises (`decision.storage.port`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from decision.errors import Conflict, StoreUnavailable
from decision.storage.port import (
    Cursor,
    Customer,
    DecisionRecord,
    Identity,
    Label,
    Publication,
    ResponseRecord,
    SnapshotRecord,
    Stop,
    Store,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, 123_457, tzinfo=UTC)
DAY = timedelta(days=1)
MAIL = Identity("email_sha256", "aa")
COOKIE = Identity("cookie", "bb")
ANNA = Customer(
    "c-1",
    {"nps": 3, "plan": "größer", "tags": ["a", None, {"b": 1.5}], "open": False},
    {"clv": 412.25},
    {"marketing_email": "given"},
    (COOKIE, MAIL),
)


def decided(decision_id: str, request_id: str | None = None, customer_id: str = "c-1") -> DecisionRecord:
    return DecisionRecord(
        decision_id=decision_id,
        customer_id=customer_id,
        request_id=request_id,
        request_hash=f"hash of {request_id}",
        decided_at=NOW,
        channel="email",
        mode="live",
        catalog_version="v1",
        snapshots={"renewal": "s1"},
        inputs=b'{"b": 1, "a":\xc3\xa9}\x00',
        reply=b'{"decision_id":"' + decision_id.encode() + b'"}',
    )


def answered(response_id: str, stop: Stop | None = None, customer_id: str = "c-1") -> ResponseRecord:
    return ResponseRecord(
        response_id=response_id,
        decision_id="d-1",
        customer_id=customer_id,
        treatment="renew_12m_mail_a",
        outcome="accepted",
        value=12.5,
        occurred_at=NOW - DAY,
        received_at=NOW,
        stop=stop,
    )


def snapshot(version: str, policy: str = "renewal", content: bytes = b"\x00state") -> SnapshotRecord:
    return SnapshotRecord(version, policy, NOW, content)


LINEAGES = ("renewal", "welcome")


async def learn(
    store: Store, labels: Sequence[Label], snapshots: Sequence[SnapshotRecord], cursor: Cursor
) -> None:
    """Commits learning from wherever the cursor is."""
    await store.commit_learning(labels, snapshots, cursor, expected=await store.cursor(), lineages=LINEAGES)


async def learned(store: Store) -> list[tuple[str, Label]]:
    return sorted([(record.decision_id, label) async for record, label in store.learned()], key=str)


# --- life cycle ---


async def test_ping_answers_while_open(store: Store) -> None:
    await store.ping()


async def test_a_store_that_is_not_open_is_unavailable(new_store: Callable[[], Store]) -> None:
    store = new_store()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.customer("c-1")
    with pytest.raises(StoreUnavailable):
        await store.put_customers([ANNA])


async def test_closing_twice_is_closing_once(new_store: Callable[[], Store]) -> None:
    store = new_store()
    await store.close()
    await store.open()
    await store.close()
    await store.close()


async def test_reopening_keeps_everything(new_store: Callable[[], Store]) -> None:
    first = new_store()
    await first.open()
    stop = Stop("group", "retention", None)
    await first.put_customers([ANNA])
    await first.commit_decisions([decided("d-1", "r-1")])
    await first.commit_responses([answered("e-1", stop)])
    await first.publish_catalog("v1", b"document", NOW)
    await learn(first, [Label("d-1", "t", None, NOW)], [snapshot("s1")], Cursor(1, 1))
    await first.close()

    again = new_store()
    await again.open()
    try:
        assert await again.customer("c-1") == ANNA
        assert await again.stops("c-1", NOW) == (stop,)
        assert await again.decision("d-1") == decided("d-1", "r-1")
        assert await again.history("c-1", 9) == (
            [decided("d-1", "r-1")],
            [replace(answered("e-1"), stop=None)],
        )
        assert await again.live_catalog() == Publication("v1", NOW)
        assert await again.due_labels(NOW, 9) == [Label("d-1", "t", None, NOW)]
        assert await again.snapshot("s1") == snapshot("s1")
        assert await again.cursor() == Cursor(1, 1, 1)
    finally:
        await again.close()


async def test_close_waits_for_what_is_being_written(new_store: Callable[[], Store]) -> None:
    store = new_store()
    await store.open()
    writes = [asyncio.create_task(store.commit_decisions([decided(f"d-{n}")])) for n in range(50)]
    await asyncio.sleep(0)  # the tasks have asked
    await store.close()
    assert len(await asyncio.gather(*writes)) == 50

    again = new_store()
    await again.open()
    assert len(await again.decisions([f"d-{n}" for n in range(50)])) == 50
    await again.close()


async def test_another_process_sees_a_write_at_once(store: Store, other: Store) -> None:
    for n in range(20):
        writer, reader = (store, other) if n % 2 else (other, store)
        await writer.commit_decisions([decided(f"d-{n}")])
        assert await reader.decision(f"d-{n}") is not None
    await other.put_customers([ANNA])
    assert await store.resolve(MAIL) == "c-1"


# --- profiles ---


async def test_an_unknown_customer_is_none(store: Store) -> None:
    assert await store.customer("c-1") is None
    assert await store.resolve(MAIL) is None
    assert await store.stops("c-1", NOW) == ()


async def test_a_profile_comes_back_as_given(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2")])
    found = await store.customer("c-1")
    assert found is not None
    assert replace(found, identities=()) == replace(ANNA, identities=())
    assert set(found.identities) == {MAIL, COOKIE}
    assert await store.customer("c-2") == Customer("c-2")
    assert await store.resolve(MAIL) == "c-1"
    assert await store.resolve(Identity("cookie", "aa")) is None


async def test_put_replaces_the_whole_profile(store: Store) -> None:
    await store.put_customers([ANNA])
    await store.put_customers([Customer("c-1", {"plan": "small"})])
    assert await store.customer("c-1") == Customer("c-1", {"plan": "small"})
    assert await store.resolve(MAIL) is None


async def test_put_takes_the_last_of_a_customer_given_twice(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-1", {"nps": 9}, identities=(COOKIE,))])
    assert await store.customer("c-1") == Customer("c-1", {"nps": 9}, identities=(COOKIE,))


async def test_put_takes_many(store: Store) -> None:
    await store.put_customers([])
    await store.put_customers([Customer(f"c-{n}", {"n": n}) for n in range(3_000)])
    assert await store.customer("c-2999") == Customer("c-2999", {"n": 2999})


async def test_an_identity_of_another_is_a_conflict_and_nothing_is_put(store: Store) -> None:
    await store.put_customers([ANNA])
    with pytest.raises(Conflict) as refused:
        await store.put_customers([Customer("c-3"), Customer("c-2", identities=(MAIL,))])
    assert refused.value.field == "identities"
    assert MAIL.value not in str(refused.value)
    assert await store.customer("c-1") == ANNA
    assert await store.customer("c-3") is None
    assert await store.resolve(MAIL) == "c-1"


async def test_an_identity_moves_within_one_put(store: Store) -> None:
    await store.put_customers([ANNA])
    await store.put_customers([Customer("c-2", identities=(MAIL,)), Customer("c-1")])
    assert await store.resolve(MAIL) == "c-2"


async def test_one_identity_for_two_customers_of_one_put_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict):
        await store.put_customers([Customer("c-1", identities=(MAIL,)), Customer("c-2", identities=(MAIL,))])
    assert await store.customer("c-1") is None


async def test_patch_creates_a_profile(store: Store) -> None:
    assert await store.patch_customer(ANNA) == ANNA
    assert await store.customer("c-1") == ANNA


async def test_patch_merges_by_key(store: Store) -> None:
    await store.put_customers([ANNA])
    phone = Identity("phone", "cc")
    change = Customer("c-1", {"nps": 9, "new": None}, {"churn": 0.5}, {"sms": "refused"}, (phone, MAIL))
    expected = Customer(
        "c-1",
        {"nps": 9, "plan": "größer", "open": False, "new": None},
        {"churn": 0.5},
        {"marketing_email": "given", "sms": "refused"},
    )
    result = await store.patch_customer(
        change, [("attributes", "tags"), ("scores", "clv"), ("consents", "no")]
    )
    assert replace(result, identities=()) == expected
    assert set(result.identities) == {MAIL, COOKIE, phone}
    assert await store.customer("c-1") == result


async def test_patch_with_an_identity_of_another_changes_nothing(store: Store) -> None:
    await store.put_customers([ANNA])
    with pytest.raises(Conflict) as refused:
        await store.patch_customer(Customer("c-2", {"nps": 1}, identities=(MAIL,)))
    assert refused.value.field == "identities"
    assert await store.customer("c-2") is None


async def test_concurrent_patches_lose_nothing(store: Store, other: Store) -> None:
    await asyncio.gather(
        *(
            each.patch_customer(Customer("c-1", {f"{name}{n}": n}))
            for n in range(25)
            for name, each in (("a", store), ("b", other))
        )
    )
    found = await store.customer("c-1")
    assert found is not None
    assert len(found.attributes) == 50


async def test_delete_removes_profile_identities_and_stops(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2")])
    await store.commit_responses([answered("e-1", Stop("group", "retention", None))])
    assert await store.delete_customer("c-1") is True
    assert await store.customer("c-1") is None
    assert await store.resolve(MAIL) is None
    assert await store.stops("c-1", NOW) == ()
    assert await store.delete_customer("c-1") is False
    assert await store.customer("c-2") is not None


# --- stops ---


async def test_stops_in_force_are_ordered_by_scope_and_target(store: Store) -> None:
    ends = {("group", "b"): NOW + DAY, ("group", "a"): None, ("action", "z"): NOW + DAY}
    given = [Stop(scope, target, until) for (scope, target), until in ends.items()]
    given.append(Stop("action", "over", NOW))  # until is exclusive
    await store.commit_responses([answered(f"e-{n}", stop) for n, stop in enumerate(given)])
    in_force = (Stop("action", "z", NOW + DAY), Stop("group", "a", None), Stop("group", "b", NOW + DAY))
    assert await store.stops("c-1", NOW) == in_force
    assert await store.stops("c-1", NOW + DAY) == (Stop("group", "a", None),)
    assert await store.stops("c-2", NOW) == ()


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (NOW + DAY, NOW + 2 * DAY, NOW + 2 * DAY),
        (NOW + 2 * DAY, NOW + DAY, NOW + 2 * DAY),
        (None, NOW + DAY, None),
        (NOW + DAY, None, None),
    ],
)
async def test_the_later_end_of_a_stop_wins(
    store: Store, first: datetime | None, second: datetime | None, kept: datetime | None
) -> None:
    await store.commit_responses([answered("e-1", Stop("group", "retention", first))])
    await store.commit_responses([answered("e-2", Stop("group", "retention", second))])
    assert await store.stops("c-1", NOW) == (Stop("group", "retention", kept),)


async def test_a_known_response_does_not_stop_again(store: Store) -> None:
    await store.commit_responses([answered("e-1", Stop("group", "retention", NOW + DAY))])
    again = answered("e-1", Stop("group", "retention", NOW + 9 * DAY))
    assert await store.commit_responses([again]) == [False]
    assert await store.stops("c-1", NOW) == (Stop("group", "retention", NOW + DAY),)


# --- decisions ---


async def test_a_decision_comes_back_byte_for_byte(store: Store) -> None:
    given = replace(decided("d-1", "r-1"), decided_at=NOW.astimezone(), snapshots={})
    assert await store.commit_decisions([given]) == [given]
    found = await store.decision("d-1")
    assert found == given
    assert found is not None
    assert found.decided_at.utcoffset() == timedelta(0)
    assert await store.decision_of_request("c-1", "r-1") == given


async def test_unknown_decisions(store: Store) -> None:
    assert await store.decision("d-1") is None
    assert await store.decision_of_request("c-1", "r-1") is None
    assert await store.decisions(["d-1"]) == {}
    assert await store.history("c-1", 10) == ([], [])


async def test_decisions_of_many_ids(store: Store) -> None:
    given = [decided(f"d-{n}") for n in range(1_500)]
    assert await store.commit_decisions(given) == given
    ids = [f"d-{n}" for n in range(40_000)]
    assert await store.decisions(ids) == {record.decision_id: record for record in given}
    assert await store.decisions([]) == {}


async def test_the_first_decision_of_a_request_wins(store: Store) -> None:
    first = decided("d-1", "r-1")
    await store.commit_decisions([first])
    second, other_request, other_customer, nameless = (
        replace(decided("d-2", "r-1"), request_hash="another"),
        decided("d-3", "r-2"),
        decided("d-4", "r-1", "c-2"),
        decided("d-5"),
    )
    committed = await store.commit_decisions([second, other_request, other_customer, nameless])
    assert committed == [first, other_request, other_customer, nameless]
    assert await store.decision("d-2") is None


async def test_the_first_decision_of_a_request_wins_within_one_call(store: Store) -> None:
    first, second = decided("d-1", "r-1", ""), decided("d-2", "r-1", "")
    assert await store.commit_decisions([first, second]) == [first, first]
    assert await store.decision("d-2") is None


async def test_decisions_without_a_request_id_are_all_kept(store: Store) -> None:
    given = [decided("d-1"), decided("d-2")]
    assert await store.commit_decisions(given) == given


async def test_committing_the_same_decision_again_changes_nothing(store: Store) -> None:
    for given in (decided("d-1"), decided("d-2", "r-2")):
        await store.commit_decisions([given])
        assert await store.commit_decisions([given]) == [given]
    assert len((await store.history("c-1", 9))[0]) == 2


async def test_a_decision_id_with_other_content_is_a_conflict(store: Store) -> None:
    await store.commit_decisions([decided("d-1")])
    with pytest.raises(Conflict) as refused:
        await store.commit_decisions([decided("d-2"), decided("d-1", "r-1")])
    assert refused.value.field == "decision_id"
    assert await store.decision("d-2") is None


async def test_concurrent_commits_of_one_request_have_one_winner(store: Store, other: Store) -> None:
    stores = (store, other)
    given = [decided(f"d-{n}", f"r-{n % 10}") for n in range(200)]
    results = await asyncio.gather(*(stores[n // 10 % 2].commit_decisions([r]) for n, r in enumerate(given)))
    winners = {record.request_id: record for [record] in results}
    assert len({record.decision_id for [record] in results}) == 10
    for asked, [got] in zip(given, results, strict=True):
        assert got == winners[asked.request_id]
        assert await store.decision_of_request("c-1", asked.request_id or "") == got
    assert len((await store.history("c-1", 1_000))[0]) == 10


async def test_a_refused_write_does_not_fail_its_neighbours(store: Store) -> None:
    await store.put_customers([ANNA])
    thief = Customer("c-9", identities=(MAIL,))
    results = await asyncio.gather(
        *(
            store.put_customers([thief]) if n % 5 == 0 else store.commit_decisions([decided(f"d-{n}")])
            for n in range(100)
        ),
        return_exceptions=True,
    )
    for n, result in enumerate(results):
        assert isinstance(result, Conflict) == (n % 5 == 0), (n, result)
    assert len((await store.history("c-1", 1_000))[0]) == 80
    assert await store.customer("c-9") is None


# --- responses ---


async def test_a_response_counts_once(store: Store) -> None:
    await store.commit_decisions([decided("d-1")])
    given = answered("e-1")
    assert await store.commit_responses([given, given, answered("e-2")]) == [True, False, True]
    later = replace(given, received_at=NOW + DAY)
    assert await store.commit_responses([later, answered("e-3")]) == [False, True]
    assert (await store.history("c-1", 9))[1] == [answered("e-3"), answered("e-2"), given]


async def test_a_response_id_is_unique_per_customer(store: Store) -> None:
    await store.commit_responses([answered("e-1")])
    assert await store.commit_responses([answered("e-1", customer_id="c-2")]) == [True]


@pytest.mark.parametrize(
    "change",
    [{"decision_id": "d-2"}, {"treatment": "t"}, {"outcome": "click"}, {"value": 99.0}, {"value": None}],
)
async def test_a_response_id_used_for_something_else_is_a_conflict(
    store: Store, change: dict[str, Any]
) -> None:
    await store.commit_decisions([decided("d-1")])
    await store.commit_responses([answered("e-1")])
    fresh = answered("e-2", Stop("group", "retention", None))
    with pytest.raises(Conflict) as refused:
        await store.commit_responses([fresh, replace(answered("e-1"), **change)])
    assert refused.value.field == "[1].response_id"
    assert (await store.history("c-1", 9))[1] == [answered("e-1")]
    assert await store.stops("c-1", NOW) == ()


async def test_a_response_without_value(store: Store) -> None:
    await store.commit_decisions([decided("d-1")])
    given = replace(answered("e-1"), value=None)
    await store.commit_responses([given])
    assert (await store.history("c-1", 9))[1] == [given]


async def test_history_is_newest_first_and_limited(store: Store) -> None:
    for n in range(5):
        await store.commit_decisions([decided(f"d-{n}"), decided(f"x-{n}", customer_id="c-2")])
        answer = answered(f"e-{n}", Stop("group", "g", None))
        again = answered(f"f-{n}")
        await store.commit_responses([replace(given, decision_id=f"d-{n}") for given in (answer, again)])
    decisions, responses = await store.history("c-1", 2)
    assert [record.decision_id for record in decisions] == ["d-4", "d-3"]
    # Every response to the decisions shown, and to no other.
    assert [record.response_id for record in responses] == ["f-4", "e-4", "f-3", "e-3"]


# --- catalogs ---


async def test_nothing_published(store: Store) -> None:
    assert await store.live_catalog() is None
    assert await store.catalog("v1") is None
    assert await store.publications() == []


async def test_the_newest_publication_is_live(store: Store, other: Store) -> None:
    await store.publish_catalog("v1", b"one", NOW)
    await store.publish_catalog("v2", b"two", NOW + DAY)
    await store.publish_catalog("v1", b"one", NOW + DAY)  # a rollback, in the same microsecond
    assert await other.live_catalog() == Publication("v1", NOW + DAY)
    back = [Publication("v1", NOW + DAY), Publication("v2", NOW + DAY), Publication("v1", NOW)]
    assert await store.publications() == back
    assert await store.publications(2) == back[:2]
    assert await store.catalog("v2") == b"two"


async def test_the_document_of_a_version_never_changes(store: Store) -> None:
    await store.publish_catalog("v1", b"one", NOW)
    await store.publish_catalog("v1", b"changed", NOW + DAY)
    assert await store.catalog("v1") == b"one"


# --- learning ---


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
    clicked = Label("d-1", "a", "click", None)
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
        Label("d-4", "t", "click", None),
        Label("d-5", "t", None, NOW - second),
    ]
    await learn(store, labels, [], Cursor())
    assert await store.due_labels(NOW, 10) == [labels[1], labels[4], labels[0]]
    assert await store.due_labels(NOW, 1) == [labels[1]]


async def test_learned_is_every_label_with_an_outcome_and_its_decision(store: Store) -> None:
    many = 1_300  # more than one chunk of any backend
    await store.commit_decisions([decided(f"d-{n:04}") for n in range(many)])
    labels = [Label(f"d-{n:04}", arm, "no_response", None) for n in range(many) for arm in ("a", "b", "c")]
    open_label = Label("d-0003", "d", None, NOW)
    await learn(store, [*labels, open_label], [], Cursor())
    met = [(record, label) async for record, label in store.learned()]
    assert sorted((label for _, label in met), key=str) == sorted(labels, key=str)
    assert all(record == decided(label.decision_id) for record, label in met)


async def test_learned_can_be_left_early(store: Store) -> None:
    await store.commit_decisions([decided("d-1"), decided("d-2")])
    await learn(store, [Label(f"d-{n}", "t", "click", None) for n in (1, 2)], [], Cursor())
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
            [Label("d-1", "t", "click", None), Label("d-2", "t", None, NOW)],
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
            [Label("d-1", "t", "click", None)],
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

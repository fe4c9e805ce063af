"""What every storage backend promises of decisions, responses and catalogs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from records import ANNA, DAY, MAIL, NOW, answered, decided

from decision.errors import Conflict
from decision.storage.port import (
    Customer,
    Publication,
    Stop,
    Store,
)


async def test_a_decision_comes_back_byte_for_byte(store: Store) -> None:
    given = replace(decided("d-1", "r-1"), decided_at=NOW.astimezone(), snapshots={})
    assert await store.commit_decisions([given]) == [given]
    found = await store.decision("d-1")
    assert found == given
    assert found is not None
    assert found.decided_at.utcoffset() == timedelta(0)
    assert await store.decision_of_request(["c-1"], "r-1") == given


async def test_unknown_decisions(store: Store) -> None:
    assert await store.decision("d-1") is None
    assert await store.decision_of_request(["c-1"], "r-1") is None
    assert await store.decisions(["d-1"]) == {}
    assert await store.history(["c-1"], 10) == ([], [])


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
    assert len((await store.history(["c-1"], 9))[0]) == 2


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
        assert await store.decision_of_request(["c-1"], asked.request_id or "") == got
    assert len((await store.history(["c-1"], 1_000))[0]) == 10


async def test_a_refused_write_does_not_fail_its_neighbours(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    thief = Customer("c-9", identities=(MAIL,))
    results = await asyncio.gather(
        *(
            store.put_customers([thief], NOW) if n % 5 == 0 else store.commit_decisions([decided(f"d-{n}")])
            for n in range(100)
        ),
        return_exceptions=True,
    )
    for n, result in enumerate(results):
        assert isinstance(result, Conflict) == (n % 5 == 0), (n, result)
    assert len((await store.history(["c-1"], 1_000))[0]) == 80
    assert await store.customer("c-9") is None


async def test_a_response_counts_once(store: Store) -> None:
    await store.commit_decisions([decided("d-1")])
    given = answered("e-1")
    assert await store.commit_responses([given, given, answered("e-2")]) == [True, False, True]
    later = replace(given, received_at=NOW + DAY)
    assert await store.commit_responses([later, answered("e-3")]) == [False, True]
    assert (await store.history(["c-1"], 9))[1] == [answered("e-3"), answered("e-2"), given]


async def test_so_many_responses_to_one_decision_are_not_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlite.ledger", "postgres.ledger", "postgres.responding"):
        monkeypatch.setattr(f"decision.storage.{module}.MOST_RESPONSES", 3)
    await store.commit_decisions([decided("d-1"), decided("d-2", customer_id="c-2")])
    given = [answered(f"e-{number}") for number in range(4)]
    other = replace(answered("o-1", customer_id="c-2"), decision_id="d-2")
    for before in ([], [other]):
        with pytest.raises(Conflict) as refused:
            await store.commit_responses([*before, *given])
        assert refused.value.field == f"[{len(before) + 3}].decision_id"
    assert (await store.history(["c-1", "c-2"], 9))[1] == []
    assert await store.commit_responses([given[0], *given[:3]]) == [True, False, True, True]
    assert await store.commit_responses([other, given[1]]) == [True, False]
    with pytest.raises(Conflict):
        await store.commit_responses([given[3]])


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
    assert (await store.history(["c-1"], 9))[1] == [answered("e-1")]
    assert (await store.standing(["c-1"], NOW)).stops == ()


async def test_a_response_that_is_refused_refuses_those_of_other_customers_too(store: Store) -> None:
    await store.commit_decisions([decided("d-1"), decided("d-2", customer_id="c-2")])
    await store.commit_responses([answered("e-1")])
    of_another = replace(answered("e-1", customer_id="c-2"), decision_id="d-2")
    for conflicting in (replace(answered("e-1"), value=99.0), replace(of_another, outcome="rejected")):
        with pytest.raises(Conflict) as refused:
            await store.commit_responses([of_another, answered("e-3"), conflicting])
        assert refused.value.field == "[2].response_id"
    assert (await store.history(["c-1", "c-2"], 9))[1] == [answered("e-1")]


async def test_a_response_without_value(store: Store) -> None:
    await store.commit_decisions([decided("d-1")])
    given = replace(answered("e-1"), value=None)
    await store.commit_responses([given])
    assert (await store.history(["c-1"], 9))[1] == [given]


async def test_history_is_newest_first_and_limited(store: Store) -> None:
    for n in range(5):
        await store.commit_decisions([decided(f"d-{n}"), decided(f"x-{n}", customer_id="c-2")])
        answer = answered(f"e-{n}", Stop("group", "g", None))
        again = answered(f"f-{n}")
        await store.commit_responses([replace(given, decision_id=f"d-{n}") for given in (answer, again)])
    decisions, responses = await store.history(["c-1"], 2)
    assert [record.decision_id for record in decisions] == ["d-4", "d-3"]
    # Every response to the decisions shown, and to no other.
    assert [record.response_id for record in responses] == ["f-4", "e-4", "f-3", "e-3"]


async def test_the_decision_of_a_request_is_that_of_the_first_key(store: Store) -> None:
    given = [decided("d-1", "r-1", "c-1"), decided("d-2", "r-1", "c-2"), decided("d-3", "r-2", "c-3")]
    await store.commit_decisions(given)
    assert await store.decision_of_request(["c-1", "c-2"], "r-1") == given[0]
    assert await store.decision_of_request(["c-2", "c-1"], "r-1") == given[1]
    assert await store.decision_of_request(["c-3", "c-2", "c-1"], "r-1") == given[1]
    assert await store.decision_of_request(["c-9", "c-3"], "r-2") == given[2]
    assert await store.decision_of_request(["c-1", "c-2"], "r-2") is None
    assert await store.decision_of_request([], "r-1") is None


async def test_a_history_over_several_keys_is_in_the_order_of_commits(store: Store) -> None:
    for n, customer_id in enumerate(("c-1", "c-2", "c-3", "c-1", "c-2")):
        await store.commit_decisions([decided(f"d-{9 - n}", customer_id=customer_id)])
    given = [answered("e-1", customer_id="c-1"), answered("e-1", customer_id="c-2")]
    given = [replace(given[0], decision_id="d-9"), replace(given[1], decision_id="d-8")]
    # A response to a decision counts, whoever it was recorded for.
    given.append(replace(answered("e-2", customer_id="c-3"), decision_id="d-6"))
    await store.commit_responses(given)
    decisions, responses = await store.history(["c-2", "c-1", "c-2"], 10)
    assert [record.decision_id for record in decisions] == ["d-5", "d-6", "d-8", "d-9"]
    assert responses == [given[2], given[1], given[0]]
    decisions, responses = await store.history(["c-1", "c-2"], 3)
    assert [record.decision_id for record in decisions] == ["d-5", "d-6", "d-8"]
    assert responses == [given[2], given[1]]
    assert await store.history([], 10) == ([], [])


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


async def test_a_document_may_be_kept_before_it_is_published_or_without(store: Store, other: Store) -> None:
    await store.publish_catalog("v1", b"one", NOW)
    await store.keep_catalog("v2", b"two")
    await store.keep_catalog("v2", b"changed")
    await store.keep_catalog("v1", b"changed")
    assert [await other.catalog(version) for version in ("v1", "v2")] == [b"one", b"two"]
    assert await other.publications() == [Publication("v1", NOW)]
    await store.publish_catalog("v2", b"two", NOW + DAY)
    assert await other.live_catalog() == Publication("v2", NOW + DAY)


async def test_who_waits_for_news_gets_them_at_the_latest_when_the_time_is_over(
    store: Store, other: Store
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await store.news(0.2)
    assert loop.time() - began < 5
    waiting = asyncio.create_task(store.news(0.5))
    await other.publish_catalog("v1", b"one", NOW)
    await waiting
    assert await store.live_catalog() == Publication("v1", NOW)

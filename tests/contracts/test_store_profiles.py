"""What every storage backend promises of its life cycle, of profiles, and of stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from records import ANNA, COOKIE, DAY, MAIL, NOW, answered, decided, learn, mark, snapshot

from decision.errors import Conflict, StoreUnavailable
from decision.storage.port import (
    Change,
    ConsentDetail,
    Cursor,
    Customer,
    Identity,
    Label,
    Publication,
    Stop,
    Store,
)


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
        await store.put_customers([ANNA], NOW)


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
    await first.put_customers([ANNA], NOW)
    await first.commit_decisions([decided("d-1", "r-1")])
    await first.commit_responses([answered("e-1", stop)])
    await first.publish_catalog("v1", b"document", NOW)
    await learn(first, [Label("d-1", "t", None, NOW)], [snapshot("s1")], Cursor(1, 1))
    await first.close()

    again = new_store()
    await again.open()
    try:
        assert await again.customer("c-1") == ANNA
        assert (await again.standing(["c-1"], NOW)).stops == (stop,)
        assert await again.decision("d-1") == decided("d-1", "r-1")
        assert await again.history(["c-1"], 9) == (
            [decided("d-1", "r-1")],
            [replace(answered("e-1"), stops=())],
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
    await other.put_customers([ANNA], NOW)
    assert await store.resolve(MAIL) == "c-1"


async def test_an_unknown_customer_is_none(store: Store) -> None:
    assert await store.customer("c-1") is None
    assert await store.resolve(MAIL) is None
    assert (await store.standing(["c-1"], NOW)).stops == ()


async def test_a_profile_comes_back_as_given(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2")], NOW)
    found = await store.customer("c-1")
    assert found is not None
    assert replace(found, identities=()) == replace(ANNA, identities=())
    assert set(found.identities) == {MAIL, COOKIE}
    assert await store.customer("c-2") == Customer("c-2")
    assert await store.resolve(MAIL) == "c-1"
    assert await store.resolve(Identity("cookie", "aa")) is None


async def test_put_replaces_the_whole_profile(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    await store.put_customers([Customer("c-1", {"plan": "small"})], NOW)
    assert await store.customer("c-1") == Customer("c-1", {"plan": "small"})
    assert await store.resolve(MAIL) is None


async def test_put_takes_the_last_of_a_customer_given_twice(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-1", {"nps": 9}, identities=(COOKIE,))], NOW)
    assert await store.customer("c-1") == Customer("c-1", {"nps": 9}, identities=(COOKIE,))


async def test_put_takes_many(store: Store) -> None:
    await store.put_customers([], NOW)
    await store.put_customers([Customer(f"c-{n}", {"n": n}) for n in range(3_000)], NOW)
    assert await store.customer("c-2999") == Customer("c-2999", {"n": 2999})


async def test_an_identity_of_another_is_a_conflict_and_nothing_is_put(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    with pytest.raises(Conflict) as refused:
        await store.put_customers([Customer("c-3"), Customer("c-2", identities=(MAIL,))], NOW)
    assert refused.value.field == "identities"
    assert MAIL.value not in str(refused.value)
    assert await store.customer("c-1") == ANNA
    assert await store.customer("c-3") is None
    assert await store.resolve(MAIL) == "c-1"


async def test_an_identity_moves_within_one_put(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    await store.put_customers([Customer("c-2", identities=(MAIL,)), Customer("c-1")], NOW)
    assert await store.resolve(MAIL) == "c-2"


async def test_one_identity_for_two_customers_of_one_put_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict):
        await store.put_customers(
            [Customer("c-1", identities=(MAIL,)), Customer("c-2", identities=(MAIL,))], NOW
        )
    assert await store.customer("c-1") is None


async def test_patch_creates_a_profile(store: Store) -> None:
    assert await store.patch_customers([Change(ANNA)], NOW) == [ANNA]
    assert await store.customer("c-1") == ANNA


async def test_patch_merges_by_key(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    phone = Identity("phone", "cc")
    given = Customer("c-1", {"nps": 9, "new": None}, {"churn": 0.5}, {"sms": "refused"}, (phone, MAIL))
    change = Change(given, (("attributes", "tags"), ("scores", "clv"), ("consents", "no")))
    expected = Customer(
        "c-1",
        {"nps": 9, "plan": "größer", "open": False, "new": None},
        {"churn": 0.5},
        {"marketing_email": "given", "sms": "refused"},
    )
    [result] = await store.patch_customers([change], NOW)
    assert replace(result, identities=()) == expected
    assert set(result.identities) == {MAIL, COOKIE, phone}
    assert await store.customer("c-1") == result


async def test_patches_of_one_customer_follow_one_another(store: Store) -> None:
    changes = [
        Change(Customer("c-1", {"nps": 1, "plan": "small"})),
        Change(Customer("c-2", {"nps": 2})),
        Change(Customer("c-1", {"nps": 3}), (("attributes", "plan"),)),
    ]
    expected = [
        Customer("c-1", {"nps": 1, "plan": "small"}), Customer("c-2", {"nps": 2}), Customer("c-1", {"nps": 3})
    ]  # fmt: skip
    assert await store.patch_customers(changes, NOW) == expected
    assert await store.customer("c-1") == expected[2]
    assert await store.patch_customers([], NOW) == []


async def test_patch_with_an_identity_of_another_changes_nothing(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    thief = Change(Customer("c-2", {"nps": 1}, identities=(MAIL,)))
    with pytest.raises(Conflict) as refused:
        await store.patch_customers([Change(Customer("c-1", {"nps": 9})), thief], NOW + DAY)
    assert refused.value.field == "identities"
    assert await store.customer("c-1") == ANNA
    assert set((await store.as_of("c-1")).values()) == {NOW}
    assert await store.customer("c-2") is None


async def test_concurrent_patches_lose_nothing(store: Store, other: Store) -> None:
    await asyncio.gather(
        *(
            each.patch_customers([Change(Customer("c-1", {f"{name}{n}": n}))], NOW)
            for n in range(25)
            for name, each in (("a", store), ("b", other))
        )
    )
    found = await store.customer("c-1")
    assert found is not None
    assert len(found.attributes) == 50


async def test_a_put_tells_every_value_at_once(store: Store) -> None:
    assert await store.as_of("c-1") == {}
    await store.put_customers([ANNA, Customer("c-2")], NOW.astimezone())
    names = [f"attributes.{key}" for key in ANNA.attributes]
    assert await store.as_of("c-1") == dict.fromkeys([*names, "scores.clv", "consents.marketing_email"], NOW)
    assert await store.as_of("c-2") == {}
    await store.put_customers([Customer("c-1", {"nps": 3})], NOW + DAY)  # what is not there has no time
    assert await store.as_of("c-1") == {"attributes.nps": NOW + DAY}


async def test_a_patch_tells_what_it_gives(store: Store) -> None:
    await store.put_customers([Customer("c-1", {"nps": 3, "plan": "small"}, {"clv": 1.0})], NOW)
    given = Customer("c-1", {"nps": 3}, {"churn": 0.5}, {"sms": "given"})  # nps is told again, unchanged
    await store.patch_customers([Change(given, (("scores", "clv"),))], NOW + DAY)
    expected = {
        "attributes.nps": NOW + DAY,
        "attributes.plan": NOW,
        "scores.churn": NOW + DAY,
        "consents.sms": NOW + DAY,
    }
    assert await store.as_of("c-1") == expected
    again = [Change(Customer("c-1", scores={"clv": 2.0})), Change(Customer("c-3", {"nps": 1}))]
    await store.patch_customers(again, NOW + 2 * DAY)
    assert await store.as_of("c-1") == expected | {"scores.clv": NOW + 2 * DAY}
    assert await store.as_of("c-3") == {"attributes.nps": NOW + 2 * DAY}
    await store.delete_customer("c-1", mark, NOW)
    assert await store.as_of("c-1") == {}


async def test_delete_removes_profile_identities_and_stops(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2")], NOW)
    await store.commit_responses([answered("e-1", Stop("group", "retention", None))])
    assert await store.delete_customer("c-1", mark, NOW) == NOW
    assert await store.customer("c-1") is None
    assert await store.resolve(MAIL) is None
    assert (await store.standing(["c-1"], NOW)).stops == ()
    assert await store.delete_customer("c-1", mark, NOW + DAY) == NOW
    assert await store.customer("c-2") is not None


async def test_stops_in_force_are_ordered_by_scope_and_target(store: Store) -> None:
    ends = {("group", "b"): NOW + DAY, ("group", "a"): None, ("action", "z"): NOW + DAY}
    given = [Stop(scope, target, until) for (scope, target), until in ends.items()]
    given.append(Stop("action", "over", NOW))  # until is exclusive
    await store.commit_responses([answered(f"e-{n}", stop) for n, stop in enumerate(given)])
    in_force = (Stop("action", "z", NOW + DAY), Stop("group", "a", None), Stop("group", "b", NOW + DAY))
    assert (await store.standing(["c-1"], NOW)).stops == in_force
    assert (await store.standing(["c-1"], NOW + DAY)).stops == (Stop("group", "a", None),)
    assert (await store.standing(["c-2"], NOW)).stops == ()


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
    assert (await store.standing(["c-1"], NOW)).stops == (Stop("group", "retention", kept),)


@pytest.mark.parametrize("first", ["c-1", "c-2"])
@pytest.mark.parametrize(("later", "kept"), [(NOW + 2 * DAY, NOW + 2 * DAY), (None, None)])
async def test_a_stop_under_several_keys_is_one_with_the_later_end(
    store: Store, first: str, later: datetime | None, kept: datetime | None
) -> None:
    second = "c-2" if first == "c-1" else "c-1"
    retention = Stop("group", "retention", NOW + DAY)
    given = [
        answered("e-1", retention, first),
        answered("e-2", replace(retention, until=later), second),
        answered("e-3", Stop("action", "z", NOW + DAY), "c-2"),
        answered("e-4", Stop("action", "a", NOW + DAY), "c-3"),
        answered("e-5", Stop("group", "retention", NOW), "c-3"),  # is over: it must not count
        answered("e-6", Stop("group", "other", None), "c-4"),
    ]
    await store.commit_responses(given)
    assert (await store.standing(["c-1", "c-2", "c-3", "c-2"], NOW)).stops == (
        Stop("action", "a", NOW + DAY),
        Stop("action", "z", NOW + DAY),
        Stop("group", "retention", kept),
    )
    assert (await store.standing([], NOW)).stops == ()


async def test_a_known_response_does_not_stop_again(store: Store) -> None:
    await store.commit_responses([answered("e-1", Stop("group", "retention", NOW + DAY))])
    again = answered("e-1", Stop("group", "retention", NOW + 9 * DAY))
    assert await store.commit_responses([again]) == [False]
    assert (await store.standing(["c-1"], NOW)).stops == (Stop("group", "retention", NOW + DAY),)


MAIL_FORM = ConsentDetail(NOW - DAY, "web form")


def sms(status: str, at: datetime | None = None, source: str | None = None, id: str = "c-1") -> Customer:
    details = {} if at is source is None else {"sms": ConsentDetail(at, source)}
    return Customer(id, consents={"sms": status}, consent_details=details)


async def tell(store: Store, way: str, given: Customer, at: datetime) -> None:
    if way == "put":
        await store.put_customers([given], at)
    else:
        await store.patch_customers([Change(given)], at)


@pytest.mark.parametrize("way", ["put", "patch"])
async def test_details_of_consents_come_back_as_given(store: Store, other: Store, way: str) -> None:
    details = {"mail": MAIL_FORM, "sms": ConsentDetail(None, "été"), "post": ConsentDetail(NOW)}
    consents = dict.fromkeys(("mail", "sms", "post", "bare", "status"), "given")
    given = Customer("c-1", {"status": "x"}, {}, consents, (MAIL,), details)
    await tell(store, way, given, NOW)
    assert await other.customer("c-1") == given
    assert set((await other.as_of("c-1")).values()) == {NOW}
    change = Change(Customer("c-1", consents={"mail": "withdrawn"}), (("consents", "post"),))
    [result] = await store.patch_customers([change], NOW)
    assert result == await other.customer("c-1")
    assert result.consents == {"mail": "withdrawn", "sms": "given", "bare": "given", "status": "given"}
    assert result.consent_details == {"sms": ConsentDetail(None, "été")}


@pytest.mark.parametrize("way", ["put", "patch"])
@pytest.mark.parametrize(
    ("stored", "given", "taken"),
    [
        (sms("given", NOW), sms("withdrawn", NOW - DAY), False),
        (sms("withdrawn", NOW), sms("given", NOW - DAY), False),
        (sms("withdrawn", NOW - DAY), sms("given", NOW), True),
        (sms("given", NOW - DAY, "a"), sms("given", NOW, "b"), True),
        (sms("given", NOW), sms("withdrawn", NOW), True),
        (sms("withdrawn", NOW), sms("given", NOW), False),
        (sms("given", NOW, "a"), sms("given", NOW, "b"), True),
        (sms("withdrawn"), sms("given", NOW - DAY), False),  # told NOW
        (sms("withdrawn"), sms("given", NOW), False),
        (sms("withdrawn"), sms("given", NOW + DAY / 2), True),
        (sms("withdrawn", None, "a"), sms("given", NOW - DAY), False),
        (sms("withdrawn", NOW), sms("given"), True),  # of now
        (sms("withdrawn", NOW), sms("given", None, "b"), True),
        (Customer("c-1"), sms("given", NOW - DAY), True),
    ],
)
async def test_a_consent_older_than_the_recorded_one_stays_out(
    store: Store, way: str, stored: Customer, given: Customer, taken: bool
) -> None:
    await store.put_customers([stored], NOW)
    await tell(store, way, replace(given, attributes={"nps": 1}), NOW + DAY)
    found = await store.customer("c-1")
    assert found == replace(given if taken else stored, attributes={"nps": 1})
    times = {"attributes.nps": NOW + DAY, "consents.sms": NOW + DAY if taken else NOW}
    assert await store.as_of("c-1") == times


@pytest.mark.parametrize("way", ["put", "patch"])
async def test_no_consent_is_of_later_than_now(store: Store, way: str) -> None:
    await tell(store, way, sms("given", NOW + DAY, "a fast clock"), NOW)
    assert await store.customer("c-1") == sms("given", NOW, "a fast clock")
    await tell(store, way, sms("withdrawn", NOW + DAY / 2), NOW + DAY / 2)
    assert await store.customer("c-1") == sms("withdrawn", NOW + DAY / 2)


async def test_a_put_removes_what_it_leaves_out_but_no_consent_it_has_an_older_one_of(store: Store) -> None:
    newer = Customer("c-1", {"nps": 3}, {"clv": 1.0}, {"mail": "given", "sms": "withdrawn"}, (MAIL,))
    await store.put_customers([newer, Customer("c-2", {"nps": 1})], NOW)
    older = sms("given", NOW - DAY)
    await store.put_customers([replace(older, identities=(COOKIE,)), sms("given", id="c-2")], NOW + DAY)
    assert await store.customer("c-1") == Customer("c-1", consents={"sms": "withdrawn"}, identities=(COOKIE,))
    assert await store.as_of("c-1") == {"consents.sms": NOW}
    assert await store.customer("c-2") == sms("given", id="c-2")


@pytest.mark.parametrize("at_once", [True, False])
async def test_consents_given_twice_are_ordered_by_their_times(store: Store, at_once: bool) -> None:
    """However an import cuts its lines into batches."""
    older = replace(sms("given", NOW - 2 * DAY), attributes={"nps": 1})
    given = [sms("withdrawn", NOW - DAY), Customer("c-2", {"nps": 2}), older]
    for batch in [given] if at_once else [[each] for each in given]:
        await store.put_customers(batch, NOW)
    assert await store.customer("c-1") == replace(given[0], attributes={"nps": 1})
    assert await store.customer("c-2") == given[1]
    for customers in ([sms("withdrawn", NOW), sms("given")], [sms("given"), sms("withdrawn", NOW - DAY)]):
        await store.put_customers(customers, NOW + DAY)
        assert await store.customer("c-1") == sms("given")

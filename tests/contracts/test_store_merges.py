"""What every storage backend promises of names, and of two customers that prove to be one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import permutations

import pytest
from records import ANNA, COOKIE, DAY, MAIL, NOW, answered, decided

from decision.errors import Conflict
from decision.storage.port import Change, Customer, Identity, Names, Stop, Store

PHONE = Identity("phone", "cc")


async def customers(store: Store, **identities: Identity) -> None:
    """Customers of these ids, each with one identity."""
    await store.put_customers([Customer(id, identities=(known,)) for id, known in identities.items()], NOW)


async def test_names_of_anyone(store: Store) -> None:
    assert await store.names("c-1") == Names("c-1", (), ())
    await store.put_customers([replace(ANNA, identities=(PHONE, MAIL, COOKIE))], NOW)
    assert await store.names("c-1") == Names("c-1", (), (COOKIE, MAIL, PHONE))


async def test_a_merge_creates_a_profile_and_gives_it_identities(store: Store, other: Store) -> None:
    assert await store.merge("c-1", [MAIL, COOKIE, MAIL], NOW) == Names("c-1", (), (COOKIE, MAIL))
    assert await other.customer("c-1") == Customer("c-1", identities=(COOKIE, MAIL))
    assert await other.resolve(MAIL) == "c-1"
    assert await store.merge("c-2", [], NOW) == Names("c-2")
    assert await store.customer("c-2") == Customer("c-2")


async def test_the_owner_of_an_identity_is_merged_into_this_customer(store: Store, other: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2", {"age": 40}, identities=(PHONE,))], NOW)
    expected = Names("c-2", ("c-1",), (COOKIE, MAIL, PHONE))
    assert await store.merge("c-2", [MAIL], NOW) == expected
    assert await other.names("c-1") == await other.names("c-2") == expected
    for identity in (COOKIE, MAIL, PHONE):
        assert await other.resolve(identity) == "c-2"
    joined = replace(ANNA, customer_id="c-2", attributes={"age": 40, **ANNA.attributes})
    assert await store.customer("c-1") == replace(joined, identities=expected.identities)
    assert await store.customer("c-1") == await store.customer("c-2")


async def test_a_value_told_later_wins_and_on_a_tie_the_survivors(store: Store) -> None:
    await store.put_customers(
        [
            Customer("c-1", {"old": "ours", "new": "ours", "tie": "ours", "own": 1}, {"s": 0.1}),
            Customer("c-2", {"old": "theirs", "new": "theirs", "tie": "theirs"}, {"s": 0.2}, {}, (MAIL,)),
        ],
        NOW,
    )
    await store.patch_customers([Change(Customer("c-1", {"old": "ours"}))], NOW + DAY)
    theirs = Customer("c-2", {"new": "theirs", "extra": None}, {"s": 0.2})
    await store.patch_customers([Change(theirs)], NOW + 2 * DAY)
    await store.merge("c-1", [MAIL], NOW + 9 * DAY)
    found = await store.customer("c-1")
    assert found is not None
    assert found.attributes == {"old": "ours", "new": "theirs", "tie": "ours", "own": 1, "extra": None}
    assert found.scores == {"s": 0.2}
    assert (
        await store.as_of("c-1")
        == await store.as_of("c-2")
        == {
            "attributes.old": NOW + DAY,
            "attributes.new": NOW + 2 * DAY,
            "attributes.tie": NOW,
            "attributes.own": NOW,
            "attributes.extra": NOW + 2 * DAY,
            "scores.s": NOW + 2 * DAY,
        }
    )


async def test_a_withdrawn_consent_wins_however_old(store: Store) -> None:
    ours = {"a": "withdrawn", "b": "given", "c": "given", "own": "given"}
    theirs = {"a": "given", "b": "withdrawn", "c": "given", "extra": "given", "no": "withdrawn"}
    for at, customer_id, consents in ((NOW, "c-2", theirs), (NOW + DAY, "c-1", ours)):
        given = Customer(customer_id, consents=consents, identities=(Identity("of", customer_id),))
        await store.put_customers([given], at)
    await store.patch_customers([Change(Customer("c-2", consents={"a": "given"}))], NOW + 2 * DAY)
    await store.merge("c-1", [Identity("of", "c-2")], NOW + 9 * DAY)
    found = await store.customer("c-1")
    assert found is not None
    assert found.consents == {
        "a": "withdrawn", "b": "withdrawn", "c": "given", "own": "given", "extra": "given", "no": "withdrawn"
    }  # fmt: skip
    told = await store.as_of("c-1")
    assert (told["consents.a"], told["consents.b"]) == (NOW + DAY, NOW)  # as told, not as merged
    assert told["consents.c"] == NOW + DAY


async def test_merges_stay_flat(store: Store) -> None:
    await customers(store, a=MAIL, b=COOKIE, c=PHONE)
    await store.merge("a", [COOKIE], NOW)
    assert await store.merge("c", [MAIL], NOW) == Names("c", ("a", "b"), (COOKIE, MAIL, PHONE))
    for id in ("a", "b", "c"):
        assert await store.names(id) == Names("c", ("a", "b"), (COOKIE, MAIL, PHONE))
        found = await store.customer(id)
        assert found is not None
        assert found.customer_id == "c"


async def test_several_are_merged_at_once(store: Store) -> None:
    await customers(store, c=MAIL, b=COOKIE)
    assert await store.merge("a", [PHONE, MAIL, COOKIE], NOW) == Names("a", ("b", "c"), (COOKIE, MAIL, PHONE))


async def test_a_merged_id_is_followed_before_it_is_merged_into(store: Store) -> None:
    await customers(store, a=MAIL, b=COOKIE, c=PHONE)
    await store.merge("a", [COOKIE], NOW)
    assert await store.merge("b", [PHONE], NOW) == Names("a", ("b", "c"), (COOKIE, MAIL, PHONE))
    assert (await store.names("c")).customer_id == "a"


async def test_merging_what_is_merged_changes_nothing(store: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2", {"nps": 9}, identities=(PHONE,))], NOW)
    merged = await store.merge("c-1", [PHONE], NOW)
    before = await store.customer("c-1"), await store.as_of("c-1")
    for id, identities in (("c-1", [PHONE]), ("c-2", [MAIL]), ("c-2", [PHONE, COOKIE]), ("c-2", [])):
        assert await store.merge(id, identities, NOW + DAY) == merged
        assert (await store.customer("c-1"), await store.as_of("c-1")) == before


async def test_merges_in_opposite_directions_have_one_survivor(store: Store, other: Store) -> None:
    for n in range(20):
        a, b = Identity("cookie", f"a{n}"), Identity("cookie", f"b{n}")
        await customers(store, **{f"a{n}": a, f"b{n}": b})
        first, second = await asyncio.gather(store.merge(f"a{n}", [b], NOW), other.merge(f"b{n}", [a], NOW))
        assert first == second == await store.names(f"a{n}") == await other.names(f"b{n}")
        assert {first.customer_id, *first.merged} == {f"a{n}", f"b{n}"}
        assert first.identities == (a, b)


@pytest.mark.parametrize("order", list(permutations("abc")))
async def test_a_ring_of_merges_has_one_survivor(store: Store, order: tuple[str, ...]) -> None:
    known = {"a": MAIL, "b": COOKIE, "c": PHONE}
    await customers(store, **known)
    following = {"a": "b", "b": "c", "c": "a"}
    await asyncio.gather(*(store.merge(id, [known[following[id]]], NOW) for id in order))
    names = [await store.names(id) for id in "abc"]
    assert names[0] == names[1] == names[2]
    assert {names[0].customer_id, *names[0].merged} == {"a", "b", "c"}


async def merged(store: Store) -> None:
    """c-2 is merged into c-1, which is Anna."""
    await store.put_customers([ANNA, Customer("c-2", identities=(PHONE,))], NOW)
    await store.merge("c-1", [PHONE], NOW)


async def test_put_under_a_merged_id_replaces_the_survivor(store: Store) -> None:
    await merged(store)
    await store.put_customers([Customer("c-2", {"nps": 8}, identities=(PHONE,))], NOW + DAY)
    expected = Customer("c-1", {"nps": 8}, identities=(PHONE,))
    assert await store.customer("c-1") == await store.customer("c-2") == expected
    assert await store.resolve(PHONE) == "c-1"
    assert await store.resolve(MAIL) is None
    assert await store.as_of("c-1") == {"attributes.nps": NOW + DAY}


@pytest.mark.parametrize("order", list(permutations(["c-1", "c-2", "c-3"])))
async def test_the_last_of_a_put_wins_also_under_two_ids(store: Store, order: tuple[str, ...]) -> None:
    await merged(store)
    given = [Customer(id, {"by": id}, identities=(Identity("of", id),)) for id in order]
    await store.put_customers(given, NOW)
    last = max(("c-1", "c-2"), key=order.index)
    expected = Customer("c-1", {"by": last}, identities=(Identity("of", last),))
    assert await store.customer("c-1") == expected
    assert await store.resolve(Identity("of", min(("c-1", "c-2"), key=order.index))) is None
    assert await store.customer("c-3") == Customer("c-3", {"by": "c-3"}, identities=(Identity("of", "c-3"),))


async def test_patch_under_a_merged_id_changes_the_survivor(store: Store) -> None:
    await merged(store)
    fax = Identity("fax", "dd")
    [found] = await store.patch_customers([Change(Customer("c-2", {"nps": 8}, identities=(fax,)))], NOW + DAY)
    identities = (COOKIE, MAIL, fax, PHONE)
    assert found == replace(ANNA, attributes={**ANNA.attributes, "nps": 8}, identities=tuple(
        sorted(identities, key=lambda each: (each.type, each.value))
    ))  # fmt: skip
    assert await store.customer("c-1") == found
    assert await store.resolve(fax) == "c-1"
    assert (await store.as_of("c-2"))["attributes.nps"] == NOW + DAY
    # An identity of the survivor is the merged id's own.
    await store.patch_customers([Change(Customer("c-2", identities=(MAIL,)))], NOW)
    with pytest.raises(Conflict):
        await store.patch_customers([Change(Customer("c-3", identities=(MAIL,)))], NOW)


@pytest.mark.parametrize("id", ["c-1", "c-2"])
async def test_delete_removes_all_of_the_survivor_but_the_merge(store: Store, id: str) -> None:
    await merged(store)
    for n, key in enumerate(("c-1", "c-2", "c-3")):
        await store.commit_responses([answered(f"e-{n}", Stop("group", key, None), key)])
    assert await store.delete_customer(id) is True
    assert await store.customer("c-1") is None
    assert await store.names("c-1") == await store.names("c-2") == Names("c-1", ("c-2",), ())
    assert await store.stops(["c-1", "c-2", "c-3"], NOW) == (Stop("group", "c-3", None),)
    assert await store.delete_customer(id) is False
    await store.put_customers([Customer("c-2", {"nps": 1})], NOW)
    assert await store.customer("c-1") == Customer("c-1", {"nps": 1})


async def test_a_merge_leaves_stops_and_ledger_under_the_ids_they_were_recorded_for(store: Store) -> None:
    stop = Stop("group", "retention", None)
    await store.commit_decisions([decided("d-1", "r-1", "c-2")])
    await store.commit_responses([answered("e-1", stop, "c-2")])
    await merged(store)
    assert await store.stops(["c-1"], NOW) == ()
    assert await store.stops(["c-2"], NOW) == (stop,)
    assert await store.decision("d-1") == decided("d-1", "r-1", "c-2")
    assert await store.decision_of_request(["c-1"], "r-1") is None
    assert await store.decision_of_request(["c-1", "c-2"], "r-1") == decided("d-1", "r-1", "c-2")
    _, responses = await store.history(["c-1", "c-2"], 9)
    assert responses == [replace(answered("e-1", customer_id="c-2"), stop=None)]

"""What every storage backend promises of names, and of two customers that prove to be one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from itertools import permutations

import pytest
from records import ANNA, COOKIE, DAY, MAIL, NOW, answered, decided, mark

from decision.errors import Conflict
from decision.storage.port import Change, ConsentDetail, Customer, Identity, Names, Stop, Store, pseudonym

PHONE = Identity("phone", "cc")


def names(customer_id: str, merged: tuple[str, ...] = (), identities: tuple[Identity, ...] = ()) -> Names:
    """The names of a customer that has only ever had these identities."""
    return Names(customer_id, merged, tuple(sorted(map(pseudonym, identities))), identities)


async def customers(store: Store, **identities: Identity) -> None:
    """Customers of these ids, each with one identity."""
    await store.put_customers([Customer(id, identities=(known,)) for id, known in identities.items()], NOW)


async def test_names_of_anyone(store: Store) -> None:
    assert await store.names("c-1") == Names("c-1", (), (), ())
    await store.put_customers([replace(ANNA, identities=(PHONE, MAIL, COOKIE))], NOW)
    assert await store.names("c-1") == names("c-1", (), (COOKIE, MAIL, PHONE))


def test_a_pseudonym_never_changes() -> None:
    assert pseudonym(COOKIE) == "\x1ff930314dc762a95a2830aed0018d792f"


@pytest.mark.parametrize("way", ["put", "patch", "merge"])
async def test_what_was_a_strangers_stays_with_who_had_the_identity_first(
    store: Store, other: Store, way: str
) -> None:
    if way == "put":
        await store.put_customers([Customer("c-1", identities=(COOKIE, MAIL))], NOW)
    elif way == "patch":
        await store.patch_customers([Change(Customer("c-1", identities=(COOKIE, MAIL)))], NOW)
    else:
        await store.merge("c-1", [COOKIE, MAIL], NOW)
    await store.put_customers(
        [Customer("c-1", identities=(MAIL,)), Customer("c-2", identities=(COOKIE,))], NOW
    )
    keys = names("c-1", (), (COOKIE, MAIL)).pseudonyms
    assert await other.names("c-1") == Names("c-1", (), keys, (MAIL,))
    assert await other.names("c-2") == Names("c-2", (), (), (COOKIE,))
    assert await store.resolve(COOKIE) == "c-2"
    # Given back and to a third: still so.
    await store.put_customers([Customer("c-2")], NOW)
    await store.merge("c-3", [COOKIE], NOW)
    assert (await store.names("c-3")).pseudonyms == ()
    assert (await store.names("c-1")).pseudonyms == keys
    # It follows its customer into a merge.
    assert await store.merge("c-3", [MAIL], NOW) == Names("c-3", ("c-1",), keys, (COOKIE, MAIL))


async def test_an_identity_that_was_refused_leaves_no_name(store: Store) -> None:
    await store.put_customers([ANNA], NOW)
    for refused in (
        store.put_customers([Customer("c-2", identities=(PHONE, MAIL))], NOW),
        store.patch_customers([Change(Customer("c-2", identities=(PHONE, MAIL)))], NOW),
    ):
        with pytest.raises(Conflict):
            await refused
    assert await store.names("c-2") == Names("c-2")


async def test_a_merge_creates_a_profile_and_gives_it_identities(store: Store, other: Store) -> None:
    assert await store.merge("c-1", [MAIL, COOKIE, MAIL], NOW) == names("c-1", (), (COOKIE, MAIL))
    assert await other.customer("c-1") == Customer("c-1", identities=(COOKIE, MAIL))
    assert await other.resolve(MAIL) == "c-1"
    assert await store.merge("c-2", [], NOW) == Names("c-2")
    assert await store.customer("c-2") == Customer("c-2")


async def test_the_owner_of_an_identity_is_merged_into_this_customer(store: Store, other: Store) -> None:
    await store.put_customers([ANNA, Customer("c-2", {"age": 40}, identities=(PHONE,))], NOW)
    expected = names("c-2", ("c-1",), (COOKIE, MAIL, PHONE))
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


async def test_details_go_with_the_consent_that_wins(store: Store) -> None:
    """`withdrawn`, else the later by its own time; without one, by when it was told."""
    form = {of: ConsentDetail(NOW - DAY, "form") for of in ("a", "b", "c", "d", "f", "own")}
    shop = {of: ConsentDetail(NOW - 2 * DAY, "shop") for of in ("a", "b", "c", "e", "extra")}
    ours = {**dict.fromkeys("abcdef", "given"), "b": "withdrawn", "f": "withdrawn", "own": "given"}
    theirs = {**dict.fromkeys("abcdef", "given"), "a": "withdrawn", "f": "withdrawn", "extra": "given"}
    await store.put_customers([Customer("c-1", consents=ours, consent_details=form)], NOW)
    given = Customer("c-2", {}, {}, theirs, (PHONE,), shop)
    await store.put_customers([given], NOW + DAY)
    await store.merge("c-1", [PHONE], NOW + 9 * DAY)
    found = await store.customer("c-1")
    assert found is not None
    assert found.consents == {**ours, "a": "withdrawn", "extra": "given"}
    # d: told by c-2 a day later, and of then. e: told by c-1, later than what the shop had. f: as d.
    assert found.consent_details == {
        "a": shop["a"], "b": form["b"], "c": form["c"], "own": form["own"], "extra": shop["extra"]
    }  # fmt: skip
    told = await store.as_of("c-1")
    assert told == {
        f"consents.{of}": NOW + DAY if of in ("a", "d", "f", "extra") else NOW for of in found.consents
    }


async def test_merges_stay_flat(store: Store) -> None:
    await customers(store, a=MAIL, b=COOKIE, c=PHONE)
    await store.merge("a", [COOKIE], NOW)
    assert await store.merge("c", [MAIL], NOW) == names("c", ("a", "b"), (COOKIE, MAIL, PHONE))
    for id in ("a", "b", "c"):
        assert await store.names(id) == names("c", ("a", "b"), (COOKIE, MAIL, PHONE))
        found = await store.customer(id)
        assert found is not None
        assert found.customer_id == "c"


async def test_several_are_merged_at_once(store: Store) -> None:
    await customers(store, c=MAIL, b=COOKIE)
    assert await store.merge("a", [PHONE, MAIL, COOKIE], NOW) == names("a", ("b", "c"), (COOKIE, MAIL, PHONE))


async def test_a_merged_id_is_followed_before_it_is_merged_into(store: Store) -> None:
    await customers(store, a=MAIL, b=COOKIE, c=PHONE)
    await store.merge("a", [COOKIE], NOW)
    assert await store.merge("b", [PHONE], NOW) == names("a", ("b", "c"), (COOKIE, MAIL, PHONE))
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
    found = [await store.names(id) for id in "abc"]
    assert found[0] == found[1] == found[2]
    assert {found[0].customer_id, *found[0].merged} == {"a", "b", "c"}


async def merged(store: Store) -> None:
    """c-2 is merged into c-1, which is Anna."""
    await store.put_customers([ANNA, Customer("c-2", identities=(PHONE,))], NOW)
    await store.merge("c-1", [PHONE], NOW)


@pytest.mark.parametrize("id", ["c-1", "c-2"])
async def test_a_put_takes_nothing_from_a_profile_others_were_merged_into(store: Store, id: str) -> None:
    await merged(store)
    fax = Identity("fax", "dd")
    await store.put_customers([Customer(id, {"nps": 8}, {"new": 0.5}, identities=(fax,))], NOW + DAY)
    expected = replace(
        ANNA,
        attributes={**ANNA.attributes, "nps": 8},
        scores={**ANNA.scores, "new": 0.5},
        identities=(COOKIE, MAIL, fax, PHONE),
    )
    assert await store.customer("c-1") == await store.customer("c-2") == expected
    assert await store.names("c-1") == names("c-1", ("c-2",), expected.identities)
    told = await store.as_of("c-1")
    assert (told["attributes.nps"], told["scores.new"]) == (NOW + DAY, NOW + DAY)
    assert (told["attributes.plan"], told["consents.marketing_email"]) == (NOW, NOW)
    # One of its identities is nobody else's, though this put did not name it.
    with pytest.raises(Conflict):
        await store.put_customers([Customer("c-3", identities=(MAIL,)), Customer(id)], NOW)
    assert await store.customer("c-1") == expected


@pytest.mark.parametrize("order", list(permutations(["c-1", "c-2", "c-3"])))
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_put_of_both_halves_keeps_what_either_tells(
    store: Store, order: tuple[str, ...], at_once: bool
) -> None:
    await merged(store)
    consents = {
        "c-1": {"marketing": "given", "sms": "withdrawn"},
        "c-2": {"marketing": "withdrawn", "sms": "given", "post": "given"},
        "c-3": {"marketing": "given"},
    }
    rows = [Customer(id, {"by": id, id: 1}, {}, consents[id], (Identity("of", id),)) for id in order]
    for night in range(2):
        for batch in [rows] if at_once else [[row] for row in rows]:
            await store.put_customers(batch, NOW + night * DAY)
    found = await store.customer("c-1")
    assert found is not None
    assert found.consents == {
        **ANNA.consents, "marketing": "withdrawn", "sms": "withdrawn", "post": "given"
    }  # fmt: skip
    last = max(("c-1", "c-2"), key=order.index)
    assert found.attributes == {**ANNA.attributes, "by": last, "c-1": 1, "c-2": 1}
    assert set(found.identities) == {*ANNA.identities, PHONE, Identity("of", "c-1"), Identity("of", "c-2")}
    assert await store.customer("c-3") == Customer(
        "c-3", {"by": "c-3", "c-3": 1}, {}, consents["c-3"], (Identity("of", "c-3"),)
    )


@pytest.mark.parametrize("id", ["c-1", "c-2"])
async def test_a_consent_withdrawn_before_a_merge_is_given_again_by_a_patch_only(
    store: Store, id: str
) -> None:
    await store.put_customers([ANNA, Customer("c-2", {}, {}, {"sms": "withdrawn"}, (PHONE,))], NOW)
    await store.merge("c-1", [PHONE], NOW)

    async def sms() -> tuple[str, datetime]:
        found = await store.customer(id)
        assert found is not None
        return found.consents["sms"], (await store.as_of(id))["consents.sms"]

    await store.put_customers([Customer(id, consents={"sms": "given"})], NOW + DAY)
    assert await sms() == ("withdrawn", NOW)
    await store.put_customers([Customer(id, consents={"sms": "withdrawn"})], NOW + 2 * DAY)
    assert await sms() == ("withdrawn", NOW + 2 * DAY)
    await store.patch_customers([Change(Customer(id, consents={"sms": "given"}))], NOW + 3 * DAY)
    await store.put_customers([Customer(id, consents={"sms": "given"})], NOW + 4 * DAY)
    assert await sms() == ("given", NOW + 4 * DAY)


async def test_a_put_into_a_joint_profile_keeps_to_both_rules(store: Store) -> None:
    """What is withdrawn is not given by it, however new; what is newer is not undone by it, however told."""
    await merged(store)

    async def put(status: str, at: datetime | None, id: str = "c-2") -> tuple[str, ConsentDetail | None]:
        details = {} if at is None else {"sms": ConsentDetail(at, "form")}
        await store.put_customers([Customer(id, {}, {}, {"sms": status}, (), details)], NOW + 9 * DAY)
        found = await store.customer("c-1")
        assert found is not None
        assert found.consents["marketing_email"] == "given"
        return found.consents["sms"], found.consent_details.get("sms")

    def of(day: int) -> ConsentDetail:
        return ConsentDetail(NOW + day * DAY, "form")

    assert await put("given", NOW + 2 * DAY) == ("given", of(2))
    assert await put("withdrawn", NOW + DAY) == ("given", of(2))
    assert await put("withdrawn", NOW + 3 * DAY) == ("withdrawn", of(3))
    assert await put("given", NOW + 4 * DAY, "c-1") == ("withdrawn", of(3))
    assert await put("withdrawn", NOW + 2 * DAY) == ("withdrawn", of(3))
    assert await put("given", None) == ("withdrawn", of(3))
    change = Change(Customer("c-2", consents={"sms": "given"}, consent_details={"sms": of(4)}))
    await store.patch_customers([change], NOW + 9 * DAY)
    assert await put("given", NOW + 5 * DAY) == ("given", of(5))


async def test_a_stranger_merged_in_leaves_a_put_as_it_was(store: Store) -> None:
    """A pseudonym is no other customer, who has a system of its own."""
    await store.put_customers([ANNA], NOW)
    await store.merge("c-1", [PHONE], NOW)
    await store.put_customers([Customer("c-1", {"nps": 8})], NOW + DAY)
    assert await store.customer("c-1") == Customer("c-1", {"nps": 8})


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
async def test_delete_removes_all_of_the_survivor_and_the_merge(store: Store, id: str) -> None:
    await merged(store)
    before = await store.names("c-1")
    assert before.pseudonyms
    await store.patch_customers([Change(Customer("c-3", identities=(Identity("of", "c-3"),)))], NOW)
    left = ("c-3", pseudonym(Identity("of", "c-3")))
    keys = ("c-1", "c-2", *before.pseudonyms, *left)
    for n, key in enumerate(keys):
        await store.commit_responses([answered(f"e-{n}", Stop("group", key, None), key)])
    assert await store.delete_customer(id, mark, NOW) == NOW
    assert await store.customer("c-1") is None
    for key in before.keys:
        assert await store.names(key) == Names(key)
    assert {stop.target for stop in (await store.standing(keys, NOW)).stops} == set(left)
    for name in ("c-1", "c-2"):
        assert await store.delete_customer(name, mark, NOW + DAY) == NOW
    await store.put_customers([Customer("c-2", {"nps": 1})], NOW)
    assert await store.customer("c-1") is None


async def test_a_merge_leaves_stops_and_ledger_under_the_ids_they_were_recorded_for(store: Store) -> None:
    stop = Stop("group", "retention", None)
    await store.commit_decisions([decided("d-1", "r-1", "c-2")])
    await store.commit_responses([answered("e-1", stop, "c-2")])
    await merged(store)
    assert (await store.standing(["c-1"], NOW)).stops == ()
    assert (await store.standing(["c-2"], NOW)).stops == (stop,)
    assert await store.decision("d-1") == decided("d-1", "r-1", "c-2")
    assert await store.decision_of_request(["c-1"], "r-1") is None
    assert await store.decision_of_request(["c-1", "c-2"], "r-1") == decided("d-1", "r-1", "c-2")
    _, responses = await store.history(["c-1", "c-2"], 9)
    assert responses == [replace(answered("e-1", customer_id="c-2"), stops=())]


@pytest.mark.parametrize("late", ["c-1", "c-2", pseudonym(PHONE), pseudonym(COOKIE), "c-4"])
@pytest.mark.parametrize("early", ["c-1", "c-2", pseudonym(PHONE), pseudonym(COOKIE), "c-4"])
async def test_a_request_under_way_while_its_customer_is_merged_is_committed_once(
    store: Store, other: Store, early: str, late: str
) -> None:
    """Whoever it was for when it came in, and whichever name the retry found."""
    await store.merge("c-4", [Identity("of", "c-4")], NOW)
    await merged(store)
    await store.merge("c-1", [Identity("of", "c-4")], NOW)
    first, retry = decided("d-1", "r-1", early), decided("d-2", "r-1", late)
    assert await store.commit_decisions([first]) == [first]
    assert await other.commit_decisions([retry, decided("d-3", "r-2", late)]) == [
        first, decided("d-3", "r-2", late)
    ]  # fmt: skip
    assert await store.decision("d-2") is None
    found, _ = await store.history(
        ["c-1", *(await store.names("c-1")).merged, *(await store.names("c-1")).pseudonyms], 9
    )
    assert [record.decision_id for record in found] == ["d-3", "d-1"]


async def test_of_requests_from_before_a_merge_a_records_own_comes_first(store: Store) -> None:
    of = {id: decided(f"d-{n}", "r-1", id) for n, id in enumerate(("c-2", "c-1", pseudonym(PHONE)))}
    for record in of.values():
        await store.commit_decisions([record])
    await merged(store)
    for id, earlier in of.items():
        assert await store.commit_decisions([decided("d-9", "r-1", id)]) == [earlier]
    assert await store.commit_decisions([decided("d-9", "r-1", pseudonym(MAIL))]) == [of["c-2"]]
    # Without an id each is a request of its own, and other customers have their own.
    own = [decided("d-5", None, "c-1"), decided("d-6", None, "c-2"), decided("d-7", "r-1", "c-3")]
    assert await store.commit_decisions(own) == own
    retry = [decided("d-10", "r-3", "c-2"), decided("d-11", "r-3", "c-1")]
    assert await store.commit_decisions(retry) == [retry[0]] * 2


async def test_two_who_prove_to_be_the_same_at_once_become_one(store: Store, other: Store) -> None:
    for n in range(8):
        identity = Identity("phone", f"of {n}")
        names = await asyncio.gather(
            store.merge(f"a-{n}", [identity], NOW), other.merge(f"b-{n}", [identity], NOW)
        )
        (survivor,) = {(await store.names(id)).customer_id for id in (f"a-{n}", f"b-{n}")}
        assert await other.resolve(identity) == survivor
        assert survivor in {each.customer_id for each in names}

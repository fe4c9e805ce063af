"""What every storage backend promises of what is read for a decision: all at once as each for itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from records import ANNA, COOKIE, DAY, MAIL, NOW, answered, mark
from test_store_limits import BUDGET, GAP, MARCH, TWO, made

from arbitration.contact import Limits
from decision.storage.port import (
    NO_LIMITS,
    Change,
    Customer,
    Identity,
    Membership,
    Situation,
    Stop,
    Store,
    pseudonym,
)

PHONE, GONE = Identity("phone", "dd"), Identity("phone", "gone")
LATER = NOW + timedelta(hours=1)


async def each_for_itself(
    store: Store, who: str | Identity, limits: Limits, request_id: str | None
) -> Situation:
    """What the other methods say of the same."""
    asked = pseudonym(who) if isinstance(who, Identity) else who
    found = await store.resolve(who) if isinstance(who, Identity) else who
    names = await store.names(found or asked)
    earlier = None
    if request_id is not None:
        earlier = await store.decision_of_request((asked, *names.keys), request_id)
    return Situation(
        names,
        found is None,
        None if found is None else await store.customer(found),
        await store.standing(names.keys, LATER, limits, [BUDGET, MARCH]),
        earlier,
    )


async def test_nothing_is_known_of_nobody(store: Store) -> None:
    found = await store.situation("c-9", NOW, GAP, [BUDGET], "r-1")
    assert (found.names.keys, found.stranger, found.profile, found.earlier) == (("c-9",), False, None, None)
    found = await store.situation(PHONE, NOW)
    assert (found.names.keys, found.stranger, found.profile) == ((pseudonym(PHONE),), True, None)


@pytest.mark.parametrize("limits", [NO_LIMITS, GAP, TWO])
async def test_a_situation_is_what_the_others_say(store: Store, limits: Limits) -> None:
    await store.commit_decisions([made("d-5", limits=limits, keys=(pseudonym(PHONE),), request_id="r-3")])
    await store.put_customers([ANNA, Customer("c-2", {"nps": 1}, identities=(PHONE, GONE))], NOW)
    # Decided for as a stranger, as a customer, and as one who will be merged.
    await store.commit_decisions([made("d-0", "a_1", limits=limits, keys=(pseudonym(Identity("x", "y")),))])
    for n, id in enumerate(("c-1", "c-2", "c-3"), 1):
        keys = (await store.names(id)).keys
        joins = (Membership("g", "2026", n % 2 == 0, 0.25),)
        takes = (("a_1", BUDGET, n),)
        record = made(f"d-{n}", "a_1", limits=limits, keys=keys, joins=joins, takes=takes, request_id="r-1")
        assert None not in await store.commit_decisions([record])
    await store.commit_decisions([made("d-7", keys=("c-2",), mode="dry_run", request_id="r-2")])
    await store.commit_decisions([made("d-8", keys=("zorro",), mode="dry_run", request_id="r-3")])
    await store.put_customers([Customer("zorro", identities=(Identity("phone", "z"),))], NOW)
    stops = (Stop("group", "g", None), Stop("action", "a", NOW + DAY), Stop("action", "b", NOW))
    await store.commit_responses([replace(answered("e-1", customer_id="c-2"), stops=stops)])
    # c-2 loses an identity, which leads to nobody then, and is merged into c-1.
    await store.put_customers([Customer("c-2", {"nps": 1}, identities=(PHONE,))], NOW)

    async def alike() -> None:
        for who in ("c-1", "c-2", "c-3", MAIL, COOKIE, PHONE, GONE, Identity("x", "y"), "nobody"):
            for request_id in (None, "r-1", "r-2", "r-3", "unheard"):
                found = await store.situation(who, LATER, limits, [BUDGET, MARCH], request_id)
                assert found == await each_for_itself(store, who, limits, request_id), (who, request_id)

    await alike()
    await store.merge("c-1", [PHONE], NOW)
    await alike()
    await store.merge("c-1", [Identity("phone", "z")], NOW)
    await alike()
    await store.patch_customers([Change(Customer("c-3", identities=(Identity("x", "y"),)))], NOW)
    await alike()
    await store.delete_customer("c-1", mark, NOW)
    await alike()


async def test_what_was_decided_for_a_stranger_counts_when_they_are_known(store: Store) -> None:
    """Also where the customer had only been told of before, and where they were met by profile alone."""
    stranger = Identity("cookie", "zz")
    await store.put_customers([Customer("c-1", {"nps": 3}), Customer("c-2")], NOW)
    await store.commit_decisions([made("d-1", "a_1", limits=GAP, keys=(pseudonym(stranger),))])
    await store.patch_customers([Change(Customer("c-1", identities=(stranger,)))], NOW)
    assert (await store.situation("c-1", NOW, GAP)).standing.holds == {("p0", ""): NOW + 30 * DAY}
    assert (await store.situation("c-2", NOW, GAP)).standing.holds == {}
    await store.merge("c-2", [stranger], NOW)
    assert (await store.situation("c-2", NOW, GAP)).standing.holds == {("p0", ""): NOW + 30 * DAY}

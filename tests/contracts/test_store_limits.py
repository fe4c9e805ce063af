"""What every storage backend promises of limits: what is claimed holds when it is committed, exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from records import COOKIE, DAY, MAIL, NOW, answered, decided
from support import catalog_document

from arbitration.catalog.model import Catalog
from arbitration.contact import Contact, Limits, Shown, State, limits_of, micros
from decision.errors import Conflict
from decision.storage.port import (
    NO_LIMITS,
    BudgetPeriod,
    Change,
    Claim,
    Customer,
    DecisionRecord,
    Membership,
    Reservation,
    ResponseRecord,
    Standing,
    Stop,
    Store,
    pseudonym,
)

ME = ("c-1",)
TICK = timedelta(microseconds=1)
BUDGET, MARCH = BudgetPeriod("a"), BudgetPeriod("a", datetime.fromisoformat("2026-03-01T00:00:00Z"))
ANY = (-(2**62), 2**62)


def counting(*policies: dict[str, Any]) -> Limits:
    named = [{"id": f"p{number}", **policy} for number, policy in enumerate(policies)]
    channels = catalog_document()["channels"]
    return limits_of(Catalog.model_validate({"channels": channels, "contact_policies": named}))


GAP = counting({"gap": "30d"})
TWO = counting({"at_most": 2, "within": "30d"})


def made(
    decision_id: str,
    *treatments: str,
    limits: Limits = NO_LIMITS,
    standing: Standing | None = None,
    keys: tuple[str, ...] = ME,
    at: datetime = NOW,
    due: datetime | None = None,
    ranges: Mapping[BudgetPeriod, tuple[int, int]] | None = None,
    takes: tuple[tuple[str, BudgetPeriod, int], ...] = (),
    joins: tuple[Membership, ...] = (),
    mode: str = "live",
    request_id: str | None = None,
) -> DecisionRecord:
    """A decision that shows `treatments`, each of an action `a` for `a_1`, of a group `g`."""
    state: State = "firm" if due is None else "reserved"
    shown = tuple(Shown(name, name.partition("_")[0], "g", state) for name in treatments)
    items = [{"treatment": s.treatment, "action": s.action, "group": s.group} for s in shown]
    claim = Claim(
        keys,
        limits,
        Standing() if standing is None else standing,
        ranges or {},
        Contact(micros(at), "mail", shown, due is not None),
        takes,
        due,
        joins,
    )
    return replace(
        decided(decision_id, request_id, keys[0]),
        decided_at=at,
        channel="mail",
        mode=mode,
        activation="immediate" if due is None else "deferred",
        reply=orjson.dumps({"placements": [{"items": items}]}),
        claim=claim if mode == "live" else None,
    )


def heard(
    response_id: str,
    decision_id: str,
    outcome: str,
    at: datetime = NOW,
    treatment: str = "a_1",
    key: str = "c-1",
) -> ResponseRecord:
    given = answered(response_id, customer_id=key)
    return replace(
        given, decision_id=decision_id, outcome=outcome, occurred_at=at, received_at=at, treatment=treatment
    )


async def names(store: Store, customer_id: str) -> tuple[str, ...]:
    """All names of a customer, as a claim lists them."""
    found = await store.names(customer_id)
    return (found.customer_id, *found.merged, *found.pseudonyms)


async def until(store: Store, limits: Limits, now: datetime = NOW, keys: tuple[str, ...] = ME) -> Any:
    """Until when each policy and target holds."""
    return dict((await store.standing(keys, now, limits)).holds)


async def used(store: Store, period: BudgetPeriod = BUDGET) -> int:
    return (await store.standing(ME, NOW, NO_LIMITS, [period])).used[period]


async def test_who_is_not_known_stands_free(store: Store) -> None:
    found = await store.standing(ME, NOW, GAP, [BUDGET, MARCH])
    assert found == Standing(used={BUDGET: 0, MARCH: 0})
    assert await store.reservations(["d-1"]) == []
    assert await store.release(NOW, GAP, 10) == 0


async def test_stops_are_those_in_force_each_once_with_the_later_end(store: Store) -> None:
    await store.commit_decisions([made("d-1", "a_1")])
    soon, later = NOW + DAY, NOW + 2 * DAY
    stops = (
        Stop("group", "g", soon), Stop("action", "b", NOW), Stop("action", "c", NOW + TICK),
        Stop("action", "a", later), Stop("action", "d", soon),
    )  # fmt: skip
    more = (Stop("action", "a", soon), Stop("group", "g", later), Stop("action", "d", None))
    first = replace(answered("e-1"), stops=stops)
    second = replace(answered("e-1", customer_id="c-2"), decision_id="d-2", stops=more)
    await store.commit_responses([first, second])
    found = (await store.standing(("c-1", "c-2"), NOW)).stops
    expected = (
        Stop("action", "a", later), Stop("action", "c", NOW + TICK), Stop("action", "d", None),
        Stop("group", "g", later),
    )  # fmt: skip
    assert found == expected


async def test_of_two_stops_that_one_response_brings_the_later_end_wins(store: Store) -> None:
    await store.commit_decisions([made("d-1", "a_1")])
    ends = (NOW + 2 * DAY, NOW + DAY), (NOW + DAY, NOW + 2 * DAY), (None, NOW + DAY), (NOW + DAY, None)
    for n, (one, two) in enumerate(ends):
        stops = (Stop("group", f"g{n}", one), Stop("group", f"g{n}", two))
        await store.commit_responses([replace(answered(f"e-{n}"), stops=stops)])
    found = {stop.target: stop.until for stop in (await store.standing(ME, NOW)).stops}
    assert found == {"g0": NOW + 2 * DAY, "g1": NOW + 2 * DAY, "g2": None, "g3": None}


async def test_a_contact_counts_from_the_commit_on_in_every_process(store: Store, other: Store) -> None:
    assert await until(store, GAP) == {}
    assert None not in await store.commit_decisions([made("d-1", "a_1", "b_1", limits=GAP)])
    for each in (store, other):
        assert await until(each, GAP) == {("p0", ""): NOW + 30 * DAY}
        assert await until(each, GAP, NOW + 30 * DAY - TICK) == {("p0", ""): NOW + 30 * DAY}
        assert await until(each, GAP, NOW + 30 * DAY) == {}
        assert await until(each, GAP, keys=("c-2",)) == {}


async def test_targets_are_held_each_for_itself(store: Store) -> None:
    limits = counting({"gap": "1d", "per": "action"}, {"gap": "2d", "per": "channel"})
    await store.commit_decisions([made("d-1", "a_1", "b_1", limits=limits)])
    day, two = NOW + DAY, NOW + 2 * DAY
    assert await until(store, limits) == {("p0", "a"): day, ("p0", "b"): day, ("p1", "mail"): two}


async def test_other_policies_are_counted_from_the_ledger(store: Store) -> None:
    """Whoever counted before, and whether anybody did: a dry run never counts."""
    for number in range(3):
        await store.commit_decisions([made(f"d-{number}", "a_1", at=NOW + number * DAY)])
    await store.commit_decisions([made("d-9", "a_1", at=NOW + 9 * DAY, mode="dry_run")])
    await store.commit_responses([heard("e", "d-0", "click", NOW + 3 * DAY)])
    now = NOW + 3 * DAY
    for limits, end in (
        (GAP, NOW + 32 * DAY),
        (counting({"gap": "5d"}), NOW + 7 * DAY),
        (TWO, NOW + 31 * DAY),
        (counting({"at_most": 3, "within": "30d"}), NOW + 30 * DAY),
        (counting({"at_most": 4, "within": "30d"}), None),
        (counting({"gap": "30d", "on": "click"}), NOW + 33 * DAY),
        (counting({"gap": "30d", "unless": "click"}), None),
        (GAP, NOW + 32 * DAY),
    ):
        assert await until(store, limits, now) == ({} if end is None else {("p0", ""): end})


async def test_what_was_recorded_without_a_claim_counts_too(store: Store) -> None:
    await store.put_customers([Customer("c-1", {"nps": 1})], NOW)
    await store.commit_decisions([replace(made("d-1", "a_1"), claim=None)])
    assert await until(store, GAP) == {("p0", ""): NOW + 30 * DAY}


async def test_answers_move_what_is_counted(store: Store, other: Store) -> None:
    limits = counting({"gap": "9d", "on": "impression"}, {"gap": "30d", "unless": "accepted"})
    await store.commit_decisions([made("d-1", "a_1", limits=limits)])
    decided_until = {("p1", ""): NOW + 30 * DAY}
    assert await until(store, limits) == decided_until
    seen = heard("e-1", "d-1", "impression", NOW + DAY)
    assert await other.commit_responses([seen, seen], limits) == [True, False]
    now = NOW + DAY
    assert await until(store, limits, now) == {("p0", ""): NOW + 10 * DAY, **decided_until}
    # An earlier one that is told later changes nothing; nor does it matter who counts by what.
    await store.commit_responses([heard("e-2", "d-1", "impression", NOW)], GAP)
    assert await until(other, limits, now) == {("p0", ""): NOW + 10 * DAY, **decided_until}
    await store.commit_responses([heard("e-3", "d-1", "accepted", NOW + DAY)])
    assert await until(other, limits, now) == {("p0", ""): NOW + 10 * DAY}


async def test_a_refused_response_moves_nothing(store: Store) -> None:
    limits = counting({"gap": "9d", "on": "click"})
    due = NOW + DAY
    await store.commit_decisions(
        [made("d-1", "a_1", limits=limits, due=due), made("d-2", "a_1", limits=limits)]
    )
    await store.commit_responses([heard("e-1", "d-2", "rejected")], limits)
    with pytest.raises(Conflict):
        await store.commit_responses([heard("e-2", "d-1", "click"), heard("e-1", "d-2", "click")], limits)
    assert await until(store, limits) == {}
    assert [each.state for each in await store.reservations(["d-1"])] == ["reserved"]


class TestAClaimIsCommittedOnlyWhileItHolds:
    async def refused(self, store: Store, record: DecisionRecord) -> bool:
        (kept,) = await store.commit_decisions([record])
        assert (await store.decision(record.decision_id) is None) == (kept is None)
        return kept is None

    async def test_a_new_hold_refuses_it(self, store: Store) -> None:
        await store.commit_decisions([made("d-1", "a_1", limits=GAP)])
        stale = made("d-2", "a_1", limits=GAP)
        assert await self.refused(store, stale)
        fresh = await store.standing(ME, NOW, GAP)
        assert not await self.refused(store, made("d-2", limits=GAP, standing=fresh))

    async def test_what_does_not_change_what_holds_does_not(self, store: Store) -> None:
        """Another contact under a limit not reached, another end of the same hold or stop."""
        assert not await self.refused(store, made("d-1", "a_1", limits=TWO))
        assert not await self.refused(store, made("d-2", "a_1", limits=TWO))
        assert await self.refused(store, made("d-3", "a_1", limits=TWO))
        held = Standing(holds={("p0", ""): NOW + DAY})
        assert not await self.refused(store, made("d-3", limits=TWO, standing=held))
        assert await self.refused(store, made("d-4", limits=TWO, standing=held, at=NOW + 31 * DAY))

    async def test_one_call_is_committed_in_its_order(self, store: Store) -> None:
        given = [made(f"d-{n}", "a_1", limits=TWO) for n in range(5)]
        given.append(made("d-5", "a_1", limits=TWO, keys=("c-2",)))
        assert await store.commit_decisions(given) == [*given[:2], None, None, None, given[5]]
        assert len((await store.history(ME, 9))[0]) == 2

    @pytest.mark.parametrize(
        ("given", "claimed", "refused"),
        [
            ((), (), False),
            ((Stop("action", "a", None),), (), True),
            ((Stop("action", "a", NOW),), (), False),  # it is over
            ((Stop("action", "a", NOW + DAY),), (Stop("action", "a", None),), False),
            ((Stop("action", "a", NOW + DAY),), (Stop("group", "a", None),), True),
            ((), (Stop("action", "a", None),), True),
        ],
    )
    async def test_stops_are_compared(
        self, store: Store, given: tuple[Stop, ...], claimed: tuple[Stop, ...], refused: bool
    ) -> None:
        await store.commit_responses([replace(answered("e-1"), stops=given)])
        assert await self.refused(store, made("d-1", standing=Standing(claimed))) == refused

    @pytest.mark.parametrize(
        ("least", "most", "refused"),
        [(3, 3, False), (*ANY, False), (4, 9, True), (0, 2, True), (3, 9, False)],
    )
    async def test_a_budget_must_be_in_its_range(
        self, store: Store, least: int, most: int, refused: bool
    ) -> None:
        await store.commit_decisions([made("d-1", "a_1", takes=(("a_1", BUDGET, 3),))])
        claim = made("d-2", "a_1", takes=(("a_1", BUDGET, 2),), ranges={BUDGET: (least, most), MARCH: (0, 0)})
        assert await self.refused(store, claim) == refused
        assert await used(store) == (3 if refused else 5)
        assert await used(store, MARCH) == 0

    async def test_without_a_standing_nothing_is_compared_but_taken_all_the_same(self, store: Store) -> None:
        await store.commit_decisions([made("d-1", "a_1", limits=GAP, takes=(("a_1", BUDGET, 3),))])
        blind = made(
            "d-2", "b_1", limits=GAP, at=NOW + DAY, takes=(("b_1", BUDGET, 1),), ranges={BUDGET: (0, 0)}
        )
        assert blind.claim is not None
        blind = replace(blind, claim=replace(blind.claim, standing=None))
        assert not await self.refused(store, blind)
        assert await used(store) == 4
        assert await until(store, GAP, NOW + DAY) == {("p0", ""): NOW + 31 * DAY}

    async def test_another_name_of_the_customer_refuses_it(self, store: Store) -> None:
        await store.put_customers([Customer("c-2", identities=(MAIL,))], NOW)
        before = await names(store, "c-2")
        assert await self.refused(store, made("d-0", "a_1", limits=GAP, keys=("c-2",)))
        assert not await self.refused(store, made("d-0", "a_1", limits=GAP, keys=before))
        await store.merge("c-1", [MAIL], NOW)
        assert await self.refused(store, made("d-1", "a_1", limits=GAP))
        assert await self.refused(store, made("d-1", "a_1", limits=GAP, keys=before))
        keys = await names(store, "c-1")
        fresh = await store.standing(keys, NOW, GAP)
        assert dict(fresh.holds) == {("p0", ""): NOW + 30 * DAY}  # of the other, now of both
        assert not await self.refused(store, made("d-1", limits=GAP, keys=keys, standing=fresh))

    async def test_a_budget_that_is_not_taken_must_be_in_its_range_too(self, store: Store) -> None:
        before = await store.standing(ME, NOW, NO_LIMITS, [BUDGET])
        await store.commit_decisions([made("d-1", "a_1", keys=("c-2",), takes=(("a_1", BUDGET, 3),))])
        assert await self.refused(store, made("d-2", standing=before, ranges={BUDGET: (0, 2)}))
        assert not await self.refused(store, made("d-2", standing=before, ranges={BUDGET: (0, 3)}))

    async def test_a_stranger_who_becomes_known_meanwhile_refuses_it(
        self, store: Store, other: Store
    ) -> None:
        """Also as it was read, when nothing at all was recorded of either."""
        keys = (pseudonym(MAIL),)
        before = await store.standing(keys, NOW, GAP)
        await other.put_customers([Customer("c-1", identities=(MAIL,))], NOW)
        assert await self.refused(store, made("d-1", "a_1", limits=GAP, keys=keys, standing=before))
        named = (await store.names("c-1")).keys
        before = await store.standing(named, NOW, GAP)
        await other.merge("c-2", [COOKIE], NOW)
        await other.merge("c-1", [COOKIE], NOW)
        assert await self.refused(store, made("d-1", "a_1", limits=GAP, keys=named, standing=before))

    async def test_what_has_changed_since_it_was_read_refuses_it(self, store: Store, other: Store) -> None:
        """A stop, a hold, a membership: each by another process, after the standing was read."""
        inside = Membership("g", "2026", True, 0.5)
        changes = [
            (lambda: other.commit_responses([replace(answered("e"), stops=(Stop("group", "g", None),))]), ()),
            (lambda: other.commit_decisions([made("d-8", "a_1", limits=GAP, standing=stopped)]), ()),
            (lambda: other.commit_decisions([made("d-9", limits=GAP, joins=(inside,), standing=stopped)]),
             (replace(inside, member=False),)),
        ]  # fmt: skip
        for n, (change, joins) in enumerate(changes):
            before = await store.standing(ME, NOW, GAP)
            stopped = before
            await change()
            stale = made(f"d-{n}", "a_1", limits=GAP, standing=before, joins=joins)
            assert await self.refused(store, stale), n

    async def test_a_membership_found_otherwise_refuses_it(self, store: Store) -> None:
        inside, outside = (Membership("g", "2026", member, 0.5) for member in (True, False))
        assert not await self.refused(store, made("d-1", joins=(inside,)))
        assert await self.refused(store, made("d-2", joins=(outside,)))
        assert not await self.refused(store, made("d-2", joins=(inside,)))
        assert not await self.refused(store, made("d-3", joins=(replace(outside, since="2027"),)))

    async def test_a_repeated_request_is_found_first(self, store: Store) -> None:
        given = made("d-1", "a_1", limits=GAP, request_id="r", takes=(("a_1", BUDGET, 1),))
        again = replace(given, decision_id="d-2")
        assert await store.commit_decisions([given, again]) == [given, given]
        assert await store.commit_decisions([again]) == [given]
        assert await used(store) == 1

    async def test_many_at_once_take_exactly_what_there_is(self, store: Store, other: Store) -> None:
        """From two processes, for many customers: as many as the range of the last one admits."""
        given = [
            made(
                f"d-{n}", "a_1", keys=(f"c-{n}",), takes=(("a_1", BUDGET, 1),), ranges={BUDGET: (ANY[0], 16)}
            )
            for n in range(60)
        ]
        results = await asyncio.gather(
            *((store, other)[n % 2].commit_decisions([record]) for n, record in enumerate(given))
        )
        assert sum(kept is not None for [kept] in results) == 17
        assert await used(store) == await used(other) == 17


async def test_memberships_stay_as_first_found_under_any_name(store: Store) -> None:
    first, later, else_where = (
        Membership("g", "2026", True, 0.5), Membership("g", "2026", False, 0.7),
        Membership("g", "2027", True, 0.1),
    )  # fmt: skip
    await store.commit_decisions([made("d-1", keys=("c-2",), at=NOW + DAY, joins=(later, else_where))])
    await store.commit_decisions([made("d-2", joins=(first,))])
    assert (await store.standing(("c-2",), NOW)).memberships == (later, else_where)
    for keys in (("c-1", "c-2"), ("c-2", "c-1")):
        found = (await store.standing(keys, NOW)).memberships
        assert sorted(found, key=lambda each: each.since) == [first, else_where]


class TestReservations:
    due = NOW + DAY
    takes = (("a_1", BUDGET, 3), ("b_1", MARCH, 2))

    async def reserve(self, store: Store, limits: Limits = GAP, **more: Any) -> None:
        await store.commit_decisions(
            [made("d-1", "a_1", "b_1", limits=limits, due=self.due, takes=self.takes, **more)]
        )

    async def test_what_is_reserved_is_taken_and_told(self, store: Store, other: Store) -> None:
        await self.reserve(store)
        await store.commit_decisions([made("d-0", "c_1", keys=("c-2",), due=self.due)])
        assert (await used(other), await used(other, MARCH)) == (3, 2)
        assert await until(other, GAP) == {("p0", ""): NOW + 30 * DAY}
        assert await other.reservations(["d-1", "d-0", "d-9"]) == [
            Reservation("d-0", "c_1", "reserved", self.due, None),
            Reservation("d-1", "a_1", "reserved", self.due, None),
            Reservation("d-1", "b_1", "reserved", self.due, None),
        ]

    async def test_what_is_due_is_released_once(self, store: Store, other: Store) -> None:
        await self.reserve(store)
        assert await store.release(self.due - TICK, GAP, 10) == 0
        assert await store.release(self.due, GAP, 1) == 1
        assert await until(store, GAP) == {("p0", ""): NOW + 30 * DAY}  # by the other item
        found = await asyncio.gather(*(each.release(self.due + DAY, GAP, 10) for each in (store, other) * 3))
        assert sum(found) == 1
        assert await until(other, GAP) == {}
        assert (await used(store), await used(store, MARCH)) == (0, 0)
        states = await store.reservations(["d-1"])
        assert [each.state for each in states] == ["released", "released"]
        assert {each.settled_at for each in states} == {self.due, self.due + DAY}

    @pytest.mark.parametrize("outcome", ["impression", "click", "accepted", "rejected"])
    async def test_an_answer_makes_its_item_firm(self, store: Store, outcome: str) -> None:
        await self.reserve(store)
        at = NOW + 3 * TICK
        await store.commit_responses([heard("e-1", "d-1", outcome, at)], GAP)
        assert await store.release(self.due, GAP, 10) == 1
        assert await store.reservations(["d-1"]) == [
            Reservation("d-1", "a_1", "firm", self.due, at),
            Reservation("d-1", "b_1", "released", self.due, self.due),
        ]
        assert (await used(store), await used(store, MARCH)) == (3, 0)
        assert await until(store, GAP) == {("p0", ""): NOW + 30 * DAY}

    async def test_silence_confirms_nothing(self, store: Store) -> None:
        await self.reserve(store)
        await store.commit_responses([heard("e-1", "d-1", "no_response")], GAP)
        assert await store.release(self.due, GAP, 10) == 2

    async def test_what_is_released_stays_so(self, store: Store) -> None:
        limits = counting({"gap": "30d"}, {"gap": "30d", "on": "impression"})
        await self.reserve(store, limits)
        await store.release(self.due, limits, 10)
        late = self.due + DAY
        assert await store.commit_responses([heard("e-1", "d-1", "accepted", late)], limits) == [True]
        assert await until(store, limits, late) == {}
        await store.commit_responses([heard("e-2", "d-1", "impression", late)], limits)
        assert await until(store, limits, late) == {("p1", ""): late + 30 * DAY}
        assert await used(store) == 0
        assert {each.state for each in await store.reservations(["d-1"])} == {"released"}

    @pytest.mark.parametrize("seen", [NO_LIMITS, GAP, TWO])
    async def test_who_releases_may_count_by_other_policies(self, store: Store, seen: Limits) -> None:
        await self.reserve(store)
        assert await store.release(self.due, seen, 10) == 2
        assert await until(store, GAP, self.due) == {}

    async def test_a_release_stands_for_whoever_the_customer_has_become(self, store: Store) -> None:
        await store.put_customers([Customer("c-1", identities=(MAIL,))], NOW)
        await self.reserve(store, keys=await names(store, "c-1"))
        await store.merge("c-2", [MAIL], NOW)
        keys = await names(store, "c-2")
        assert await until(store, GAP, keys=keys) == {("p0", ""): NOW + 30 * DAY}
        await store.release(self.due, GAP, 10)
        assert await until(store, GAP, keys=keys) == {}

    async def test_an_answer_and_a_release_at_once_agree(self, store: Store, other: Store) -> None:
        """Whichever is first, budget, reservation and counter say the same."""
        for number in range(10):
            key, id = f"k-{number}", f"d-{number}"
            period = BudgetPeriod(f"b-{number}")
            await store.commit_decisions(
                [made(id, "a_1", limits=GAP, keys=(key,), due=self.due, takes=(("a_1", period, 1),))]
            )
            await asyncio.gather(
                store.release(self.due, GAP, 10),
                other.commit_responses([heard("e", id, "click", self.due, key=key)], GAP),
            )
            (found,) = await store.reservations([id])
            standing = await store.standing((key,), NOW, GAP, [period])
            firm = found.state == "firm"
            assert (standing.used[period], len(standing.holds)) == (int(firm), int(firm))


async def test_what_a_stranger_was_shown_counts_once_it_is_known_who_they_are(store: Store) -> None:
    stranger = (pseudonym(COOKIE),)
    member = Membership("g", "", True, 0.5)
    await store.commit_decisions([made("d-1", "a_1", limits=GAP, keys=stranger, joins=(member,))])
    held = {("p0", ""): NOW + 30 * DAY}
    assert await until(store, GAP, keys=stranger) == held
    await store.patch_customers([Change(Customer("c-1", identities=(COOKIE,)))], NOW)
    keys = await names(store, "c-1")
    assert set(keys) == {"c-1", *stranger}
    found = await store.standing(keys, NOW, GAP)
    assert (dict(found.holds), found.memberships) == (held, (member,))

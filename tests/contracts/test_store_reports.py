"""What every storage backend promises of reports: what became of customers, each counted once, exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import orjson
import pytest
from records import COOKIE, DAY, NOW, answered, decided

from arbitration.contact import Contact, micros
from decision.storage.port import (
    NO_LIMITS,
    Claim,
    Cohort,
    Customer,
    DecisionRecord,
    Membership,
    OutcomeSums,
    ResponseRecord,
    Standing,
    Store,
    pseudonym,
)

TICK = timedelta(microseconds=1)
END = NOW + 28 * DAY
IN, OUT = Membership("holdout", "", True, 0.5), Membership("holdout", "", False, 0.5)
CATALOG = {
    "channels": [
        {"id": "mail", "rewards": {"click": 0.2, "accepted": 1.0, "converted": 1.0, "no_response": 0.0}},
        {"id": "web", "rewards": {"click": 0.5, "no_response": 0.0}},
        {"id": "print", "rewards": {"rejected": 0.0}},
    ]
}


@pytest.fixture
async def reports(store: Store) -> Store:
    await store.publish_catalog("v1", orjson.dumps(CATALOG), NOW)
    return store


def made(
    id: str,
    customer: str,
    *joins: Membership,
    at: datetime = NOW,
    channel: str = "mail",
    version: str = "v1",
    names: tuple[str, ...] = (),
) -> DecisionRecord:
    """A decision that shows a_1, of an action `a` of a group `g`, and b_1, of `b` of `h`; and a fallback."""
    items = [
        {"treatment": "a_1", "action": "a", "group": "g"},
        {"treatment": None, "action": None, "group": None},
        {"treatment": "b_1", "action": "b", "group": "h"},
    ]
    contact = Contact(micros(at), channel, (), False)
    return replace(
        decided(id, None, customer),
        decided_at=at,
        channel=channel,
        catalog_version=version,
        reply=orjson.dumps({"placements": [{"items": []}, {"items": items}]}),
        claim=Claim((customer, *names), NO_LIMITS, Standing(), {}, contact, (), None, joins),
    )


def said(
    id: str,
    of: DecisionRecord,
    outcome: str = "accepted",
    value: float | None = None,
    after: timedelta = DAY,
    treatment: str = "a_1",
    corrects: str | None = None,
    received: datetime | None = None,
) -> ResponseRecord:
    at = of.decided_at + after
    return replace(
        answered(id, customer_id=of.customer_id),
        decision_id=of.decision_id,
        treatment=treatment,
        outcome=outcome,
        value=value,
        occurred_at=at,
        received_at=at if received is None else received,
        corrects=corrects,
    )


async def commit(store: Store, *records: DecisionRecord) -> None:
    assert None not in await store.commit_decisions(records)


async def cohorts(
    store: Store, at: datetime = END, outcomes: Iterable[str] | None = None, only: str | None = None
) -> list[Cohort]:
    return await store.cohorts(at, 28, None if outcomes is None else list(outcomes), only)


OVERALL, MAIL, WEB = ("overall", ""), ("channel", "mail"), ("channel", "web")
GROUP, ACTION, UNTREATED = ("group", "g"), ("action", "a"), ("untreated", "")


def sums(*values: float) -> OutcomeSums:
    return OutcomeSums(len(values), sum(values), sum(value * value for value in values))


async def test_customers_and_what_they_did_in_their_days(reports: Store) -> None:
    assert await cohorts(reports) == []
    first, second, third = made("d-1", "c-1", OUT), made("d-2", "c-2", OUT), made("d-3", "c-3", IN)
    again = made("d-4", "c-1", at=NOW + DAY, channel="web")
    await commit(reports, first, second, third, again)
    await reports.commit_responses(
        [
            said("r-1", first, value=10),
            said("r-2", first, "converted", 5, treatment="b_1"),
            said("r-3", first, "click"),
            said("r-4", again, "click", 2),
            said("r-5", second, value=7),
            said("r-6", third, "no_response"),
        ]
    )
    assert await cohorts(reports) == [
        Cohort(
            "holdout",
            "",
            0.5,
            False,
            2,
            2,
            {
                OVERALL: sums(17, 7),
                MAIL: sums(15, 7),
                WEB: sums(2),
                GROUP: sums(12, 7),
                ("group", "h"): sums(5),
                ACTION: sums(12, 7),
                ("action", "b"): sums(5),
            },
        ),
        Cohort("holdout", "", 0.5, True, 1, 1, {}),
    ]
    clicks, _ = await cohorts(reports, outcomes=["click", "no_response"])
    assert clicks.outcomes == {
        OVERALL: sums(2), MAIL: sums(0), WEB: sums(2), GROUP: sums(2), ACTION: sums(2)
    }  # fmt: skip


async def test_a_customer_counts_once_the_days_are_over(reports: Store) -> None:
    first, second = made("d-1", "c-1", OUT), made("d-2", "c-2", OUT, at=NOW + DAY)
    await commit(reports, first, second)
    await reports.commit_responses([said("r-1", first), said("r-2", second)])
    for at, mature in ((END - TICK, 0), (END, 1), (END + DAY - TICK, 1), (END + DAY, 2)):
        (found,) = await cohorts(reports, at)
        assert (found.assigned, found.mature) == (2, mature)
        assert found.outcomes.get(OVERALL, sums()).customers == mature


@pytest.mark.parametrize(
    ("after", "received", "counts"),
    [
        (28 * DAY - TICK, None, True),
        (28 * DAY, None, False),
        (-DAY, None, True),  # a slow clock: nothing comes back before its decision
        (28 * DAY, NOW + 28 * DAY - TICK, True),  # a fast clock: nor later than it was received
        (DAY, NOW + 90 * DAY, True),  # reported late
    ],
)
async def test_what_counts_occurred_in_the_days(
    reports: Store, after: timedelta, received: datetime | None, counts: bool
) -> None:
    first = made("d-1", "c-1", OUT)
    await commit(reports, first)
    await reports.commit_responses([said("r-1", first, after=after, received=received)])
    (found,) = await cohorts(reports)
    assert (OVERALL in found.outcomes) == counts


async def test_what_came_before_the_exposure_does_not_count(reports: Store) -> None:
    before, first = made("d-0", "c-1", at=NOW - 2 * DAY), made("d-1", "c-1", OUT)
    await commit(reports, before, first)
    await reports.commit_responses([said("r-1", before, after=2 * DAY - TICK)])
    (found,) = await cohorts(reports)
    assert found.outcomes == {}
    await reports.commit_responses([said("r-2", before, after=2 * DAY)])
    (found,) = await cohorts(reports)
    assert found.outcomes[OVERALL] == sums(0)


async def test_without_a_treatment_it_is_of_the_channel_alone(reports: Store) -> None:
    first = made("d-1", "c-1", OUT)
    await commit(reports, first)
    await reports.commit_responses([said("r-1", first, value=3, treatment="")])
    (found,) = await cohorts(reports)
    assert found.outcomes == {OVERALL: sums(3), MAIL: sums(3), UNTREATED: sums(3)}


async def test_what_was_corrected_counts_no_more(reports: Store) -> None:
    """A chain of corrections: only the last holds. Another customer may have used the same response ids."""
    first, second = made("d-1", "c-1", OUT), made("d-2", "c-2", OUT)
    other = made("d-3", "c-1", at=NOW + DAY)
    await commit(reports, first, second, other)
    await reports.commit_responses([said("r-1", second, value=9), said("r-9", other, value=4)])
    chain = [
        said("r-1", first, value=10),
        said("r-2", first, value=20, corrects="r-1"),
        said("r-3", first, value=30, corrects="r-2"),
        said("r-4", first, "rejected", corrects="r-9"),  # of another decision: corrects nothing
    ]
    for response in chain:
        await reports.commit_responses([response])
    (found,) = await cohorts(reports)
    assert found.outcomes[OVERALL] == sums(34, 9)
    (size,) = await reports.control_groups()
    assert size.outcomes == {"accepted": 2, "rejected": 1}
    await reports.commit_responses(
        [
            said("r-5", first, "click", corrects="r-3"),
            said("r-6", other, "click", corrects="r-9"),
        ]
    )
    (found,) = await cohorts(reports)
    assert found.outcomes[OVERALL] == sums(9)
    (size,) = await reports.control_groups()
    assert size.outcomes == {"accepted": 1, "rejected": 1, "click": 1}


async def test_the_order_of_arrival_does_not_matter(reports: Store) -> None:
    first = made("d-1", "c-1", OUT)
    await commit(reports, first)
    found = []
    for number, order in enumerate(permutations((("x", None, 1.5), ("y", "x", 2.5), ("z", None, 8.0)))):
        own = made(f"d-2{number}", f"c-2{number}", Membership(f"g-{number}", "", True, 0.5))
        await commit(reports, own)
        for id, corrects, value in order:
            await reports.commit_responses([said(id, own, value=value, corrects=corrects)])
        (cohort,) = await cohorts(reports, only=f"g-{number}")
        found.append(cohort.outcomes)
    assert found[0][OVERALL] == sums(10.5)
    assert all(each == found[0] for each in found)


async def test_merged_customers_count_once_as_first_found(reports: Store) -> None:
    await reports.put_customers([Customer("c-2", identities=(COOKIE,))], NOW)
    late = made("d-1", "c-1", OUT, at=NOW + DAY)
    early = made("d-2", "c-2", IN, names=(pseudonym(COOKIE),))
    await commit(reports, late, early)
    await reports.commit_responses([said("r-1", late, value=1), said("r-1", early, value=2)])
    assert [(each.member, each.assigned) for each in await cohorts(reports)] == [(False, 1), (True, 1)]
    await reports.merge("c-1", [COOKIE], NOW + 2 * DAY)
    (found,) = await cohorts(reports)
    assert (found.member, found.assigned, found.mature) == (True, 1, 1)
    assert found.outcomes[OVERALL] == sums(3)
    assert (await cohorts(reports, END - TICK))[0].mature == 0


async def test_what_counts_is_as_the_decision_s_own_catalog_has_it(reports: Store) -> None:
    newer = {"channels": [{"id": "mail", "rewards": {"click": 1.0, "accepted": 0.5}}]}
    await reports.publish_catalog("v2", orjson.dumps(newer), NOW)
    old, new = made("d-1", "c-1", OUT), made("d-2", "c-2", OUT, version="v2")
    worthless = made("d-3", "c-3", OUT, channel="print")
    await commit(reports, old, new, worthless)
    await reports.commit_responses(
        [
            said("r-1", old, "click", 1),
            said("r-2", old, "accepted", 2),
            said("r-3", new, "click", 4),
            said("r-4", new, "accepted", 8),
            said("r-5", worthless, "rejected", 16),
        ]
    )
    (found,) = await cohorts(reports)
    assert found.outcomes[OVERALL] == sums(2, 4)
    (found,) = await cohorts(reports, outcomes=["accepted"])
    assert found.outcomes[OVERALL] == sums(2, 8)


async def test_groups_windows_and_shares_apart(reports: Store) -> None:
    levers = Membership("levers", "2026-01-01", True, 0.1)
    await commit(
        reports,
        made("d-1", "c-1", IN, levers),
        made("d-2", "c-2", replace(OUT, share=0.25)),
        made("d-3", "c-3", replace(IN, since="2026-02-01")),
    )
    found = [(each.control_group, each.since, each.share, each.member) for each in await cohorts(reports)]
    assert found == [
        ("holdout", "", 0.25, False),
        ("holdout", "", 0.5, True),
        ("holdout", "2026-02-01", 0.5, True),
        ("levers", "2026-01-01", 0.1, True),
    ]
    assert [each.control_group for each in await cohorts(reports, only="levers")] == ["levers"]
    assert await cohorts(reports, only="none") == []

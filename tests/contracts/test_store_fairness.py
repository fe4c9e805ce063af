"""What every storage backend promises of fairness reports: sums over customers, by levels as recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from records import DAY, NOW, decided, learn

from arbitration.evaluation.ratios import Rate
from decision.storage.fairness import Counting, Line, Measured, Trait
from decision.storage.port import Customer, DecisionRecord, Identity, Label, Outcomes, Store

GENDER = Trait("customer.gender", "text", ("f", "m"))
AGE = Trait("customer.age", "number", edges=(30.0, 50.0))
BORN = Trait("customer.born", "time", edges=(datetime.fromisoformat("1980-01-01T00:00:00Z").timestamp(),))
STAFF = Trait("customer.staff", "bool")
ALL: Line = ("overall", "")
SALES, UPGRADE, CHECK = ("group", "sales"), ("action", "upgrade"), ("action", "check")
BOTH, WEB = frozenset({"web", "mail"}), frozenset({"web"})
COUNTING = Counting(
    NOW + 30 * DAY,
    (GENDER,),
    {ALL: BOTH, SALES: BOTH, UPGRADE: BOTH, CHECK: WEB},
    {
        ("v1", "web"): (frozenset({"accepted"}), timedelta(days=1)),
        ("v1", "mail"): (frozenset({"click", "accepted"}), 7 * DAY),
    },
)


def made(
    id: str,
    customer: str,
    facts: dict[str, Any],
    *shown: tuple[str, str],
    channel: str = "web",
    at: datetime = NOW,
    objects: bool = False,
    **more: Any,
) -> DecisionRecord:
    """`shown`: (action, group), each as the treatment `<action>_1`."""
    items = [{"treatment": f"{action}_1", "action": action, "group": group} for action, group in shown]
    named = {f"customer.{name}": value for name, value in facts.items()}
    return replace(
        decided(id, customer_id=customer),
        channel=channel,
        decided_at=at,
        inputs=orjson.dumps({"facts": named, "objects": objects}),
        reply=orjson.dumps({"placements": [{"id": "p", "items": items}]}),
        **more,
    )


async def count(
    store: Store, *records: DecisionRecord, counting: Counting = COUNTING
) -> dict[Measured, Rate]:
    if records:
        assert all(await store.commit_decisions(records))
    return await store.fairness(counting)


def rates(found: dict[Measured, Rate], measure: str, line: Line, trait: int = 0) -> dict[str | None, Rate]:
    return {key[2]: rate for key, rate in found.items() if (key[0], key[1], key[3]) == (measure, trait, line)}


async def answer(store: Store, *labels: tuple[str, str, Outcomes | None]) -> None:
    due = NOW + 40 * DAY
    written = [Label(id, what, said, None if said else due) for id, what, said in labels]
    await learn(store, written, [], await store.cursor())


async def test_exposure_is_counted_by_customer_and_level(store: Store) -> None:
    sales, check = ("upgrade", "sales"), ("check", "service")
    found = await count(
        store,
        made("d-1", "a", {"gender": "f"}, sales, ("more", "sales")),  # a group counts once a decision
        made("d-2", "a", {"gender": "f"}, check),
        made("d-3", "a", {"gender": "f"}, channel="mail"),
        made("d-4", "b", {"gender": "f"}, sales),
        made("d-5", "c", {"gender": "m"}, sales, channel="mail"),
        made("d-6", "d", {}, check),
        made("d-7", "e", {"gender": "x"}, check),
        made("d-8", "e", {"gender": 1}, check),
    )
    assert rates(found, "exposure", SALES) == {
        "f": Rate(2, 4, 2, 3 * 3 + 1, 3 * 1 + 1, 2),
        "m": Rate(1, 1, 1, 1, 1, 1),
        None: Rate(2, 3, 0, 1 + 4, 0, 0),
    }
    assert rates(found, "exposure", UPGRADE) == rates(found, "exposure", SALES)
    assert rates(found, "exposure", ALL) == {
        "f": Rate(2, 4, 3, 10, 3 * 2 + 1, 4 + 1),
        "m": Rate(1, 1, 1, 1, 1, 1),
        None: Rate(2, 3, 3, 5, 5, 5),
    }
    # Of what is on the web alone, only decisions there count.
    assert rates(found, "exposure", CHECK) == {
        "f": Rate(2, 3, 1, 2 * 2 + 1, 2, 1),
        None: Rate(2, 3, 3, 5, 5, 5),
    }
    assert rates(found, "acceptance", ALL) == {}


async def test_only_what_is_asked_for_counts(store: Store) -> None:
    facts, shown = {"gender": "f"}, ("upgrade", "sales")
    records = [
        made("d-1", "a", facts, shown),
        made("d-2", "b", facts, shown, at=NOW + DAY),
        made("d-3", "c", facts, shown, channel="mail"),
        made("d-4", "d", facts, shown, mode="dry_run"),
        made("d-5", "e", facts, shown, objects=True),
        made("d-6", "f", facts, shown),
    ]
    await store.put_customers([Customer("f")], NOW)
    found = await count(store, *records)
    assert rates(found, "exposure", ALL)["f"].customers == 4
    await store.delete_customer("f", str.upper, NOW)
    assert rates(await count(store), "exposure", ALL)["f"].customers == 3
    cursor = await store.cursor()
    await store.commit_learning([], [], cursor, expected=cursor, lineages=(), unlearned=["d-6"])
    for counting, customers in (
        (COUNTING, 3),
        (replace(COUNTING, since=NOW + DAY), 1),
        (replace(COUNTING, until=NOW + DAY), 2),
        (replace(COUNTING, channel="mail"), 1),
    ):
        found = await count(store, counting=counting)
        assert rates(found, "exposure", ALL)["f"].customers == customers


async def test_a_merged_customer_is_one(store: Store) -> None:
    cookie = Identity("cookie", "b")
    await store.put_customers([Customer("b", identities=(cookie,))], NOW)
    shown = ("upgrade", "sales")
    await count(store, made("d-1", "a", {"gender": "f"}, shown), made("d-2", "b", {"gender": "f"}, shown))
    await store.merge("a", [cookie], NOW + DAY)
    assert rates(await count(store), "exposure", ALL) == {"f": Rate(1, 2, 2, 4, 4, 4)}


async def test_bands_times_and_yes_or_no(store: Store) -> None:
    counting = replace(COUNTING, traits=(AGE, BORN, STAFF))
    old, new = {"timestamp": "1979-12-31T23:59:59.999999Z"}, {"timestamp": "1980-01-01T00:00:00Z"}
    found = await count(
        store,
        made("d-1", "a", {"age": 29.99, "born": old, "staff": True}),
        made("d-2", "b", {"age": 30, "born": new, "staff": False}),
        made("d-3", "c", {"age": 49, "born": "1980", "staff": "true"}),
        made("d-4", "d", {"age": 50, "staff": 1}),
        made("d-5", "e", {"age": "50"}),
        counting=counting,
    )
    numbers = [
        {level: rate.customers for level, rate in rates(found, "exposure", ALL, trait).items()}
        for trait in range(3)
    ]
    assert numbers == [
        {"0": 1, "1": 2, "2": 1, None: 1},
        {"0": 1, "1": 1, None: 3},
        {"true": 1, "false": 1, None: 3},
    ]


async def test_acceptance_is_of_items_whose_outcome_is_known(store: Store) -> None:
    sales, check = ("upgrade", "sales"), ("check", "service")
    await count(
        store,
        made("d-1", "a", {"gender": "f"}, sales, check),
        made("d-2", "a", {"gender": "f"}, sales, channel="mail"),
        made("d-3", "b", {"gender": "f"}, sales),
        made("d-4", "c", {"gender": "f"}, sales, catalog_version="v0"),  # no such terms
        made("d-5", "d", {"gender": "f"}, sales),  # no contact
    )
    await answer(
        store,
        ("d-1", "upgrade_1", (("click", None), ("accepted", 3.0))),
        ("d-1", "check_1", (("no_response", None),)),
        ("d-2", "upgrade_1", (("click", None),)),
        ("d-3", "upgrade_1", None),
        ("d-4", "upgrade_1", (("accepted", None),)),
    )
    found = await count(store)
    assert rates(found, "acceptance", ALL) == {"f": Rate(1, 3, 2, 9, 6, 4)}
    assert rates(found, "acceptance", SALES) == {"f": Rate(1, 2, 2, 4, 4, 4)}
    assert rates(found, "acceptance", CHECK) == {"f": Rate(1, 1, 0, 1, 0, 0)}
    # A correction makes another label of it.
    await answer(store, ("d-1", "upgrade_1", (("rejected", None),)))
    assert rates(await count(store), "acceptance", SALES) == {"f": Rate(1, 2, 1, 4, 2, 1)}
    # What was answered at once is not like the rest: the time for an answer must be over.
    early = replace(COUNTING, now=NOW + DAY)
    assert rates(await count(store, counting=early), "acceptance", ALL) == {"f": Rate(1, 2, 0, 4, 0, 0)}


async def test_nothing_is_a_report_too(store: Store) -> None:
    assert await count(store) == {}
    assert await count(store, made("d-1", "a", {}), counting=replace(COUNTING, traits=())) == {}

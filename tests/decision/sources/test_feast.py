"""What is asked of a Feast server, what is taken of its answer, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from arbitration.catalog.sources import FeastSource
from decision.sources.connections import Connection
from decision.sources.feast import Feast
from decision.sources.port import Cause, Key, Row, Served, SourceFault

ORDERS = Served("customer.orders", "int", "profile:orders")
SINCE = Served("customer.since", "timestamp", "profile:since")
SPENT = Served("scores.spent", "double", "value:spent")


def answer(names: Sequence[Any], *results: Any) -> dict[str, Any]:
    return {"results": list(results), "metadata": {"feature_names": list(names)}}


def column(*values: object, statuses: Sequence[object] | None = None) -> dict[str, Any]:
    told = ["PRESENT"] * len(values) if statuses is None else list(statuses)
    return {
        "values": list(values),
        "statuses": told,
        "event_timestamps": ["2026-01-01T00:00:00Z"] * len(values),
    }


async def fetched(
    reply: object,
    served: Sequence[Served] = (ORDERS,),
    keys: Sequence[Key] = (("anna",),),
    asked: list[httpx.Request] | None = None,
    status: int = 200,
    **spec: Any,
) -> Sequence[Row | None]:
    def answered(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request)
        content = reply if isinstance(reply, bytes) else orjson.dumps(reply)
        return httpx.Response(status, stream=httpx.ByteStream(content))  # not read yet, as a real one

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client:
        connection = Connection(url=SecretStr("http://feast.test/prefix"))
        source = Feast(FeastSource(id="features", kind="feast", **spec), served, connection, client)
        return await source.fetch(keys)


async def test_one_call_names_features_and_join_keys() -> None:
    asked: list[httpx.Request] = []
    inputs = {"customer_id": "customer_id", "account": "identity.account"}
    names = ["account", "value__spent", "profile__orders", "customer_id"]
    reply = answer(names, column(7, 8), column(0.5, 1.5), column(3, 4), column("anna", "ben"))
    keys = [("anna", 7), ("ben", 8)]
    again = Served("customer.orders_again", "int", "profile:orders")
    rows = await fetched(reply, [ORDERS, SPENT, again], keys, asked, inputs=inputs)
    assert rows == [
        {"customer.orders": 3, "scores.spent": 0.5, "customer.orders_again": 3},
        {"customer.orders": 4, "scores.spent": 1.5, "customer.orders_again": 4},
    ]
    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/prefix/get-online-features")
    assert orjson.loads(request.content) == {
        "features": ["profile:orders", "value:spent"],
        "entities": {"customer_id": ["anna", "ben"], "account": [7, 8]},
        "full_feature_names": True,
    }


async def test_a_version_is_part_of_the_columns_name() -> None:
    served = [Served("customer.orders", "int", "profile@v2:orders")]
    assert await fetched(answer(["profile@v2__orders"], column(1)), served) == [{"customer.orders": 1}]


@pytest.mark.parametrize(
    ("value", "status", "row"),
    [
        (3, "PRESENT", {"customer.orders": 3}),
        (0, "PRESENT", {"customer.orders": 0}),
        (2**53 + 1, "PRESENT", {"customer.orders": 2**53 + 1}),
        (None, "PRESENT", {}),
        (3, "NULL_VALUE", {}),
        (3, "OUTSIDE_MAX_AGE", {}),
        (3, "INVALID", {}),
        (3, "present", {}),
        (3, 1, {}),
        (3, None, {}),
        (3, "NOT_FOUND", None),
    ],
)
async def test_only_what_is_present_is_taken(value: object, status: object, row: Row | None) -> None:
    assert await fetched(answer(["profile__orders"], column(value, statuses=[status]))) == [row]


async def test_not_known_is_who_has_no_feature_at_all() -> None:
    orders = column(None, None, 4, statuses=["NOT_FOUND", "NOT_FOUND", "PRESENT"])
    spent = column(None, 0.5, None, statuses=["NOT_FOUND", "PRESENT", "NOT_FOUND"])
    reply = answer(["profile__orders", "value__spent"], orders, spent)
    rows = await fetched(reply, [ORDERS, SPENT], [("a",), ("b",), ("c",)])
    assert rows == [None, {"scores.spent": 0.5}, {"customer.orders": 4}]


@pytest.mark.parametrize("value", [True, -1, 0.5, "", "text", [], ["a", "b"], [1, 2], "NaN"])
async def test_values_are_taken_as_they_came(value: object) -> None:
    rows = await fetched(answer(["profile__orders"], column(value)))
    assert rows == [{"customer.orders": value}]
    assert rows[0] is not None
    assert type(rows[0]["customer.orders"]) is type(value)


@pytest.mark.parametrize(
    ("value", "row"),
    [
        (1709209815, {"customer.since": "2024-02-29T12:30:15Z"}),
        (0, {"customer.since": "1970-01-01T00:00:00Z"}),
        (-1, {"customer.since": "1969-12-31T23:59:59Z"}),
        ("2024-02-29T13:30:15+01:00", {"customer.since": "2024-02-29T13:30:15+01:00"}),
        (-(2**63), {}),
        (2**62, {"customer.since": 2**62}),
        (1.5, {"customer.since": 1.5}),
        (True, {"customer.since": True}),
    ],
)
async def test_times_come_as_seconds(value: object, row: Row) -> None:
    assert await fetched(answer(["profile__since"], column(value)), [SINCE]) == [row]


@pytest.mark.parametrize(
    "reply",
    [
        [],
        "text",
        {},
        {"results": [column(1)]},
        {"metadata": {"feature_names": ["profile__orders"]}},
        {"results": [column(1)], "metadata": None},
        {"results": [column(1)], "metadata": {"feature_names": {"val": ["profile__orders"]}}},
        {"results": {"0": column(1)}, "metadata": {"feature_names": ["profile__orders"]}},
        {"results": [column(1)], "metadata": {"feature_names": "p"}},
        answer([]),
        answer(["profile__spent"], column(1)),
        answer(["orders"], column(1)),
        answer(["profile__orders"], column(1), column(2)),
        answer(["customer_id", "profile__orders"], column(1)),
        answer(["profile__orders", "profile__orders"], column(1), column(2)),
        answer([["profile__orders"]], column(1)),
        answer([{}], column(1)),
        answer([None], column(1)),
        answer(["profile__orders"], None),
        answer(["profile__orders"], [1]),
        answer(["profile__orders"], {"values": [1]}),
        answer(["profile__orders"], {"statuses": ["PRESENT"]}),
        answer(["profile__orders"], {"values": 1, "statuses": ["PRESENT"]}),
        answer(["profile__orders"], {"values": "1", "statuses": ["PRESENT"]}),
        answer(["profile__orders"], {"values": {"0": 1}, "statuses": ["PRESENT"]}),
        answer(["profile__orders"], {"values": [1], "statuses": "PRESENT"}),
        answer(["profile__orders"], column()),
        answer(["profile__orders"], column(1, 2)),
        answer(["profile__orders"], column(1, statuses=[])),
        answer(["profile__orders"], column(1, statuses=["PRESENT", "PRESENT"])),
        b"{",
        b"",
    ],
)
async def test_an_answer_of_another_shape_is_a_bad_reply(reply: object) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched(reply)
    assert fault.value.cause is Cause.BAD_REPLY


@pytest.mark.parametrize(
    ("status", "cause", "ill"),
    [(404, Cause.UNAVAILABLE, True), (500, Cause.UNAVAILABLE, True), (422, Cause.BAD_REPLY, False)],
)
async def test_a_refusal_is_no_unknown_customer(status: int, cause: Cause, ill: bool) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched({"message": "no such view"}, status=status)
    assert (fault.value.cause, fault.value.ill) == (cause, ill)

"""The adapter against a real Feast feature server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from pydantic import SecretStr

from arbitration.catalog.model import FactType
from arbitration.catalog.sources import FeastSource
from arbitration.facts import Declared, admit
from decision.sources.connections import Connection
from decision.sources.feast import Feast
from decision.sources.port import Cause, Key, Row, Served, SourceFault
from decision.sources.web import open_client

pytestmark = pytest.mark.peers

TYPES: dict[str, FactType] = {
    "orders": "int",
    "visits": "int",
    "spent": "double",
    "ratio": "double",
    "segment": "string",
    "vip": "bool",
    "since": "timestamp",
    "tags": "strings",
}
PROFILE = [Served(f"customer.{name}", kind, f"profile:{name}") for name, kind in TYPES.items()]
BALANCE = Served("customer.balance", "double", "wallet:balance")
ORDERS = PROFILE[0]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


async def fetched(
    url: str,
    client: httpx.AsyncClient,
    keys: Sequence[Key],
    served: Sequence[Served] = PROFILE,
    **inputs: str,
) -> Sequence[Row | None]:
    spec = FeastSource(id="features", kind="feast", inputs=inputs or {"customer_id": "customer_id"})
    return await Feast(spec, served, Connection(url=SecretStr(url)), client).fetch(keys)


async def test_features_of_every_type(feast_url: str, client: httpx.AsyncClient) -> None:
    (row,) = await fetched(feast_url, client, [("anna",)])
    assert row == {
        "customer.orders": 2**53 + 1,
        "customer.visits": 1,
        "customer.spent": 12.5,
        "customer.ratio": 0.5,
        "customer.segment": "gold",
        "customer.vip": True,
        "customer.since": "2024-02-29T12:30:15Z",
        "customer.tags": ["a", "b"],
    }
    for one in PROFILE:
        admit(one.name, row[one.name], Declared(one.type))


async def test_several_in_one_call(feast_url: str, client: httpx.AsyncClient) -> None:
    names = ["ben", "nobody", "anna", "ben", ""]
    rows = await fetched(feast_url, client, [(name,) for name in names])
    single = {name: (await fetched(feast_url, client, [(name,)]))[0] for name in names}
    assert rows == [single[name] for name in names]
    assert (single["nobody"], single[""]) == (None, None)
    assert single["ben"] == {
        "customer.orders": 0,
        "customer.visits": -2,
        "customer.spent": 0.1,
        "customer.ratio": 0.25,
        "customer.segment": "",
        "customer.vip": False,
        "customer.since": "2024-03-01T12:30:15Z",
        "customer.tags": [],
    }


async def test_what_is_null_is_left_out(feast_url: str, client: httpx.AsyncClient) -> None:
    (row,) = await fetched(feast_url, client, [("cleo",)])
    assert row == {"customer.orders": 2, "customer.vip": True}


async def test_two_join_keys_and_two_views(feast_url: str, client: httpx.AsyncClient) -> None:
    keys = [("anna", "7"), ("anna", "8"), ("nobody", "7")]
    inputs = {"customer_id": "customer_id", "account_id": "identity.account"}
    assert await fetched(feast_url, client, keys, [BALANCE, ORDERS], **inputs) == [
        {"customer.balance": 7.25, "customer.orders": 2**53 + 1},
        {"customer.orders": 2**53 + 1},
        None,
    ]


async def test_one_id_that_is_no_number_fails_the_whole_call(
    feast_url: str, client: httpx.AsyncClient
) -> None:
    """Of an INT64 entity. Nothing in the server's answer, a 500, tells it from a server that is ill."""
    inputs = {"customer_id": "customer_id", "account_id": "identity.account"}
    with pytest.raises(SourceFault) as fault:
        await fetched(feast_url, client, [("anna", "7"), ("ben", "x")], [BALANCE], **inputs)
    assert (fault.value.cause, fault.value.ill) == (Cause.UNAVAILABLE, True)


async def test_two_facts_of_one_feature(feast_url: str, client: httpx.AsyncClient) -> None:
    again = Served("customer.again", "double", "profile:orders")
    assert await fetched(feast_url, client, [("ben",)], [ORDERS, again]) == [
        {"customer.orders": 0, "customer.again": 0}
    ]


async def test_an_old_value_is_served_whatever_its_views_ttl(
    feast_url: str, client: httpx.AsyncClient
) -> None:
    """Not what one would wish, but what there is: it fails when Feast begins to keep to the ttl."""
    nps = Served("customer.nps", "int", "old:nps")
    assert await fetched(feast_url, client, [("anna",)], [nps]) == [{"customer.nps": 7}]


@pytest.mark.parametrize(
    ("path", "join_key"),
    [
        ("profile:nothing", "customer_id"),
        ("nothing:orders", "customer_id"),
        ("profile@v9:orders", "customer_id"),
        ("profile:orders", "id"),
    ],
)
async def test_what_is_not_there_is_unavailable(
    feast_url: str, client: httpx.AsyncClient, path: str, join_key: str
) -> None:
    served = [Served("customer.orders", "int", path)]
    with pytest.raises(SourceFault) as fault:
        await fetched(feast_url, client, [("anna",)], served, **{join_key: "customer_id"})
    assert (fault.value.cause, fault.value.ill) == (Cause.UNAVAILABLE, True)

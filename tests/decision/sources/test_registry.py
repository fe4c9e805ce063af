"""Which sources there are for a catalog, and which of them outlive it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import SecretStr
from support import catalog_document

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.problems import Source
from decision.publishing import check_document
from decision.sources.connections import Connection
from decision.sources.registry import Sources


def compiled(*sources: dict[str, Any], **attributes: Any) -> CompiledCatalog:
    """The small catalog with sources, each serving `<id>_value`."""
    document = catalog_document()
    document["sources"] = list(sources)
    document["attributes"] += [
        {"id": f"{one['id']}_value", "type": "int", "source": one["id"], **attributes} for one in sources
    ]
    checked = check_document(Source(document))
    assert checked.published is not None, checked
    return checked.published.compiled


def http(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "kind": "http", "path": "/{customer_id}", **more}


def at(url: str) -> Connection:
    return Connection(url=SecretStr(url))


CONNECTIONS = {
    "crm": at("http://crm.test"),
    "orders": at("https://orders.test/api/"),
    "db": at("sqlite+aiosqlite:///:memory:"),
}


def sources(**connections: Connection) -> Sources:
    return Sources(connections or CONNECTIONS, lambda *_: None)


async def test_a_source_that_did_not_change_outlives_its_catalog() -> None:
    held = sources()
    before = dict(held.of(compiled(http("crm"), http("orders"))))
    after = dict(held.of(compiled(http("crm"), http("orders", path="/v2/{customer_id}"))))
    assert after["crm"] is before["crm"]
    assert after["orders"] is not before["orders"]
    await held.close()


@pytest.mark.parametrize(
    "change",
    [{"timeout": "1s"}, {"cache": {"ttl": "1m"}}, {"breaker": {"failures": 1}}, {"connection": "orders"}],
)
async def test_one_that_changed_is_made_anew(change: dict[str, Any]) -> None:
    held = sources()
    before = held.of(compiled(http("crm")))["crm"]
    assert held.of(compiled(http("crm", **change)))["crm"] is not before
    await held.close()


async def test_one_that_serves_otherwise_is_made_anew() -> None:
    held = sources()
    before = held.of(compiled(http("crm")))["crm"]
    assert held.of(compiled(http("crm"), path="other"))["crm"] is not before
    await held.close()


async def test_the_same_catalog_has_the_same_sources() -> None:
    held, catalog = sources(), compiled(http("crm"))
    assert held.of(catalog) is held.of(catalog)
    await held.close()


@pytest.mark.parametrize(
    ("source", "url"),
    [
        (http("away"), None),
        (http("away"), "sqlite+aiosqlite://"),
    ],
)
async def test_one_without_a_fitting_connection_is_none_and_said(
    source: dict[str, Any], url: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    held = sources(**({} if url is None else {"away": at(url)}), crm=CONNECTIONS["crm"])
    found = held.of(compiled(source, http("crm")))
    assert found["away"] is None
    assert found["crm"] is not None
    assert "away" in caplog.text
    assert url is None or url not in caplog.text  # it may hold a password
    await held.close()


async def test_one_that_cannot_be_made_is_none_and_keeps_no_other_from_being_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("tok-7f3a")

    monkeypatch.setattr("decision.sources.sql.Sql.__init__", fails)
    away = {"id": "away", "kind": "sql", "query": "select :customer_id as a"}
    held = sources(away=at("sqlite+aiosqlite:///x"), crm=CONNECTIONS["crm"])
    catalog = compiled(away, http("crm"))
    await held.prepare(catalog)
    found = held.of(catalog)
    assert found["away"] is None
    assert found["crm"] is not None
    assert "away cannot be made: ValueError" in caplog.text
    assert "tok-7f3a" not in caplog.text
    await held.close()


async def test_closing_can_be_repeated_and_leaves_nothing_open() -> None:
    held = sources()
    # However busy the machine is: what is loaded first may take a while.
    sql = {
        "id": "db",
        "kind": "sql",
        "query": "SELECT 1 AS db_value WHERE :customer_id <> ''",
        "timeout": "20s",
    }
    found = held.of(compiled(http("crm"), sql))
    database = found["db"]
    assert database is not None
    answer = await database.get(("anna",), asyncio.get_running_loop().time() + 20)
    assert answer.row == {"customer.db_value": 1}
    await held.close()
    await held.close()

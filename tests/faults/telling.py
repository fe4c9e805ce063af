"""Run as a process by `test_no_personal_data.py`: a service goes through all that it may meet, with markers
wherever something personal or secret may stand. Writes its log, in both forms, to standard error, and its
metrics and spans to standard output. Argument: a folder."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from asyncpg.exceptions import UniqueViolationError
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from support import Service, asking, catalog_document, running

from decision import logs, tracing
from decision.access.keys import Wanted, make
from decision.access.scopes import SCOPES
from decision.errors import Conflict, StoreUnavailable
from decision.fault_log import FaultLog
from decision.messages import CustomerMessage
from decision.sources.connections import Connection
from decision.storage.postgres.store import PostgresStore

MARKER = "marker7c1f"  # stands in everything below, and nowhere else
CUSTOMER, IDENTITY, NAME = f"{MARKER}-customer", f"{MARKER}@mail.example", f"{MARKER}-first-name"
SECRET = f"nba_{MARKER}secret"
log = logging.getLogger("decision.telling")


def catalog(port: int) -> dict[str, Any]:
    """The small catalog, with a source that fails."""
    document = catalog_document()
    document["attributes"] += [{"id": "note", "type": "string", "source": "web", "path": "note"}]
    document["sources"] = [
        {"id": "web", "kind": "http", "path": "/customers/{customer_id}?key={customer_id}", "timeout": "2s"}
    ]
    document["actions"][3]["suitability"] = ['customer.note == "" || customer.nps > 1']
    return document


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with what is no JSON, and quotes the customer."""
    await reader.readuntil(b"\r\n\r\n")
    body = f"<{CUSTOMER} {NAME}".encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def usual(client: httpx.AsyncClient) -> set[int]:
    """What goes well, and what callers do wrong. The statuses."""
    profile = {
        "attributes": {"first_name": NAME, "plan": "Basic"},
        "consents": {"marketing": {"status": "given", "source": MARKER}},
        "identities": [{"type": "email", "value": IDENTITY}],
    }
    found = [await client.put(f"/v1/customers/{CUSTOMER}", json=profile)]
    identity = {"type": "email", "value": IDENTITY}
    asked = asking(None, identity=identity, profile={"first_name": NAME}, context={"intent": "cancel"})
    found.append(await client.post("/v1/decisions", json=asked))
    decision = found[-1].json()
    asked = asking(CUSTOMER, "hero", context={"page": f"/{MARKER}"}, explain=True)
    found.append(await client.post("/v1/decisions", json=asked))
    found.append(await client.post("/v1/decisions:batch", json={"requests": [asked, {MARKER: MARKER}]}))
    answer = {"response_id": "r", "decision_id": decision["decision_id"], "outcome": "accepted"}
    found.append(await client.post("/v1/responses", json=answer))
    for path in ("", "/history", "/export"):
        found.append(await client.get(f"/v1/customers/{CUSTOMER}{path}"))
    for path in ("", "/explanation"):
        found.append(await client.get(f"/v1/decisions/{decision['decision_id']}{path}"))
    found.append(await client.post(f"/v1/decisions/{decision['decision_id']}/replay"))
    lines = [
        {"customer_id": CUSTOMER, **profile},
        {"customer_id": f"{CUSTOMER}2", "attributes": {"nps": NAME}},
    ]
    for path in ("import", "push"):
        body = "\n".join(map(json.dumps, lines)) + f"\n{{{MARKER}\n"
        head = {"content-type": "application/x-ndjson"}
        found.append(await client.post(f"/v1/customers:{path}", content=body, headers=head))
    # Wrong: types, fields, JSON, numbers, routes, methods, credentials, identities of two.
    for change in (
        {"attributes": {"nps": NAME, MARKER: 1}},
        {MARKER: MARKER},
        {"consents": {MARKER: MARKER}},
    ):
        found.append(await client.patch(f"/v1/customers/{CUSTOMER}", json=change))
    head = {"content-type": "application/json"}
    for body in (f'{{"{MARKER}', f'{{"{MARKER}": NaN}}', "[" * 40 + f'"{MARKER}"' + "]" * 40):
        found.append(await client.post("/v1/decisions", content=body, headers=head))
    found.append(await client.post("/v1/decisions", json=asking(CUSTOMER, timeout_ms=MARKER)))
    for path in (f"/v1/customers/unknown-{MARKER}", f"/v1/{MARKER}/zork", f"/v1/decisions/{MARKER}"):
        found.append(await client.get(path, params={"limit": MARKER}))
    found.append(await client.put("/v1/decisions", params={"q": MARKER}))
    found += await strangers(client)
    other = {"identities": [{"type": "email", "value": IDENTITY}]}
    found.append(await client.put(f"/v1/customers/{CUSTOMER}3", json=other))
    return {reply.status_code for reply in found}


async def strangers(client: httpx.AsyncClient) -> list[httpx.Response]:
    """What those get who have no right to anything."""
    found = []
    for given in (
        f"Bearer {SECRET}",
        f"Bearer nba_abc_{MARKER}",
        f"Bearer a.{MARKER}.b",
        f"Basic {MARKER}",
        MARKER,
    ):
        head = {"authorization": given}
        found.append(await client.get(f"/v1/customers/{CUSTOMER}", headers=head))
    return found


async def keyed(service: Service, file: Path) -> None:
    """From now on a key is needed. It is kept in `file`, for who looks for it."""
    made = make(Wanted("telling", SCOPES), "cli:telling")
    await service.context.register.act(lambda _: [made.event], service.clock())
    file.write_text(made.token)
    service.client.headers["authorization"] = f"Bearer {made.token}"


def _validation() -> BaseException:
    try:
        CustomerMessage.model_validate({"attributes": MARKER})
    except ValueError as error:
        return error
    raise AssertionError


def _constraint() -> BaseException:
    error = UniqueViolationError(f'duplicate key value violates unique constraint "{MARKER}"')
    error.detail = f"Key (customer_id)=({CUSTOMER}) already exists."
    error.sqlstate = "23505"
    error.table_name = "customers"
    return error


def _chained() -> BaseException:
    error = RuntimeError(MARKER)
    error.__cause__, error.__context__ = KeyError(MARKER), LookupError(CUSTOMER)
    error.add_note(MARKER)
    return ExceptionGroup(MARKER, [error, ValueError(MARKER), Conflict("identity", IDENTITY)])


FAULTS: list[Callable[[], BaseException]] = [
    lambda: ValueError(f"bad value {NAME}"),
    lambda: sqlite3.IntegrityError(MARKER),
    lambda: Conflict("identities", f"{IDENTITY} is another's"),
    lambda: StoreUnavailable("the database cannot be written: disk I/O error"),
    _validation,
    _constraint,
    _chained,
]


async def faults(service: Service) -> set[int]:
    """Faults of ours, each met by a request. The statuses."""
    found = []
    for fault in FAULTS:
        error = fault()

        async def fails(*_: Any, error: BaseException = error, **__: Any) -> Any:
            raise error

        for part, name in ((service.context.overview, "history"), (service.context.store, "situation")):
            setattr(part, name, fails)
        found.append(await service.client.get(f"/v1/customers/{CUSTOMER}/history"))
        asked = asking(None, identity={"type": "email", "value": IDENTITY})
        found.append(await service.client.post("/v1/decisions", json=asked))
        found.append(await service.client.post("/v1/decisions:batch", json={"requests": [asked]}))
        for part, name in ((service.context.overview, "history"), (service.context.store, "situation")):
            delattr(part, name)
        repeated = FaultLog(log, "it failed", every=0)
        repeated.fault(error)
        repeated.fault(error)
        log.warning("this is how it was: %s", error)
    return {reply.status_code for reply in found}


async def aside() -> None:
    """Faults that no request meets: of a task, of a callback, of a thread, of who asks PostgreSQL."""

    async def fails() -> None:
        raise ValueError(MARKER)

    def breaks() -> None:
        raise ValueError(MARKER)

    task = asyncio.create_task(fails(), name="aside")
    asyncio.get_running_loop().call_soon(breaks)
    await asyncio.sleep(0.01)
    del task
    gc.collect()
    thread = threading.Thread(target=breaks)
    thread.start()
    thread.join()
    try:
        await PostgresStore(f"postgresql://{MARKER}:{MARKER}@127.0.0.1:1/x").open()
    except StoreUnavailable as error:
        log.exception("it cannot be opened: %s", error)
    log.debug("a line for who looks closely")


async def main(folder: Path) -> None:
    """See above."""
    logs.set_up("text", access_log=True)
    both = logging.StreamHandler()
    both.setFormatter(logs.JsonLines())
    logging.getLogger().addHandler(both)
    logging.getLogger("decision").setLevel(logging.DEBUG)
    spans = InMemorySpanExporter()
    tracing.trace_to(spans, at_once=True)
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    web = Connection(url=SecretStr(f"http://127.0.0.1:{port}"), headers={"X-Key": SecretStr(SECRET)})
    async with running(folder / "telling.db", connections={"web": web}) as service:
        await service.publish(catalog(port))
        await keyed(service, folder / "key")
        statuses = await usual(service.client)
        await service.client.post("/v1/decisions", json=asking(CUSTOMER))
        server.close()  # from now on the source is not there
        await service.client.post("/v1/decisions", json=asking(CUSTOMER))
        statuses |= await faults(service)
        await aside()
        metrics = (await service.client.get("/metrics")).text
        # The store goes away under it.
        store: Any = service.context.store
        store._connections._reader.close() if hasattr(store, "_connections") else store._reader.close()
        statuses.add((await service.client.get(f"/v1/customers/{CUSTOMER}")).status_code)
    print(json.dumps({"statuses": sorted(statuses), "metrics": metrics}))
    print([each.to_json() for each in spans.get_finished_spans()])
    raise ValueError(MARKER)  # and it ends by a fault


asyncio.run(main(Path(sys.argv[1])))

"""Run as a process by `test_tracing.py`, as a tracer is for a whole process: decides with a source of each
kind, and prints every span that would be sent. Arguments: a PostgreSQL URL."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from support import asking, catalog_document, running

from decision import tracing
from decision.sources.connections import Connection
from decision.storage.postgres.store import PostgresStore

MARKER = "marker-7c1f"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Upstream:
    """A web system that knows one thing of everybody, and keeps the heads of what it is asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        body = b'{"nps": 3}'
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()


def catalog() -> dict[str, Any]:
    """The small catalog, with a source of the web and one in a database."""
    document = catalog_document()
    document["sources"] = [
        {"id": "web", "kind": "http", "path": "/customers/{customer_id}", "timeout": "5s"},
        {"id": "base", "kind": "sql", "query": "SELECT 0.5::float8 AS churn WHERE :customer_id <> ''",
         "timeout": "5s"},
    ]  # fmt: skip
    document["attributes"][1] |= {"source": "web"}
    document["scores"][1] |= {"source": "base"}
    return document


def shown(span: Any, roots: dict[int, str]) -> dict[str, Any]:
    """A span as JSON."""
    parent = None if span.parent is None else span.parent.span_id
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "parent": None if parent is None else roots.get(parent, f"{parent:016x}"),
        "attributes": dict(span.attributes),
        "status": [span.status.status_code.name, span.status.description],
        "events": len(span.events),
    }


async def main(url: str) -> None:
    """See above."""
    tracing.set_up()
    kept = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "decision.spans")
    loaded = sorted(name for name in sys.modules if name.startswith(kept))
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    sent = InMemorySpanExporter()
    tracing.trace_to(sent, at_once=True)
    upstream = Upstream()
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    web = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    base = url.replace("postgresql:", "postgresql+asyncpg:")
    connections = {
        "web": Connection(url=SecretStr(web)),
        "base": Connection(url=SecretStr(base)),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        store = PostgresStore(url)
        async with running(path, store=store, connections=connections, poll=0.05) as service:
            await service.publish(catalog())
            await service.client.put(f"/v1/customers/{MARKER}", json=profile(MARKER))
            sent.clear()
            headers = {"traceparent": CALLER}
            reply = await service.client.post("/v1/decisions", json=asking(MARKER, "hero"), headers=headers)
            assert reply.status_code == 200, reply.text
            assert reply.json()["degraded"] == [], reply.text
            await service.client.get(f"/v1/customers/{MARKER}?{MARKER}={MARKER}")
            await service.client.put(f"/v1/customers/other-{MARKER}", json=profile(MARKER))  # a conflict
            await service.client.get("/metrics")
            await asyncio.sleep(0.2)  # for what looks around now and then
            spans = sent.get_finished_spans()
    server.close()
    names = {span.context.span_id: span.name for span in spans}
    found = {"decision": reply.json()["decision_id"], "heads": upstream.heads, "loaded": loaded}
    print(json.dumps(found | {"spans": [shown(span, names) for span in spans]}))


def profile(marker: str) -> dict[str, Any]:
    """A profile full of the marker."""
    attributes = {"first_name": marker, "plan": "Basic"}
    return {"attributes": attributes, "identities": [{"type": "cookie", "value": marker}]}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

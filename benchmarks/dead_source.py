"""What a dead source costs a decision once its circuit is open.

    python benchmarks/dead_source.py [--write] [--requests 500]

Decides by turns with a catalog without the source, and with one whose source refuses connections. Prints a
table; `--write` also keeps it in `benchmarks/results/dead_source.md`.
"""

from __future__ import annotations

import argparse
import logging
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import uvloop
from pydantic import SecretStr
from storage import busy, keep, machine, quantile

from decision.api.app import create_app
from decision.api.context import build
from decision.sources.connections import Connection
from decision.storage.sqlite.store import SqliteStore

WARM = 50


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--requests", type=int, default=500, help="with each of the two catalogs")
    options = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(measure(Path(directory), options.requests))
    keep(report, "dead_source.md", write=options.write)


async def measure(directory: Path, requests: int) -> str:
    """Both, by turns, as markdown."""
    before = busy()
    times: dict[str, list[float]] = {"without": [], "dead": []}
    opened = 0
    with socket.socket() as refusing:  # bound, but nobody listens
        refusing.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        async with AsyncExitStack() as stack:
            clients = {name: await _service(stack, directory / f"{name}.db", name, url) for name in times}
            for number in range(WARM + requests):
                # Whoever goes second finds warmer caches, so they take turns in that too.
                for name in sorted(times, reverse=bool(number % 2)):
                    body = {"customer_id": f"c-{number}", "channel": "web", "placements": [{"id": "hero"}]}
                    started = time.perf_counter()
                    reply = await clients[name].post("/v1/decisions", json=body)
                    took = time.perf_counter() - started
                    assert reply.status_code == 200, reply.text
                    if number < WARM:
                        continue
                    times[name].append(took)
                    if name == "dead":
                        opened += reply.json()["degraded"] == ["sources.crm:circuit_open"]
    added = [
        (quantile(times["dead"], share) - quantile(times["without"], share)) * 1e3 for share in (0.5, 0.99)
    ]
    rows = [
        f"| {label} | {quantile(times[name], 0.5) * 1e3:.3f} | {quantile(times[name], 0.99) * 1e3:.3f} |"
        for name, label in (("without", "without the source"), ("dead", "with it, dead"))
    ]
    return "\n".join(
        [
            "# A dead source, its circuit open",
            "",
            f"{requests} decisions with each of two catalogs, by turns, one request after the other:",
            "",
            "| catalog | p50 ms | p99 ms |",
            "|---|---|---|",
            *rows,
            f"| added | {added[0]:.3f} | {added[1]:.3f} |",
            "",
            f"The circuit was open in {opened} of the {requests} (every 10 s one call tries instead).",
            "",
            f"- {machine()}",
            f"- {before}",
            "- two services in one process, each on a database of its own, without HTTP in front; every"
            " decision is committed to disk",
            f"- the first {WARM} of each, in which the circuit opens, do not count",
            "",
            "Repeat: `python benchmarks/dead_source.py --write`.",
            "",
        ]
    )


async def _service(stack: AsyncExitStack, path: Path, name: str, url: str) -> httpx.AsyncClient:
    context = build(SqliteStore(path), connections={"crm": Connection(url=SecretStr(url))}, local=True)
    app = create_app(context)
    await stack.enter_async_context(app.router.lifespan_context(app))
    transport = httpx.ASGITransport(app)
    client = await stack.enter_async_context(
        httpx.AsyncClient(transport=transport, base_url="http://localhost")
    )
    reply = await client.post("/v1/catalog/publish", json=_catalog(dead=name == "dead"))
    assert reply.status_code == 200, reply.text
    return client


def _catalog(*, dead: bool) -> dict[str, Any]:
    """Twenty actions, of which five need an attribute; either way nobody knows it."""
    attribute = {"id": "risk", "type": "int", **({"source": "crm"} if dead else {})}
    return {
        "attributes": [attribute],
        "sources": [{"id": "crm", "kind": "http", "path": "/{customer_id}"}] if dead else [],
        "groups": [{"id": "all"}],
        "channels": [
            {"id": "web", "direction": "inbound", "rewards": {"click": 1.0}, "response_window": "1h"}
        ],
        "placements": [{"id": "hero", "channel": "web", "content": [{"id": "title"}]}],
        "policies": [{"id": "default", "strategy": "thompson"}],
        "actions": [
            {
                "id": f"a{number}",
                "group": "all",
                "eligibility": ["customer.risk > 3"] if number < 5 else [],
                "treatments": [
                    {"id": f"t{number}", "channel": "web", "placement": "hero", "content": {"title": "x"}}
                ],
            }
            for number in range(20)
        ],
    }


if __name__ == "__main__":
    main()

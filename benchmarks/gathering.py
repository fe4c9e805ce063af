"""What it costs to ask other systems: decisions with none, one and three HTTP sources of 5 ms each.

    python benchmarks/gathering.py [--write] [--rounds 8]

Prints a table; `--write` also keeps it in `benchmarks/results/gathering.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import httpx
import orjson
import uvloop
from pydantic import SecretStr
from storage import busy, keep, machine, quantile

from arbitration.catalog.problems import Source
from decision.api import context
from decision.api.context import Context, build
from decision.clock import utc_now
from decision.gathering import Gathered, Gatherer
from decision.messages import DecisionRequest
from decision.publishing import check_document, check_path
from decision.settings import open_store
from decision.sources.connections import Connection
from decision.sources.web import ask, open_client

DELAY = 0.005
REQUESTS = 150
CALLERS = (1, 8)
LIBRARIES = ("httpx", "aiohttp", "httpx-aiohttp", "httpcore")
AT_ONCE = (1, 8, 24)
CALLS = 240
SERVED = {
    "crm": {"contract_end": "2027-01-31T00:00:00Z", "plan": "Plus", "tenure_months": 30},
    "service": {"nps": 5, "open_complaint": False, "complaint_resolved_days": 12},
    "network": {"data_usage_gb": 21.5, "roaming_days": 3, "outage_now": False},
}
EXAMPLE = Path(__file__).parents[1] / "examples" / "telco"


@dataclass
class Seen:
    """Milliseconds per decision, and per gathering alone."""

    decisions: list[float] = field(default_factory=list)
    gatherings: list[float] = field(default_factory=list)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--rounds", type=int, default=8, help="of each case, in turn")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve())
        return
    context.Gatherer = Timed  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(measure(Path(directory), options.rounds))
    keep(report, "gathering.md", write=options.write)


async def serve() -> None:
    """The other systems: one HTTP/1.1 server that answers each request 5 ms after it came."""
    body = orjson.dumps({name: value for values in SERVED.values() for name, value in values.items()})
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    answer = reply % (len(body), body)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(DELAY)
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def measure(directory: Path, rounds: int) -> str:
    """All measurements, as markdown."""
    before = busy()
    upstream = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", stdout=asyncio.subprocess.PIPE
    )
    assert upstream.stdout is not None
    url = f"http://127.0.0.1:{int(await upstream.stdout.readline())}"
    services = {count: await _service(directory / f"{count}.db", url, count) for count in (0, 1, 3)}
    seen = {(count, callers): Seen() for count in services for callers in CALLERS}
    single: list[float] = []
    spent: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        single += await _calls(url)
        await _transports(url, spent)
        for (count, callers), each in seen.items():
            await _round(services[count], callers, each)
    for service in services.values():
        await service.sources.close()
        await service.live.stop()
        await service.store.close()
    upstream.terminate()
    await upstream.wait()
    alone = f"p50 {quantile(single, 0.5):.2f} ms, p99 {quantile(single, 0.99):.2f} ms"
    return "\n".join(
        [
            "# Gathering from several sources",
            "",
            f"The telco example with none, one or three HTTP sources that answer after {DELAY * 1000:.0f} ms,"
            " three attributes from each; no cache, keep-alive connections, every request for another"
            " customer. Closed loop: each caller decides again when its last decision is on disk."
            f" {rounds} rounds of {REQUESTS} decisions a case, the cases in turn; client and service in one"
            " process, the other systems in a second.",
            "",
            f"One such call by itself, with the same client and nothing around it: {alone}.",
            "",
            "| sources | callers | gathering p50 ms | p99 ms | decision p50 ms | p99 ms |",
            "|---|---|---|---|---|---|",
            *(_row(count, callers, each) for (count, callers), each in seen.items()),
            "",
            "What one call costs this process, by transport of the same httpx client (median of the rounds,"
            " milliseconds of processor time a call):",
            "",
            "| calls at once | aiohttp's, as used | httpx's own |",
            "|---|---|---|",
            *(
                f"| {at_once} | {quantile(spent['aiohttp', at_once], 0.5):.2f}"
                f" | {quantile(spent['httpx', at_once], 0.5):.2f} |"
                for at_once in AT_ONCE
            ),
            "",
            f"- {machine()}, {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}",
            f"- {before}",
            "- with 8 callers service and client are busy all the time: what is waited for is the processor",
            "",
            "Repeat: `python benchmarks/gathering.py --write`.",
            "",
        ]
    )


async def _service(file: Path, url: str, count: int) -> Context:
    sources = list(itertools.islice(SERVED, count))
    document = copy.deepcopy(orjson.loads(check_path(EXAMPLE)[1]))
    document["sources"] = [{"id": id, "kind": "http", "path": "/{customer_id}"} for id in sources]
    for attribute in document["attributes"]:
        for id in sources:
            if attribute["id"] in SERVED[id]:
                attribute["source"] = id
    checked = check_document(Source(document))
    assert checked.published is not None, checked.problems
    connections = {id: Connection(url=SecretStr(url)) for id in sources}
    service = build(open_store(f"sqlite:{file}"), connections=connections)
    await service.store.open()
    await service.store.publish_catalog(checked.published.version, checked.document, utc_now())
    await service.live.start()
    return service


class Timed(Gatherer):
    """A gatherer with a clock around it; `seen` in milliseconds."""

    seen: ClassVar[list[float]] = []

    async def gather(self, *arguments: Any) -> Gathered:
        """As the gatherer does. Nothing may be missing: that would be quick, and no measurement."""
        began = time.perf_counter()
        gathered = await super().gather(*arguments)
        self.seen.append((time.perf_counter() - began) * 1000)
        assert not any(each.startswith("sources") for each in gathered.degraded), gathered.degraded
        return gathered


_NUMBERS = itertools.count()


async def _round(service: Context, callers: int, seen: Seen) -> None:
    async def call() -> None:
        for _ in range(REQUESTS // callers):
            request = DecisionRequest.model_validate(
                {
                    "customer_id": f"c-{next(_NUMBERS)}",
                    "channel": "agent_desktop",
                    "placements": [{"id": "agent_panel"}],
                    "timeout_ms": 2000,
                }
            )
            began = time.perf_counter()
            await service.deciding.decide(request)
            seen.decisions.append((time.perf_counter() - began) * 1000)

    Timed.seen.clear()
    await asyncio.gather(*(call() for _ in range(callers)))
    seen.gatherings += Timed.seen


async def _calls(url: str) -> list[float]:
    connection = Connection(url=SecretStr(url))
    found = []
    async with open_client() as client:
        await ask(client, connection, "GET", "/warm")
        for _ in range(REQUESTS):
            began = time.perf_counter()
            await ask(client, connection, "GET", "/c-1")
            found.append((time.perf_counter() - began) * 1000)
    return found


async def _transports(url: str, spent: dict[tuple[str, int], list[float]]) -> None:
    connection = Connection(url=SecretStr(url))
    for name, client in (("aiohttp", open_client()), ("httpx", httpx.AsyncClient(timeout=None))):

        async def call(client: httpx.AsyncClient, times: int) -> None:
            for _ in range(times):
                await ask(client, connection, "GET", "/c-1")

        async with client:
            for at_once in AT_ONCE:
                await asyncio.gather(*(call(client, 1) for _ in range(at_once)))  # connects
                began = time.process_time()
                await asyncio.gather(*(call(client, CALLS // at_once) for _ in range(at_once)))
                each = (time.process_time() - began) / CALLS * 1000
                spent.setdefault((name, at_once), []).append(each)


def _row(count: int, callers: int, seen: Seen) -> str:
    def cells(values: Sequence[float]) -> str:
        return f"{quantile(values, 0.5):.2f} | {quantile(values, 0.99):.2f}"

    return f"| {count} | {callers} | {cells(seen.gatherings)} | {cells(seen.decisions)} |"


if __name__ == "__main__":
    main()

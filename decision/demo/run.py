"""`decision demo`: a simulated telecom operator, decided for and learned from while you watch.

It publishes the catalog, imports simulated customers, starts `decision serve`, and sends it simulated
visitors on every channel (`decision.demo.visitors`), who answer by a hidden truth that the service cannot
see. Everything lives in a temporary directory, so every demo starts from nothing.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.progress import track

from arbitration.catalog.problems import Source
from decision.access.actor import SERVICE
from decision.clock import utc_now
from decision.demo.client import CallFailed, Client
from decision.demo.learning import Learning
from decision.demo.screen import FRAMES_A_SECOND, Screen, say
from decision.demo.server import HOST, DemoFailed, Server, check_port
from decision.demo.tally import Tally
from decision.demo.visitors import CONCURRENT, SLOW_AFTER, Visitors, World, shown_treatments
from decision.importing import Importer, replacing
from decision.publishing import Published, check_document, check_path
from decision.settings import opened
from decision.storage.port import Event, Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "telco"
_REQUEST = {
    "customer_id": "sim-000001",
    "channel": "agent_desktop",
    "placements": [{"id": "agent_panel"}],
    "context": {"intent": "billing"},
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PICTURE_WIDTH = 100
_LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` of visits, None: until stopped. `directory`: where the database is kept, None: nowhere.
    `picture`: an SVG file for the last screen."""

    seconds: float | None = None
    customers: int = 5_000
    port: int = 8_000
    seed: int = 7
    catalog: Path = EXAMPLE
    directory: Path | None = None
    picture: Path | None = None


def run(options: Options) -> None:
    """Runs the demo until its time is over, or SIGINT, SIGTERM or SIGHUP; leaves nothing behind.

    Raises DemoFailed where it cannot start or go on, CatalogError where the catalog is not valid.
    """
    uvloop.run(_until_stopped(_demo(options, Console())))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end, or cancels it at the first signal and waits for it to clean up."""
    running = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, signalled.set)
    waiting = asyncio.create_task(signalled.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not running.done():
        running.cancel()
    # Later signals find the handlers still there: an impatient second Ctrl-C must not leave a process.
    with suppress(asyncio.CancelledError):
        await running


async def _demo(options: Options, console: Console) -> None:
    check_port(options.port)
    with _place(options.directory) as place:
        url = f"sqlite:{place / 'demo.db'}"
        async with opened(url) as store:
            published = await _publish(store, options.catalog, console)
            world = World(published.compiled, options.customers, options.seed, utc_now())
            await _import(store, world, console)
            async with Server(url, options.port, place / "serve.log") as server:
                console.print(f"[green]✓[/green] service and learner started: http://{HOST}:{options.port}")
                await _invite(options.port, console)
                await _show(options, world, server, store, console)


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    """The directory to work in; a temporary one is removed afterwards."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="decision-demo-") as name:
        yield Path(name)


async def _publish(store: Store, path: Path, console: Console) -> Published:
    published, document = _hurried(check_path(path)[1])
    event = Event(
        "catalog.publish", SERVICE, f"catalog:{published.version}", {"why": "The demo."}, state=True
    )
    await store.publish_catalog(published.version, document, utc_now(), [event])
    model = published.compiled.model
    count = sum(len(action.treatments) for action in model.actions)
    about = f"{len(model.actions)} actions, {count} treatments, {len(model.channels)} channels"
    console.print(f"[green]✓[/green] catalog published: {about}", highlight=False)
    return published


def _hurried(document: bytes) -> tuple[Published, bytes]:
    """The catalog without its contact policies: customers who come back every few seconds would soon have had
    the contacts of a month."""
    catalog = orjson.loads(document)
    left_out = {policy["id"] for policy in catalog.pop("contact_policies", ())}
    for action in catalog["actions"]:
        action["exempt"] = [name for name in action["exempt"] if name not in left_out]
    checked = check_document(Source(catalog))
    assert checked.published is not None, checked.problems
    return checked.published, checked.document


async def _import(store: Store, world: World, console: Console) -> None:
    started = time.monotonic()
    importer = Importer(replacing(store, utc_now), world.catalog)
    rows = track(
        world.customers, "importing", console=console, transient=True, disable=not console.is_terminal
    )
    for number, customer in enumerate(rows, start=1):
        await importer.row(number, customer, customer)
    await importer.finish()
    if importer.rejected:
        line, errors = importer.errors[0]
        fault = f"customer {line}: {errors[0].field}: {errors[0].message}"
        raise DemoFailed(f"{importer.rejected} simulated customers do not fit the catalog; {fault}")
    took = time.monotonic() - started
    text = f"{importer.imported:,} simulated customers imported in {took:.1f} s"
    console.print(f"[green]✓[/green] {text}", highlight=False)


async def _invite(port: int, console: Console) -> None:
    """Makes one decision, and prints what to paste into another terminal."""
    async with Client(HOST, port) as client:
        decision = await client.call("POST", "/v1/decisions", _REQUEST)
    console.print("\nTry it in another terminal, while this runs:", style="bold")
    for line in curl_lines(port, decision):
        say(console, line)
    console.print()


def curl_lines(port: int, decision: Mapping[str, Any]) -> Iterator[str]:
    """Commands that work as they stand: decide, answer, explain, replay, history, metrics."""
    base = f"http://{HOST}:{port}"
    one = decision["decision_id"]
    yield _post(f"{base}/v1/decisions", _REQUEST)
    for treatment in shown_treatments(decision)[:1]:
        answer = {
            "response_id": "my-first",
            "decision_id": one,
            "treatment": treatment,
            "outcome": "accepted",
        }
        yield _post(f"{base}/v1/responses", answer)
    yield f"curl -s {base}/v1/decisions/{one}/explanation"
    yield f"curl -s -X POST {base}/v1/decisions/{one}/replay"
    yield f"curl -s {base}/v1/customers/{_REQUEST['customer_id']}/history"
    yield f"curl -s {base}/metrics"


def _post(url: str, body: object) -> str:
    return f"curl -s {url} -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"


async def _show(options: Options, world: World, server: Server, store: Store, console: Console) -> None:
    """Visits, and what comes of them on the screen, until the time is over or this is cancelled."""
    tally, learning = Tally(), Learning(store)
    title = f"{options.customers:,} simulated customers · http://{HOST}:{options.port}"
    screen = Screen(console, tally, learning, title, world.catalog.model.currency)
    visitors = Visitors(world, HOST, options.port, options.seed, tally)
    works = [visitors.one_after_the_other(number) for number in range(CONCURRENT)]
    works += [server.watch(), _draw(options, screen, tally, learning, console)]
    screen.start()
    try:
        await _all(works, options.seconds)
    except CallFailed:
        # If it failed because the service is no more, that is what should be told.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await server.watch()
        raise
    finally:
        screen.stop()
        if tally.visits:
            say(console, screen.summary())
        if options.picture is not None:
            _keep_picture(screen, options.picture)


async def _all(works: Sequence[Coroutine[Any, Any, None]], seconds: float | None) -> None:
    """Runs endless works side by side for `seconds`, or until one fails, and then raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _draw(options: Options, screen: Screen, tally: Tally, learning: Learning, console: Console) -> None:
    slow = False
    while True:
        await learning.refresh()
        screen.refresh()
        if not slow and tally.visits >= SLOW_AFTER:
            slow = True
            await _invite(options.port, console)
        await asyncio.sleep(1 / FRAMES_A_SECOND)


def _keep_picture(screen: Screen, file: Path) -> None:
    recorder = Console(record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True)
    recorder.print(screen.render())
    picture = recorder.export_svg(title="decision demo")
    # The fonts it would fetch from elsewhere are not needed: any fixed-width one does.
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8")

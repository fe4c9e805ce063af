"""The command line: `decision …`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from arbitration.errors import NextBestActionError
from decision.errors import Rejected

if TYPE_CHECKING:
    from decision.import_files import Summary
    from decision.replaying import Replayed

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
catalog_app = typer.Typer(no_args_is_help=True, help="Check, publish and compare catalogs.")
import_app = typer.Typer(no_args_is_help=True, help="Bring data in.")
app.add_typer(catalog_app, name="catalog")
app.add_typer(import_app, name="import")

console = Console()
complaints = Console(stderr=True)

CatalogPath = Annotated[Path, typer.Argument(help="A directory of YAML files, or one document.")]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="DECISION_STORE", help="Where everything is kept: sqlite:PATH")
]
Interval = Annotated[float, typer.Option(help="Seconds between two rounds of learning.", min=0.05)]
DEFAULT_STORE = "sqlite:decision.db"


def main() -> None:
    """Entry point. A fault we know becomes one line and exit code 1, anything else a traceback."""
    # Decisions are many small products; threads of the linear algebra would only get in each other's way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It logs the URL of every call, and with it customers' ids.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        app()
    except Rejected as error:
        complaints.print(f"[red]{error.detail}[/red]", highlight=False)
        for fault in error.errors:
            complaints.print(
                f"  {fault.field}: {fault.message}", markup=False, highlight=False, soft_wrap=True
            )
        raise SystemExit(1) from None
    except NextBestActionError as error:
        complaints.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


@app.command()
def serve(
    store: StoreUrl = DEFAULT_STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    learner: Annotated[bool, typer.Option(help="Run the learner beside the API.")] = True,
    interval: Interval = 1.0,
    connections: Annotated[
        Path | None,
        typer.Option(
            envvar="DECISION_CONNECTIONS",
            help="Where the catalog's sources are: a YAML file.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    timeout_ms: Annotated[
        int,
        typer.Option(envvar="DECISION_TIMEOUT_MS", help="For requests that name none.", min=1, max=60_000),
    ] = 150,
) -> None:
    """Serve the HTTP API, and learn."""
    from decision.serving import serve as run
    from decision.sources.connections import read_connections

    known = {} if connections is None else read_connections(connections)
    run(store, host, port, learner=learner, interval=interval, connections=known, timeout_ms=timeout_ms)


@app.command()
def learn(
    store: StoreUrl = DEFAULT_STORE,
    interval: Interval = 1.0,
    attached: Annotated[bool, typer.Option(hidden=True, help="End when standard input does.")] = False,
) -> None:
    """Run only the learner."""
    from decision.serving import learn as run

    run(store, interval, attached=attached)


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(help="End after so many seconds of visits [default: at Ctrl-C].", min=1)
    ] = None,
    customers: Annotated[int, typer.Option(help="How many customers to simulate.", min=1)] = 5_000,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 8000,
    seed: Annotated[int, typer.Option(help="Of customers, visits and what they like.", min=0)] = 7,
    catalog: Annotated[
        Path | None, typer.Option(help="The telco catalog, or a changed copy [default: examples/telco].")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Keep the database here [default: a temporary one, removed].")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Keep the last screen in this SVG file.")] = None,
) -> None:
    """Watch it learn: simulated customers, visits on three channels, the real service in between."""
    from decision.demo.run import EXAMPLE, Options, run

    run(Options(seconds, customers, port, seed, catalog or EXAMPLE, directory, picture))


@app.command()
def replay(
    decision_id: Annotated[str, typer.Argument(help="The id of a recorded decision.")],
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a recorded decision again and compare it byte for byte."""
    replayed = _run(_replay(store, decision_id))
    console.print_json(replayed.reply.decode())
    if not replayed.identical:
        complaints.print("[red]not identical[/red]")
        raise typer.Exit(1)
    console.print("[green]identical[/green]")


async def _replay(url: str, decision_id: str) -> Replayed:
    from decision.live import Live
    from decision.replaying import Replaying
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        return await Replaying(store, Live(store)).replay(decision_id)


@catalog_app.command()
def validate(
    path: CatalogPath,
) -> None:
    """Report everything that is wrong with a catalog, at once."""
    from decision.publishing import check_path

    catalog = check_path(path)[0].compiled
    size = f"{len(catalog.model.actions)} actions, {len(catalog.arms)} treatments"
    console.print(f"[green]valid[/green] {catalog.version}: {size}")


@catalog_app.command()
def publish(
    path: CatalogPath,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Check a catalog and make it live; running services take it up within two seconds."""
    from decision.publishing import check_path

    published, document = check_path(path)
    _run(_publish(store, published.version, document))
    console.print(f"[green]published[/green] {published.version}")


async def _publish(url: str, version: str, document: bytes) -> None:
    from decision.api.context import utc_now
    from decision.settings import opened

    async with opened(url) as store:
        await store.publish_catalog(version, document, utc_now())


@catalog_app.command()
def diff(
    path: CatalogPath,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Show what publishing a catalog would change."""
    import orjson

    from decision.diffing import differences
    from decision.publishing import check_path

    after = orjson.loads(check_path(path)[1])
    found = differences(_run(_live_document(store)), after)
    signs = {"added": "[green]+[/green]", "removed": "[red]-[/red]", "changed": "[yellow]~[/yellow]"}
    for item in found:
        console.print(f"{signs[item.kind]} {item.path}", highlight=False, end="")
        if item.kind == "changed":
            console.print(f": {item.before!r} → {item.after!r}", markup=False, highlight=False, end="")
        console.print()
    if not found:
        console.print("no difference")


async def _live_document(url: str) -> dict[str, Any]:
    import orjson

    from decision.settings import opened

    async with opened(url, existing=True) as store:
        live = await store.live_catalog()
        document = None if live is None else await store.catalog(live.version)
        return {} if document is None else dict(orjson.loads(document))


@import_app.command()
def customers(
    file: Annotated[Path, typer.Argument(help="CSV or NDJSON, plain or .gz", exists=True, dir_okay=False)],
    mapping: Annotated[
        Path | None, typer.Option("--map", help="Which column goes where.", exists=True)
    ] = None,
    rejects: Annotated[Path | None, typer.Option(help="Where refused rows go.")] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Import customer profiles; faulty rows are reported and left out."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(file.name, total=file.stat().st_size)

        def moved(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        summary = _run(_import(store, file, mapping, rejects, moved))
    colour = "green" if summary.imported else "red"
    console.print(f"[{colour}]{summary.imported} imported[/{colour}], {summary.rejected} rejected")
    if summary.ignored:
        console.print(f"columns not used: {', '.join(summary.ignored)}", highlight=False)
    for line, errors in summary.errors[:20]:
        for error in errors:
            console.print(
                f"  line {line}: {error.field}: {error.message}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if summary.rejects_file is not None:
        console.print(f"rejected rows are in {summary.rejects_file}", highlight=False)
    if summary.rejected and not summary.imported:
        raise typer.Exit(1)


async def _import(
    url: str, file: Path, mapping: Path | None, rejects: Path | None, moved: Callable[[int, int], None]
) -> Summary:
    from decision.import_files import import_file
    from decision.live import Live
    from decision.settings import opened

    async with opened(url) as store:
        live = Live(store)
        await live.refresh()
        return await import_file(file, store, live.serving.published.compiled, mapping, rejects, moved)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)

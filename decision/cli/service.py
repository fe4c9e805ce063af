"""Run the service, its learner, the demo; and make a decision again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decision.cli.base import DEFAULT_STORE, Interval, StoreUrl, app, complaints, console, run

if TYPE_CHECKING:
    from decision.replaying import Replayed


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
    from decision.serving import serve as start
    from decision.sources.connections import read_connections

    known = {} if connections is None else read_connections(connections)
    start(store, host, port, learner=learner, interval=interval, connections=known, timeout_ms=timeout_ms)


@app.command()
def learn(
    store: StoreUrl = DEFAULT_STORE,
    interval: Interval = 1.0,
    attached: Annotated[bool, typer.Option(hidden=True, help="End when standard input does.")] = False,
) -> None:
    """Run only the learner."""
    from decision.serving import learn as start

    start(store, interval, attached=attached)


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
    from decision.demo.run import EXAMPLE, Options
    from decision.demo.run import run as start

    start(Options(seconds, customers, port, seed, catalog or EXAMPLE, directory, picture))


@app.command()
def replay(
    decision_id: Annotated[str, typer.Argument(help="The id of a recorded decision.")],
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a recorded decision again and compare it byte for byte."""
    replayed = run(_replay(store, decision_id))
    console.print_json(replayed.reply.decode())
    if not replayed.identical:
        complaints.print("[red]not identical[/red]")
        raise typer.Exit(1)
    console.print("[green]identical[/green]")


async def _replay(url: str, decision_id: str) -> Replayed:
    from decision.live import Live
    from decision.replaying import Replaying
    from decision.settings import opened, signing_key

    async with opened(url, existing=True) as store:
        return await Replaying(store, Live(store, signing_key=signing_key())).replay(decision_id)

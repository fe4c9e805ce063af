"""Run the service, its learner, the demo; and make a decision again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decision import logs
from decision.cli.base import DEFAULT_STORE, Interval, LogFormat, StoreUrl, app, complaints, console, run

if TYPE_CHECKING:
    from decision.replaying import Replayed

STORE, CONNECTIONS, TIMEOUT_MS = "DECISION_STORE", "DECISION_CONNECTIONS", "DECISION_TIMEOUT_MS"
ACCESS, LOCAL = "DECISION_ACCESS", "DECISION_LOCAL"

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

ConnectionsFile = Annotated[
    Path | None,
    typer.Option(
        envvar=CONNECTIONS,
        help="Where the catalog's sources are: a YAML file.",
        exists=True,
        dir_okay=False,
    ),
]
AccessFile = Annotated[
    Path | None,
    typer.Option(
        envvar=ACCESS,
        help="Whose tokens are accepted beside API keys: a YAML file.",
        exists=True,
        dir_okay=False,
    ),
]
TimeoutMs = Annotated[
    int, typer.Option(envvar=TIMEOUT_MS, help="For requests that name none.", min=1, max=60_000)
]


@app.command()
def serve(
    store: StoreUrl = DEFAULT_STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="How many processes answer.", min=1)] = 1,
    learner: Annotated[bool, typer.Option(help="Run the learner beside the API.")] = True,
    interval: Interval = 1.0,
    connections: ConnectionsFile = None,
    access: AccessFile = None,
    timeout_ms: TimeoutMs = 150,
    log_format: LogFormat = "text",
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar=logs.ACCESS, help="Log a line for each decision.")
    ] = False,
) -> None:
    """Serve the HTTP API, and learn. SIGHUP: replace every process, one after the other."""
    logs.set_up(log_format, access_log)
    settings = {STORE: store, TIMEOUT_MS: str(timeout_ms), LOCAL: "0"}
    if connections is not None:
        settings[CONNECTIONS] = str(connections)
    if access is not None:
        settings[ACCESS] = str(access)
    elif run(_keyless(store)):
        if host not in _LOOPBACK:
            complaints.print(
                f"[yellow]No API key was ever made: listening on 127.0.0.1 only, and not on {host}.[/yellow]"
                " Make one, and start again: decision keys create NAME --role operator"
            )
            host = _LOOPBACK[0]
        settings[LOCAL] = "1"
    command = [sys.executable, "-m", "decision.serving.supervisor"]
    command += ["--host", host, "--port", str(port), "--workers", str(workers)]
    command += ["--interval", str(interval)] if learner else []
    # Catalogs and snapshots are loaded in threads. Were each thread to have memory of its own to cut them
    # from, as glibc has it, a process would go on growing for hours.
    memory = {"MALLOC_ARENA_MAX": "2"}
    # This process has imported far more than a supervisor needs.
    os.execve(sys.executable, command, {**memory, **os.environ, **settings})


async def _keyless(url: str) -> bool:
    """Whether nobody is to be asked for a key. Where the store cannot say, everybody is."""
    from decision.errors import StoreUnavailable
    from decision.register import Register
    from decision.settings import open_store

    store = open_store(url)
    try:
        await store.open()
        register = Register(store)
        await register.refresh()
        return not len(register.keys)
    except StoreUnavailable:
        return False
    finally:
        await store.close()


@app.command(hidden=True)
def worker(
    socket: Annotated[list[int], typer.Option(help="Descriptor of a listening socket.")],
    store: StoreUrl = DEFAULT_STORE,
    connections: ConnectionsFile = None,
    access: AccessFile = None,
    timeout_ms: TimeoutMs = 150,
) -> None:
    """Answer requests; started by `serve`."""
    from decision.serving.worker import work
    from decision.sources.connections import read_connections

    known = {} if connections is None else read_connections(connections)
    accepted = None
    if access is not None:
        from decision.access.settings import read_access

        accepted = read_access(access)
    work(
        socket,
        store,
        connections=known,
        timeout_ms=timeout_ms,
        access=accepted,
        local=os.environ.get(LOCAL) == "1",
    )


@app.command()
def learn(
    store: StoreUrl = DEFAULT_STORE,
    interval: Interval = 1.0,
    metrics_host: Annotated[str, typer.Option(help="Address to answer scrapes on.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option(help="Port to answer scrapes on [default: none].", min=1, max=65535)
    ] = None,
    log_format: LogFormat = "text",
    attached: Annotated[bool, typer.Option(hidden=True, help="End when the supervisor does.")] = False,
) -> None:
    """Run only the learner. Of all that run on one database, one learns and the others stand by."""
    from decision.serving.learning import learn as start

    logs.set_up(log_format, access_log=False)
    start(store, interval, metrics_host=metrics_host, metrics_port=metrics_port, attached=attached)


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(help="End after so many seconds of visits [default: at Ctrl-C].", min=1)
    ] = None,
    customers: Annotated[int, typer.Option(help="How many customers to simulate.", min=1)] = 5_000,
    port: Annotated[int, typer.Option(help="Port to serve on.", min=1, max=65535)] = 8000,
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

"""Take the log out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decision.cli.base import DEFAULT_STORE, StoreUrl, app, complaints, moment_of, run

if TYPE_CHECKING:
    from decision.exporting.export import Format, Summary
    from decision.exporting.remaking import Customers, Window


@app.command()
def export(
    format: Annotated[Literal["parquet", "obp", "vw"], typer.Option(help="See docs/export.md.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; vw without it: standard output.", dir_okay=False)
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment_of, metavar="TIME", help="A date, or RFC 3339; inclusive."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=moment_of, metavar="TIME", help="A date, or RFC 3339; exclusive."),
    ] = None,
    customers: Annotated[
        Literal["hashed", "plain", "none"], typer.Option(help="How customers are named.")
    ] = "hashed",
    pii: Annotated[bool, typer.Option("--pii", help="Attributes marked pii, too.")] = False,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Write the log with probabilities, contexts and rewards, for other tools."""
    from decision.exporting.remaking import Window

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=complaints) as progress:  # standard output may be the export
        task = progress.add_task(format, total=None)

        def moved(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        summary = run(_export(store, format, out, Window(since, until), customers, pii, moved))
    complaints.print(f"[green]{summary.rows} rows[/green] of {summary.decisions} decisions", highlight=False)
    if summary.left_out:
        complaints.print(f"{summary.left_out} items left out: no outcome yet, or the customer objects")
    if summary.lost:
        complaints.print(f"[red]{len(summary.lost)} decisions left out[/red]: they did not come out again")
        for id in summary.lost[:20]:
            complaints.print(f"  {id}", highlight=False)


async def _export(
    url: str,
    format: Format,
    out: Path | None,
    window: Window,
    customers: Customers,
    pii: bool,
    moved: Callable[[int, int], None],
) -> Summary:
    from decision.exporting.export import export as write
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        return await write(store, format, out, window, customers=customers, pii=pii, moved=moved)

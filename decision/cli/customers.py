"""Bring customers in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from decision.cli.base import DEFAULT_STORE, StoreUrl, app, console, run

if TYPE_CHECKING:
    from decision.import_files import Summary

import_app = typer.Typer(no_args_is_help=True, help="Bring data in.")
app.add_typer(import_app, name="import")


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

        summary = run(_import(store, file, mapping, rejects, moved))
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

"""Keep the ledger to its size."""

from __future__ import annotations

from typing import Annotated

import typer

from decision.cli.base import DEFAULT_STORE, StoreUrl, app, console, moment_of, run


@app.command()
def scrub(store: StoreUrl = DEFAULT_STORE) -> None:
    """Rewrite the files of the database, so that nothing is left in them of what was erased or forgotten.

    Needs as much room again; decisions may be refused meanwhile.
    """
    run(_scrub(store))
    console.print("[green]rewritten[/green]")


async def _scrub(url: str) -> None:
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        await store.scrub()


@app.command()
def prune(
    before: Annotated[str, typer.Option(help="A date: the months that were over then are forgotten.")],
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Forget old decisions, with their responses and the snapshots that only they were made with."""
    pruned = run(_prune(store, before))
    console.print(f"[green]forgotten[/green] {pruned} decisions")


async def _prune(url: str, before: str) -> int:
    from decision.clock import utc_now
    from decision.retention import prune
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        return await prune(store, moment_of(before), utc_now())

"""List, compare, pin and roll back what policies have learned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decision.cli.base import DEFAULT_STORE, StoreUrl, app, console, run

if TYPE_CHECKING:
    from decision.pinning import Pinning

snapshots_app = typer.Typer(
    no_args_is_help=True, help="What policies have learned, and which of it is served."
)
app.add_typer(snapshots_app, name="snapshots")

Policy = Annotated[str, typer.Argument(help="A policy of the live catalog.")]
Version = Annotated[str, typer.Argument(help="A snapshot's version.")]


@asynccontextmanager
async def _pinning(url: str) -> AsyncIterator[Pinning]:
    from decision.clock import utc_now
    from decision.live import Live
    from decision.pinning import Pinning
    from decision.settings import opened, signing_key

    async with opened(url, existing=True) as store:
        live = Live(store, signing_key=signing_key())
        await live.refresh()
        yield Pinning(store, live, utc_now)


@snapshots_app.command("list")
def list_(
    policy: Annotated[str | None, typer.Argument(help="Its snapshots [default: all policies].")] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """What each policy decides with, or the snapshots there are of one."""
    run(_list(store, policy))


async def _list(url: str, policy: str | None) -> None:
    async with _pinning(url) as pinning:
        if policy is None:
            table = Table("policy", "served", "newest", "pinned", "refused", "outcomes learned")
            for each in await pinning.served():
                pinned = "yes" if each.pinned else ""
                table.add_row(
                    each.policy,
                    each.snapshot,
                    each.newest,
                    pinned,
                    each.refused or "",
                    f"{each.learned:,.0f}",
                )
        else:
            table = Table("version", "made at")
            for version, at in await pinning.versions(policy):
                table.add_row(version, f"{at:%Y-%m-%d %H:%M:%S}")
    console.print(table)


@snapshots_app.command()
def compare(policy: Policy, before: Version, after: Version, store: StoreUrl = DEFAULT_STORE) -> None:
    """What two snapshots know of each treatment: outcomes, and their mean reward."""
    run(_compare(store, policy, before, after))


async def _compare(url: str, policy: str, before: str, after: str) -> None:
    async with _pinning(url) as pinning:
        found = await pinning.compare(policy, before, after)
    table = Table("treatment", "outcomes", "", "mean reward", "")
    for arm in found:
        means = ("" if mean is None else f"{mean:.4f}" for mean in (arm.mean_before, arm.mean_after))
        table.add_row(arm.treatment, f"{arm.count_before:,.0f}", f"→ {arm.count_after:,.0f}", *means)
    console.print(table)


@snapshots_app.command()
def pin(policy: Policy, version: Version, store: StoreUrl = DEFAULT_STORE) -> None:
    """Serve this snapshot, whatever is learned, until it is unpinned."""
    run(_pin(store, policy, version))
    console.print(f"[green]pinned[/green] {version}")


@snapshots_app.command()
def unpin(policy: Policy, store: StoreUrl = DEFAULT_STORE) -> None:
    """Serve the newest snapshot again."""
    run(_pin(store, policy, None))
    console.print("[green]unpinned[/green]")


async def _pin(url: str, policy: str, version: str | None) -> None:
    async with _pinning(url) as pinning:
        await pinning.pin(policy, version)


@snapshots_app.command()
def rollback(policy: Policy, store: StoreUrl = DEFAULT_STORE) -> None:
    """Pin the snapshot made before the one that is served."""
    console.print(f"[green]pinned[/green] {run(_roll_back(store, policy))}")


async def _roll_back(url: str, policy: str) -> str:
    async with _pinning(url) as pinning:
        return await pinning.roll_back(policy)

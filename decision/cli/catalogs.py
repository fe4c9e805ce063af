"""Check, publish and compare catalogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from decision.cli.base import DEFAULT_STORE, CatalogPath, StoreUrl, actor, app, console, run
from decision.cli.changes import governing, readable, show_differences

if TYPE_CHECKING:
    from decision.diffing import PartDifference
    from decision.storage.port import Json

catalog_app = typer.Typer(no_args_is_help=True, help="Check, publish and compare catalogs.")
app.add_typer(catalog_app, name="catalog")


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
    title: Annotated[
        str | None, typer.Option(callback=readable, help="What changes, in a few words.")
    ] = None,
    why: Annotated[
        str | None, typer.Option(callback=readable, help="Why; it stays in the audit trail.")
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Check a catalog and make it live; running services take it up within two seconds.

    Where the live catalog asks for four eyes, only one that another than its authors has approved: see
    `decision changes`.
    """
    from decision.publishing import check_path

    published, document = check_path(path)
    run(_publish(store, published.version, document, {"title": title, "why": why}))
    console.print(f"[green]published[/green] {published.version}")


async def _publish(url: str, version: str, document: bytes, detail: dict[str, Json]) -> None:
    async with governing(url) as each:
        await each.publish_directly(actor(), version, document, detail)


@catalog_app.command()
def diff(
    path: CatalogPath,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Show what publishing a catalog would change."""
    import orjson

    from decision.publishing import check_path

    show_differences(run(_diff(store, orjson.loads(check_path(path)[1]))))


async def _diff(url: str, document: dict[str, Any]) -> list[PartDifference]:
    async with governing(url, existing=True) as each:
        return (await each.differ(document))[1]


@catalog_app.command()
def show(store: StoreUrl = DEFAULT_STORE) -> None:
    """Write the live catalog as one JSON document: what a candidate for `whatif` is made from."""
    import orjson

    print(orjson.dumps(run(_live_document(store)), option=orjson.OPT_INDENT_2).decode())


async def _live_document(url: str) -> dict[str, Any]:
    import orjson

    from decision.settings import opened

    async with opened(url, existing=True) as store:
        live = await store.live_catalog()
        document = None if live is None else await store.catalog(live.version)
        return {} if document is None else dict(orjson.loads(document))

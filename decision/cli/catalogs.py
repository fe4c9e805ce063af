"""Check, publish and compare catalogs."""

from __future__ import annotations

from typing import Any

import typer

from decision.cli.base import DEFAULT_STORE, CatalogPath, StoreUrl, app, console, run

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
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Check a catalog and make it live; running services take it up within two seconds."""
    from decision.publishing import check_path

    published, document = check_path(path)
    run(_publish(store, published.version, document))
    console.print(f"[green]published[/green] {published.version}")


async def _publish(url: str, version: str, document: bytes) -> None:
    from decision.clock import utc_now
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
    found = differences(run(_live_document(store)), after)
    signs = {"added": "[green]+[/green]", "removed": "[red]-[/red]", "changed": "[yellow]~[/yellow]"}
    for item in found:
        console.print(f"{signs[item.kind]} {item.path}", highlight=False, end="")
        if item.kind == "changed":
            console.print(f": {item.before!r} → {item.after!r}", markup=False, highlight=False, end="")
        console.print()
    if not found:
        console.print("no difference")


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

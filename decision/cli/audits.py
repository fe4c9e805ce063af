"""Read the audit trail, and see that nobody has changed it."""

from __future__ import annotations

from typing import Annotated

import typer

from decision.cli.base import DEFAULT_STORE, StoreUrl, app, complaints, console, run

audit_app = typer.Typer(no_args_is_help=True, help="Read and verify the audit trail.")
app.add_typer(audit_app, name="audit")

_AT_ONCE = 5_000


@audit_app.command()
def verify(
    noted: Annotated[
        str | None,
        typer.Option(help="What an earlier run printed, ENTRY:HASH: the trail must still hold it."),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Walk the whole chain. Note what it prints, elsewhere: who can write to the database could make a chain
    anew, but not one that holds what was noted."""
    anchor = None
    if noted is not None:
        number, _, hash = noted.partition(":")
        if not (number.isascii() and number.isdecimal()) or len(hash) != 64:
            raise typer.BadParameter("is written ENTRY:HASH, as `verify` prints it", param_hint="--noted")
        anchor = (int(number), hash)
    fault, (seq, hash) = run(_verify(store, anchor))
    if fault is None and not seq:
        complaints.print("[yellow]empty[/yellow]: there is no entry to verify", highlight=False)
        return
    if fault is not None:
        complaints.print(f"[red]broken[/red]: {fault}", highlight=False)
        raise typer.Exit(1)
    console.print(f"[green]unbroken[/green]: {seq} entries", highlight=False)
    print(f"{seq}:{hash}")


async def _verify(url: str, anchor: tuple[int, str] | None) -> tuple[str | None, tuple[int, str]]:
    from decision.errors import StoreUnavailable
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        try:
            return await store.broken(noted=anchor), await store.head()
        except StoreUnavailable as error:
            return str(error), (0, "")


@audit_app.command()
def show(
    customer: Annotated[str | None, typer.Option(help="Only what is about this customer id.")] = None,
    after: Annotated[int, typer.Option(help="Only what comes after this entry.", min=0)] = 0,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Write the trail, a JSON object a line."""
    run(_show(store, customer, after))


async def _show(url: str, customer: str | None, after: int) -> None:
    import orjson

    from decision.auditing import mark_of, to_json
    from decision.settings import opened

    async with opened(url, existing=True) as store:
        subjects = None if customer is None else [mark_of(await store.secret(), customer)]
        while entries := await store.entries(after, _AT_ONCE, subjects=subjects):
            for entry in entries:
                print(orjson.dumps(to_json(entry)).decode())
            after = entries[-1].seq

"""Make, list, revoke and rotate API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from decision.cli.base import DEFAULT_STORE, StoreUrl, actor, app, console, moment_of, run

if TYPE_CHECKING:
    from decision.access.keys import Key, Made, Publishable
    from decision.register import Make, Register
    from decision.storage.port import Event

keys_app = typer.Typer(no_args_is_help=True, help="Make, list, revoke and rotate API keys.")
app.add_typer(keys_app, name="keys")

Name = Annotated[str, typer.Argument(help="What it is for: no name of a person.")]
KeyId = Annotated[str, typer.Argument(help="The id of the key, as `list` shows it.")]


@keys_app.command()
def create(
    name: Name,
    role: Annotated[
        list[str] | None, typer.Option(help="agent, marketer, analyst or operator; may be repeated.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A single scope; may be repeated.")] = None,
    expires: Annotated[str | None, typer.Option(help="A date or time, or a span: 90d.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Requests a minute [default: no limit].", min=1, max=1_000_000)
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Makes a publishable key, for browsers on this origin (https://…); may be repeated."
        ),
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="The channels a publishable key is for; may be repeated.")
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="What browsers may report with it [default: impression, click]; may be repeated."),
    ] = None,
    verify_with: Annotated[
        Path | None,
        typer.Option(help="PEM of the site's Ed25519 public key [default: a new pair is made].", exists=True),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a key. It is shown once, and only its hash is kept."""
    from decision.access.keys import Wanted, make
    from decision.access.scopes import ROLES
    from decision.clock import utc_now

    if unknown := set(role or ()) - ROLES.keys():
        raise typer.BadParameter(f"there are {', '.join(ROLES)}, and not {', '.join(sorted(unknown))}")
    scopes = set(scope or ()).union(*(ROLES[each] for each in role or ()))
    signing, shown = _pair(origin, channel, outcome, verify_with)
    if shown is not None:
        scopes = scopes or {"decide", "respond"}
    now = utc_now()
    ends = None if expires is None else _until(expires, now)
    if ends is not None and ends <= now:
        raise typer.BadParameter("is over already", param_hint="--expires")
    made = make(Wanted(name, scopes, ends, limit, shown), actor())  # type: ignore[arg-type]
    run(_act(store, lambda _: [made.event]))
    _show(made, signing)


def _pair(
    origins: Sequence[str] | None,
    channels: Sequence[str] | None,
    outcomes: Sequence[str] | None,
    verify_with: Path | None,
) -> tuple[str | None, Publishable | None]:
    """The private key to show, where one is made, and what makes the key publishable, if it is to be."""
    from decision.access.keys import publishable
    from decision.access.visitors import new_pair

    if not origins:
        if channels or outcomes or verify_with is not None:
            raise typer.BadParameter("--channel, --outcome and --verify-with are for a key with --origin")
        return None, None
    signing, verifying = (None, verify_with.read_text()) if verify_with is not None else new_pair()
    return signing, publishable(origins, channels or (), verifying, outcomes or ("impression", "click"))


@keys_app.command(name="list")
def list_(store: StoreUrl = DEFAULT_STORE) -> None:
    """List all keys there ever were, without their secrets."""
    from decision.clock import utc_now

    now = utc_now()
    table = Table("id", "name", "state", "may", "made", "until", "a minute")
    for key in run(_read(store)).keys:
        until = "" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}"
        limit = "" if key.limit is None else str(key.limit)
        made = f"{key.created_at:%Y-%m-%d} by {key.created_by}"
        table.add_row(key.id, key.name, key.refusal(now) or "works", _may(key), made, until, limit)
    console.print(table)


def _may(key: Key) -> str:
    """What a key may, by the name of the role that it is, if it is one."""
    from decision.access.scopes import ROLES, SCOPES

    if key.publishable is not None:
        return "browsers: " + " ".join(sorted(key.publishable.origins))
    roles = [role for role, scopes in ROLES.items() if scopes == key.scopes]
    return roles[0] if roles else " ".join(scope for scope in SCOPES if scope in key.scopes)


@keys_app.command()
def revoke(id: KeyId, store: StoreUrl = DEFAULT_STORE) -> None:
    """Have a key work no more, within two seconds, everywhere."""
    from decision.access.keys import revoked

    run(_act(store, lambda register: revoked(register.keys, id, actor())))
    console.print(f"[green]revoked[/green] {id}")


@keys_app.command()
def rotate(
    id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old one still works.")] = "24h",
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a new key like this one, which still works for a while."""
    from arbitration.catalog.scalars import duration
    from decision.access.keys import rotated
    from decision.clock import utc_now

    try:
        span = duration(overlap)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    made: list[Made] = []

    def make(register: Register) -> Sequence[Event]:
        new, events = rotated(register.keys, id, actor(), utc_now(), span)
        made[:] = [new]
        return events

    run(_act(store, make))
    _show(made[0], None)


def _until(text: str, now: datetime) -> datetime:
    from arbitration.catalog.scalars import duration

    try:
        return now + duration(text)
    except ValueError:
        return moment_of(text)


def _show(made: Made, signing: str | None) -> None:
    console.print(f"[green]made[/green] {made.id}; it is shown this once:", highlight=False)
    print(made.token)
    if signing is not None:
        console.print("The site signs visitor tokens with this; it is shown this once, too:")
        print(signing.strip())


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Register]:
    from decision.register import Register
    from decision.settings import opened

    async with opened(url) as store:
        register = Register(store)
        await register.refresh()
        yield register


async def _read(url: str) -> Register:
    async with _opened(url) as register:
        return register


async def _act(url: str, make: Make) -> None:
    from decision.clock import utc_now

    async with _opened(url) as register:
        await register.act(make, utc_now())

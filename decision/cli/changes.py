"""Changes of the catalog on their way, and emergency stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from decision.cli.base import DEFAULT_STORE, CatalogPath, StoreUrl, T, actor, app, console, moment_of, run

if TYPE_CHECKING:
    from decision.diffing import PartDifference
    from decision.governance.changes import Change, Step
    from decision.governance.governing import Governing
    from decision.governance.halts import Halt

changes_app = typer.Typer(no_args_is_help=True, help="Draft, approve and publish changes of the catalog.")
app.add_typer(changes_app, name="changes")


def readable(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """A title, reason or comment, as the API takes it. Raises BadParameter."""
    from pydantic import TypeAdapter, ValidationError

    from decision.governance import messages

    kind: Any = messages.Title if parameter.name == "title" else messages.Text
    try:
        return None if value is None else TypeAdapter[str](kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        hidden = "it holds control characters, or some that change the direction of what follows"
        raise typer.BadParameter(hidden if "pattern" in fault["type"] else fault["msg"]) from None


ChangeId = Annotated[str, typer.Argument(help="The id of the change, as `list` shows it.")]
Why = Annotated[
    str, typer.Option(callback=readable, help="Why; it stays in the audit trail: no personal data.")
]
Title = Annotated[str, typer.Option(callback=readable, help="What changes, in a few words.")]
Version = Annotated[str, typer.Option(help="Of its document, as `show` tells it: what you have seen.")]
_SIGNS = {"+": "green", "-": "red", "~": "yellow"}


@asynccontextmanager
async def governing(url: str, *, existing: bool = False) -> AsyncIterator[Governing]:
    """Governance over the store at a URL, within the context."""
    from decision.clock import utc_now
    from decision.governance.governing import Governing
    from decision.live import Live
    from decision.register import Register
    from decision.settings import opened

    async with opened(url, existing=existing) as store:
        yield Governing(store, Live(store), Register(store), utc_now, serving=False)


def show_differences(parts: Sequence[PartDifference]) -> None:
    """Writes what differs, for people."""
    for part in parts:
        for line in part.lines:
            style = _SIGNS.get(line[0])
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    if not parts:
        console.print("no difference")


@app.command()
def halt(
    scope: Annotated[str, typer.Argument(help="action, group or channel.")],
    target: Annotated[str, typer.Argument(help="Its id.")],
    why: Why,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Show nothing of an action, group or channel to anybody, within two seconds, until it is resumed."""
    from decision.governance.halts import SCOPES

    known = [each for each in SCOPES if each == scope]
    if not known:
        raise typer.BadParameter(f"there are {', '.join(SCOPES)}")
    begun = run(_with(store, lambda each: each.halt(actor(), known[0], target, why)))
    console.print(f"[red]halted[/red] {scope} {target}; to end: decision resume {begun.id}", soft_wrap=True)


@app.command()
def resume(
    id: Annotated[str, typer.Argument(help="The id of the halt, as `halts` shows it.")],
    why: Why,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """End an emergency stop."""
    run(_with(store, lambda each: each.resume(actor(), id, why)))
    console.print("[green]resumed[/green]")


@app.command()
def halts(store: StoreUrl = DEFAULT_STORE) -> None:
    """List the emergency stops in force."""
    table = Table(Column("id", no_wrap=True), "scope", "target", "since", "by", "why")
    found: tuple[Halt, ...] = run(_with(store, lambda each: each.halts()))
    for each in found:
        begun = f"{each.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(*_cells(each.id, each.scope, each.target, begun, each.by, each.why))
    console.print(table)


@changes_app.command(name="list")
def list_(store: StoreUrl = DEFAULT_STORE) -> None:
    """List the changes there ever were, the newest first."""
    table = Table(Column("id", no_wrap=True), "title", "state", "version", "authors", "approved by")
    found: list[Change] = run(_with(store, lambda each: each.changes()))
    for each in found:
        approved = "" if each.approval is None else each.approval.by
        authors = ", ".join(each.authors)
        table.add_row(*_cells(each.id, each.title, each.state, each.version, authors, approved))
    console.print(table)


@changes_app.command()
def show(id: ChangeId, store: StoreUrl = DEFAULT_STORE) -> None:
    """Show a change: its steps, its comments, and what it would change now."""
    run(_with(store, lambda each: _show(each, id)))


@changes_app.command()
def draft(path: CatalogPath, title: Title, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Begin a change with the catalog at PATH."""
    _told(run(_with(store, lambda each: each.draft(actor(), _document(path), title, why))))


@changes_app.command()
def edit(id: ChangeId, path: CatalogPath, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Give a change the catalog at PATH; an approval it had is void."""
    _told(run(_with(store, lambda each: each.edit(actor(), id, _document(path), why))))


@changes_app.command()
def submit(id: ChangeId, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Ask for an approval."""
    _take(store, id, "submit", why)


@changes_app.command()
def approve(id: ChangeId, version: Version, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Approve the document of a change."""
    _take(store, id, "approve", why, version)


@changes_app.command()
def reject(id: ChangeId, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Say no to a change."""
    _take(store, id, "reject", why)


@changes_app.command()
def comment(
    id: ChangeId, text: Annotated[str, typer.Argument(callback=readable)], store: StoreUrl = DEFAULT_STORE
) -> None:
    """Add a remark."""
    _take(store, id, "comment", text)


@changes_app.command()
def withdraw(id: ChangeId, why: Why, store: StoreUrl = DEFAULT_STORE) -> None:
    """Give a change up."""
    _take(store, id, "withdraw", why)


@changes_app.command()
def publish(
    id: ChangeId,
    version: Version,
    why: Why,
    at: Annotated[str | None, typer.Option(help="A date or an RFC 3339 time [default: now].")] = None,
    until: Annotated[str | None, typer.Option(help="When what was live before is put back.")] = None,
    store: StoreUrl = DEFAULT_STORE,
) -> None:
    """Make a change live, now or at a time. What is planned is carried out by the running service."""
    begin, end = (None if text is None else moment_of(text) for text in (at, until))
    _told(run(_with(store, lambda each: each.publish(actor(), id, version, why, begin, end))))


def _document(path: Any) -> dict[str, Any]:
    import orjson

    from decision.publishing import check_path

    found: dict[str, Any] = orjson.loads(check_path(path)[1])
    return found


def _take(store: str, id: str, step: Step, why: str, version: str | None = None) -> None:
    _told(run(_with(store, lambda each: each.take(actor(), id, step, why, version))))


async def _with(url: str, do: Callable[[Governing], Awaitable[T]]) -> T:
    async with governing(url, existing=True) as each:
        return await do(each)


async def _show(each: Governing, id: str) -> None:
    change = await each.change(id)
    _told(change)
    for note in change.history:
        said = str(note.detail.get("why") or note.detail.get("message") or "")
        _write(f"{note.at:%Y-%m-%d %H:%M:%S}  {note.step:9} {note.by}  {said}")
    for warning in change.warnings(await each.live_version()):
        _write(warning, "yellow")
    show_differences((await each.effect(change))[1])


def _told(change: Change) -> None:
    _write(f"{change.id}  {change.state}  {change.version}  {change.title}")


def _write(line: str, style: str | None = None) -> None:
    from decision.diffing import shown

    console.print(shown(line), style=style, markup=False, highlight=False, soft_wrap=True)


def _cells(*texts: str) -> list[Text]:
    from decision.diffing import shown

    return [Text(shown(text)) for text in texts]

"""Judge on the log what is not released yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decision.cli.base import DEFAULT_STORE, CatalogPath, StoreUrl, actor, app, console, moment_of, run

if TYPE_CHECKING:
    from decision.publishing import Published
    from decision.whatif.report import Report
    from decision.whatif.running import Options


EstimatorName = Literal["ips", "snips", "dm", "dr", "sndr", "switch_dr", "dros"]

Since = Annotated[
    datetime | None, typer.Option(parser=moment_of, metavar="TIME", help="A date, or RFC 3339; inclusive.")
]
Until = Annotated[
    datetime | None, typer.Option(parser=moment_of, metavar="TIME", help="A date, or RFC 3339; exclusive.")
]
Limit = Annotated[int | None, typer.Option(help="The first so many decisions.", min=1)]
Json = Annotated[Path | None, typer.Option("--json", help="Write all of it into this file.", dir_okay=False)]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with plots.", dir_okay=False)]
Examples = Annotated[int, typer.Option(help="How many decisions that change to show.", min=0, max=100)]
Estimating = Annotated[EstimatorName, typer.Option(help="How values are estimated.")]


@app.command()
def whatif(
    path: CatalogPath,
    store: StoreUrl = DEFAULT_STORE,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = None,
    html: Html = None,
    examples: Examples = 5,
    estimator: Estimating = "dr",
) -> None:
    """What another catalog would have done with the decisions of the log, and what it would have brought."""
    from decision.publishing import check_path

    _writable(json, html)
    candidate = check_path(path)[0]
    with _progress() as progress:
        report = run(_whatif(store, candidate, _options(since, until, limit, examples, estimator), progress))
    _write(report, json, html)


@app.command()
def evaluate(
    store: StoreUrl = DEFAULT_STORE,
    policy: Annotated[list[str] | None, typer.Option(help="Only this policy; may be repeated.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    json: Json = None,
    html: Html = None,
    estimator: Estimating = "dr",
) -> None:
    """What each policy of the live catalog would have brought if it had decided for everybody."""
    _writable(json, html)
    options = _options(since, until, limit, 0, estimator)
    with _progress() as progress:
        report = run(_evaluate(store, policy or [], options, progress))
    _write(report, json, html)


async def _whatif(
    url: str, candidate: Published, options: Options, progress: Callable[[int, int], None]
) -> Report:
    from decision.fairness.verdicts import verdict
    from decision.register import Register
    from decision.settings import opened
    from decision.whatif.running import whatif as judge

    async with opened(url, existing=True) as store:
        report = await judge(store, candidate, options, progress)
        if report.bounds:  # what was found stands in the way of publishing what violates them
            narrowed = (options.since, options.until, options.limit) != (None, None, None)
            event = verdict(report, actor(), narrowed=narrowed)
            await Register(store).act(lambda _: [event], options.now)
            if narrowed:
                console.print("On a part of the log: no bound that was found violated is lifted by this.")
        return report


async def _evaluate(
    url: str, policies: list[str], options: Options, progress: Callable[[int, int], None]
) -> Report:
    from decision.settings import opened
    from decision.whatif.running import evaluate as judge

    async with opened(url, existing=True) as store:
        return await judge(store, options, policies, progress)


def _options(
    since: datetime | None, until: datetime | None, limit: int | None, examples: int, estimator: EstimatorName
) -> Options:
    from decision.clock import utc_now
    from decision.settings import signing_key
    from decision.whatif.running import Options

    return Options(
        now=utc_now(),
        since=since,
        until=until,
        limit=limit,
        examples=examples,
        estimator=estimator,
        signing_key=signing_key(),
    )


def _writable(*files: Path | None) -> None:
    """Before anything is worked out that could then not be kept."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise typer.BadParameter(f"{file} cannot be written there")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("decisions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("decisions", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _write(report: Report, json: Path | None, html: Path | None) -> None:
    from decision.whatif.page import page
    from decision.whatif.screen import show

    show(report, console)
    if json is not None:
        json.write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))
    if html is not None:
        html.write_text(page(report), encoding="utf-8")

"""What all commands share: the application, the console, and the options that mean the same everywhere."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from decision.logs import FORMAT

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
complaints = Console(stderr=True)

CatalogPath = Annotated[Path, typer.Argument(help="A directory of YAML files, or one document.")]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="DECISION_STORE",
        help="Where everything is kept: sqlite:PATH or postgresql://USER@HOST/DATABASE",
    ),
]
Interval = Annotated[float, typer.Option(help="Seconds between two rounds of learning.", min=0.05)]
LogFormat = Annotated[Literal["text", "json"], typer.Option(envvar=FORMAT, help="How log lines are written.")]
DEFAULT_STORE = "sqlite:decision.db"


def moment_of(text: str) -> datetime:
    """A date or an RFC 3339 time that was given as an option."""
    from arbitration.catalog.scalars import moment

    try:
        return moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def actor() -> str:
    """Who uses the command line, for the audit trail: the account, as the system knows it."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of asynchronous work."""
    return asyncio.run(work)

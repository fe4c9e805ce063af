"""Let policies learn side by side from a logged data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decision.cli.base import app, console

LogFile = Annotated[Path, typer.Argument(help="CSV (.gz too) or Parquet.", exists=True, dir_okay=False)]
Yaml = Annotated[
    Path, typer.Option(help="Features and policies, as in a catalog.", exists=True, dir_okay=False)
]


@app.command()
def bakeoff(
    data: LogFile,
    policies: Yaml,
    arm: Annotated[str, typer.Option(help="The column of what was shown.")],
    reward: Annotated[str, typer.Option(help="The column of what it brought, 0 or more.")],
    probability: Annotated[
        str | None, typer.Option(help="The column of its probability [default: arms randomised by share].")
    ] = None,
    runs: Annotated[int, typer.Option(help="How often the log is shuffled and replayed.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Of shuffles and draws.", min=0)] = 0,
    refresh: Annotated[int, typer.Option(help="Counted events between two updates.", min=1)] = 500,
    limit: Annotated[int | None, typer.Option(help="Only so many rows, picked at random.", min=2)] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Let policies learn side by side from a logged data set, and compare what they bring."""
    from decision.bakeoff.contest import Options, run

    run(Options(data, policies, arm, reward, probability, runs, seed, refresh, limit, html, json), console)

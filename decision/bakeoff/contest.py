"""Runs a bake-off from the command line: reads, replays, prints, and keeps what was asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decision.bakeoff.entrants import contexts, read_entrants
from decision.bakeoff.log import Ints, read_log, refused
from decision.bakeoff.rejection import replay
from decision.bakeoff.scoreboard import Report, page, table
from decision.bakeoff.standing import references, standings


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for; `decision bakeoff --help` says what each is."""

    data: Path
    policies: Path
    arm: str
    reward: str
    probability: str | None = None
    runs: int = 5
    seed: int = 0
    refresh: int = 500
    limit: int | None = None
    html: Path | None = None
    json: Path | None = None


def run(options: Options, console: Console) -> Report:
    """The whole bake-off. Raises Rejected for a log, and CatalogError for policies, that cannot be used."""
    for target in (options.html, options.json):  # not found out after minutes of work
        if target is not None and not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
            raise refused(str(target), "cannot be written there")
    log = read_log(
        options.data, options.arm, options.reward, options.probability, options.limit, options.seed
    )
    expected = len(log) * float(log.probability.min())
    if expected < options.refresh:
        message = (
            f"about {expected:,.0f} of {len(log):,} events would count, fewer than one refresh "
            f"({options.refresh}): the least probability that was logged is {log.probability.min():.2g}"
        )
        raise refused(options.probability or options.arm, message)
    policies, features = read_entrants(options.policies, list(log.columns))
    x = contexts(policies, features, log.columns, len(log))
    learned = log.reward / max(1.0, float(log.reward.max()))
    counted: dict[str, list[Ints]] = {policy.id: [] for policy in policies}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replaying", total=options.runs * len(policies) * len(log))
        for number in range(options.runs):
            rng = np.random.default_rng([options.seed, 2, number])
            order, luck = rng.permutation(len(log)), rng.random(len(log))
            for policy in policies:
                progress.update(task, description=f"run {number + 1}, {policy.id}")
                rows = replay(
                    policy,
                    log,
                    x[policy.id],
                    learned,
                    order,
                    luck,
                    options.refresh,
                    lambda done: progress.advance(task, done),
                )
                if len(rows) < 2:
                    raise refused(options.arm, f"next to no event counted for '{policy.id}'")
                counted[policy.id].append(rows)
    horizon, found = standings(log, counted)
    report = Report(
        data=options.data.name,
        rows=len(log),
        arms=log.arms,
        reward=options.reward,
        probability=options.probability,
        runs=options.runs,
        seed=options.seed,
        refresh=options.refresh,
        events=horizon,
        policies=tuple(found),
        references=references(log),
    )
    console.print(table(report))
    for target, content in ((options.html, page(report).encode()), (options.json, orjson.dumps(report))):
        if target is not None:
            target.write_bytes(content)
            console.print(f"written: {target}", highlight=False)
    return report

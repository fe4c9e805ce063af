"""How fast it is, and how fast others do the same: the engine, rules, bandits, HTTP, growth, batches.

    python -W ignore -m benchmarks.speed [PART ...] [--smoke] [--write]

Prints a report in markdown; `--write` also keeps it in `benchmarks/results/speed.md`. `--smoke` only shows
that it works: its figures mean nothing, and are never kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.speed.report import RESULT, Section, Tick, keep, markdown

PARTS = ("engine", "rules", "bandit", "http", "scale", "batch")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, a minute in all")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    if options.smoke and options.write:
        parser.error("what a smoke run measures is not worth keeping")
    # Before numpy is imported by a part: one core is measured.
    os.environ["OMP_NUM_THREADS"] = "1"
    for part in options.parts or PARTS:
        began = perf_counter()
        text = markdown(part, run(part, smoke=options.smoke))
        sys.stdout.write(f"\n{text}")
        sys.stdout.flush()
        if options.write:
            keep({part: text}, PARTS)
        Console(stderr=True).print(f"{part}: {perf_counter() - began:.0f} s")
    if options.write:
        Console(stderr=True).print(f"kept in {RESULT.name}")


def run(part: str, *, smoke: bool) -> Section:
    """What one part finds: the module of its name has `run(smoke, progress)`."""
    found: Section
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as shown:

        def progress(what: str, steps: int) -> Tick:
            task = shown.add_task(f"{part}: {what}", total=steps)
            return lambda: shown.advance(task)

        found = import_module(f"benchmarks.speed.{part}").run(smoke, progress)
    return found


if __name__ == "__main__":
    main()

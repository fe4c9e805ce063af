"""Ten minutes of steady load on the whole service: does memory grow, do descriptors leak, does it get slower?

    python benchmarks/soak.py [--write] [--minutes 10] [--rate 120] [--store postgres|sqlite]

`decision serve --workers 2` and its learner; requests of many kinds arrive at a fixed rate whatever the
answers do (open loop), and what each takes counts from the moment it was meant to be sent. What the processes
hold is looked at every 5 s. Prints tables; `--write` also keeps them in `benchmarks/results/soak.md`, or
`soak_sqlite.md`, with a picture beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median

import uvloop
from rich.progress import Progress, TextColumn
from scipy.stats import theilslopes
from soak_load import CALLS_PER_CONNECTION, MIX, PUBLISH_EVERY, PUBLISHED_BEFORE, Load
from soak_looks import EVERY, Held, Looks, look
from stage import Cluster, Service, file_system, paragraph, prepare, settings_of
from storage import RESULTS, busy, keep, machine, quantile

from decision.charts import Series, line_chart

CUSTOMERS = 5_000
WARM_SHARE = 0.2


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second")
    parser.add_argument("--store", choices=["postgres", "sqlite"], default="postgres")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as directory, ExitStack() as stack:
        report, picture = uvloop.run(
            measure(stack, Path(directory), options.store, 60 * options.minutes, options.rate)
        )
    name = "soak" if options.store == "postgres" else "soak_sqlite"
    if options.write:
        (RESULTS / f"{name}.svg").write_text(picture, encoding="utf-8")
    keep(report.replace("soak.svg", f"{name}.svg"), f"{name}.md", write=options.write)


async def measure(
    stack: ExitStack, directory: Path, store: str, seconds: float, rate: float
) -> tuple[str, str]:
    """The report as markdown, and its picture as SVG."""
    before = busy()
    place: Cluster | Path = directory / "store.db"
    url = f"sqlite:{place}"
    kept = "SQLite: synchronous FULL"
    if store == "postgres":
        place = Cluster(directory)
        stack.callback(place.kill)
        await place.run("CREATE DATABASE bench")
        url = place.url("bench")
        kept = await settings_of(place, "bench")
    catalog = await prepare(url, CUSTOMERS)
    service = Service(url, directory / "log", "--workers", "2")
    stack.callback(service.end)
    await asyncio.to_thread(service.wait_until_ready)
    await asyncio.sleep(5.0)  # the second worker, the learner
    load = Load(service, catalog, CUSTOMERS)
    looks = Looks()
    with Progress(
        *Progress.get_default_columns(), TextColumn("{task.fields[said]}"), transient=True
    ) as progress:
        shown = progress.add_task("soak", total=seconds, said="")
        looking = asyncio.create_task(
            look(
                looks, load, service, place, lambda at, said: progress.update(shown, completed=at, said=said)
            )
        )
        publishing = asyncio.create_task(load.publish(seconds * WARM_SHARE))
        await load.run(seconds, rate)
        for task in (looking, publishing):
            task.cancel()
        await asyncio.gather(looking, publishing, return_exceptions=True)
    said = [line for line in service.said().splitlines() if " ERROR " in line or "Traceback" in line]
    facts = [f"{machine()}, asyncpg {version('asyncpg')}, uvicorn {version('uvicorn')}", before]
    facts.append(f"{kept}; on {file_system(directory)}")
    return _report(looks, load, said, facts, seconds, rate), _picture(looks)


def _report(
    looks: Looks, load: Load, said: Sequence[str], facts: Sequence[str], seconds: float, rate: float
) -> str:
    warm = seconds * WARM_SHARE
    third = (seconds - warm) / 3
    return "\n".join(
        [
            "# Soak",
            "",
            paragraph(
                f"""
                `decision serve --workers 2` with its learner, `examples/telco`, {CUSTOMERS:,} simulated
                customers, {seconds / 60:.0f} minutes. Open loop: {rate:.0f} requests a second on the
                average, Poisson arrivals, latency from the intended start; {_mix()}; `/metrics` every
                {EVERY:.0f} s, another catalog every {PUBLISH_EVERY:.0f} s; a connection is closed after
                {CALLS_PER_CONNECTION} requests ({load.opened} were opened). The machine was
                {median(looks.busy):.0f}% busy at the median, callers and database included, of which
                others had {median(looks.others):.0f}%. What is judged is what came after the first
                {warm:.0f} s, in which {PUBLISHED_BEFORE} catalogs were published: more than a process
                remembers.
                """
            ),
            "",
            *_verdicts(looks, load, said, warm, third),
            "",
            "![memory over time](soak.svg)",
            "",
            "| process | resident MB after warming up | at the end | slope MB/hour (95%)"
            " | descriptors, first to last third (most) | threads |",
            "|---|---|---|---|---|---|",
            *(_held_row(name, held, looks.at, warm) for name, held in looks.held.items()),
            "",
            "| requests | count | p50 ms | p99 ms | max ms | p99 of the first third | of the last |",
            "|---|---|---|---|---|---|---|",
            *(_took_row(kind, took, warm, third) for kind, took in load.took.items()),
            "",
            "| | first look | after warming up | last look |",
            "|---|---|---|---|",
            *(_line(name, looks.rows[name], looks.at, warm, ",.0f") for name in sorted(looks.rows)),
            _line("database, MB", looks.size, looks.at, warm, ",.0f"),
            _line("connections to the database", looks.connections, looks.at, warm, ".0f"),
            _line("learner lag, s", looks.lag, looks.at, warm, ".1f"),
            "",
            *[f"- {fact}" for fact in facts],
            f"- learner lag (0: it had read everything when it looked last): median"
            f" {median(looks.lag):.1f} s, at most {max(looks.lag):.1f} s",
            "- slopes are Theil and Sen's; their intervals take each look as one of its own, which memory"
            " that grows in steps is not",
            "- PostgreSQL: memory that its processes do not share, rows as its statistics have them",
            "",
            "Repeat: `python benchmarks/soak.py --write`.",
            "",
        ]
    )


def _mix() -> str:
    whole = sum(MIX.values())
    return ", ".join(f"{share / whole:.0%} {kind}" for kind, share in MIX.items())


def _verdicts(looks: Looks, load: Load, said: Sequence[str], warm: float, third: float) -> list[str]:
    """Memory: grows by less than 1% of itself in the time judged, or not for certain. Descriptors: no more at
    the end than at the beginning. p99: of the last third at most a quarter more than of the first."""
    lines = []
    for name, held in looks.held.items():
        if name.startswith("PostgreSQL"):
            continue
        slope, low, _ = _slope(looks.at, held.memory, warm)
        flat = low <= 0 or slope * 3 * third / 3600 < 0.01 * held.memory[-1]
        lines.append(f"- memory of {name}: {'flat' if flat else '**grows**'} ({slope:+.1f} MB/hour)")
        first, last = _thirds(looks.at, held.descriptors, warm)
        same = max(last) <= max(first) + 2
        lines.append(f"- descriptors of {name}: {'flat' if same else '**grow**'} ({max(first)}, {max(last)})")
    decided = [pair for kind in ("decide", "defer") for pair in load.took[kind]]
    first, last = (_p99(decided, warm + n * third, third) for n in (0, 2))
    stable = last <= 1.25 * first
    lines.append(
        f"- p99 of decisions: {'stable' if stable else '**rises**'} ({first:.1f} ms in the first third,"
        f" {last:.1f} ms in the last)"
    )
    wrong = ", ".join(f"{count} times {what}" for what, count in load.wrong.most_common(5))
    lines.append(f"- errors: {load.wrong.total()}{f' (**{wrong}**)' if wrong else ''}")
    lines.append(f"- errors in the log: {len(said)}{f' (first: `{said[0]}`)' if said else ''}")
    return lines


def _slope(at: Sequence[float], values: Sequence[float], warm: float) -> tuple[float, float, float]:
    """Per hour, with its 95% interval."""
    pairs = [(x, y) for x, y in zip(at, values, strict=False) if x > warm]
    slope, _, low, high = theilslopes([y for _, y in pairs], [x / 3600 for x, _ in pairs], 0.95)
    return float(slope), float(low), float(high)


def _thirds(at: Sequence[float], values: Sequence[int], warm: float) -> tuple[list[int], list[int]]:
    judged = [y for x, y in zip(at, values, strict=False) if x > warm]
    part = max(1, len(judged) // 3)
    return judged[:part], judged[-part:]


def _p99(took: Sequence[tuple[float, float]], since: float, seconds: float) -> float:
    found = [value for at, value in took if since <= at < since + seconds]
    return 1e3 * quantile(found, 0.99) if found else float("nan")


def _held_row(name: str, held: Held, at: Sequence[float], warm: float) -> str:
    slope, low, high = _slope(at, held.memory, warm)
    first, last = _thirds(at, held.descriptors, warm)
    start = next(y for x, y in zip(at, held.memory, strict=False) if x > warm)
    return (
        f"| {name} | {start:.1f} | {held.memory[-1]:.1f} | {slope:+.1f} ({low:+.1f} to {high:+.1f})"
        f" | {median(first):.0f} ({max(first)}) to {median(last):.0f} ({max(last)})"
        f" | {min(held.threads)} to {max(held.threads)} |"
    )


def _took_row(kind: str, took: Sequence[tuple[float, float]], warm: float, third: float) -> str:
    judged = [1e3 * value for at, value in took if at > warm]
    if not judged:
        return f"| {kind} | 0 | | | | | |"
    return (
        f"| {kind} | {len(judged):,} | {quantile(judged, 0.5):.1f} | {quantile(judged, 0.99):.1f}"
        f" | {max(judged):.1f} | {_p99(took, warm, third):.1f} | {_p99(took, warm + 2 * third, third):.1f} |"
    )


def _line(title: str, values: Sequence[float], at: Sequence[float], warm: float, form: str) -> str:
    middle = next((y for x, y in zip(at, values, strict=False) if x > warm), values[-1])
    return f"| {title} | {values[0]:{form}} | {middle:{form}} | {values[-1]:{form}} |"


def _picture(looks: Looks) -> str:
    minutes = [at / 60 for at in looks.at]
    series = [Series(name, minutes, held.memory) for name, held in looks.held.items()]
    series.append(Series("p99 of 5 s, in ms", minutes, looks.slowest))
    return line_chart(
        "Memory of each process, and the slowest requests",
        series,
        x_label="minutes",
        y_label="MB, ms",
        zero=True,
    )


if __name__ == "__main__":
    main()

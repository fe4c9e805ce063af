"""What a part of the suite found, and how it is written down: one file, a section for each part.

A section of a part that was not run again is kept as it is, with the machine that it says it was measured on.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

RESULT = Path(__file__).parents[1] / "results" / "speed.md"
LIBRARIES = (
    "numpy",
    "scipy",
    "pydantic",
    "fastapi",
    "uvicorn",
    "cel-expr-python",
    "zen-engine",
    "mabwiser",
    "vowpalwabbit",
)
_SECTION = re.compile(r"(?ms)^<!-- part: (\w+) -->$.*?(?=^<!-- part|\Z)")

Cell = str | int | float
Tick = Callable[[], object]


class Progress(Protocol):
    """Told how far a part is."""

    def __call__(self, what: str, steps: int) -> Tick:
        """Begins something of so many steps; what it returns is called after each."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head. A float is a measured figure, shown with three digits."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Target:
    """What a figure should reach: at most `bound`, or at least, where `least`."""

    what: str
    figure: float
    bound: float
    unit: str
    least: bool = False

    @property
    def reached(self) -> bool:
        return self.figure >= self.bound if self.least else self.figure <= self.bound


@dataclass(frozen=True)
class Section:
    """What one part found. `load`: what was done how often, in words; `notes`: how to read it."""

    title: str
    load: str
    tables: Sequence[Table]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def figure(value: float) -> str:
    """Three digits: 0.123, 1.23, 12.3, 123, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def markdown(part: str, section: Section) -> str:
    """A section as it is kept."""
    return "\n".join(_lines(part, section))


def _lines(part: str, section: Section) -> Iterator[str]:
    yield from (f"<!-- part: {part} -->", f"## {section.title}", "", " ".join(section.load.split()), "")
    for table in section.tables:
        if table.title:
            yield from (f"**{table.title}**", "")
        yield f"| {' | '.join(table.head)} |"
        yield "|" + "---|" * len(table.head)
        for row in table.rows:
            yield f"| {' | '.join(figure(c) if isinstance(c, float) else str(c) for c in row)} |"
        yield ""
    if section.targets:
        yield from ("| to reach | | measured | |", "|---|---|---|---|")
        for target in section.targets:
            sign = "≥" if target.least else "≤"
            unit = target.unit if target.unit in ("×", "%", "/s") else f" {target.unit}"
            verdict = "reached" if target.reached else "**not reached**"
            wanted, measured = f"{sign} {target.bound:,g}{unit}", f"{figure(target.figure)}{unit}"
            yield f"| {target.what} | {wanted} | {measured} | {verdict} |"
        yield ""
    for note in section.notes:
        yield f"- {' '.join(note.split())}"
    yield from (f"- {machine()}", "")


def machine() -> str:
    """The machine, and when."""
    info = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {_caches()}; {platform.system()}"
        f" {platform.release().split('-')[0]}; Python {platform.python_version()}, {_versions()};"
        f" BLAS threads {os.environ.get('OMP_NUM_THREADS', 'not set')}; {datetime.now(UTC):%Y-%m-%d}"
    )


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "caches not known"


def _versions() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def keep(sections: dict[str, str], order: Sequence[str], file: Path = RESULT) -> None:
    """Writes the sections into the file, those it has of other parts being kept."""
    text = file.read_text("utf-8") if file.exists() else ""
    found = {match[1]: match[0] for match in _SECTION.finditer(text)} | sections
    bodies = "\n".join(found[part].strip() + "\n" for part in order if part in found)
    file.write_text(f"{HEAD}\n{bodies}", "utf-8")


HEAD = """# Speed

Made by `make bench`, which runs all parts one after the other on an otherwise idle machine; what is compared
within a table was measured by turns in one run. How to read it: docs/performance.md. Times are medians and
p99 of wall-clock time in µs, unless they say otherwise; garbage is collected between measurements.
"""

"""What the demo shows: a live screen in a terminal, one plain line now and then anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from decision.demo.learning import Learning
from decision.demo.tally import RECENT, REFERENCE, Sums, Tally, total
from decision.demo.visitors import SLOW_AFTER, SLOW_RATE

FRAMES_A_SECOND = 4
_LINE_EVERY = 2.0
_CHART_ROWS = 8
_CHART_COLUMNS = 60
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_TOP = 4


class Screen:
    """Draws a tally and the learner's progress. `title`: what is running, and where."""

    def __init__(self, console: Console, tally: Tally, learning: Learning, title: str, currency: str) -> None:
        self._console = console
        self._tally = tally
        self._learning = learning
        self._title = title
        self._currency = currency
        self._next_line = time.monotonic() + _LINE_EVERY
        self._live = Live(
            console=console, auto_refresh=False, get_renderable=self.render, vertical_overflow="ellipsis"
        )

    def start(self) -> None:
        """Begins to show."""
        if self._console.is_terminal:
            self._live.start()

    def refresh(self) -> None:
        """Shows how things stand; to be called `FRAMES_A_SECOND` times a second."""
        if self._console.is_terminal:
            self._live.refresh()
        elif time.monotonic() >= self._next_line:
            self._next_line += _LINE_EVERY
            say(self._console, self.line())

    def stop(self) -> None:
        """Leaves the last picture standing."""
        self._live.stop()

    def line(self) -> str:
        """How things stand, in one line."""
        tally, lately, reference = self._tally, self._tally.last(RECENT), self._tally.last(REFERENCE)
        achieved, random = lately.per_100[0], reference.per_100[1]
        return (
            f"{time.monotonic() - tally.started:5.0f} s  {tally.visits:,} decisions, {tally.rate():.0f}/s  "
            f"accepted {lately.acceptance:.1%} of the last {lately.items:,.0f} "
            f"(random {reference.random_acceptance:.1%}, best possible {reference.best_acceptance:.1%})  "
            f"{self._currency} {achieved:,.0f} per 100 shown (random {random:,.0f})  "
            f"p50 {tally.latency(0.5):.0f} ms, p99 {tally.latency(0.99):.0f} ms  {self._learning.sentence()}"
        )

    def summary(self) -> str:
        """The run in one line: where acceptance and worth ended, against random arms."""
        tally, tenth = self._tally, self._tally.whole.items / 10
        last, reference = tally.last(tenth), tally.last(max(tenth, REFERENCE))
        achieved, random = last.per_100[0], reference.per_100[1]
        times = _times(last.acceptance, reference.random_acceptance)
        return (
            f"Acceptance in the last tenth: {last.acceptance:.1%}, {times} the random baseline of "
            f"{reference.random_acceptance:.1%} (best possible {reference.best_acceptance:.1%}). "
            f"Worth per 100 shown: {self._currency} {achieved:,.0f}, {_times(achieved, random)} random. "
            f"{tally.visits:,} decisions, p50 {tally.latency(0.5):.0f} ms, p99 {tally.latency(0.99):.0f} ms."
        )

    def render(self) -> RenderableType:
        """The whole picture, at most 24 lines."""
        tally = self._tally
        slow = f", slowed down to {SLOW_RATE:.0f} visits a second" if tally.visits >= SLOW_AFTER else ""
        engine = (
            f"{tally.visits:,} decisions, {tally.rate():.0f} a second{slow}; "
            f"p50 {tally.latency(0.5):.0f} ms, p99 {tally.latency(0.99):.0f} ms"
        )
        return Panel(
            Group(
                Text("share of shown offers that were accepted, over the whole run", style="bold"),
                chart(tally.steps),
                Text(),
                self._numbers(),
                Text(),
                self._top(),
                Text(engine, style="dim"),
                Text(self._learning.sentence(), style="dim"),
                Text("what a customer accepted rests for them, so the best possible falls with time", "dim"),
            ),
            title=self._title,
            width=min(self._console.width, 100),
            border_style="blue",
        )

    def _numbers(self) -> Table:
        tally = self._tally
        lately, reference = tally.last(RECENT), tally.last(REFERENCE)
        table = Table.grid(padding=(0, 2))
        for _ in range(5):
            table.add_column(justify="right")
        table.columns[0].justify = "left"
        head = ("accepted", f"last {RECENT:,}", "whole run", "random arm", "best possible")
        table.add_row(*(Text(text, style="bold") for text in head))
        for channel in sorted(tally.by_channel):
            sums, recent = tally.by_channel[channel], tally.recent_by_channel[channel]
            table.add_row(f"  {channel}", *_row(sum(recent) / max(len(recent), 1), sums, sums))
        table.add_row("  all channels", *_row(lately.acceptance, tally.whole, reference))
        _, random, best = reference.per_100
        table.add_row(
            f"{self._currency} per 100 shown",
            Text(f"{lately.per_100[0]:,.0f}", style="bold green"),
            f"{tally.whole.per_100[0]:,.0f}",
            f"{random:,.0f}",
            f"{best:,.0f}",
        )
        return table

    def _top(self) -> Text:
        shown = Counter(treatment for treatment, _ in self._tally.recent)
        taken = Counter(treatment for treatment, yes in self._tally.recent if yes)
        best = ", ".join(
            f"{name} ({taken[name] / count:.0%} of {count})" for name, count in shown.most_common(_TOP)
        )
        return Text(f"shown most now: {best}", overflow="ellipsis", no_wrap=True)


def chart(steps: Sequence[Sums], rows: int = _CHART_ROWS, columns: int = _CHART_COLUMNS) -> Text:
    """Bars of acceptance over time. What is above a random arm's is green."""
    whole = total(list(steps))
    bars = _columns(steps, columns)
    top = 1.15 * max([whole.best_acceptance, *(bar.acceptance for bar in bars), 0.01])
    random_row = int(whole.random_acceptance / top * rows)
    best_row = int(whole.best_acceptance / top * rows)
    text = Text()
    for row in reversed(range(rows)):
        label = "0%" if row == 0 else ""
        if whole.sampled and row == best_row:
            label = f"{whole.best_acceptance:.0%} best possible"
        elif whole.sampled and row == random_row:
            label = f"{whole.random_acceptance:.0%} a random arm"
        for bar in bars:
            filled = round(8 * (bar.acceptance / top * rows - row))
            below = (row + 0.5) / rows * top < whole.random_acceptance
            if filled > 0:
                text.append(_EIGHTHS[min(filled, 8)], style="bright_black" if below else "green")
            elif whole.sampled and row in (best_row, random_row):
                text.append("┄", style="yellow" if row == best_row else "bright_black")
            else:
                text.append(" ")
        rest = columns - len(bars)
        ruled = whole.sampled and row in (best_row, random_row)
        text.append(("┄" if ruled else " ") * rest, style="yellow" if row == best_row else "bright_black")
        text.append(f" {label}" + ("\n" if row else ""), style="yellow" if row == best_row else "")
    return text


def say(console: Console, text: str) -> None:
    """Prints a line as it is, whatever its length: it can be copied as one."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _columns(steps: Sequence[Sums], columns: int) -> list[Sums]:
    """Neighbouring steps put together, so that there are no more than `columns`."""
    if len(steps) <= columns:
        return list(steps)
    edges = [round(number * len(steps) / columns) for number in range(columns + 1)]
    return [total(list(steps[a:b])) for a, b in pairwise(edges)]


def _row(recent: float, whole: Sums, reference: Sums) -> tuple[Text, str, str, str]:
    return (
        Text(f"{recent:.1%}", style="bold green"),
        f"{whole.acceptance:.1%}",
        f"{reference.random_acceptance:.1%}",
        f"{reference.best_acceptance:.1%}",
    )


def _times(achieved: float, baseline: float) -> str:
    return f"{achieved / baseline:.1f} ×" if baseline else "? ×"

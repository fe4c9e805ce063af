"""What a bake-off says: a table in the terminal, an HTML page, and (the report itself) JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from decision.bakeoff.standing import Estimate, References, Standing
from decision.charts import Row, Section, Series, html_page, interval_plot, line_chart, paragraph, short
from decision.charts import table as html_table

_MOST_ARMS = 12


@dataclass(frozen=True, slots=True)
class Report:
    """A bake-off: what was asked, over how many `events` the policies are compared, and how they stand."""

    data: str
    rows: int
    arms: tuple[str, ...]
    reward: str
    probability: str | None
    runs: int
    seed: int
    refresh: int
    events: int
    policies: tuple[Standing, ...]
    references: References

    @property
    def setting(self) -> str:
        """How it was done, in a sentence or two."""
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        known = (
            f"probabilities from '{self.probability}'"
            if self.probability is not None
            else "the arms taken to be randomised with their shares"
        )
        return (
            f"{self.rows:,} rows of {self.data}, {len(self.arms)} arms, {known}; {runs}, seed {self.seed}, "
            f"a refresh every {self.refresh:,} events. Compared over the first {self.events:,} events that "
            f"count for each policy."
        )


def table(report: Report) -> RenderableType:
    """For a terminal."""
    head, lines = _lines(report)
    grid = Table(title=f"{report.reward} per event", title_justify="left")
    for number, name in enumerate(head):
        grid.add_column(name, justify="right" if number else "left")
    for number, line in enumerate(lines):
        grid.add_row(*map(Text, line), style="" if number < len(report.policies) else "dim")
    return Group(grid, Text(f"{report.setting} Intervals are of 95%.", style="dim"))


def page(report: Report) -> str:
    """For a browser: one self-contained page."""
    name = report.reward
    reference = ("a random arm", report.references.uniform.value)
    over_customers = [Row(one.policy, one.reward.value, *one.reward.customers) for one in report.policies]
    over_customers += [Row(label, one.value, *one.customers) for label, one in _fixed(report)]
    means = [interval_plot(f"{name} per event, 95% over customers", over_customers, reference=reference)]
    if report.runs > 1:
        over_runs = [Row(one.policy, one.reward.value, *(one.reward.runs or ())) for one in report.policies]
        plot = interval_plot(f"{name} per event, 95% over runs", over_runs, reference=reference)
        means = [paragraph("Over customers:"), *means, paragraph("Over runs:"), plot]
    sections = [
        Section(
            "What was compared",
            [
                paragraph(report.setting),
                paragraph(
                    "Replay by rejection: an event counts, and is learned from, with the probability that "
                    "the policy would have chosen what the customer did get. Intervals are of 95%: over "
                    "runs, of the order of the log and the policies' draws; over customers, of who happened "
                    "to be in the log."
                ),
                html_table(*_lines(report)),
            ],
        ),
        Section(
            f"Cumulative {name}", [_chart(report, 0.0), paragraph("Above a random arm:"), _chart(report)]
        ),
        Section(f"{name} per event", means),
    ]
    if len(report.policies) > 1:
        heading = f"Gain on {report.policies[0].policy}, event for event"
        gains = [Row(one.policy, one.gain.value, *one.gain.customers) for one in report.policies[1:]]
        sections.append(Section(heading, [interval_plot(f"{heading}, 95% over customers", gains, zero=True)]))
    if len(report.arms) <= _MOST_ARMS:
        shares = [[one.policy, *(f"{share:.0%}" for share in one.shares)] for one in report.policies]
        sections.append(Section("Share of each arm", [html_table(["policy", *report.arms], shares)]))
    return html_page(f"Bake-off on {report.data}", sections)


def _chart(report: Report, less: float | None = None) -> str:
    """Cumulative reward, `less` so much per event (default: what a random arm brings)."""
    base = report.references.uniform.value if less is None else less

    def above(numbers: Sequence[float], events: Sequence[int]) -> list[float]:
        return [number - base * count for number, count in zip(numbers, events, strict=True)]

    lines = []
    for one in report.policies:
        n = one.curve.events
        band = above(one.curve.low, n), above(one.curve.high, n)
        lines.append(Series(one.policy, n, above(one.curve.reward, n), *band))
    ends = [0, report.events]
    lines += [Series(name, ends, [(one.value - base) * n for n in ends]) for name, one in _fixed(report)]
    label = f"cumulative {report.reward}{'' if base == 0 else ' above a random arm'}"
    return line_chart(
        f"{label}, by counted events",
        lines,
        desc="A line and its interval over customers per policy; fixed policies are straight.",
        x_label="events that counted",
        y_label=f"{label}, mean of the runs",
        zero=True,
    )


def _lines(report: Report) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table; of a single run there is no interval over runs."""
    first = report.policies[0].policy
    intervals = ["over runs", "over customers"] if report.runs > 1 else ["over customers"]
    head = ["policy", "mean", *intervals, f"gain on {first}", *intervals]
    nothing = [""] * (1 + len(intervals))
    lines = [
        [one.policy, *_cells(one.reward), *(nothing if one.policy == first else _cells(one.gain, "+"))]
        for one in report.policies
    ]
    return head, lines + [
        [name, *_cells(one, runs=report.runs > 1), *nothing] for name, one in _fixed(report)
    ]


def _fixed(report: Report) -> list[tuple[str, Estimate]]:
    found = report.references
    return [("a random arm", found.uniform), (f"always {found.best_arm} (best in hindsight)", found.best)]


def _cells(one: Estimate, sign: str = "", *, runs: bool = False) -> list[str]:
    """The value, its interval over runs (empty, where there is none but `runs`), and over customers."""

    def number(value: float) -> str:
        return ("+" if sign and value > 0 else "") + short(value)

    def interval(ends: tuple[float, float]) -> str:
        return f"{number(ends[0])} to {number(ends[1])}"

    over_runs = [interval(one.runs)] if one.runs is not None else [""] if runs else []
    return [number(one.value), *over_runs, interval(one.customers)]

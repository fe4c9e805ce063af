"""A what-if's report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from decision.fairness.bounds import BoundVerdict
from decision.whatif.report import Bounds, Figure, Report, Verdict

METRICS = {"reward": "acceptance (reward)", "value": "value", "money": "money reported"}


def show(report: Report, console: Console) -> None:
    """Prints it."""
    rate = report.judged / report.seconds if report.seconds else 0.0
    console.print(
        f"[bold]{report.judged:,}[/bold] of {report.read:,} decisions judged, {report.since or '-'} to"
        f" {report.until or '-'}; {rate:,.0f} a second",
        highlight=False,
    )
    for verdict in report.verdicts:
        if len(report.verdicts) > 1 or report.kind == "evaluate":
            console.print(
                f"\n[bold]{escape(verdict.name)}[/bold] {escape(verdict.description)}", highlight=False
            )
        _verdict(report, verdict, console)
    if report.bounds:
        table = Table(*BOUND_COLUMNS)
        for bound in report.bounds:
            table.add_row(*bound_row(bound), style="red" if bound.verdict == "violated" else None)
        console.print(table)
    for line in remarks(report):
        console.print(f"• {line}", markup=False, highlight=False)


def _verdict(report: Report, verdict: Verdict, console: Console) -> None:
    if not verdict.decisions:
        console.print("the log has no decision to judge by in this time")
        return
    table = Table("per decision", "", "today", "would be", f"difference ({report.confidence:.0%})")
    for figure in verdict.figures:
        table.add_row(METRICS[figure.metric], where(figure), *(said(each) for each in bounds(figure)))
    console.print(table)
    for line in refusals(verdict):
        console.print(f"[yellow]no figure:[/yellow] {escape(line)}", highlight=False)
    table = Table("decisions that change", "decisions", "share", "another first pick")
    for change in verdict.changes:
        table.add_row(
            change.channel or "all",
            f"{change.decisions:,}",
            f"{change.changed:.1%}",
            f"{change.other_pick:.1%}",
        )
    console.print(table)
    table = Table("items per 1,000 decisions", "today", "would be", "never in the log", "")
    for moved in verdict.groups:
        table.add_row(
            moved.name, *(f"{1000 * n:,.1f}" for n in (moved.today, moved.target, moved.unsupported))
        )
    table.add_section()
    for moved in verdict.moving:
        numbers = (f"{1000 * n:,.1f}" for n in (moved.today, moved.target, moved.unsupported))
        table.add_row(moved.name, *numbers, moved.note)
    console.print(table)
    table = Table("contacts per customer", "today", "would be", "decisions it holds arms back in", "arms")
    for moved in verdict.contacts:
        table.add_row(moved.name, f"{moved.today:.2f}", f"{moved.target:.2f}", "", "")
    table.add_section()
    for held in verdict.held:
        table.add_row(
            held.policy, *(f"{n:.2f}" for n in held.counted), arrow(*held.decisions), arrow(*held.arms)
        )
    console.print(table)
    for example in verdict.examples:
        console.print(f"[bold]{example.decision_id}[/bold] on {escape(example.channel)}", highlight=False)
        for label, chances in (("today", example.before), ("would be", example.after)):
            arms = ", ".join(f"{name} {chance:.1%}" for name, chance in chances.items())
            console.print(f"  {label}: {arms or 'nothing'}", markup=False, highlight=False)
        for name, why in example.why.items():
            console.print(f"  {name} {why}", markup=False, highlight=False, soft_wrap=True)


BOUND_COLUMNS = ("fairness bound", "lowest rate", "highest rate", "ratio", "today", "least", "verdict")


def bound_row(bound: BoundVerdict) -> tuple[str, ...]:
    """What is found of a fairness bound, by `BOUND_COLUMNS`."""
    on = bound.action or bound.group or "anything"
    name = f"{bound.id}: {bound.measure} of {on} by {bound.attribute}"
    ends = [
        f"{level} {rate:.1%}" if level is not None and rate is not None else ""
        for level, rate in ((bound.level, bound.rate), (bound.reference, bound.reference_rate))
    ]
    ratio = "" if bound.ratio is None else f"{bound.ratio:.3f} ({_end(bound.low)} to {_end(bound.high)})"
    verdict = bound.verdict.replace("_", " ")
    return (name, *ends, ratio, _end(bound.today), f"{bound.min_ratio:g}", verdict)


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def where(figure: Figure) -> str:
    """What a figure is of, in words."""
    return "all" if figure.of == "all" else f"{figure.of} {figure.name}"


def bounds(figure: Figure) -> tuple[Bounds, Bounds, Bounds]:
    """Its three figures, in order."""
    return figure.today, figure.target, figure.difference


def said(bounds: Bounds) -> str:
    """A figure with its interval, or that there is none."""
    if bounds.value is None or bounds.low is None or bounds.high is None:
        return "no figure"
    return f"{number(bounds.value)} ({number(bounds.low)} to {number(bounds.high)})"


def number(value: float) -> str:
    """Three or four digits."""
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"


def arrow(before: int, after: int) -> str:
    """Before and after."""
    return f"{before:,} → {after:,}"


def refusals(verdict: Verdict) -> Iterator[str]:
    """Why figures are refused, each reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for figure in verdict.figures:
        for bounds in (figure.target, figure.today, figure.difference):
            for warning in bounds.warnings:
                line = _refusal(warning["code"], warning["measured"], warning["bound"])
                metrics = found.setdefault((where(figure), line), [])
                if METRICS[figure.metric] not in metrics:
                    metrics.append(METRICS[figure.metric])
    for (of, line), metrics in found.items():
        yield f"{of} ({', '.join(metrics)}): {line}"


def _refusal(code: str, measured: float, bound: float) -> str:
    if code == "unsupported":
        return f"{measured:.1%} of what would be shown lies beyond the log, the bound is {bound:.1%}"
    return f"{code.replace('_', ' ')} is {measured:.3g}, the bound {bound:.3g}"


def remarks(report: Report) -> Iterator[str]:
    """What is to be known beside the figures."""
    yield from report.notes
    reasons = {
        "awaited": "as outcomes are still awaited from there on",
        "snapshot_gone": "whose snapshot cannot be read",
        "first_half": "that taught a policy",
    }
    for reason, count in report.left_out.items():
        yield f"{count:,} decisions left out {reasons[reason]}"
    for name, count in report.missing.items():
        yield f"{name} is not in the log: missing in {count:,} decisions, so rules on it remove their arms"
    for name, count in report.lacking.items():
        yield f"the placement {name} is not in the candidate: it shows nothing there in {count:,} decisions"
    for bound in report.bounds:
        if bound.verdict == "not_judged":
            lacking = bound.action or bound.group
            yield f"{bound.id}: a bound of the live catalog on {lacking}, which is gone: not judged"
        if bound.left_out:
            yield f"{bound.id}: not compared, too few customers: {', '.join(bound.left_out)}"
    if report.kind == "whatif":
        for policy, used in report.states.items():
            if set(used) == {"then"}:
                yield f"{policy}: in every decision what it had learned then"

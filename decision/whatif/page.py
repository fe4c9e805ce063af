"""A what-if's report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from decision.charts import Row, Section, bar_chart, html_page, interval_plot, paragraph, percent, table
from decision.whatif.report import Bounds, Report, Verdict
from decision.whatif.screen import (
    BOUND_COLUMNS,
    METRICS,
    arrow,
    bound_row,
    bounds,
    number,
    refusals,
    remarks,
    said,
    where,
)


def page(report: Report) -> str:
    """The page."""
    title = {"whatif": f"What if: {report.candidate}", "evaluate": "Policies, evaluated"}[report.kind]
    judged = f"{report.judged:,} of {report.read:,} decisions judged, {report.since} to {report.until}."
    method = (
        f"Intervals of {report.confidence:.0%}, estimator {report.estimator}, customers as the independent"
        " units. A figure is refused where the log says too little of what the candidate would do."
    )
    notes = [paragraph(line) for line in (judged, method, *remarks(report))]
    sections = [Section("What this is", notes)]
    if report.kind == "evaluate" and report.verdicts:
        sections.append(Section("All policies", list(_side_by_side(report))))
    for verdict in report.verdicts:
        sections += _sections(report, verdict)
    if report.bounds:
        rows = [bound_row(bound) for bound in report.bounds]
        sections.append(Section("fairness bounds", [table(BOUND_COLUMNS, rows)]))
    return html_page(title, sections)


def _side_by_side(report: Report) -> Iterator[str]:
    for metric in ("reward", "value"):
        rows = []
        for verdict in report.verdicts:
            for figure in verdict.figures:
                if (figure.metric, figure.of) == (metric, "all"):
                    rows.append(_row(verdict.name, figure.difference))
        yield interval_plot(f"{METRICS[metric]} per decision, less today's", rows, form=number, zero=True)


def _sections(report: Report, verdict: Verdict) -> Iterator[Section]:
    prefix = f"{verdict.name}: " if report.kind == "evaluate" else ""
    if not verdict.decisions:
        yield Section(f"{prefix}nothing to judge by", [paragraph(verdict.description)])
        return
    parts = [paragraph(verdict.description)] if report.kind == "evaluate" else []
    parts += [paragraph(f"No figure: {line}.") for line in refusals(verdict)]
    for metric in dict.fromkeys(figure.metric for figure in verdict.figures):
        chosen = [figure for figure in verdict.figures if figure.metric == metric]
        parts.append(
            interval_plot(
                f"{METRICS[metric]} per decision: would be, less today's",
                [_row(where(figure), figure.difference) for figure in chosen],
                form=number,
                zero=True,
            )
        )
    rows = [
        (METRICS[figure.metric], where(figure), *(said(each) for each in bounds(figure)))
        for figure in verdict.figures
    ]
    parts.append(table(("per decision", "of", "today", "would be", "difference"), rows))
    yield Section(f"{prefix}acceptance and value", parts)
    changes = [
        (each.channel or "all", f"{each.decisions:,}", percent(each.changed), percent(each.other_pick))
        for each in verdict.changes
    ]
    yield Section(
        f"{prefix}decisions that change",
        [
            table(("channel", "decisions", "share that change", "another first pick"), changes),
            *_examples(verdict),
        ],
    )
    yield Section(f"{prefix}what is shown", list(_shown(verdict)))
    contacts = [(each.name, number(each.today), number(each.target)) for each in verdict.contacts]
    held = [
        (each.policy, *(number(n) for n in each.counted), arrow(*each.decisions), arrow(*each.arms))
        for each in verdict.held
    ]
    yield Section(
        f"{prefix}contacts",
        [
            table(("contacts per customer", "today", "would be"), contacts),
            table(
                ("contact policy", "counts per customer, today", "would", "holds back in decisions", "arms"),
                held,
            ),
        ],
    )


def _shown(verdict: Verdict) -> Iterator[str]:
    head = ("items per 1,000 decisions", "today", "would be", "beyond the log", "")
    rows = [
        (each.name, *(number(1000 * n) for n in (each.today, each.target, each.unsupported)), each.note)
        for each in (
            *verdict.groups,
            *verdict.moving,
        )
    ]
    moves = [(each.name, 1000 * (each.target - each.today)) for each in verdict.groups]
    yield bar_chart("Items per 1,000 decisions, by group: would be, less today's", moves, form=number)
    yield table(head, rows)


def _examples(verdict: Verdict) -> Iterator[str]:
    for each in verdict.examples:
        arms = [
            ", ".join(f"{name} {percent(chance)}" for name, chance in chances.items()) or "nothing"
            for chances in (each.before, each.after)
        ]
        why = "; ".join(f"{name} {reason}" for name, reason in each.why.items())
        yield table(
            (each.decision_id, f"on {each.channel}"),
            [("today", arms[0]), ("would be", arms[1]), ("why", why)],
        )


def _row(label: str, figure: Bounds) -> Row:
    note = "" if figure.value is not None else "no figure"
    return Row(label, figure.value, figure.low, figure.high, note)

"""Small SVG charts as text, and the self-contained HTML page they go into.

No script, no font, no address: a page can be mailed, archived and opened anywhere. Ink is `currentColor`
and series colours are CSS variables with a fallback, so charts follow the page's light or dark scheme; each
series has a dash pattern too, so that nothing hangs on colour alone. Every text is escaped here, once:
callers pass plain text for labels, and only `Section.parts` are markup (what this module returns).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

Form = Callable[[float], str]
"""How a number is written."""

_WIDTH = 720
_ROW = 26
_LETTER = 6.7  # average width of a letter at 12 px
_LONGEST = 40  # letters of a label; the rest is in its tooltip
_LIGHT = ("#0068ad", "#c44e00", "#007a55", "#a8407f", "#8a6a00", "#5b4fc4", "#b3261e", "#4d5b66")
_DARK = ("#5cb3f2", "#ff9a52", "#3ecf9a", "#ee8fc9", "#e3bd4a", "#aaa1ff", "#ff8a80", "#aebbc6")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 4", "9 3 2 3 2 3")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an interval plot. A `point` of None draws no figure but `note` (why there is none)."""

    label: str
    point: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A named line over x: equal lengths, x ascending, finite; `low` and `high` are its band, if any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading (plain text) and what stands under it: markup from this module."""

    heading: str
    parts: Sequence[str]


def short(number: float) -> str:
    """Four digits: 0.1826, 1,284, 2.5e-06."""
    if number and (abs(number) < 1e-4 or abs(number) >= 1e7):
        return f"{number:.2e}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def percent(number: float) -> str:
    """0.1826 as 18.26%."""
    return f"{100 * number:.4g}%"


def interval_plot(
    title: str,
    rows: Sequence[Row],
    *,
    desc: str = "",
    form: Form = short,
    reference: tuple[str, float] | None = None,
    zero: bool = False,
) -> str:
    """Points with their intervals, one row each. `reference`: a labelled dashed line; `zero`: a line at 0."""
    drawn = [(row.point, row.low, row.high) for row in rows if row.point is not None]
    numbers = [number for row in drawn for number in row if number is not None]
    scale = _Scale(numbers + ([reference[1]] if reference else []) + ([0.0] if zero else []))
    figures = [_figure(row, form) for row in rows]
    left = _column([row.label for row in rows])
    right = _WIDTH - _column(figures)
    top, bottom = (32 if reference else 12), (32 if reference else 12) + _ROW * len(rows)
    body = [_x_axis(scale, left, right, top, bottom, form)]
    if zero:
        body.append(_vertical(scale.at(0.0, left, right), top, bottom, "stroke-opacity='.7'"))
    if reference:
        x = scale.at(reference[1], left, right)
        body.append(_vertical(x, top - 6, bottom, "stroke-dasharray='5 3' stroke-opacity='.8'"))
        body.append(_text(x, top - 11, f"{reference[0]} {form(reference[1])}", "middle"))
    for number, (row, figure) in enumerate(zip(rows, figures, strict=True)):
        y = top + _ROW * (number + 0.5)
        body += [_label(left - 10, y + 4, row.label), _label(right + 10, y + 4, figure, "start")]
        if row.point is None:
            continue
        if row.low is not None and row.high is not None:
            a, b = scale.at(row.low, left, right), scale.at(row.high, left, right)
            body.append(
                f"<path d='M{a:.1f} {y - 5}v10M{a:.1f} {y}H{b:.1f}M{b:.1f} {y - 5}v10' {_stroke(0)}/>"
            )
        body.append(
            f"<circle cx='{scale.at(row.point, left, right):.1f}' cy='{y}' r='4' fill='{_colour(0)}'/>"
        )
    return _svg(title, desc, bottom + 24, body)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, desc: str = "", form: Form = short) -> str:
    """Horizontal bars from 0, one per (label, number)."""
    scale = _Scale([0.0, *(number for _, number in bars)])
    figures = [form(number) for _, number in bars]
    left, right = _column([label for label, _ in bars]), _WIDTH - _column(figures)
    top, bottom = 8, 8 + _ROW * len(bars)
    origin = scale.at(0.0, left, right)
    body = [_x_axis(scale, left, right, top, bottom, form), _vertical(origin, top, bottom, "")]
    for number, ((label, value), figure) in enumerate(zip(bars, figures, strict=True)):
        y, end = top + _ROW * number, scale.at(value, left, right)
        body += [_label(left - 10, y + 17, label), _label(right + 10, y + 17, figure, "start")]
        body.append(
            f"<rect x='{min(origin, end):.1f}' y='{y + 5}' width='{abs(end - origin):.1f}' height='16' "
            f"fill='{_colour(0)}'/>"
        )
    return _svg(title, desc, bottom + 24, body)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    desc: str = "",
    x_label: str = "",
    y_label: str = "",
    x_form: Form = short,
    y_form: Form = short,
    zero: bool = False,
) -> str:
    """Lines with bands over one pair of axes, and a legend above. `zero`: the y axis takes in 0."""
    xs = _Scale([x for one in series for x in one.x], tight=True)
    numbers = [y for one in series for part in (one.y, one.low, one.high) for y in part]
    ys = _Scale(numbers + ([0.0] if zero else []))
    legend, top = _legend([one.name for one in series], 64)
    top += 18 if y_label else 6
    left, right, bottom = 64, _WIDTH - 20, top + 260
    body = [legend, _x_axis(xs, left, right, top, bottom, x_form, grid=False)]
    for tick in ys.ticks:
        y = ys.at(tick, bottom, top)
        body.append(f"<path d='M{left} {y:.1f}H{right}' stroke='currentColor' stroke-opacity='.18'/>")
        body.append(_text(left - 8, y + 4, y_form(tick), "end"))
    for number, one in enumerate(series):
        if one.low and one.high:
            edge = [*zip(one.x, one.high, strict=True), *reversed([*zip(one.x, one.low, strict=True)])]
            points = " ".join(f"{xs.at(x, left, right):.1f},{ys.at(y, bottom, top):.1f}" for x, y in edge)
            body.append(f"<polygon points='{points}' fill='{_colour(number)}' fill-opacity='.16'/>")
    for number, one in enumerate(series):
        points = " ".join(
            f"{xs.at(x, left, right):.1f},{ys.at(y, bottom, top):.1f}"
            for x, y in zip(one.x, one.y, strict=True)
        )
        body.append(f"<polyline points='{points}' {_stroke(number)}>{_tag('title', one.name)}</polyline>")
    body.append(_text(left, top - 8, y_label))
    body.append(_text((left + right) / 2, bottom + 36, x_label, "middle"))
    return _svg(title, desc, bottom + (44 if x_label else 24), body)


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return _tag("p", text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text; the first column names the row, the rest are figures."""
    first = "".join(f"<th scope='col'>{_clean(cell)}</th>" for cell in head)
    lines = "".join(
        f"<tr><th scope='row'>{_clean(row[0])}</th>{''.join(_tag('td', cell) for cell in row[1:])}</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{first}</tr></thead><tbody>{lines}</tbody></table></div>"


def html_page(title: str, sections: Sequence[Section]) -> str:
    """One self-contained page: inline style, nothing fetched, nothing run."""
    colours = [";".join(f"--series-{i}:{c}" for i, c in enumerate(palette)) for palette in (_LIGHT, _DARK)]
    style = (
        f":root{{color-scheme:light dark;{colours[0]};--ink:#1c2126;--paper:#fff;--rule:#d5dae0}}"
        f"@media(prefers-color-scheme:dark){{:root{{{colours[1]};--ink:#e4e8ec;--paper:#14181c;--rule:#39424b}}}}"
        "body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;"
        "margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}"
        "svg{max-width:100%;height:auto;display:block;margin:1rem 0}.wide{overflow-x:auto}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}"
        "th,td{padding:.3rem .8rem;border-bottom:1px solid var(--rule);text-align:right}"
        "th:first-child{text-align:left}"
    )
    body = "".join(
        f"<section>{_tag('h2', section.heading)}{''.join(section.parts)}</section>" for section in sections
    )
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'/>"
        f"{_tag('title', title)}<style>{style}</style></head>"
        f"<body>{_tag('h1', title)}{body}</body></html>\n"
    )


class _Scale:
    """A span of numbers that holds all given, with round ticks."""

    def __init__(self, numbers: Sequence[float], *, tight: bool = False) -> None:
        if any(not math.isfinite(number) for number in numbers):
            raise ValueError("a chart of a number that is not finite")
        low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        if low == high:
            low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
        raw = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * (1 - 1e-9))
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = [0.0 if number == 0 else number * step for number in range(first, last + 1)]
        self.low, self.high = (low, high) if tight else (ticks[0], ticks[-1])
        slack = step * 1e-9
        self.ticks = [tick for tick in ticks if self.low - slack <= tick <= self.high + slack]

    def at(self, number: float, start: float, end: float) -> float:
        """The place of a number between two pixels."""
        return start + (number - self.low) / (self.high - self.low) * (end - start)


def _figure(row: Row, form: Form) -> str:
    if row.point is None:
        return row.note or "no figure"
    span = "" if row.low is None or row.high is None else f" ({form(row.low)} to {form(row.high)})"
    return f"{form(row.point)}{span}{' ' if row.note else ''}{row.note}"


def _x_axis(
    scale: _Scale, left: float, right: float, top: float, bottom: float, form: Form, *, grid: bool = True
) -> str:
    lines = [f"<path d='M{left} {bottom}H{right}' stroke='currentColor' stroke-opacity='.5'/>"]
    places = [scale.at(tick, left, right) for tick in scale.ticks]
    widest = max(len(form(tick)) for tick in scale.ticks) * _LETTER + 8
    every = 1 if len(places) < 2 else math.ceil(widest / min(b - a for a, b in pairwise(places)))
    for number, (tick, x) in enumerate(zip(scale.ticks, places, strict=True)):
        if grid:
            lines.append(_vertical(x, top, bottom, "stroke-opacity='.18'"))
        if number % every == 0:
            lines.append(_text(x, bottom + 17, form(tick), "middle"))
    return "".join(lines)


def _legend(names: Sequence[str], left: float) -> tuple[str, float]:
    """The legend, wrapped, and the height it takes."""
    parts, x, y = [], left, 14.0
    for number, name in enumerate(names):
        width = 40 + min(len(name), _LONGEST) * _LETTER + 18
        if x > left and x + width > _WIDTH:
            x, y = left, y + 20
        parts.append(f"<path d='M{x:.0f} {y - 4}h32' {_stroke(number)}/>{_label(x + 40, y, name, 'start')}")
        x += width
    return "".join(parts), y + 12


def _column(texts: Sequence[str]) -> float:
    """Width for the longest of some labels, its gap included."""
    return min(max((len(text) for text in texts), default=0), _LONGEST) * _LETTER + 20


def _label(x: float, y: float, text: str, anchor: str = "end") -> str:
    if len(text) <= _LONGEST:
        return _text(x, y, text, anchor)
    return f"<g>{_tag('title', text)}{_text(x, y, text[: _LONGEST - 1] + '…', anchor)}</g>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{_clean(text)}</text>" if text else ""


def _vertical(x: float, top: float, bottom: float, style: str) -> str:
    return f"<path d='M{x:.1f} {top}V{bottom}' stroke='currentColor' {style}/>"


def _colour(number: int) -> str:
    return f"var(--series-{number % len(_LIGHT)}, {_LIGHT[number % len(_LIGHT)]})"


def _stroke(number: int) -> str:
    dash = _DASHES[number % len(_DASHES)]
    return f"fill='none' stroke='{_colour(number)}' stroke-width='2' stroke-dasharray='{dash or 'none'}'"


def _svg(title: str, desc: str, height: float, body: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' width='{_WIDTH}' height='{height:.0f}' "
        f"viewBox='0 0 {_WIDTH} {height:.0f}' font-family='system-ui,sans-serif' font-size='12' "
        f"fill='currentColor'>{_tag('title', title)}{_tag('desc', desc or title)}{''.join(body)}</svg>"
    )


def _tag(name: str, text: str) -> str:
    return f"<{name}>{_clean(text)}</{name}>"


def _clean(text: str) -> str:
    return escape(_NOT_XML.sub("�", text))

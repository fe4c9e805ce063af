"""Charts are well-formed, escaped, and put numbers where they belong; a page needs nothing but itself."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from decision.charts import (
    Row,
    Section,
    Series,
    bar_chart,
    html_page,
    interval_plot,
    line_chart,
    paragraph,
    percent,
    short,
    table,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('1')</script> & \"co\"\x00\ud800"


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def every_chart(label: str) -> list[str]:
    rows = [Row(label, 0.2, 0.1, 0.3), Row(label * 3, None, note=label)]
    series = [
        Series(label, [0, 1, 2], [0.0, 1.0, 4.0], [0, 0.5, 3], [0, 2, 5]),
        Series("b", [0, 2], [1.0, 1.0]),
    ]
    return [
        interval_plot(label, rows, desc=label, reference=(label, 0.25), zero=True),
        line_chart(label, series, x_label=label, y_label=label, zero=True),
        bar_chart(label, [(label, 3.0), ("b", -1.0)]),
    ]


@pytest.mark.parametrize("chart", every_chart(HOSTILE), ids=["interval", "line", "bar"])
def test_what_callers_name_is_text_and_the_chart_well_formed(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    assert not list(root.iter(f"{SVG}script"))
    assert root.get("role") == "img"
    title, desc = root[0], root[1]
    assert (title.tag, desc.tag) == (f"{SVG}title", f"{SVG}desc")
    assert title.text == HOSTILE.replace("\x00", "�").replace("\ud800", "�")


@pytest.mark.parametrize("empty", [interval_plot("t", []), line_chart("t", []), bar_chart("t", [])])
def test_nothing_to_draw_is_still_a_chart(empty: str) -> None:
    ElementTree.fromstring(empty)


def test_an_interval_lies_where_its_numbers_say() -> None:
    svg = ElementTree.fromstring(
        interval_plot("t", [Row("a", 1.0, 0.0, 2.0), Row("b", 2.0, 2.0, 2.0)], zero=True)
    )
    first, second = (float(str(node.get("cx"))) for node in svg.iter(f"{SVG}circle"))
    bar = next(str(node.get("d")) for node in svg.iter(f"{SVG}path") if "v10" in str(node.get("d")))
    low, _, _ = (float(number) for number in re.findall(r"M([\d.]+)", bar))
    high = float(re.findall(r"H([\d.]+)", bar)[0])
    assert low < first < high
    assert first == pytest.approx((low + high) / 2, abs=0.1)
    assert second == pytest.approx(high, abs=0.1)


def test_no_figure_is_drawn_where_there_is_none() -> None:
    svg = interval_plot("t", [Row("thin", None, 0.1, 0.2, note="support is too thin"), Row("b", 0.5)])
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))) == 1
    assert "support is too thin" in texts(svg)
    assert "0.5" in texts(svg)


def test_bars_begin_at_zero_whichever_way_they_go() -> None:
    svg = ElementTree.fromstring(bar_chart("t", [("up", 2.0), ("down", -1.0)]))
    up, down = ((float(str(r.get("x"))), float(str(r.get("width")))) for r in svg.iter(f"{SVG}rect"))
    assert up[0] == pytest.approx(down[0] + down[1], abs=0.1)
    assert up[1] == pytest.approx(2 * down[1], rel=0.01)


def test_lines_end_at_their_last_x() -> None:
    svg = line_chart("t", [Series("long", [0, 10], [0, 1]), Series("short", [0, 5], [0, 1])])
    lines = [str(node.get("points")).split() for node in ElementTree.fromstring(svg).iter(f"{SVG}polyline")]
    (long_end, short_end), start = (
        [float(line[-1].split(",")[0]) for line in lines],
        float(lines[0][0].split(",")[0]),
    )
    assert short_end - start == pytest.approx((long_end - start) / 2, abs=0.2)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        bar_chart("t", [("a", number)])


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (5.0, 5.0), (1e-9, 2e-9), (-3e9, 4e12), (0.1, 0.30000000000000004)]
)
def test_ticks_are_few_and_round(values: tuple[float, float]) -> None:
    chart = bar_chart("t", [("a", values[0]), ("b", values[1])])
    assert 3 <= len(texts(chart)) <= 14


def test_a_page_is_self_contained() -> None:
    page = html_page(HOSTILE, [Section(HOSTILE, [paragraph(HOSTILE), table([HOSTILE], [[HOSTILE, "1"]])])])
    page = page.replace("</body>", "".join(every_chart("a")) + "</body>")
    assert page.startswith("<!DOCTYPE html>\n")
    ElementTree.fromstring(page.partition("\n")[2])
    outside = page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in outside
    assert not re.search(r"https?:|url\(|@import|src=|href=", outside)
    assert "prefers-color-scheme:dark" in page


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        (0.18262, "0.1826"),
        (1284.2, "1,284"),
        (0, "0"),
        (2.5e-6, "2.50e-06"),
        (-0.05, "-0.05"),
        (3e9, "3.00e+09"),
    ],
)
def test_numbers_are_short(number: float, spelled: str) -> None:
    assert short(number) == spelled
    assert percent(0.18256) == "18.26%"

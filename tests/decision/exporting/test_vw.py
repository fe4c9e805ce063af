"""The lines for Vowpal Wabbit: one for each pick with an outcome, and all arms of its draw."""

from __future__ import annotations

import io
import math
from typing import Any

import orjson
import pytest
from past import Told

from decision.exporting.rows import Item, Row
from decision.exporting.vw import Dsjson


def lines(told: Told) -> tuple[list[tuple[Row, Item]], list[dict[str, Any]]]:
    log, rows = told
    stream = io.BytesIO()
    sink = Dsjson(stream, log.encoder.columns[1:])
    taken = [(row, row.item) for row in rows if sink.write(row) and row.item is not None]
    sink.finish()
    return taken, [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_picks_with_an_outcome_of_those_who_may_be_profiled(told: Told) -> None:
    taken, events = lines(told)
    expected = [
        (row.decision_id, row.item.draw)
        for row in told[1]
        if row.item is not None and row.item.label == "closed" and not row.objects
    ]
    assert [(row.decision_id, item.draw) for row, item in taken] == expected
    assert [event["EventId"] for event in events] == [f"{id}/{draw}" for id, draw in expected]
    assert len(events) > 40


def test_the_label_names_the_arm_shown(told: Told) -> None:
    taken, events = lines(told)
    for (_, item), event in zip(taken, events, strict=True):
        arms = [arm["arm"] for arm in event["c"]["_multi"]]
        assert arms[event["_labelIndex"]]["treatment"] == item.arm.treatment
        assert event["_label_Action"] == event["_labelIndex"] + 1 == event["a"][0]
        assert event["_label_probability"] == event["p"][0] == item.selection_probability
        assert event["_label_cost"] == -(item.reward or 0.0)
        assert math.copysign(1, event["_label_cost"]) == (-1 if item.reward else 1)
        assert sorted(event["a"]) == list(range(1, len(arms) + 1))
        assert math.fsum(event["p"]) == pytest.approx(1, abs=1e-9)
        chances = {arms[number - 1]["treatment"]: p for number, p in zip(event["a"], event["p"], strict=True)}
        assert chances == {arm.treatment: arm.probability for arm in item.arms}
        assert event["c"]["slot"] == {"rank": str(item.rank)}  # and nothing that only the draw decides
    assert max(len(event["a"]) for event in events) > 3


def test_features_are_those_of_the_customer_and_no_words_of_the_parser(told: Told) -> None:
    log, rows = told
    names = log.encoder.columns[1:]
    taken, events = lines(told)
    for (row, _), event in zip(taken, events, strict=True):
        assert row.x is not None
        assert event["c"]["x"] == {n: v for n, v in zip(names, row.x.tolist(), strict=True) if v}
    stream = io.BytesIO()
    sink = Dsjson(stream, ["_multi", *names[1:]])
    assert any(sink.write(row) for row in rows if row.x is not None and row.x[0])
    assert b'"x_multi":' in stream.getvalue()
    assert stream.getvalue().count(b'"_multi"') == stream.getvalue().count(b"\n")

"""Logged rows: what is refused names the argument; units are sums over clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arbitration.errors import NextBestActionError
from arbitration.evaluation import EvaluationError
from arbitration.evaluation.rows import rows

GOOD: dict[str, Any] = {"reward": [1.0, 0.0, 2.0], "logging_probability": [0.5, 1.0, 0.1], "clusters": None}


@pytest.mark.parametrize(
    ("argument", "values", "says"),
    [
        ("reward", [], "no rows"),
        ("reward", [1.0, float("nan"), 0.0], "finite"),
        ("reward", [[1.0], [0.0], [0.0]], "one dimension"),
        ("reward", ["a", "b", "c"], "numbers"),
        ("logging_probability", [0.5, 0.5], "has 2 rows, reward has 3"),
        ("logging_probability", [0.5, 0.0, 0.5], "above 0"),
        ("logging_probability", [0.5, 1.5, 0.5], "from 0 to 1"),
        ("logging_probability", [0.5, -0.5, 0.5], "from 0 to 1"),
        ("logging_probability", [0.5, float("inf"), 0.5], "finite"),
        ("logging_probability", [0.5, None, 0.5], "finite"),
        ("clusters", [1, 2], "3 integers"),
        ("clusters", [0.5, 1.0, 2.0], "3 integers"),
    ],
)
def test_what_is_refused_names_the_argument(argument: str, values: Any, says: str) -> None:
    with pytest.raises(EvaluationError, match=says) as caught:
        rows(**(GOOD | {argument: values}))
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
    assert isinstance(caught.value, NextBestActionError)


def test_without_clusters_every_row_is_a_unit() -> None:
    log = rows(**GOOD)
    assert (log.n, log.units, log.largest_unit()) == (3, 3, 1)
    values = np.array([1.0, 2.0, 3.0])
    assert log.by_unit(values).tolist() == [1.0, 2.0, 3.0]


def test_clusters_are_any_integers() -> None:
    log = rows(**(GOOD | {"clusters": [70, -4, 70]}))
    assert (log.n, log.units, log.largest_unit()) == (3, 2, 2)
    assert log.by_unit(np.array([1.0, 2.0, 4.0])).tolist() == [2.0, 5.0]


def test_weights_may_be_zero_and_probabilities_whole_numbers() -> None:
    log = rows(np.array([True, False]), np.array([1, 1]), None)
    assert log.weight("target_probability", np.array([0, 1])).tolist() == [0.0, 1.0]
    with pytest.raises(EvaluationError, match=r"target_probability: must be from 0 to 1"):
        log.weight("target_probability", [0.0, 1.1])


def test_a_prediction_that_is_needed() -> None:
    log = rows(**GOOD)
    with pytest.raises(EvaluationError, match="predicted_reward: is needed"):
        log.predictions({"predicted_reward": None})
    with pytest.raises(EvaluationError, match="predicted_reward: must be finite"):
        log.predictions({"predicted_reward": [1.0, 2.0, float("nan")]})
    assert [p.tolist() for p in log.predictions({"predicted_reward": [-1, 0, 7]})] == [[-1.0, 0.0, 7.0]]

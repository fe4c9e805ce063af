"""The bandit feedback for Open Bandit Pipeline: its arrays, and that they need no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from past import Told

from arbitration.evaluation import estimate
from decision.exporting.errors import ExportError
from decision.exporting.obp import BanditFeedback
from decision.exporting.rows import Item, Row


def feedback(told: Told, path: Path) -> tuple[list[tuple[Row, Item]], dict[str, Any]]:
    log, rows = told
    sink = BanditFeedback(path, log.encoder.columns[1:])
    taken = [(row, row.item) for row in rows if sink.write(row) and row.item is not None]
    sink.finish()
    with np.load(path, allow_pickle=False) as arrays:
        return taken, dict(arrays)


def test_rounds_are_picks_with_an_outcome(told: Told, tmp_path: Path) -> None:
    taken, log = feedback(told, tmp_path / "log.npz")
    shown = [(row, row.item) for row in told[1] if row.item is not None and not row.objects]
    expected = [item for _, item in shown if item.reward is not None]
    assert [item for _, item in taken] == expected
    rounds = range(len(taken))
    assert (log["n_rounds"], log["n_actions"]) == (len(taken), len(log["actions"]))
    assert log["actions"][log["action"]].tolist() == [item.arm.treatment for _, item in taken]
    assert log["position"].tolist() == [item.rank - 1 for _, item in taken]
    assert log["reward"].tolist() == [item.reward for _, item in taken]
    assert log["pscore"].tolist() == [item.selection_probability for _, item in taken]
    assert log["pscore_cascade"].tolist() == [item.cumulative_probability for _, item in taken]
    assert np.array_equal(log["context"], np.stack([row.x for row, _ in taken if row.x is not None]))
    assert log["context"].shape[1] == len(log["features"])
    ids = [row.decision_id for row, _ in taken]
    assert [ids.index(id) for id in ids] == [log["decision"].tolist().index(n) for n in log["decision"]]
    assert np.array_equal(log["pi_b"][rounds, log["action"], 0], log["pscore"])
    assert log["pi_b"].sum(axis=1) == pytest.approx(1, abs=1e-9)
    for number, (_, item) in enumerate(taken):
        eligible = {arm.treatment for arm in item.arms if arm.probability}
        assert set(log["actions"][log["pi_b"][number, :, 0] > 0]) == eligible
    assert log["action"].dtype.kind == log["position"].dtype.kind == "i"


def test_arms_of_an_action_have_it_in_common(told: Told, tmp_path: Path) -> None:
    _, log = feedback(told, tmp_path / "log.npz")
    shared = log["action_context"] @ log["action_context"].T  # how many of treatment, action, group
    number = {name: index for index, name in enumerate(log["actions"].tolist())}
    assert set(np.diag(shared)) == {3}
    assert shared[number["renew_12_agent"], number["renew_12_mail"]] == 2
    assert shared[number["renew_12_agent"], number["renew_24_agent"]] == 1
    assert shared[number["renew_12_agent"], number["check_agent"]] == 0


def test_it_says_what_the_evaluation_says(told: Told, tmp_path: Path) -> None:
    """The mean of reward × target / pscore, as the library's IPW works it out, is our IPS of the same rows.
    What the library itself says of a log: `docs/export.md`."""
    taken, log = feedback(told, tmp_path / "log.npz")
    could = log["pi_b"] > 0
    target = (could / could.sum(axis=1, keepdims=True))[np.arange(len(taken)), log["action"], 0]
    ours = estimate(
        [item.reward or 0.0 for _, item in taken],
        [item.selection_probability for _, item in taken],
        [1 / sum(arm.probability > 0 for arm in item.arms) for _, item in taken],
        estimator="ips",
    )
    figure = ours.value if ours.unquotable is None else ours.unquotable.value
    assert np.mean(log["reward"] * target / log["pscore"]) == pytest.approx(figure, rel=1e-12)


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no item shown"):
        BanditFeedback(tmp_path / "log.npz", []).finish()

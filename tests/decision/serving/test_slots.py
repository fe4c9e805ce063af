"""Slots: few, given again, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

from decision.serving.slots import Slots


def directory(slots: Slots) -> Path:
    return Path(slots.environment(0)["PROMETHEUS_MULTIPROC_DIR"])


def test_a_slot_is_given_again_once_it_is_free(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    assert [slots.take() for _ in range(3)] == [0, 1, 2]
    slots.free(1)
    assert [slots.take() for _ in range(2)] == [1, 3]
    assert slots.environment(3)["DECISION_METRICS_SLOT"] == "3"
    slots.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_true_only_while_a_process_lived_goes_with_it(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    files = [
        directory(slots) / name for name in ("gauge_livesum_1.db", "gauge_livesum_11.db", "counter_1.db")
    ]
    for file in files:
        file.touch()
    slots.free(1)
    assert [file.exists() for file in files] == [False, True, True]
    slots.close()


def test_what_a_killed_supervisor_left_is_removed_by_the_next(tmp_path: Path) -> None:
    alive, killed, young = Slots(tmp_path), Slots(tmp_path), Slots(tmp_path)
    for each in (alive, killed):
        (directory(each) / "counter_0.db").touch()
        os.utime(directory(each), (0, 0))
    for each in (killed, young):
        os.close(each._lock)  # as the system does
    last = Slots(tmp_path)
    assert set(tmp_path.iterdir()) == {directory(alive), directory(young), directory(last)}
    for each in (alive, last):
        each.close()

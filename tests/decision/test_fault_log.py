from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from decision.errors import StoreUnavailable
from decision.fault_log import FaultLog

log = logging.getLogger(__name__)


@dataclass
class Seconds:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def faults(seconds: Seconds) -> FaultLog:
    return FaultLog(log, "it failed", every=10, clock=seconds)


def test_the_first_is_logged_and_then_a_line_each_ten_seconds(
    faults: FaultLog, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(250):
        faults.fault(OSError("full"))
        seconds.now += 0.1
    assert caplog.messages == [
        "it failed: full",
        "it failed; 100 times more, the last: full",
        "it failed; 100 times more, the last: full",
    ]


def test_the_end_is_logged_once_it_stays_well(
    faults: FaultLog, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    faults.well()
    for _ in range(40):  # what fails every other time is one fault
        faults.fault(OSError("full"))
        seconds.now += 0.1
        faults.well()
    assert caplog.messages == ["it failed: full"]
    seconds.now += 10
    faults.well()
    faults.well()
    assert caplog.messages[1:] == ["over: it failed (40 times in 4 s)"]
    faults.fault(OSError("full again"))
    assert caplog.messages[2:] == ["it failed: full again"]


def test_only_what_is_not_known_comes_with_a_traceback(
    faults: FaultLog, seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fault(OSError("full"))
    FaultLog(log, "it failed").fault(StoreUnavailable("the disk is full"))
    assert [record.exc_info is not None for record in caplog.records] == [True, False]

"""Where the processes of one service keep what they count, so that any of them can tell it of all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

# The disk of the data may be full, and to write to a file that is mapped there would end the process.
_MEMORY = Path("/dev/shm")
_PREFIX = "decision-metrics-"
_YOUNG_SECONDS = 60.0


class Slots:
    """A directory, and a number for each process that lives. Who takes a number goes on with the counts of
    the one before: so there are never more files than processes were alive at once."""

    def __init__(self, place: Path | None = None) -> None:
        """`place`: where the directory is made; by default in memory, if there is such a place."""
        if place is None:
            place = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _sweep(place)
        self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        self._lock = os.open(self._directory, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._taken: set[int] = set()

    def take(self) -> int:
        """The smallest number that is free."""
        slot = next(number for number in count() if number not in self._taken)
        self._taken.add(slot)
        return slot

    def environment(self, slot: int) -> dict[str, str]:
        """What tells a process its slot."""
        return {"PROMETHEUS_MULTIPROC_DIR": str(self._directory), "DECISION_METRICS_SLOT": str(slot)}

    def free(self, slot: int) -> None:
        """Takes the number back from a process that has ended, and what was true only while it lived."""
        for file in self._directory.glob(f"gauge_live*_{slot}.db"):
            file.unlink(missing_ok=True)
        self._taken.discard(slot)

    def close(self) -> None:
        """Removes everything, once all processes have ended."""
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)


def _sweep(place: Path) -> None:
    """Removes what killed supervisors left: nobody holds its lock any more."""
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, somebody else's, or just gone
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > _YOUNG_SECONDS:  # else its owner may be about to
                    shutil.rmtree(left)
            finally:
                os.close(descriptor)

"""Logs a fault that comes back again and again, without flooding the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from decision.errors import StoreUnavailable
from decision.logs import words


class FaultLog:
    """Logs the first fault, and then at most one line each `every` seconds, with how many there were. The
    first comes with its traceback, unless the store is unavailable, which says it all.

    `what` says in a few words what goes wrong. `clock` gives seconds. Not for several threads at once.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._what = what
        self._every = every
        self._clock = clock
        self._first: float | None = None
        self._last = self._said = 0.0
        self._faults = self._untold = 0

    def fault(self, error: BaseException) -> None:
        """Takes note of a fault."""
        now = self._clock()
        self._last = now
        self._faults += 1
        said = words(error)
        if self._first is None:
            self._first = self._said = now
            known = isinstance(error, StoreUnavailable)
            self._logger.error("%s: %s", self._what, said, exc_info=None if known else error)
            return
        self._untold += 1
        if now - self._said >= self._every:
            self._logger.error("%s; %d times more, the last: %s", self._what, self._untold, said)
            self._said, self._untold = now, 0

    def well(self) -> None:
        """Takes note that it went well. The fault is over once there was none for `every` seconds: what fails
        every other time is one fault, not many."""
        if self._first is None or self._clock() - self._last < self._every:
            return
        seconds = self._last - self._first
        self._logger.warning("over: %s (%d times in %.0f s)", self._what, self._faults, seconds)
        self._first, self._faults, self._untold = None, 0, 0

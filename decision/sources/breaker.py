"""A circuit breaker: a system that keeps failing is left alone for a while, then tried with one call."""

from __future__ import annotations


class Breaker:
    """Opens after `failures` in a row; `rest` seconds later lets one call through, which decides.

    Times are seconds of one monotonic clock, given by the caller.
    """

    def __init__(self, failures: int, rest: float) -> None:
        self._limit = failures
        self._rest = rest
        self._failures = 0
        self._closed_again: float | None = None  # when the next call may try; None: closed
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether calls are held back, but for the one that tries."""
        return self._closed_again is not None

    def allows(self, now: float) -> bool:
        """Whether a call may be made now. Who is allowed must report `succeeded` or `failed`."""
        if self._closed_again is None:
            return True
        if self._trying or now < self._closed_again:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self._closed_again = None
        self._trying = False

    def failed(self, now: float) -> None:
        """A call was not answered. Those that were under way when it opened do not prolong the rest."""
        self._failures += 1
        if self._trying or (self._closed_again is None and self._failures >= self._limit):
            self._closed_again = now + self._rest
            self._trying = False

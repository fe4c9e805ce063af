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
        self._tried_at: float | None = None  # when the one that tries was let through, while it is out

    @property
    def open(self) -> bool:
        """Whether calls are held back, but for the one that tries."""
        return self._closed_again is not None

    def allows(self, now: float) -> bool:
        """Whether a call may be made now. Who is allowed must report what came of it."""
        if self._closed_again is None:
            return True
        if self._tried_at is not None or now < self._closed_again:
            return False
        self._tried_at = now
        return True

    def holds_back(self, began: float) -> bool:
        """Whether a call that was let through, but has not asked yet, had better not: it has opened since."""
        return self.open and not self._tries(began)

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self._closed_again = self._tried_at = None

    def failed(self, now: float, began: float) -> None:
        """A call that began at `began` was not answered. Those that were under way when it opened neither
        prolong the rest nor count as the one that tries."""
        self._failures += 1
        tried = self._tries(began)
        if tried or (self._closed_again is None and self._failures >= self._limit):
            self._closed_again = now + self._rest
            self._tried_at = None

    def given_up(self, began: float) -> None:
        """A call that began at `began` says nothing of the source: it never got to ask."""
        if self._tries(began):
            self._tried_at = None

    def _tries(self, began: float) -> bool:
        return self._tried_at is not None and began >= self._tried_at

"""The port of a source: what every kind of it does, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from arbitration.catalog.provenance import Served as Served
from arbitration.errors import NextBestActionError
from arbitration.facts import Value

Key = tuple[Value, ...]
"""What a source is asked with: the values of its inputs, in their declared order."""

Row = Mapping[str, object]
"""An answer: JSON values as they came, by fact name (`customer.nps`, `scores.churn`, `consents.mail`).
What the source does not know is left out."""


class Cause(StrEnum):
    """Why something is missing, or less than it could be. A closed list; `degraded` is made of it."""

    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"  # no connection, or it broke, or the system says that it cannot
    CIRCUIT_OPEN = "circuit_open"
    NOT_FOUND = "not_found"
    BAD_REPLY = "bad_reply"  # not what this kind of system answers, or too large
    BAD_VALUE = "bad_value"
    MISSING_INPUT = "missing_input"  # what it is asked with is itself not known
    NOT_CONNECTED = "not_connected"  # the service has no connection of that name
    STALE = "stale"  # known, but older than its cache's ttl


class SourceFault(NextBestActionError):
    """A call that brought no answer. `private` is for the log, and holds nothing personal.

    `ill`: whether it speaks against the source's health, as most faults do; one that is due to this one
    customer does not.
    """

    def __init__(self, cause: Cause, private: str, *, ill: bool = True) -> None:
        super().__init__(private)
        self.cause = cause
        self.ill = ill


class Source(Protocol):
    """One way to fetch. Timeouts, caching and the rest are `decision.sources.guard`'s business."""

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        """The answer for each key, in order; None where the source does not know it.

        A source whose specification has no `batch` is asked with one key at a time. Raises SourceFault
        where the call as a whole failed. May be cancelled at any await.
        """

    async def close(self) -> None:
        """Gives back what it holds open. It may be asked once more afterwards, by who was late."""

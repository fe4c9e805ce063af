"""What follows from the audit trail, and is in force: keys, halts, changes of the catalog, verdicts.

Each process keeps it in memory and follows the trail, so nothing of it costs a request anything. Whoever
changes it adds to the trail; so there is no change without its record, and no record that is not in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from decision.access.keys import Keys
from decision.errors import Conflict, StoreUnavailable
from decision.fairness.verdicts import Verdicts
from decision.governance.changes import Changes
from decision.governance.halts import Halts
from decision.storage.port import Audit, Entry, Event


class Fold(Protocol):
    """What follows from the entries it knows, one after the other."""

    def apply(self, entry: Entry) -> None:
        """Follows one entry of the trail; ignores what is not its own."""


Make = Callable[["Register"], Sequence[Event]]

_AT_ONCE = 5_000
_ATTEMPTS = 20


class Register:
    """The state after the entry `seq`."""

    def __init__(self, store: Audit) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self.seq = 0
        self.keys = Keys()
        self.halts = Halts()
        self.changes = Changes()
        self.verdicts = Verdicts()
        self._folds: tuple[Fold, ...] = (self.keys, self.halts, self.changes, self.verdicts)

    async def refresh(self) -> None:
        """Reads what is new. Raises StoreUnavailable."""
        async with self._reading:
            while new := await self._store.entries(self.seq, _AT_ONCE, state=True):
                for entry in new:
                    self._apply(entry)
                    self.seq = entry.seq

    def _apply(self, entry: Entry) -> None:
        try:
            for fold in self._folds:
                fold.apply(entry)
        except (LookupError, TypeError, ValueError) as error:
            message = f"entry {entry.seq} of the audit trail makes no sense: run `decision audit verify`"
            raise StoreUnavailable(message) from error

    async def act(
        self,
        make: Make,
        at: datetime,
        carry_out: Callable[[Sequence[Event], int], Awaitable[object]] | None = None,
    ) -> Sequence[Event]:
        """Changes what is in force: `make` says by which events, or raises what speaks against it, looking at
        the newest state; where somebody else was faster it is asked again. `carry_out`: does it in the store,
        with these events in the same transaction and only after the entry given, where adding them to the
        trail is not all. Returns the events. Raises StoreUnavailable, and Conflict where others are always
        faster."""
        for _ in range(_ATTEMPTS):
            await self.refresh()
            events, seq = make(self), self.seq
            try:
                if carry_out is None:
                    await self._store.append(events, at, expected=seq)
                else:
                    await carry_out(events, seq)
            except Conflict as error:
                if error.field != "expected":
                    raise
                continue
            await self.refresh()
            return events
        raise Conflict("expected", "others were always faster")

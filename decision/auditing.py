"""Who looked at whose data, and who changed what: written down before it is done."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Any

from arbitration.facts import rfc3339
from decision.storage.port import Audit, Entry, Event


def mark_of(secret: bytes, customer_id: str) -> str:
    """What stands for a customer in the audit trail: an HMAC-SHA-256, of which 128 bits are kept. The trail
    tells nothing of a customer by it once all else is erased; who knows an id can still ask for it."""
    return "customer:" + hmac.digest(secret, customer_id.encode(), hashlib.sha256).hex()[:32]


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry, for who reads it."""
    event = entry.event
    return {
        "seq": entry.seq,
        "at": rfc3339(entry.at),
        "actor": event.actor,
        "kind": event.kind,
        "subject": event.subject,
        "detail": event.detail,
        "hash": entry.hash,
    }


class Auditing:
    """Adds to the audit trail. `clock` gives aware UTC."""

    def __init__(self, store: Audit, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._secret: bytes | None = None
        self._waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def mark(self, customer_id: str) -> str:
        """See `mark_of`. Raises StoreUnavailable."""
        if self._secret is None:
            self._secret = await self._store.secret()
        return mark_of(self._secret, customer_id)

    async def record(self, event: Event) -> None:
        """Returns when the event is in the trail, durably. Those that come while others are being written
        wait for these, and are written together: the chain is one for all. Raises StoreUnavailable."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, waiter))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="auditing")
        await waiter

    async def _write(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                failed: Exception | None = None
                try:
                    await self._store.append([event for event, _ in taken], self._clock())
                except Exception as error:  # noqa: BLE001  # whoever waits must hear of it
                    failed = error
                for _, waiter in taken:
                    if waiter.done():  # nobody waits any more
                        continue
                    if failed is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(failed)
        finally:
            self._writing = None

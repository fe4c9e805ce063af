"""How far the learner is, read from the snapshots it writes."""

from __future__ import annotations

from datetime import UTC, datetime

from arbitration.errors import SnapshotError
from arbitration.policy.state import State
from decision.storage.port import Store


class Learning:
    """The newest snapshot: of how many answers it is made, and when."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[str] = set()
        self._answers = 0
        self._made: datetime | None = None
        self.snapshots = 0

    async def refresh(self) -> None:
        """Looks for a newer snapshot."""
        for version in (await self._store.live_snapshots()).values():
            if version in self._seen or (record := await self._store.snapshot(version)) is None:
                continue
            self._seen.add(version)
            self._made = record.created_at
            self.snapshots += 1
            try:
                self._answers = round(float(State.from_bytes(record.content).count.sum()))
            except SnapshotError:
                continue  # of neighbours: the others have learned the same answers

    def sentence(self) -> str:
        """In words."""
        if self._made is None:
            return "nothing learned yet"
        age = (datetime.now(UTC) - self._made).total_seconds()
        return f"learned from {self._answers:,} answers; the newest snapshot is {age:.0f} s old"

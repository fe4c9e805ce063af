"""Decides recorded decisions again: to show that they come out the same, and to explain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arbitration.decide import Decision, decide
from arbitration.errors import SnapshotError
from arbitration.explain import explain, shadows
from arbitration.snapshot import Floats, Snapshot, Snapshots
from decision.deciding import read_recorded
from decision.errors import FieldError, Rejected
from decision.live import Live
from decision.publishing import Published
from decision.replies import reply_bytes
from decision.storage.port import DecisionRecord, Ledger


@dataclass(frozen=True, slots=True)
class Replayed:
    """`reply`: the bytes as they came out now; `identical`: whether they are those sent then."""

    identical: bool
    reply: bytes


class Replaying:
    """Replays and explanations from the ledger."""

    def __init__(self, ledger: Ledger, live: Live) -> None:
        self._ledger = ledger
        self._live = live

    async def record(self, decision_id: str) -> DecisionRecord:
        """The record of a decision. Raises Rejected (404; 410 where its customer was erased)."""
        record = await self._ledger.decision(decision_id)
        if record is None:
            error = FieldError("decision_id", "unknown_decision", "no decision was made under this id")
            raise Rejected(404, "unknown_decision", "There is no decision with this id.", [error])
        if record.erased:
            error = FieldError("decision_id", "erased", "what it was made of and what it said are erased")
            raise Rejected(410, "erased", "The customer of this decision was erased.", [error])
        return record

    async def replay(self, decision_id: str) -> Replayed:
        """Makes the decision again from what was recorded, with the versions of then. Raises Rejected (410)
        where what the decision was made with cannot be used any more."""
        record = await self.record(decision_id)
        again = await _available(self._live, record)
        reply = reply_bytes(again.decision, again.published, read_recorded(record.inputs).asked)
        return Replayed(reply == record.reply, reply)

    async def explanation(self, decision_id: str) -> dict[str, Any]:
        """Why it came out as it did, and what the shadows of then would have done. Raises as `replay`."""
        return await self.explained(await self.record(decision_id))

    async def explained(self, record: DecisionRecord) -> dict[str, Any]:
        """As `explanation`, of a decision that was read."""
        again = await _available(self._live, record)
        explained = explain(again.decision, again.published.compiled)
        if found := shadows(again.decision.inputs, again.published.compiled, again.snapshots):
            explained["shadows"] = found
        return explained


@dataclass(frozen=True, slots=True)
class Again:
    """A recorded decision, made again with the catalog and the snapshots of then."""

    decision: Decision
    published: Published
    snapshots: Snapshots


async def made_again(live: Live, record: DecisionRecord) -> Again:
    """Makes a decision again. Raises SnapshotError where a snapshot that it was made with cannot be used any
    more; that of a shadow may be missing."""
    published = await live.published(record.catalog_version)
    snapshots = {}
    for policy, version in record.snapshots.items():
        try:
            snapshots[policy] = await live.snapshot(published, policy, version)
        except SnapshotError as error:
            snapshots[policy] = Snapshot(version, _Lost(str(error)))
    decision = decide(read_recorded(record.inputs).inputs, published.compiled, snapshots)
    return Again(decision, published, snapshots)


class _Lost:
    """Stands in for a snapshot that cannot be used, until somebody needs it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        """Raises SnapshotError."""
        raise SnapshotError(self._reason)


async def _available(live: Live, record: DecisionRecord) -> Again:
    try:
        return await made_again(live, record)
    except SnapshotError as error:
        fault = FieldError("decision_id", "snapshot_unavailable", str(error))
        detail = "What this decision was made with cannot be used any more."
        raise Rejected(410, "snapshot_unavailable", detail, [fault]) from error

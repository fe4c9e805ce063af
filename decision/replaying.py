"""Decides recorded decisions again: to show that they come out the same, and to explain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arbitration.decide import Decision, decide
from arbitration.explain import explain, shadows
from arbitration.snapshot import Snapshots
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
        """The record of a decision. Raises Rejected (404)."""
        record = await self._ledger.decision(decision_id)
        if record is None:
            error = FieldError("decision_id", "unknown_decision", "no decision was made under this id")
            raise Rejected(404, "unknown_decision", "There is no decision with this id.", [error])
        return record

    async def replay(self, decision_id: str) -> Replayed:
        """Makes the decision again from what was recorded, with the versions of then."""
        record = await self.record(decision_id)
        decision, published, _ = await self._again(record)
        reply = reply_bytes(decision, published, read_recorded(record.inputs).asked)
        return Replayed(reply == record.reply, reply)

    async def explanation(self, decision_id: str) -> dict[str, Any]:
        """Why it came out as it did, and what the shadows of then would have done."""
        decision, published, snapshots = await self._again(await self.record(decision_id))
        explained = explain(decision, published.compiled)
        if found := shadows(decision.inputs, published.compiled, snapshots):
            explained["shadows"] = found
        return explained

    async def _again(self, record: DecisionRecord) -> tuple[Decision, Published, Snapshots]:
        published = await self._live.published(record.catalog_version)
        snapshots = {
            policy: await self._live.snapshot(published, policy, version)
            for policy, version in record.snapshots.items()
        }
        return (
            decide(read_recorded(record.inputs).inputs, published.compiled, snapshots),
            published,
            snapshots,
        )

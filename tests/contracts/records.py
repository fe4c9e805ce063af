"""Records that the storage contract is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from decision.storage.port import (
    Cursor,
    Customer,
    DecisionRecord,
    Identity,
    Label,
    ResponseRecord,
    SnapshotRecord,
    Stop,
    Store,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, 123_457, tzinfo=UTC)
DAY = timedelta(days=1)
MAIL = Identity("email_sha256", "aa")
COOKIE = Identity("cookie", "bb")
ANNA = Customer(
    "c-1",
    {"nps": 3, "plan": "größer", "tags": ["a", None, {"b": 1.5}], "open": False},
    {"clv": 412.25},
    {"marketing_email": "given"},
    (COOKIE, MAIL),
)


def mark(customer_id: str) -> str:
    """Stands for a customer id in tombstones; here it can be read."""
    return f"mark of {customer_id}"


def decided(decision_id: str, request_id: str | None = None, customer_id: str = "c-1") -> DecisionRecord:
    return DecisionRecord(
        decision_id=decision_id,
        customer_id=customer_id,
        request_id=request_id,
        request_hash=f"hash of {request_id}",
        decided_at=NOW,
        channel="email",
        mode="live",
        catalog_version="v1",
        snapshots={"renewal": "s1"},
        inputs=b'{"b": 1, "a":\xc3\xa9}\x00',
        reply=b'{"decision_id":"' + decision_id.encode() + b'"}',
    )


def answered(response_id: str, stop: Stop | None = None, customer_id: str = "c-1") -> ResponseRecord:
    return ResponseRecord(
        response_id=response_id,
        decision_id="d-1",
        customer_id=customer_id,
        treatment="renew_12m_mail_a",
        outcome="accepted",
        value=12.5,
        occurred_at=NOW - DAY,
        received_at=NOW,
        stops=() if stop is None else (stop,),
    )


def snapshot(version: str, policy: str = "renewal", content: bytes = b"\x00state") -> SnapshotRecord:
    return SnapshotRecord(version, policy, NOW, content)


LINEAGES = ("renewal", "welcome")


async def learn(
    store: Store, labels: Sequence[Label], snapshots: Sequence[SnapshotRecord], cursor: Cursor
) -> None:
    """Commits learning from wherever the cursor is."""
    await store.commit_learning(labels, snapshots, cursor, expected=await store.cursor(), lineages=LINEAGES)


async def learned(store: Store) -> list[tuple[str, Label]]:
    return sorted([(record.decision_id, label) async for record, label in store.learned()], key=str)

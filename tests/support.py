"""What tests share: a small catalog with every kind of part, a clock that is set, a service in process."""

from __future__ import annotations

import asyncio
import copy
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from decision.access.oidc import Issuer
from decision.api.app import create_app
from decision.api.context import Context, build
from decision.learner import Learner
from decision.sources.connections import Connections
from decision.storage.port import Identity, Situation, Store
from decision.storage.sqlite.store import SqliteStore

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
DAY = timedelta(days=1)
_UNHAPPY = ["customer.nps <= 6", {"rule": "!customer.open_complaint", "why": "No complaint is open."}]
_RENEWAL = {
    "group": "retention",
    "value": "scores.clv * 0.1",
    "eligibility": ['customer.contract_end - now < duration("2160h")'],
    "applicability": _UNHAPPY,
    "stop": {"on": ["accepted"], "scope": "group", "for": "365d"},
}
_DOCUMENT: dict[str, Any] = {
    "name": "small",
    "currency": "EUR",
    "attributes": [
        {"id": "first_name", "type": "string", "pii": True},
        {"id": "nps", "type": "int", "min": 0, "max": 10},
        {"id": "plan", "type": "string", "values": ["Basic", "Max"]},
        {"id": "contract_end", "type": "timestamp"},
        {"id": "open_complaint", "type": "bool"},
        {"id": "spend", "type": "double"},
        {"id": "interests", "type": "strings"},
    ],
    "scores": [{"id": "clv", "min": 0, "max": 5000}, {"id": "churn", "min": 0, "max": 1}],
    "context": [
        {"id": "intent", "type": "string", "values": ["cancel", "billing"], "channels": ["agent"]},
        {"id": "page", "type": "string", "channels": ["web"]},
    ],
    "purposes": [{"id": "marketing"}],
    "groups": [
        {"id": "retention", "tier": 1},
        {"id": "sales", "tier": 1},
        {"id": "service", "tier": 1},
    ],
    "channels": [
        {
            "id": "agent",
            "direction": "inbound",
            "contact": "decision",
            "rewards": {"accepted": 1.0, "rejected": 0.0, "no_response": 0.0},
            "response_window": "24h",
        },
        {
            "id": "web",
            "direction": "inbound",
            "contact": "impression",
            "rewards": {"click": 0.3, "accepted": 1.0, "no_response": 0.0},
            "response_window": "2h",
        },
        {
            "id": "mail",
            "direction": "outbound",
            "contact": "decision",
            "consent": "marketing",
            "rewards": {"click": 0.2, "accepted": 1.0, "no_response": 0.0},
            "response_window": "7d",
        },
    ],
    "placements": [
        {"id": "panel", "channel": "agent", "slots": 3, "max_per_group": 2, "content": [{"id": "headline"}]},
        {
            "id": "hero",
            "channel": "web",
            "content": [{"id": "title"}, {"id": "body", "type": "html", "required": False}],
            "fallback": {"title": "A network that keeps up"},
        },
        {"id": "side", "channel": "web", "slots": 2, "content": [{"id": "title"}], "policy": "plain"},
        {"id": "block", "channel": "mail", "content": [{"id": "subject"}, {"id": "body", "type": "html"}]},
    ],
    "features": [
        {"id": "churn", "kind": "numeric", "source": "scores.churn", "center": 0.3, "scale": 0.2},
        {"id": "plan", "kind": "categorical", "source": "customer.plan", "values": ["Basic"]},
        {"id": "nps", "kind": "bucketised", "source": "customer.nps", "edges": [7, 9]},
        {"id": "churn_by_plan", "kind": "cross", "of": ["churn", "plan"]},
    ],
    "policies": [
        {"id": "default", "strategy": "thompson"},
        {"id": "plain", "strategy": "epsilon_greedy", "features": []},
    ],
    "context_weights": [
        {"id": "leaving", "when": 'context.intent == "cancel"', "weight": 2.5, "group": "retention"}
    ],
    "actions": [
        {
            "id": "renew_12",
            **_RENEWAL,
            "treatments": [
                {"id": "renew_12_agent", "channel": "agent", "placement": "panel",
                 "content": {"headline": "12 months of {{ customer.plan }}"}},
                {"id": "renew_12_hero", "channel": "web", "placement": "hero",
                 "content": {"title": "Stay", "body": "<b>{{ customer.first_name }}</b>"}},
                {"id": "renew_12_mail", "channel": "mail", "placement": "block",
                 "content": {"subject": "Renew by {{ customer.contract_end | date: '%F' }}",
                             "body": "Sent {{ 'now' | date: '%F %T' }} to {{ customer.first_name }}"}},
            ],
        },
        {
            "id": "renew_24",
            **_RENEWAL,
            "lever": 1.5,
            "treatments": [
                {"id": "renew_24_agent", "channel": "agent", "placement": "panel",
                 "content": {"headline": "24 months"}},
                {"id": "renew_24_side", "channel": "web", "placement": "side", "content": {"title": "24"}},
            ],
        },
        {
            "id": "upgrade",
            "group": "sales",
            "value": 70,
            "valid": {"from": "2026-01-01", "to": "2026-12-31"},
            "eligibility": ['customer.plan == "Basic"'],
            "stop": {"on": ["accepted"]},
            "treatments": [
                {"id": "upgrade_agent", "channel": "agent", "placement": "panel",
                 "content": {"headline": "Go unlimited"}},
                {"id": "upgrade_side", "channel": "web", "placement": "side", "content": {"title": "Max"}},
            ],
        },
        {
            "id": "check",
            "group": "service",
            "value": 20,
            "treatments": [
                {"id": "check_agent", "channel": "agent", "placement": "panel",
                 "content": {"headline": "Security check"}},
                {"id": "check_side", "channel": "web", "placement": "side", "content": {"title": "Safe?"}},
                {"id": "check_mail", "channel": "mail", "placement": "block",
                 "content": {"subject": "Two minutes", "body": "<p>Safe?</p>"}},
            ],
        },
    ],
}  # fmt: skip

ANNA: dict[str, Any] = {
    "attributes": {
        "first_name": "Anna",
        "nps": 3,
        "plan": "Basic",
        "contract_end": "2026-04-01T00:00:00Z",
        "open_complaint": False,
        "interests": ["sport"],
    },
    "scores": {"clv": 480.0, "churn": 0.5},
    "consents": {"marketing": "given"},
    "identities": [{"type": "cookie", "value": "anna"}],
}


def catalog_document() -> dict[str, Any]:
    """A fresh copy of the small catalog."""
    return copy.deepcopy(_DOCUMENT)


@dataclass
class Clock:
    """A clock that stands where it is set."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Ids:
    """UUIDs that count up."""

    last: int = 0

    def __call__(self) -> str:
        self.last += 1
        return f"00000000-0000-7000-8000-{self.last:012d}"


def id_of(moment: datetime) -> str:
    """A UUIDv7 of that moment."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    chance = secrets.token_hex(9)
    return f"{digits[:8]}-{digits[8:]}-7{chance[:3]}-8{chance[3:6]}-{chance[6:]}"


EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                   AND relname NOT IN ('schema_migrations', 'learner_cursor', 'secrets')
                   AND relname NOT IN ('audit', 'audit_head')
    LOOP EXECUTE 'DELETE FROM ' || name; END LOOP;
    UPDATE learner_cursor
       SET (decisions, responses, rounds, decisions_placed, responses_placed) = (0, 0, 0, 0, 0);
    SET LOCAL session_replication_role = replica; -- the audit trail refuses
    DELETE FROM audit;
    DELETE FROM audit_head;
    INSERT INTO audit_head VALUES (1, 0, repeat('0', 64));
END $$
"""
"""Empties a store in PostgreSQL."""


class SlowStore(SqliteStore):
    """Takes its time for chosen reads."""

    slow: frozenset[str] = frozenset()

    async def situation(self, who: str | Identity, *args: Any, **more: Any) -> Situation:
        for name in ("customer", "standing", *(("resolve",) if isinstance(who, Identity) else ())):
            await self._wait(name)
        return await super().situation(who, *args, **more)

    async def _wait(self, name: str) -> None:
        if name in self.slow:
            await asyncio.sleep(3)


@dataclass
class Service:
    """A running service, in process."""

    client: httpx.AsyncClient
    context: Context
    clock: Clock
    path: Path

    async def decide(self, customer: str = "anna", placement: str = "panel", **more: Any) -> dict[str, Any]:
        """One decision, which must be answered."""
        reply = await self.client.post("/v1/decisions", json=asking(customer, placement, **more))
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async def respond(
        self, decision: dict[str, Any], outcome: str, id: str, treatment: str
    ) -> httpx.Response:
        """One response to a decision."""
        message = {
            "response_id": id,
            "decision_id": decision["decision_id"],
            "treatment": treatment,
            "outcome": outcome,
        }
        return await self.client.post("/v1/responses", json=message)

    async def publish(self, document: dict[str, Any]) -> str:
        """Publishes a catalog, which must be sound; its version."""
        reply = await self.client.post("/v1/catalog/publish", json=document)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["version"])

    def learner(self) -> Learner:
        """A learner on the store of this service."""
        return Learner(self.context.store, self.clock)

    def rows(self) -> dict[str, int]:
        """How many rows each table has; but for the audit trail, which also has what came to nothing."""
        with closing(sqlite3.connect(self.path)) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'audit'"
            ).fetchall()
            return {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for (name,) in names
            }


CHANNEL_OF = {"panel": "agent", "hero": "web", "side": "web", "block": "mail"}


def asking(customer: str | None = "anna", placement: str = "panel", **more: Any) -> dict[str, Any]:
    """The body of a decision request."""
    channel = CHANNEL_OF[placement]
    asked: dict[str, Any] = {"channel": channel, "placements": [{"id": placement}], **more}
    return asked if customer is None else {"customer_id": customer, **asked}


def treatments(decision: dict[str, Any]) -> list[str]:
    """The treatments of a reply, in order."""
    return [item["treatment"] for placement in decision["placements"] for item in placement["items"]]


def actions(decision: dict[str, Any]) -> list[str]:
    """The actions of a reply, in order."""
    return [item["action"] for placement in decision["placements"] for item in placement["items"]]


@asynccontextmanager
async def running(
    path: Path,
    clock: Clock | None = None,
    ids: Ids | None = None,
    *,
    store: Store | None = None,
    poll: float = 60,
    connections: Connections | None = None,
    signing_key: bytes = b"",
    issuer: Issuer | None = None,
    local: bool = True,
) -> AsyncIterator[Service]:
    """A service on the database at `path`; `connections`: to the
    sources of its catalog. Errors nobody handled become replies, as on a real server."""
    clock = clock or Clock()
    context = build(
        store or SqliteStore(path),
        clock=clock,
        ids=ids or Ids(),
        poll_seconds=poll,
        connections=connections,
        timeout_ms=5_000,  # a busy machine must not make knowledge go missing
        signing_key=signing_key,
        issuer=issuer,
        local=local,
    )
    app = create_app(context)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield Service(client, context, clock, path)

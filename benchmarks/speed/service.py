"""The whole service in this process, without HTTP: a SQLite store, a published world, imported customers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.speed.population import Customer
from benchmarks.speed.workload import World, import_customers, publish, request
from decision.api.context import Context, build
from decision.messages import DecisionRequest
from decision.storage.sqlite.store import SqliteStore


@asynccontextmanager
async def serving(directory: Path, made: World, people: Sequence[Customer]) -> AsyncIterator[Context]:
    """The service with a store in `directory`, which has nothing else in it."""
    store = SqliteStore(directory / "store.db")
    context = build(store, timeout_ms=60_000)
    await store.open()
    try:
        await publish(store, made)
        await import_customers(store, people)
        await context.live.refresh()
        yield context
    finally:
        await store.close()


def asked(customer: Customer) -> DecisionRequest:
    """What is asked for a customer, as the endpoint has read it."""
    return DecisionRequest.model_validate(request(customer))

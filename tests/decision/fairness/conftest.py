"""A service that has decided for customers of several genders and ages; what it showed was answered."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import DAY, NOW, Clock, Ids, Service, running
from unequal import AGAIN, customers, sensitive_catalog, visits


@pytest.fixture
async def judged(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A decision or two for each customer, on the panel; made once, and copied; a month later."""
    clock, made = Clock(), tmp_path_factory.getbasetemp() / "fairness.db"
    if not made.exists():
        async with running(made, clock) as service:
            await service.publish(sensitive_catalog())
            await service.context.store.put_customers(customers(), NOW)
            await visits(service, customers())
            service.clock.now += DAY
            await visits(service, customers()[:AGAIN])
            await service.learner().step()
    clock.now = NOW + 30 * DAY
    async with running(Path(shutil.copy(made, tmp_path / "log.db")), clock, Ids(10_000)) as service:
        yield service

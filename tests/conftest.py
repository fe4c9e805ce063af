"""Fixtures that all tests may use; what they are made of is in `tests/support.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import ANNA, Service, catalog_document, running


@pytest.fixture
def document() -> dict[str, Any]:
    """The small catalog, to be changed at will."""
    return catalog_document()


@pytest.fixture
async def service(tmp_path: Path, document: dict[str, Any]) -> AsyncIterator[Service]:
    """A service with the small catalog published and one customer, `anna`, known."""
    async with running(tmp_path / "service.db") as started:
        await started.publish(document)
        reply = await started.client.put("/v1/customers/anna", json=ANNA)
        assert reply.status_code == 200, reply.text
        yield started

"""Problem documents of a store that cannot take any more."""

from __future__ import annotations

from typing import Any

import pytest
from support import Service, asking

from decision.errors import StoreBusy, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreBusy("5000 records wait"), "store_busy"), (StoreUnavailable("disk full"), "store_unavailable")],
)
async def test_a_store_that_cannot_take_it_is_a_503_that_says_when_to_come_back(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, code: str
) -> None:
    async def refuses(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(service.context.store, "_write", refuses)
    reply = await service.client.post("/v1/decisions", json=asking("anna", "panel"))
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/problem+json"
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["code"] == code
    assert str(error) not in reply.text, "the cause is for the log"
    batch = {"requests": [asking("anna", "panel")]}
    reply = await service.client.post("/v1/decisions:batch", json=batch)
    assert (reply.status_code, reply.json()["code"]) == (503, code)

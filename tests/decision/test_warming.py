"""First decisions, made before anybody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support import NOW, Service, catalog_document, running

from arbitration.decide import Decision
from decision import live, warming
from decision.warming import warm


async def test_every_placement_is_decided_once_and_nothing_is_kept(service: Service) -> None:
    serving = service.context.live.serving
    made: list[Decision] = []

    def noted(*args: Any) -> Decision:
        made.append(decide(*args))
        return made[-1]

    decide, before = warming.decide, service.rows()
    with patch.object(warming, "decide", noted):
        warm(serving.published, serving.snapshots, NOW)
    placements = [slate.candidates.placement.id for each in made for slate in each.slates]
    assert sorted(placements) == sorted(each.id for each in serving.published.compiled.model.placements)
    assert service.rows() == before
    assert (
        'decisions_total{channel="",result="answered"} 0.0' in service.context.metrics.exposition().decode()
    )


async def test_it_is_done_before_a_start_is_over_and_before_a_catalog_is_swapped(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db") as service:
        first = await service.publish(catalog_document())
    served: list[str | None] = []
    async with running(tmp_path / "a.db") as service:
        assert service.context.live.ready
        now = service.context.live

        def noted(*args: Any) -> None:
            served.append(now.serving.published.version)
            warm(*args)

        with patch.object(live, "warm", noted):
            document = catalog_document()
            document["name"] = "next"
            second = await service.publish(document)
            await now.refresh()  # nothing new: nothing to do
        assert served == [first]
        assert now.serving.published.version == second


async def test_what_cannot_decide_is_not_served(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db") as service:
        first = await service.publish(catalog_document())
        document = catalog_document()
        document["name"] = "next"
        with patch.object(live, "warm", side_effect=ArithmeticError("nobody thought of this")):
            reply = await service.client.post("/v1/catalog/publish", json=document)
            assert reply.status_code == 500
            assert service.context.live.serving.published.version == first
    with (
        patch.object(live, "warm", side_effect=ArithmeticError("nobody thought of this")),
        pytest.raises(ArithmeticError),
    ):
        async with running(tmp_path / "a.db"):
            pass

"""Commands that have no test of their own elsewhere, in process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from support import catalog_document, running

from arbitration.errors import NextBestActionError
from decision.cli import app
from decision.errors import Rejected


async def _learned(path: Path) -> None:
    async with running(path) as service:
        await service.publish(catalog_document())
        learner = service.learner()
        for number, outcome in enumerate(("accepted", "rejected")):
            decision = await service.decide(profile={"nps": 9, "plan": "Max"})
            await service.respond(decision, outcome, f"r-{number}", "check_agent")
            while await learner.step():
                pass


def decision(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    app(list(arguments), standalone_mode=False)
    return capsys.readouterr().out


def test_snapshots_are_listed_compared_pinned_and_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_STORE", f"sqlite:{tmp_path / 'a.db'}")
    monkeypatch.setattr("decision.cli.base.console.width", 140)
    asyncio.run(_learned(tmp_path / "a.db"))
    overview = decision(capsys, "snapshots", "list")
    assert "default" in overview
    listed = decision(capsys, "snapshots", "list", "default")
    newer, older = [word for word in listed.split() if word.startswith("default-")]
    assert newer in overview
    compared = decision(capsys, "snapshots", "compare", "default", older, newer)
    assert "check_agent" in compared
    assert "→ 2" in compared
    assert "0.5000" in compared
    decision(capsys, "snapshots", "pin", "default", older)
    assert older in decision(capsys, "snapshots", "list")
    decision(capsys, "snapshots", "unpin", "default")
    assert older not in decision(capsys, "snapshots", "list")
    assert older in decision(capsys, "snapshots", "rollback", "default")
    with pytest.raises(Rejected):
        decision(capsys, "snapshots", "pin", "default", "none")


def test_the_log_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_STORE", f"sqlite:{tmp_path / 'a.db'}")
    asyncio.run(_learned(tmp_path / "a.db"))
    lines = decision(capsys, "export", "--format", "vw").splitlines()
    assert sorted(orjson.loads(line)["_label_cost"] for line in lines if line.startswith("{")) == [-1.0, 0.0]
    out = tmp_path / "log.parquet"
    decision(capsys, "export", "--format", "parquet", "--out", str(out), "--since", "2026-03-01")
    assert out.read_bytes()[:4] == b"PAR1"
    with pytest.raises(NextBestActionError):
        decision(capsys, "export", "--format", "obp")

"""`decision whatif` and `decision evaluate`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from support import NOW, catalog_document, running
from typer.testing import CliRunner

from arbitration.evaluation import Estimator
from decision.cli import app
from decision.cli.whatif import EstimatorName


def test_it_knows_every_estimator() -> None:
    assert set(get_args(EstimatorName)) == set(get_args(Estimator))


@pytest.fixture
async def store(tmp_path: Path) -> str:
    async with running(tmp_path / "log.db") as service:
        await service.publish(catalog_document())
        for number in range(3):
            await service.decide(f"c{number}", "panel", profile={"plan": "Basic", "nps": 3})
        await service.learner().step()
    return f"sqlite:{tmp_path / 'log.db'}"


def test_a_candidate_is_judged(store: str, tmp_path: Path) -> None:
    (tmp_path / "candidate.json").write_text(json.dumps(catalog_document()))
    out = [f"--json={tmp_path / 'o.json'}", f"--html={tmp_path / 'o.html'}"]
    found = CliRunner().invoke(app, ["whatif", str(tmp_path / "candidate.json"), f"--store={store}", *out])
    assert found.exit_code == 0, found.output
    assert "3 of 3 decisions judged" in found.output
    assert json.loads((tmp_path / "o.json").read_text())["judged"] == 3
    assert (tmp_path / "o.html").read_text().startswith("<!DOCTYPE html>")
    late = f"--since={NOW.year + 1}-01-01"
    found = CliRunner().invoke(app, ["evaluate", f"--store={store}", late, "--policy=default"])
    assert found.exit_code == 0, found.output
    assert "no decision to judge by" in found.output

"""Governance on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from support import catalog_document

from decision.cli import app
from decision.errors import Rejected


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command as the account it is given; what it wrote."""
    monkeypatch.setenv("DECISION_STORE", f"sqlite:{tmp_path / 'a.db'}")

    def called(actor: str, *arguments: str) -> str:
        for module in ("catalogs", "changes"):
            monkeypatch.setattr(f"decision.cli.{module}.actor", lambda: f"cli:{actor}")
        app(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    return called


def written(path: Path, **more: Any) -> str:
    path.write_bytes(orjson.dumps({**catalog_document(), "governance": {"four_eyes": True}, **more}))
    return str(path)


def id_in(text: str) -> str:
    found = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", text)
    assert found is not None, text
    return found[0]


def test_a_change_goes_its_way(call: Any, tmp_path: Path) -> None:
    zero, one = written(tmp_path / "zero.json"), written(tmp_path / "one.json", currency="USD")
    call("anna", "catalog", "publish", zero, "--title", "Zero", "--why", "to begin")
    assert call("anna", "catalog", "diff", one) == '~ currency\n    "EUR" → "USD"\n'
    assert call("anna", "catalog", "diff", zero) == "no difference\n"
    with pytest.raises(Rejected, match="four eyes"):
        call("anna", "catalog", "publish", one)
    change = id_in(call("anna", "changes", "draft", one, "--title", "Dollars", "--why", "we move"))
    call("anna", "changes", "submit", change, "--why", "ready")
    with pytest.raises(Rejected, match="own"):
        call("anna", "changes", "approve", change, "--why", "mine")
    call("bert", "changes", "comment", change, "why?")
    shown = call("bert", "changes", "show", change)
    assert "cli:bert  why?" in shown
    assert shown.endswith('~ currency\n    "EUR" → "USD"\n')
    call("bert", "changes", "approve", change, "--why", "fine")
    planned = call("anna", "changes", "publish", change, "--why", "go", "--at", "2099-01-01")
    assert "scheduled" in planned
    assert change in call("anna", "changes", "list")
    call("anna", "catalog", "publish", one)
    assert "published" in call("anna", "changes", "show", change)
    with pytest.raises(Rejected):
        call("anna", "changes", "reject", change, "--why", "no")
    second = id_in(call("bert", "changes", "draft", zero, "--title", "Euros", "--why", "back"))
    call("bert", "changes", "edit", second, zero, "--why", "again")
    assert "withdrawn" in call("anna", "changes", "withdraw", second, "--why", "no")


def test_a_halt_is_begun_listed_and_ended(call: Any, tmp_path: Path) -> None:
    call("anna", "catalog", "publish", written(tmp_path / "zero.json"))
    halt = id_in(call("anna", "halt", "action", "check", "--why", "wrong"))
    assert halt in call("anna", "halts")
    with pytest.raises(typer.BadParameter):
        call("anna", "halt", "placement", "hero", "--why", "wrong")
    with pytest.raises(Rejected):
        call("anna", "halt", "action", "zork", "--why", "wrong")
    call("anna", "resume", halt, "--why", "mended")
    assert halt not in call("anna", "halts")

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
    version = re.findall(r"submitted  (\S+)  Dollars", call("bert", "changes", "show", change))[0]
    with pytest.raises(Rejected, match="own"):
        call("anna", "changes", "approve", change, "--version", version, "--why", "mine")
    call("bert", "changes", "comment", change, "why?")
    shown = call("bert", "changes", "show", change)
    assert "cli:bert  why?" in shown
    assert shown.endswith('~ currency\n    "EUR" → "USD"\n')
    for step in ("approve", "publish"):
        with pytest.raises(Rejected, match="another document"):
            call("bert", "changes", step, change, "--version", "sha256:0", "--why", "x")
        with pytest.raises(typer.BadParameter, match="version"):
            call("bert", "changes", step, change, "--why", "x")
    seen = ("--version", version, "--why")
    call("bert", "changes", "approve", change, *seen, "fine")
    planned = call("anna", "changes", "publish", change, *seen, "go", "--at", "2099-01-01")
    assert "scheduled" in planned
    assert change in call("anna", "changes", "list")
    call("anna", "catalog", "publish", one)
    assert "published" in call("anna", "changes", "show", change)
    with pytest.raises(Rejected):
        call("anna", "changes", "reject", change, "--why", "no")
    second = id_in(call("bert", "changes", "draft", zero, "--title", "Euros", "--why", "back"))
    call("bert", "changes", "edit", second, zero, "--why", "again")
    assert "withdrawn" in call("anna", "changes", "withdraw", second, "--why", "no")


@pytest.mark.parametrize("hidden", ["\u202e", "\x9b31m", "\x1b[2K"])
def test_texts_say_what_they_seem_to(call: Any, tmp_path: Path, hidden: str) -> None:
    zero, text = written(tmp_path / "zero.json"), f"a{hidden}b"
    for arguments, name in (
        (("changes", "draft", zero, "--title", text, "--why", "w"), "--title"),
        (("changes", "draft", zero, "--title", "t", "--why", text), "--why"),
        (("changes", "comment", "c", text), "text"),
        (("catalog", "publish", zero, "--why", text), "--why"),
        (("halt", "action", "check", "--why", text), "--why"),
    ):
        with pytest.raises(typer.BadParameter, match="control characters") as refused:
            call("anna", *arguments)
        assert name in refused.value.format_message()


def test_what_is_told_of_a_change_is_neither_markup_nor_moves_what_is_around_it(
    call: Any, tmp_path: Path
) -> None:
    zero = written(tmp_path / "zero.json")
    call("anna", "catalog", "publish", zero)
    title = ("--title", "[/red]x")
    change = id_in(call("a\u202eb", "changes", "draft", zero, *title, "--why", "one\ntwo"))
    shown = call("anna", "changes", "show", change)
    assert "cli:a\\u202eb  one\\ntwo\n" in shown
    assert "\u202e" not in shown + call("anna", "changes", "list")
    assert "[/r" in call("anna", "changes", "list")


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

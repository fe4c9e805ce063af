"""Keys and the audit trail, from the command line; and where a service listens that has no keys."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import click
import orjson
import pytest
import typer

from decision.access.keys import hashed
from decision.access.visitors import new_pair, public_key
from decision.cli import app
from decision.errors import Rejected, StoreUnavailable


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:{tmp_path / 'a.db'}"
    monkeypatch.setenv("DECISION_STORE", url)
    monkeypatch.setattr("decision.cli.base.console.width", 160)
    return url


class Cli:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""
        self.code: object = None

    def __call__(self, *arguments: str) -> str:
        self.code = app(list(arguments), standalone_mode=False)
        out, self.err = self._capsys.readouterr()
        return out

    def make(self, *arguments: str) -> tuple[str, str]:
        """Id and secret of a new key."""
        said = self("keys", *arguments)
        id = re.search(r"made (\w+);", said)
        token = re.search(r"^nba(?:pub)?_\S+$", said, re.MULTILINE)
        assert id is not None
        assert token is not None
        return id[1], token[0]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], url: str) -> Cli:
    return Cli(capsys)


def test_a_key_is_shown_once_and_kept_as_a_hash(cli: Cli, tmp_path: Path) -> None:
    id, token = cli.make("create", "the website", "--role", "agent", "--scope", "reports", "--limit", "60")
    listed = cli("keys", "list")
    assert id in listed
    assert "the website" in listed
    assert "decide respond profiles:read reports" in listed
    assert "60" in listed
    assert token not in listed
    secret = token.split("_", 2)[2]
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        (detail,) = connection.execute("SELECT detail FROM audit").fetchone()
    assert orjson.loads(detail)["hash"] == hashed(token)


def test_two_keys_are_never_alike(cli: Cli) -> None:
    made = [cli.make("create", "a", "--role", "operator") for _ in range(5)]
    assert len(set(made)) == 5
    assert all(len(token) >= 50 for _, token in made)


def test_a_key_ends_by_itself_is_revoked_and_is_rotated(cli: Cli) -> None:
    old, _ = cli.make("create", "a", "--role", "operator", "--expires", "1s")
    time.sleep(1)
    new, first = cli.make("create", "b", "--role", "operator", "--expires", "90d")
    next_, second = cli.make("rotate", new, "--overlap", "0s")
    assert first != second
    cli("keys", "revoke", next_)
    cli("keys", "revoke", next_)  # once more does no harm
    listed = {line.split("│")[1].strip(): line for line in cli("keys", "list").splitlines() if "│" in line}
    assert "expired" in listed[old]
    assert "expired" in listed[new]
    assert "revoked" in listed[next_]
    for id in (old, next_):
        with pytest.raises(Rejected):
            cli("keys", "rotate", id)
    with pytest.raises(Rejected):
        cli("keys", "revoke", "nothing")
    assert "operator" in listed[old]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--role", "king"],
        ["--role", "agent", "--expires", "soon"],
        ["--role", "agent", "--limit", "0"],
        ["--role", "agent", "--expires", "2020-01-01"],
        ["--role", "agent", "--channel", "web"],
        ["--role", "agent", "--outcome", "click"],
    ],
)
def test_what_cannot_be_made_is_said(cli: Cli, arguments: list[str]) -> None:
    with pytest.raises((click.UsageError, typer.BadParameter)):
        cli("keys", "create", "a", *arguments)
    assert "a" not in cli("keys", "list").split("│")


@pytest.mark.parametrize("arguments", [[], ["--scope", "all"], ["--origin", "https://a.example"]])
def test_a_key_that_may_nothing_is_not_made(cli: Cli, arguments: list[str]) -> None:
    with pytest.raises(Rejected):
        cli("keys", "create", "a", *arguments)


def test_a_publishable_key_comes_with_a_pair(cli: Cli, tmp_path: Path) -> None:
    said = cli("keys", "create", "site", "--origin", "https://a.example", "--channel", "web")
    assert "nbapub_" in said
    assert "BEGIN PRIVATE KEY" in said
    assert b"PRIVATE" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    pem = tmp_path / "site.pem"
    pem.write_text(new_pair()[1])
    options = ["--origin", "https://a.example", "--channel", "web", "--verify-with", str(pem)]
    assert "PRIVATE" not in cli("keys", "create", "site", *options)
    assert public_key(pem.read_text())
    assert "https://a.example" in cli("keys", "list")


def test_the_trail_is_shown_and_verified(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id, _ = cli.make("create", "a", "--role", "agent")
    noted = cli("audit", "verify").split()[-1]
    cli("keys", "revoke", id)
    kinds = [orjson.loads(line)["kind"] for line in cli("audit", "show").splitlines()]
    assert kinds == ["key.create", "key.revoke"]
    assert cli("audit", "show", "--after", "1").count("\n") == 1
    assert cli("audit", "show", "--customer", "anna") == ""
    assert "unbroken: 2" in cli("audit", "verify", "--noted", noted)
    for wrong in ("1", "²:" + "0" * 64, f"{noted}0"):
        with pytest.raises(typer.BadParameter):
            cli("audit", "verify", "--noted", wrong)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(
            "DROP TRIGGER audit_is_not_changed; UPDATE audit SET actor = 'cli:other' WHERE seq = 1;"
        )
    assert cli("audit", "verify") == ""
    assert cli.code == 1
    assert "entry 1 was changed" in cli.err


class Executed(Exception):
    """In the place of a process that takes over."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    found: list[tuple[list[str], dict[str, str]]] = []

    def execve(_: str, command: list[str], environment: dict[str, str]) -> None:
        found.append((command, environment))
        raise Executed

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr("decision.logs.set_up", lambda *_: None)  # it is for the whole process
    monkeypatch.setenv("DECISION_LOCAL", "1")  # as if it had been left behind
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::1", "localhost", "192.0.2.1"])
def test_without_a_key_it_listens_to_this_machine_only_and_says_so(
    cli: Cli,
    capsys: pytest.CaptureFixture[str],
    executed: list[tuple[list[str], dict[str, str]]],
    host: str,
) -> None:
    with pytest.raises(Executed):
        cli("serve", "--host", host)
    said = capsys.readouterr().err
    cli.make("create", "a", "--role", "agent")
    with pytest.raises(Executed):
        cli("serve", "--host", host)
    (keyless, environment), (guarded, told) = executed
    local = host in ("127.0.0.1", "::1", "localhost")
    assert keyless[keyless.index("--host") + 1] == (host if local else "127.0.0.1")
    assert environment["DECISION_LOCAL"] == "1"
    assert ("127.0.0.1 only" in " ".join(said.split())) == (not local)
    assert guarded[guarded.index("--host") + 1] == host
    assert told["DECISION_LOCAL"] == "0"
    assert keyless[0] == sys.executable


def test_where_the_store_cannot_say_everybody_is_asked(
    cli: Cli, executed: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    with pytest.raises(Executed):
        cli("serve", "--host", "0.0.0.0", "--store", f"sqlite:{tmp_path / 'absent' / 'a.db'}")
    [(command, environment)] = executed
    assert "0.0.0.0" in command
    assert environment["DECISION_LOCAL"] == "0"


def test_an_issuer_is_enough_to_be_asked(
    cli: Cli, executed: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    file = tmp_path / "access.yaml"
    file.write_text("oidc: {url: https://login.example, audience: decisions}")
    with pytest.raises(Executed):
        cli("serve", "--host", "0.0.0.0", "--access", str(file))
    [(command, environment)] = executed
    assert "0.0.0.0" in command
    assert environment["DECISION_LOCAL"] == "0"
    assert environment["DECISION_ACCESS"] == str(file)


def test_a_trail_that_is_empty_or_damaged_is_not_called_unbroken(cli: Cli, tmp_path: Path) -> None:
    cli("keys", "list")
    assert cli("audit", "verify") == ""
    assert "no entry" in cli.err
    cli.make("create", "a", "--role", "agent")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript("DELETE FROM audit_head")
    assert cli("audit", "verify") == ""
    assert cli.code == 1
    assert "head of the audit trail is missing" in " ".join(cli.err.split())


def test_what_is_in_force_does_not_follow_from_what_makes_no_sense(cli: Cli, tmp_path: Path) -> None:
    cli.make("create", "a", "--role", "agent")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript("DROP TRIGGER audit_is_not_changed; UPDATE audit SET detail = '{}'")
    with pytest.raises(StoreUnavailable, match="entry 1 of the audit trail makes no sense"):
        cli("keys", "list")

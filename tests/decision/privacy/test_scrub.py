"""`decision scrub`: nothing is left in the file of what is not in the database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from decision.cli import app
from decision.storage.sqlite.migrate import migrate


def test_what_an_older_release_left_behind_goes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection)
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("INSERT INTO stops VALUES ('zyzzyva', 'group', 'g', NULL)")
        connection.execute("DELETE FROM stops")
    assert b"zyzzyva" in path.read_bytes()
    result = CliRunner().invoke(app, ["scrub", "--store", f"sqlite:{path}"])
    assert result.exit_code == 0, result.output
    assert not any(b"zyzzyva" in each.read_bytes() for each in tmp_path.iterdir())
    missing = CliRunner().invoke(app, ["scrub", "--store", f"sqlite:{tmp_path / 'other.db'}"])
    assert missing.exit_code != 0

"""One export from a store: where it goes, that it is whole, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from past import History, Told
from support import NOW

from decision.exporting.errors import ExportError
from decision.exporting.export import Format, export
from decision.exporting.remaking import Window
from decision.storage.sqlite.store import SqliteStore


async def test_lines_go_to_a_file_or_to_standard_output(
    told: Told, store: SqliteStore, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    steps: list[tuple[int, int]] = []
    path = tmp_path / "log.dsjson"
    summary = await export(store, "vw", path, Window(), moved=lambda *at: steps.append(at))
    assert steps[-1] == (summary.decisions, summary.decisions) == (told[0].decisions, told[0].decisions)
    items = sum(row.item is not None for row in told[1])
    assert summary.rows + summary.left_out == items
    assert summary.lost == ()
    assert path.read_bytes().count(b"\n") == summary.rows
    assert list(tmp_path.iterdir()) == [path]
    await export(store, "vw", None, Window())
    assert capfdbinary.readouterr().out == path.read_bytes()


async def test_a_file_appears_when_it_is_whole(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    path.write_bytes(b"an older one")
    with pytest.raises(ExportError, match="no item shown"):
        await export(store, "obp", path, Window(until=NOW))
    assert path.read_bytes() == b"an older one"
    assert list(tmp_path.iterdir()) == [path]
    await export(store, "obp", path, Window())
    assert path.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize("format", ["obp", "parquet"])
async def test_a_file_has_to_be_named(store: SqliteStore, tmp_path: Path, format: Format) -> None:
    with pytest.raises(ExportError, match="--out FILE"):
        await export(store, format, None, Window())
    with pytest.raises(ExportError, match="no directory"):
        await export(store, format, tmp_path / "none" / "log", Window())


async def test_parquet_without_pyarrow_says_what_is_missing(
    history: History, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "decision.exporting.parquet", raising=False)
    with pytest.raises(ExportError, match=r"next-best-action\[parquet\]"):
        await export(store, "parquet", tmp_path / "log.parquet", Window())
    assert list(tmp_path.iterdir()) == []

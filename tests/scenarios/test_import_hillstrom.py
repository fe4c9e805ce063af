"""Kevin Hillstrom's 64,000 customers, imported by a map: the file has no ids, and a column is renamed.

Skipped where the data are absent.
"""

from __future__ import annotations

import csv
import gzip
import time
from itertools import islice
from pathlib import Path

import pytest

from decision.catalog_files import read_catalog
from decision.import_files import import_file
from decision.publishing import check_document
from decision.storage.sqlite.store import SqliteStore

HERE = Path(__file__).resolve().parent / "hillstrom"
FILE = Path(__file__).resolve().parents[3] / "shared/data/hillstrom/hillstrom.csv.gz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"the data are not there: {FILE.name}")
ROWS = 64_000


@pytest.fixture(params=[16_000, pytest.param(ROWS, marks=pytest.mark.long)])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """The file, or one with its first rows; and how many it has."""
    rows: int = request.param
    if rows == ROWS:
        return FILE, rows
    shorter = tmp_path / "first.csv.gz"
    with gzip.open(FILE, "rt", encoding="utf-8") as whole, gzip.open(shorter, "wt", encoding="utf-8") as part:
        part.writelines(islice(whole, rows + 1))
    return shorter, rows


async def test_every_row_is_imported(
    given: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, rows = given
    published = check_document(read_catalog(HERE / "catalog.yaml")[0]).published
    assert published is not None
    store = SqliteStore(tmp_path / "hillstrom.db")
    await store.open()
    told: list[tuple[int, int]] = []
    started = time.perf_counter()
    summary = await import_file(
        source,
        store,
        published.compiled,
        HERE / "map.yaml",
        tmp_path / "rejects.ndjson",
        lambda done, total: told.append((done, total)),
    )
    seconds = time.perf_counter() - started
    with capsys.disabled():
        print(f"\nimport {summary.imported} rows {seconds:.1f} s, {summary.imported / seconds:.0f}/s")
    assert (summary.imported, summary.rejected, summary.errors) == (rows, 0, ())
    assert summary.ignored == ("segment", "visit", "conversion", "spend")

    size = source.stat().st_size
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert len(told) > rows / 1000

    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            if line % 97 and line not in (2, rows + 1):
                continue
            customer = await store.customer(f"hillstrom-{line}")
            assert customer is not None
            assert customer.attributes == {
                "recency": int(row["recency"]),
                "history_segment": row["history_segment"],
                "history": float(row["history"]),
                "mens": row["mens"] == "1",
                "womens": row["womens"] == "1",
                "area": row["zip_code"],
                "newbie": row["newbie"] == "1",
                "bought_through": row["channel"],
            }
    assert await store.customer(f"hillstrom-{rows + 2}") is None
    await store.close()

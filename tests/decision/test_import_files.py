"""Importing files: what is imported, what is rejected and by which line, and what is refused as a whole."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.problems import Source
from decision.errors import Rejected
from decision.import_files import Summary, import_file
from decision.importing import BATCH, LONGEST_LINE, REPORTED
from decision.publishing import check_document
from decision.storage.port import ConsentDetail, Customer, Identity
from decision.storage.sqlite.store import SqliteStore

CATALOG = {
    "attributes": [
        {"id": "nps", "type": "int", "min": 0, "max": 10},
        {"id": "spend", "type": "double"},
        {"id": "open", "type": "bool"},
        {"id": "plan", "type": "string", "values": ["Basic", "Plus"]},
        {"id": "note", "type": "string"},
        {"id": "ends", "type": "timestamp"},
        {"id": "likes", "type": "strings"},
    ],
    "scores": [{"id": "clv", "min": 0}],
    "purposes": [{"id": "mail"}],
    "groups": [{"id": "g"}],
    "channels": [
        {"id": "web", "direction": "inbound", "rewards": {"click": 1.0}, "response_window": "2h"},
    ],
    "placements": [{"id": "hero", "channel": "web", "content": [{"id": "title"}]}],
    "policies": [{"id": "default", "strategy": "thompson"}],
    "actions": [
        {
            "id": "a",
            "group": "g",
            "treatments": [{"id": "t", "channel": "web", "placement": "hero", "content": {"title": "t"}}],
        }
    ],
}


@pytest.fixture(scope="module")
def catalog() -> CompiledCatalog:
    checked = check_document(Source(CATALOG))
    assert checked.published is not None, checked.problems
    return checked.published.compiled


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    yield store
    await store.close()


class Files:
    """Writes a file and imports it."""

    def __init__(self, folder: Path, store: SqliteStore, catalog: CompiledCatalog) -> None:
        self.folder = folder
        self._store = store
        self._catalog = catalog

    async def load(self, name: str, content: bytes | str, mapping: str | None = None, **more: Any) -> Summary:
        path = self.folder / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
        map_file = None
        if mapping is not None:
            map_file = self.folder / "map.yaml"
            map_file.write_text(mapping, encoding="utf-8")
        return await import_file(path, self._store, self._catalog, map_file, **more)

    async def refused(self, name: str, content: bytes | str, mapping: str | None = None) -> dict[str, str]:
        """The faults of a file or map that is refused as a whole: message by field. Nothing is stored."""
        with pytest.raises(Rejected) as caught:
            await self.load(name, content, mapping)
        assert (caught.value.status, caught.value.code) == (422, "invalid_import")
        assert await self.customer("c-1") is None
        return {fault.field: fault.message for fault in caught.value.errors}

    async def customer(self, customer_id: str) -> Customer | None:
        return await self._store.customer(customer_id)

    def rejects(self, name: str) -> list[dict[str, Any]]:
        text = (self.folder / f"{name}.rejects.ndjson").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def files(tmp_path: Path, store: SqliteStore, catalog: CompiledCatalog) -> Files:
    return Files(tmp_path, store, catalog)


def faults(summary: Summary) -> dict[int, list[str]]:
    return {line: [fault.field for fault in errors] for line, errors in summary.errors}


async def test_csv_columns_go_where_their_names_say(files: Files) -> None:
    summary = await files.load(
        "c.csv",
        "\ufeffcustomer_id,nps,attributes.plan,scores.clv,consents.mail,identities.phone,hobby,scores.age\r\n"
        "c-1,3,Plus,412.5,given,+31,chess,4\r\n"
        "c-2,,,,,,,\r\n",
    )
    assert (summary.imported, summary.rejected, summary.rejects_file) == (2, 0, None)
    assert summary.ignored == ("hobby", "scores.age")
    assert await files.customer("c-1") == Customer(
        "c-1", {"nps": 3, "plan": "Plus"}, {"clv": 412.5}, {"mail": "given"}, (Identity("phone", "+31"),)
    )
    assert await files.customer("c-2") == Customer("c-2")
    assert not (files.folder / "c.csv.rejects.ndjson").exists()


async def test_bad_rows_are_rejected_by_line_and_column_and_stop_nothing(files: Files) -> None:
    content = (
        "customer_id,nps,plan,consents.mail,identities.phone\n"
        "c-1,3,Plus,given,1\n"
        "c-2,three,Plus,given,2\n"
        "\n"
        "c-3,11,Gold,maybe,3\n"
        ",3,Plus,given,4\n"
        "c-5,3,Plus\n"
        "c-6,3,Plus,given,1\n"
        "c-7,4,Plus,given,7\n"
    )
    summary = await files.load("c.csv", content)
    assert (summary.imported, summary.rejected) == (2, 5)
    assert faults(summary) == {
        3: ["nps"],
        5: ["nps", "plan", "consents.mail"],
        6: ["customer_id"],
        7: ["row"],
        8: ["identities.phone"],  # it belongs to c-1: known only when the batch is stored
    }
    assert summary.rejects_file == files.folder / "c.csv.rejects.ndjson"
    first, *_, ragged, conflict = files.rejects("c.csv")
    assert first == {
        "line": 3,
        "errors": [{"field": "nps", "code": "bad_value", "message": "'three' is not a whole number"}],
        "row": dict(zip(content.splitlines()[0].split(","), content.splitlines()[2].split(","), strict=True)),
    }
    assert ragged["row"] == ["c-5", "3", "Plus"]
    assert ragged["errors"][0]["message"] == "the row has 3 cells, the header has 5"
    assert (conflict["line"], conflict["row"]["customer_id"]) == (8, "c-6")
    assert conflict["errors"][0]["code"] == "conflict"
    assert await files.customer("c-7") is not None


async def test_faults_of_identities_name_the_column_they_came_from(files: Files) -> None:
    content = f"customer_id,identities.phone,identities.mail\nc-1,,{'x' * 5000}\nc-2,1,{'x' * 5000}\n"
    assert faults(await files.load("c.csv", content)) == {2: ["identities.mail"], 3: ["identities.mail"]}


async def test_rows_with_line_breaks_go_by_the_line_they_begin_on(files: Files) -> None:
    content = 'customer_id,note,nps\nc-1,"one\n\ntwo",3\nc-2,"a ""b"", c\n",x\nc-3,z,y\n'
    summary = await files.load("c.csv", content)
    assert faults(summary) == {5: ["nps"], 7: ["nps"]}
    customer = await files.customer("c-1")
    assert customer is not None
    assert customer.attributes == {"note": "one\n\ntwo", "nps": 3}


async def test_text_that_is_no_csv_is_rejected_with_its_lines(files: Files) -> None:
    content = 'customer_id,note\nc-1,"a"b\nc-2,ok\nc-3,"never closed\nc-4,ok\n'
    summary = await files.load("c.csv", content)
    assert (summary.imported, faults(summary)) == (1, {2: ["row"], 4: ["row"]})
    assert await files.customer("c-2") is not None
    last = files.rejects("c.csv")[-1]
    assert last["row"] == 'c-3,"never closed\nc-4,ok\n'
    assert "line 4 to 5 cannot be read as CSV" in last["errors"][0]["message"]


async def test_broken_encodings_and_nul_bytes_are_faults_of_their_cell(files: Files) -> None:
    content = b"customer_id,note,plan\nc-1,caf\xe9,Plus\nc-2,\x00,Plus\nc-3,caf\xc3\xa9,Plus\n"
    summary = await files.load("c.csv", content)
    assert (summary.imported, faults(summary)) == (1, {2: ["note"], 3: ["note"]})
    assert files.rejects("c.csv")[0]["row"] == {"customer_id": "c-1", "note": "caf\ufffd", "plan": "Plus"}


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz"])
async def test_lines_without_end_are_not_read_whole(files: Files, name: str) -> None:
    content = f"customer_id,note\nc-1,{'x' * (3 * LONGEST_LINE)}\nc-2,ok\n"
    summary = await files.load(name, content)
    assert (summary.imported, faults(summary)) == (1, {2: ["row"]})
    assert len((files.folder / f"{name}.rejects.ndjson").read_bytes()) < 1000


@pytest.mark.parametrize("name", ["c.ndjson", "c.jsonl", "c.NDJSON.GZ", "c.jsonl.gz"])
async def test_ndjson(files: Files, name: str) -> None:
    rows: list[object] = [
        {"customer_id": "c-1", "attributes": {"nps": 3}},
        {"customer_id": "c-2", "attributes": {"nps": "3"}},
        {"customer_id": "c-3", "attributes": {"zork": 3}},
    ]
    lines = [json.dumps(row) for row in rows] + [
        "",
        "{broken",
        "x" * (2 * LONGEST_LINE),
        '{"customer_id": "c-7"}',
    ]
    summary = await files.load(name, "\ufeff" + "\n".join(lines))
    assert (summary.imported, summary.ignored) == (2, ())
    assert faults(summary) == {2: ["attributes.nps"], 3: ["attributes.zork"], 5: ["body"], 6: ["body"]}
    assert [entry["row"] for entry in files.rejects(name)] == [rows[1], rows[2], "{broken", None]
    assert await files.customer("c-7") is not None


async def test_all_rejects_reach_the_file_and_the_first_the_summary(files: Files) -> None:
    rows = "".join(f"c-{number},x\n" for number in range(3 * REPORTED))
    summary = await files.load("c.csv", f"customer_id,nps\n{rows}", rejects_path=files.folder / "bad.ndjson")
    assert (summary.imported, summary.rejected) == (0, 3 * REPORTED)
    assert [line for line, _ in summary.errors] == list(range(2, REPORTED + 2))
    written = (files.folder / "bad.ndjson").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["line"] for line in written] == list(range(2, 3 * REPORTED + 2))
    assert summary.rejects_file == files.folder / "bad.ndjson"


async def test_conflicts_cost_their_own_rows_only(files: Files) -> None:
    taken = {3, 250, 251, BATCH + 7}
    rows = "".join(f"c-{n},{'same' if n in taken else n}\n" for n in range(BATCH + 20))
    summary = await files.load("c.csv", f"customer_id,identities.cookie\n{rows}")
    assert (summary.imported, summary.rejected) == (BATCH + 17, 3)
    assert sorted(faults(summary)) == [252, 253, BATCH + 9]
    assert await files.customer(f"c-{BATCH + 19}") is not None


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.ndjson"])
async def test_progress_goes_from_nothing_to_all(files: Files, name: str) -> None:
    row = "c-{0},{0}\n" if "csv" in name else '{{"customer_id": "c-{0}"}}\n'
    rows = "".join(row.format(number) for number in range(2000))
    told: list[tuple[int, int]] = []
    await files.load(
        name,
        ("customer_id,spend\n" if "csv" in name else "") + rows,
        progress=lambda done, total: told.append((done, total)),
    )
    size = (files.folder / name).stat().st_size
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert len(told) > 4


@pytest.mark.parametrize(
    ("name", "content", "field", "says"),
    [
        ("c.xlsx", "x", "c.xlsx", "must end in .csv"),
        ("c.csv", "", "c.csv", "empty"),
        ("c.csv.gz", "", "c.csv.gz", "empty"),
        ("c.ndjson", "", "c.ndjson", "empty"),
        ("c.csv", "\n\n", "c.csv", "empty"),
        ("c.csv", "customer_id,nps\nc-1,3\n".encode("utf-16"), "c.csv", "UTF-16"),
        ("c.csv", "customer_id,nps\nc-1,3\n".encode("utf-16-le"), "'c\\x00u", "NUL"),
        ("c.csv", b"customer_id,caf\xe9\nc-1,3\n", "c.csv", "not UTF-8"),
        ("c.csv", "customer_id,nps\rc-1,3\r", "c.csv", "cannot be read as CSV"),
        ("c.csv", "c-1,3,Plus\nc-2,4,Plus\n", "customer_id", "the first line of the file has: c-1, 3, Plus"),
        ("c.csv", "customer_id,nps, nps\nc-1,3,4\n", "nps", "more than once"),
        ("c.csv", "customer_id,nps,attributes.nps\nc-1,3,4\n", "attributes.nps", "nps, attributes.nps"),
    ],
)
async def test_a_file_that_cannot_be_imported_is_refused(
    files: Files, name: str, content: str | bytes, field: str, says: str
) -> None:
    found = await files.refused(name, content)
    assert [message for at, message in found.items() if at.startswith(field) and says in message], found


async def test_a_broken_archive_is_refused_before_anything_is_imported(files: Files) -> None:
    rows = "".join(f"c-{number},{number % 7}\n" for number in range(20_000))
    whole = gzip.compress(f"customer_id,spend\n{rows}".encode())
    path = files.folder / "c.csv.gz"
    for content in (whole[: len(whole) // 2], whole[:-9] + b"x" + whole[-8:], b"not gzip at all"):
        path.write_bytes(content)
        with pytest.raises(Rejected) as caught:
            await import_file(path, files._store, files._catalog)
        assert caught.value.errors[0].code == "broken_archive"
        assert await files.customer("c-1") is None


async def test_a_missing_file_is_refused(files: Files, store: SqliteStore, catalog: CompiledCatalog) -> None:
    for path, mapping in ((files.folder / "none.csv", None), (files.folder, None)):
        with pytest.raises(Rejected, match="cannot be imported"):
            await import_file(path, store, catalog, mapping)


async def test_rejects_never_overwrite_what_is_imported(files: Files) -> None:
    content = "customer_id,nps\nc-1,x\n"
    for rejects in (files.folder / "c.csv", files.folder / "no" / "folder.ndjson", files.folder):
        with pytest.raises(Rejected) as caught:
            await files.load("c.csv", content, rejects_path=rejects)
        assert caught.value.errors[0].code == "unwritable"
        assert (files.folder / "c.csv").read_text(encoding="utf-8") == content


async def test_a_map_is_for_csv(files: Files) -> None:
    assert "a map is for CSV" in str(
        await files.refused("c.ndjson", '{"customer_id": "c-1"}\n', "columns: {}")
    )


async def test_a_map_says_where_columns_go(files: Files) -> None:
    summary = await files.load(
        "c.csv",
        "klant,NPS score,Nieuwsbrief,note,plan\nc-1,3,Ja,secret,Plus\nc-2,?,Nee,,x\nc-3,8,Soms,,\n",
        """
columns:
  klant: customer_id
  NPS score: {to: nps, values: {"?": null}}
  Nieuwsbrief: {to: consents.mail, values: {Ja: given, Nee: withdrawn}}
  note: null
""",
    )
    assert (summary.imported, summary.ignored) == (1, ("note",))
    assert faults(summary) == {3: ["plan"], 4: ["Nieuwsbrief"]}
    assert await files.customer("c-1") == Customer("c-1", {"nps": 3, "plan": "Plus"}, {}, {"mail": "given"})


async def test_ids_can_come_from_the_line(files: Files) -> None:
    summary = await files.load("c.csv", "nps\n3\nx\n4\n", 'customer_id_from_line: "row-{line}"')
    assert (summary.imported, faults(summary)) == (2, {3: ["nps"]})
    assert await files.customer("row-4") == Customer("row-4", {"nps": 4})


async def test_consents_in_files_have_times_and_sources(files: Files) -> None:
    expected = {"mail": ConsentDetail(datetime(2026, 1, 31, 7, tzinfo=UTC), "shop")}
    consent = {"status": "given", "at": "2026-01-31T08:00:00+01:00", "source": "shop"}
    summary = await files.load("c.ndjson", json.dumps({"customer_id": "c-1", "consents": {"mail": consent}}))
    assert summary.imported == 1
    first = await files.customer("c-1")
    assert first == Customer("c-1", {}, {}, {"mail": "given"}, (), expected)
    summary = await files.load(
        "c.csv",
        "customer_id,mail,consents.mail.at,By,consents.mail.zork\n"
        "c-2,Ja,2026-01-31T08:00:00+01:00,shop,x\n"
        "c-3,Nee,2026-01-31,,\n"
        "c-4,Nee,,,\n"
        "c-5,,2026-01-31,shop,\n"
        "c-6,Misschien,,shop,\n"
        "c-7,Ja,gisteren,shop,\n"
        "c-8,Ja,9999-01-01,shop,\n"
        "c-9,,,,\n",
        """
columns:
  mail: {to: consents.mail, values: {Ja: given, Nee: withdrawn}}
  By: consents.mail.source
""",
    )
    assert (summary.imported, summary.ignored) == (4, ("consents.mail.zork",))
    at = ["consents.mail.at"]
    assert faults(summary) == {5: ["mail"], 6: ["mail"], 7: at, 8: at}
    assert await files.customer("c-2") == replace(first, customer_id="c-2")
    midnight = {"mail": ConsentDetail(datetime(2026, 1, 31, tzinfo=UTC))}
    assert await files.customer("c-3") == Customer("c-3", {}, {}, {"mail": "withdrawn"}, (), midnight)
    assert await files.customer("c-4") == Customer("c-4", {}, {}, {"mail": "withdrawn"})
    assert await files.customer("c-9") == Customer("c-9")


async def test_a_time_without_its_consent_is_refused(files: Files) -> None:
    found = await files.refused("c.csv", "customer_id,consents.mail.at\nc-1,2026-01-31\n")
    assert found == {
        "consents.mail": "no column has this name or is mapped to it, but one is consents.mail.at"
    }

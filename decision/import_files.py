"""Imports customers from a file: CSV or NDJSON, plain or gzipped, as a stream of any length.

What fits is imported, what does not is reported by its line; a bad row never stops the rest. Where CSV
columns go, and how their cells are read, is told in `decision.import_columns`. A file that cannot be
imported at all (unknown kind, empty, not UTF-8, broken archive, a faulty header or map) is refused before
anything is stored.

Lines are the physical lines of the file, from 1, the header included; a row with line breaks in quotes
goes by the line it begins on. Rejected rows are written to a file of their own, one JSON object a line:
`{"line": 7, "errors": [{"field": "nps", "code": …, "message": …}], "row": {"nps": "x", …}}`, `row` being
what was read: for CSV the cells by column name, or the text where it is no row.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from arbitration.catalog.compile import CompiledCatalog
from decision.errors import FieldError, Rejected
from decision.import_columns import ColumnMap, Columns, Row, invalid_import, read_map
from decision.importing import LONGEST_LINE, REPORTED, Importer, Way, replacing
from decision.storage.port import Profiles

Progress = Callable[[int, int], None]
"""Told of the bytes of the file read so far (of a .gz: compressed bytes), and of all there are."""

_TOLD_EVERY = 500
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Summary:
    """What an import did: numbers of rows, CSV columns not used, the first 100 rejected rows by line, and
    the file that has them all (None: none were)."""

    imported: int
    rejected: int
    ignored: tuple[str, ...]
    errors: tuple[tuple[int, Sequence[FieldError]], ...]
    rejects_file: Path | None


def _now() -> datetime:
    return datetime.now(UTC)


async def import_file(
    path: Path,
    store: Profiles,
    catalog: CompiledCatalog,
    mapping: Path | None = None,
    rejects_path: Path | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = _now,
) -> Summary:
    """Imports `path`, CSV or NDJSON by its name, checked against `catalog`; each profile is replaced whole.

    `mapping`: a map of CSV columns. `rejects_path`: where rejected rows go (default: `<path>.rejects.ndjson`,
    overwritten). `clock`: when values are told, asked for each batch. Raises Rejected (`invalid_import`) with
    nothing imported if the file as a whole or the map is at fault; StoreUnavailable.
    """
    is_csv = _is_csv(path)
    if mapping is not None and not is_csv:
        raise _fault(mapping, "map_without_columns", "a map is for CSV; NDJSON says itself what is what")
    columns = ColumnMap() if mapping is None else read_map(mapping)
    rejects_path = rejects_path or path.with_name(f"{path.name}.rejects.ndjson")
    _check_rejects_path(rejects_path, (path, mapping))
    way = replacing(store, clock)
    with _Lines(path, progress or _untold) as lines, _Rejects(rejects_path) as rejects:
        if is_csv:
            ignored, importer = await _csv(lines, way, catalog, columns, rejects)
        else:
            ignored, importer = (), Importer(way, catalog, on_reject=rejects.add)
            for line in lines:
                await importer.line(line)
        await importer.finish()
    written = rejects.path if importer.rejected else None
    return Summary(importer.imported, importer.rejected, ignored, tuple(rejects.first), written)


async def _csv(
    lines: _Lines, way: Way, catalog: CompiledCatalog, mapping: ColumnMap, rejects: _Rejects
) -> tuple[tuple[str, ...], Importer]:
    text = _Text(lines)
    reader = csv.reader(text, strict=True)
    columns = Columns(_header(lines.path, reader), catalog, mapping)

    def on_reject(number: int, errors: Sequence[FieldError], source: object) -> None:
        if isinstance(source, Row):
            errors = source.faults or columns.by_column(errors, source)
            whole = len(source.cells) == len(columns.names)
            source = dict(zip(columns.names, source.cells, strict=True)) if whole else source.cells
        rejects.add(number, errors, source)

    importer = Importer(way, catalog, on_reject=on_reject)
    while True:
        begins = lines.number + 1
        text.read.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return columns.ignored, importer
        except csv.Error as error:
            until = f" to {lines.number}" if lines.number > begins else ""
            message = f"line {begins}{until} cannot be read as CSV: {error}"
            importer.reject(begins, [FieldError("row", "not_csv", message)], "".join(text.read))
            continue
        if not cells:
            continue
        row = columns.row(begins, cells)
        if row.faults:
            importer.reject(begins, row.faults, row)
        else:
            await importer.row(begins, row.profile, row)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(filter(None, reader), None)
        if header is None:
            raise _fault(path, "empty_file", "the file is empty")
        "".join(header).encode()
    except csv.Error as error:
        raise _fault(path, "not_csv", f"the header cannot be read as CSV: {error}") from error
    except UnicodeEncodeError as error:
        raise _fault(path, "bad_encoding", "the header is not UTF-8 text") from error
    return header


class _Lines:
    """The lines of a file as bytes, unzipped, without a byte order mark; `number` were read. A line over
    the limit comes cut, one byte longer than the limit."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self.number = 0
        self._progress = progress
        self._zipped = path.suffix.lower() == ".gz"

    def __enter__(self) -> Self:
        try:
            self._raw: IO[bytes] = self.path.open("rb")
        except OSError as error:
            raise _fault(self.path, "unreadable", error.strerror or str(error)) from error
        try:
            self._total = self.path.stat().st_size
            self._stream: IO[bytes] | gzip.GzipFile = self._raw
            if self._zipped:
                self._stream = gzip.GzipFile(fileobj=self._raw)
                self._check_archive()
            self._check_start()
        except BaseException:
            self._raw.close()
            raise
        self._progress(0, self._total)
        return self

    def _check_archive(self) -> None:
        """Reads it all once: a broken archive (an interrupted copy, often) is found before any import."""
        try:
            while self._stream.read(LONGEST_LINE):
                pass
        except (OSError, EOFError, zlib.error) as error:
            raise _fault(self.path, "broken_archive", f"the gzip archive is broken: {error}") from error
        self._stream.seek(0)

    def _check_start(self) -> None:
        start = self._stream.read(3)
        if not start:
            raise _fault(self.path, "empty_file", "the file is empty")
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise _fault(self.path, "bad_encoding", "the file is UTF-16; save it as UTF-8")
        self._stream.seek(3 if start == _BOM else 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._raw.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        line = self._read(LONGEST_LINE + 1)
        if not line:
            self._progress(self._total, self._total)
            raise StopIteration
        end = line
        while len(end) > LONGEST_LINE and not end.endswith(b"\n"):
            end = self._read(LONGEST_LINE + 1)
        self.number += 1
        if self.number % _TOLD_EVERY == 0:
            self._progress(self._raw.tell(), self._total)
        return line

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.readline(size)
        except (OSError, EOFError, zlib.error) as error:
            message = f"reading stopped after line {self.number}, not all before it is imported: {error}"
            raise _fault(self.path, "unreadable", message) from error


class _Text:
    """The lines as text for a CSV reader; `read` collects them. Bytes that are not UTF-8 stay in as lone
    surrogates, so that the row keeps its shape and the cell at fault can be named."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self.read: list[str] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if len(line) > LONGEST_LINE:
            raise csv.Error(f"a line has at most {LONGEST_LINE} bytes")
        text = line.decode(errors="surrogateescape")
        self.read.append(text)
        return text


class _Rejects:
    """The rejected rows: the `first` in memory, all in a file that begins with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: list[tuple[int, Sequence[FieldError]]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, number: int, errors: Sequence[FieldError], row: object) -> None:
        """Writes one rejected row. Raises Rejected if it cannot be written."""
        if len(self.first) < REPORTED:
            self.first.append((number, errors))
        entry = {"line": number, "errors": [asdict(fault) for fault in errors], "row": row}
        try:
            if self._file is None:
                self._file = self.path.open("wb")
            self._file.write(_json_line(entry))
        except OSError as error:
            message = f"rejected rows cannot be written: {error.strerror or error}"
            raise _fault(self.path, "unwritable", message) from error


def _json_line(entry: object) -> bytes:
    text = json.dumps(entry, ensure_ascii=False) + "\n"
    # Bytes that were not UTF-8 went in as lone surrogates; here each becomes a replacement character.
    return text.encode(errors="surrogateescape").decode(errors="replace").encode()


def _is_csv(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return True
    if name.endswith((".ndjson", ".jsonl")):
        return False
    raise _fault(path, "unknown_format", "must end in .csv, .ndjson or .jsonl, or in one of these and .gz")


def _check_rejects_path(rejects: Path, sources: Sequence[Path | None]) -> None:
    if not rejects.parent.is_dir() or rejects.is_dir():
        raise _fault(rejects, "unwritable", "rejected rows cannot be written there")
    if any(source is not None and rejects.resolve() == source.resolve() for source in sources):
        raise _fault(rejects, "unwritable", "rejected rows would overwrite what is imported")


def _untold(done: int, total: int) -> None:
    """Nobody wants to know."""


def _fault(path: Path, code: str, message: str) -> Rejected:
    return invalid_import(f"{path.name} cannot be imported.", [FieldError(path.name, code, message)])

"""One export, from a store to a file."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decision.exporting.errors import ExportError
from decision.exporting.obp import BanditFeedback
from decision.exporting.remaking import Customers, Log, Window, survey
from decision.exporting.rows import Sink
from decision.exporting.vw import Dsjson
from decision.live import Live
from decision.storage.port import Store

Format = Literal["parquet", "obp", "vw"]

_EVERY = 100  # decisions between two reports of progress


@dataclass(frozen=True, slots=True)
class Summary:
    """`rows` were written. `left_out`: so many items shown were not, as the format has no place for them.
    `lost`: the ids of decisions that did not come out again as they were answered, and are not written."""

    decisions: int
    rows: int
    left_out: int
    lost: tuple[str, ...]


async def export(
    store: Store,
    format: Format,
    out: Path | None,
    window: Window,
    *,
    customers: Customers = "hashed",
    pii: bool = False,
    moved: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Exports a window of the log. `out` None: to standard output, for `vw` only. `moved`: told how many of
    how many decisions are done.

    Customers are hashed with a key that nobody keeps: within a file a customer has one name, and from file to
    file another. A file appears when it is whole. Raises ExportError.
    """
    if out is None and format != "vw":
        raise ExportError(f"{format} is written to a file: --out FILE")
    if out is not None and not out.parent.is_dir():
        raise ExportError(f"there is no directory {out.parent}")
    key = secrets.token_bytes(32)
    log = await survey(store, Live(store), window, customers=customers, pii=pii, key=key)
    if out is None:
        return await _written(log, Dsjson(sys.stdout.buffer, log.encoder.columns[1:]), moved)
    part = out.with_name(f"{out.name}.part")
    try:
        if format == "vw":
            with part.open("wb") as stream:
                summary = await _written(log, Dsjson(stream, log.encoder.columns[1:]), moved)
        else:
            summary = await _written(log, _sink(format, part, log), moved)
        part.replace(out)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return summary


def _sink(format: Format, path: Path, log: Log) -> Sink:
    features = log.encoder.columns[1:]
    if format == "obp":
        return BanditFeedback(path, features)
    from decision.exporting.parquet import Parquet  # only this one needs pyarrow

    return Parquet(path, log.facts, features)


async def _written(log: Log, sink: Sink, moved: Callable[[int, int], None]) -> Summary:
    done = rows = left_out = 0
    async for found in log.rows():
        for row in found:
            taken = sink.write(row)
            rows += taken
            left_out += row.item is not None and not taken
        done += 1
        if done % _EVERY == 0:
            moved(done, max(done, log.decisions))
    sink.finish()
    moved(done, done)
    return Summary(done, rows, left_out, tuple(log.lost))

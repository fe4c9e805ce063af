"""Parquet: a row for each item shown and each placement that showed nothing, in row groups. Needs pyarrow.

The columns and what they mean: `docs/export.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from arbitration.catalog.model import FactType
from arbitration.facts import Value, rfc3339
from decision.exporting.errors import ExportError
from decision.exporting.rows import Arm, Item, Row

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ExportError("Parquet needs pyarrow: pip install 'next-best-action[parquet]'") from error

GROUP = 20_000
_ROWS_AT_ONCE = 1_000  # as Python objects rows are large; as columns they are not
_TIME = pa.timestamp("us", tz="UTC")
ARM = pa.struct(
    [
        ("placement", pa.string()),
        ("treatment", pa.string()),
        ("action", pa.string()),
        ("group", pa.string()),
        ("probability", pa.float64()),
        ("mean", pa.float64()),
        ("priority", pa.float64()),
    ]
)
FIXED = pa.schema(
    [
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("decided_at", _TIME, nullable=False),
        ("customer", pa.string()),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("placement", pa.string(), nullable=False),
        ("draw", pa.int32()),
        ("rank", pa.int32()),
        ("action", pa.string()),
        ("group", pa.string()),
        ("treatment", pa.string()),
        ("selection_probability", pa.float64()),
        ("cumulative_probability", pa.float64()),
        ("propensity", pa.float64()),
        ("priority", pa.float64()),
        ("eligible", pa.int32()),
        ("arms", pa.list_(ARM)),
        ("label", pa.string()),
        ("outcomes", pa.list_(pa.struct([("outcome", pa.string()), ("value", pa.float64())]))),
        ("reward", pa.float64()),
        ("value", pa.float64()),
        ("no_action_reason", pa.string()),
        pa.field("fallback", pa.bool_(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        ("snapshot", pa.string()),
        pa.field("apprentice", pa.bool_(), nullable=False),
        pa.field("catalog_version", pa.string(), nullable=False),
        pa.field("control_groups", pa.list_(pa.string()), nullable=False),
        pa.field("degraded", pa.list_(pa.string()), nullable=False),
        pa.field("objects", pa.bool_(), nullable=False),
    ]
)
_TYPES: dict[FactType, pa.DataType] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "timestamp": _TIME,
    "strings": pa.list_(pa.string()),
}


class Parquet:
    """Writes to `path`, a row group at a time. `facts`: their types by name; `features` names the columns of
    x."""

    def __init__(self, path: Path, facts: Mapping[str, FactType], features: Sequence[str]) -> None:
        self._facts = facts
        self._features = [f"x.{name}" for name in features]
        columns = [(name, _TYPES[kind]) for name, kind in facts.items()]
        columns += [(name, pa.float64()) for name in self._features]
        self._schema = pa.schema([*FIXED, *(pa.field(*column) for column in columns)])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []

    def write(self, row: Row) -> bool:
        """Takes every row."""
        self._rows.append(self._columns(row))
        if len(self._rows) == _ROWS_AT_ONCE:
            self._batch()
            if len(self._batches) * _ROWS_AT_ONCE >= GROUP:
                self._flush()
        return True

    def finish(self) -> None:
        """Writes the last group and the footer."""
        self._batch()
        self._flush()
        self._writer.close()

    def _batch(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))
        self._batches.clear()

    def _columns(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {
            "decision_id": row.decision_id,
            "decided_at": row.decided_at,
            "customer": row.customer,
            "channel": row.channel,
            "placement": row.placement,
            "no_action_reason": row.no_action_reason,
            "fallback": row.fallback,
            "policy": row.policy,
            "snapshot": row.snapshot,
            "apprentice": row.apprentice,
            "catalog_version": row.catalog_version,
            "control_groups": list(row.control_groups),
            "degraded": list(row.degraded),
            "objects": row.objects,
        }
        if row.item is not None:
            found |= _item(row.item)
        found |= {name: _fact(value, self._facts[name]) for name, value in row.facts.items()}
        if row.x is not None:
            found |= zip(self._features, row.x.tolist(), strict=True)
        return found


def _item(item: Item) -> dict[str, Any]:
    return {
        "draw": item.draw,
        "rank": item.rank,
        "action": item.arm.action,
        "group": item.arm.group,
        "treatment": item.arm.treatment,
        "selection_probability": item.selection_probability,
        "cumulative_probability": item.cumulative_probability,
        "propensity": item.propensity,
        "priority": item.arm.priority,
        "eligible": len(item.arms),
        "arms": [_arm(arm) for arm in item.arms],
        "label": item.label,
        "outcomes": None if item.outcomes is None else [_outcome(*each) for each in item.outcomes],
        "reward": item.reward,
        "value": item.value,
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {field.name: getattr(arm, field.name) for field in ARM}


def _outcome(name: str, amount: float | None) -> dict[str, Any]:
    return {"outcome": name, "value": amount}


def _fact(value: Value, kind: FactType) -> object:
    """A value in its column; where a fact has changed its type and is text here, as JSON."""
    if kind == "double":
        return float(value)  # type: ignore[arg-type]
    if kind != "string" or isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    return rfc3339(value) if isinstance(value, datetime) else orjson.dumps(value).decode()

"""Parquet: the columns that the documentation says, and all that a row has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from past import Told

pa = pytest.importorskip("pyarrow")

from pyarrow.parquet import ParquetFile, read_table  # noqa: E402

from decision.exporting import parquet  # noqa: E402

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "export.md"


def written(told: Told, path: Path) -> Any:
    log, rows = told
    sink = parquet.Parquet(path, log.facts, log.encoder.columns[1:])
    assert all(sink.write(row) for row in rows)
    sink.finish()
    return read_table(path)


def test_the_documentation_has_the_columns() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", DOCUMENTATION.read_text(), flags=re.MULTILINE)
    columns = [(field.name, spelled(field.type)) for field in parquet.FIXED]
    inner = [(f"arms.{field.name}", spelled(field.type)) for field in parquet.ARM]
    assert rows == columns
    arms = re.findall(r"^\| `(arms\.\w+)` \| `([^`]+)` \|", DOCUMENTATION.read_text(), flags=re.MULTILINE)
    assert arms == inner


def spelled(kind: Any) -> str:
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(field.name for field in kind)}>"
    return f"list<{spelled(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def test_a_row_keeps_all_it_has(told: Told, tmp_path: Path) -> None:
    log, rows = told
    table = written(told, tmp_path / "log.parquet")
    assert table.schema.names == [
        *parquet.FIXED.names,
        *log.facts,
        *(f"x.{name}" for name in log.encoder.columns[1:]),
    ]
    for row, found in zip(rows, table.to_pylist(), strict=True):
        for name in (
            "decision_id",
            "decided_at",
            "customer",
            "placement",
            "policy",
            "snapshot",
            "objects",
            "fallback",
        ):
            assert found[name] == getattr(row, name)
        assert found["control_groups"] == list(row.control_groups)
        x = [found[f"x.{name}"] for name in log.encoder.columns[1:]]
        assert x == ([None] * len(x) if row.x is None else row.x.tolist())
        known = {name: found[name] for name in log.facts if found[name] is not None}
        assert known.keys() == row.facts.keys()
        if row.item is None:
            assert found["treatment"] is found["arms"] is found["reward"] is found["rank"] is None
            assert found["no_action_reason"] == row.no_action_reason
            continue
        item = row.item
        assert (found["treatment"], found["rank"], found["draw"]) == (
            item.arm.treatment,
            item.rank,
            item.draw,
        )
        assert found["selection_probability"] == item.selection_probability
        assert found["cumulative_probability"] == item.cumulative_probability
        assert (found["propensity"], found["priority"]) == (item.propensity, item.arm.priority)
        assert (found["reward"], found["value"], found["label"]) == (item.reward, item.value, item.label)
        assert found["eligible"] == len(found["arms"]) == len(item.arms)
        assert [arm["probability"] for arm in found["arms"]] == [arm.probability for arm in item.arms]
        outcomes = found["outcomes"]
        assert (outcomes and tuple(tuple(each.values()) for each in outcomes)) == item.outcomes


def test_facts_have_their_types(told: Told, tmp_path: Path) -> None:
    """One that had several is a double where they are numbers, else text."""
    table = written(told, tmp_path / "log.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in told[0].facts}
    assert kinds["customer.nps"] == "int64"
    assert kinds["customer.spend"] == kinds["scores.clv"] == "double"
    assert kinds["customer.contract_end"] == "timestamp[us, tz=UTC]"
    assert kinds["customer.interests"] == "string"
    assert set(table["customer.spend"].to_pylist()) == {7.0, 7.5, None}
    assert set(table["customer.interests"].to_pylist()) == {'["sport","chess"]', "sport", None}


def test_row_groups_bound_what_is_held(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 10)
    monkeypatch.setattr(parquet, "GROUP", 30)
    path = tmp_path / "log.parquet"
    whole = written(told, tmp_path / "whole.parquet")
    assert written(told, path).equals(whole)
    file = ParquetFile(path)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert set(sizes[:-1]) == {30}
    assert sum(sizes) == len(told[1])


def test_an_empty_log_has_its_columns(told: Told, tmp_path: Path) -> None:
    table = written((told[0], []), tmp_path / "log.parquet")
    assert (len(table), table.schema.names[0]) == (0, "decision_id")

"""What the text of a cell means, and what a map may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.model import FactType
from decision.catalog_files import read_catalog
from decision.errors import Rejected
from decision.import_columns import ColumnMap, Columns, read_map, typed
from decision.publishing import check_document

TELCO = Path(__file__).resolve().parents[2] / "examples" / "telco"


@pytest.fixture(scope="module")
def catalog() -> CompiledCatalog:
    checked = check_document(read_catalog(TELCO)[0])
    assert checked.published is not None
    return checked.published.compiled


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("TRUE", "bool", True),
        ("yes", "bool", True),
        ("1", "bool", True),
        ("False", "bool", False),
        ("No", "bool", False),
        ("0", "bool", False),
        ("3", "int", 3),
        ("-007", "int", -7),
        ("3", "double", 3.0),
        (".5", "double", 0.5),
        ("-1.5e3", "double", -1500.0),
        ("2026-01-31", "timestamp", "2026-01-31T00:00:00Z"),
        ("2026-01-31T08:00:00+01:00", "timestamp", "2026-01-31T08:00:00+01:00"),
        ("a | b||c|", "strings", ["a", "b", "c"]),
        ("3", "string", "3"),
    ],
)
def test_cells_are_read_by_type(text: str, kind: FactType, value: object) -> None:
    read = typed(text, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("2", "bool"), ("y", "bool"), ("oui", "bool")),
        *(("3.0", "int"), ("1_000", "int"), ("٣", "int"), ("1,000", "int"), ("9" * 5000, "int"), ("", "int")),
        *(("nan", "double"), ("inf", "double"), ("1_0", "double"), ("1,5", "double"), (".", "double")),
    ],
)
def test_cells_that_are_not_of_the_type_are_refused(text: str, kind: FactType) -> None:
    with pytest.raises(ValueError, match="is not"):
        typed(text, kind)


def test_white_space_around_cells_and_names_does_not_count(catalog: CompiledCatalog) -> None:
    columns = Columns(["customer_id ", " nps", ""], catalog, ColumnMap())
    row = columns.row(2, [" c-1", "  3 ", "x"])
    assert (row.profile, row.faults) == ({"customer_id": "c-1", "attributes": {"nps": 3}}, [])
    assert columns.row(3, ["c-1", "   ", ""]).profile == {"customer_id": "c-1"}
    assert columns.ignored == ("(column 3)",)


def test_all_faults_of_a_row_are_told(catalog: CompiledCatalog) -> None:
    columns = Columns(["customer_id", "nps", "scores.clv"], catalog, ColumnMap())
    assert [fault.field for fault in columns.row(2, ["c-1", "x", "y"]).faults] == ["nps", "scores.clv"]


def test_two_columns_may_be_identities_of_one_type(catalog: CompiledCatalog) -> None:
    mapping = ColumnMap.model_validate(
        {"columns": {"home": "identities.phone", "mobile": "identities.phone"}}
    )
    row = Columns(["customer_id", "home", "mobile"], catalog, mapping).row(2, ["c-1", "1", "2"])
    assert row.profile["identities"] == [{"type": "phone", "value": "1"}, {"type": "phone", "value": "2"}]


@pytest.mark.parametrize(
    ("mapping", "field", "says"),
    [
        (
            {"columns": {"a": "zork"}},
            "columns.a",
            "'zork' is no target: the catalog declares no such attribute",
        ),
        ({"columns": {"a": "scores.zork"}}, "columns.a", "no such score"),
        ({"columns": {"a": "consents.zork"}}, "columns.a", "no such purpose"),
        ({"columns": {"a": "identities.E-Mail"}}, "columns.a", "a type of identity"),
        ({"columns": {"a": "context.intent"}}, "columns.a", "is no target"),
        ({"columns": {"b": "nps"}}, "columns.b", "the file has no such column"),
        ({"columns": {"a": "nps", "nps": "nps"}}, "attributes.nps", "several columns: nps, a"),
        ({"columns": {"customer_id": None}}, "customer_id", "no column has this name"),
        (
            {"customer_id_from_line": "x-{line}"},
            "customer_id_from_line",
            "the column customer_id holds the ids",
        ),
        (
            {"customer_id_from_line": "x", "columns": {"customer_id": None}},
            "customer_id_from_line",
            "must contain {line}",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(
    catalog: CompiledCatalog, mapping: dict[str, object], field: str, says: str
) -> None:
    with pytest.raises(Rejected) as caught:
        Columns(["customer_id", "nps", "a"], catalog, ColumnMap.model_validate(mapping))
    (fault,) = caught.value.errors
    assert fault.field == field
    assert says in fault.message


def test_a_map_is_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(
        "columns:\n  a: {to: nps, values: {Yes: true, No: false, n/a: null, 1: low}}\n  b: null\n"
    )
    mapping = read_map(path).columns
    assert mapping["a"] is not None
    assert mapping["a"].values == {"Yes": True, "No": False, "n/a": None, "1": "low"}
    assert mapping["b"] is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("columns: [a]", "columns"),
        ("columns: {a: 3}", "columns.a"),
        ("columns: {a: {too: nps}}", "columns.a.to"),
        ("colums: {a: nps}", "colums"),
        ("columns: {a: nps, a: plan}", "map.yaml"),
        ("columns: {", "map.yaml"),
        ("- a", "map.yaml"),
        ("columns: {a: {to: nps, values: {x: [1]}}}", "columns.a.values.x"),
    ],
)
def test_faulty_maps_name_the_fault(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(Rejected) as caught:
        read_map(path)
    assert caught.value.code == "invalid_import"
    assert any(fault.field.startswith(field) for fault in caught.value.errors), caught.value.errors


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no such map"):
        read_map(tmp_path / "none.yaml")

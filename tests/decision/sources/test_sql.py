"""What a SQL source answers: the same on SQLite and PostgreSQL, where the two are the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqldatabases import Database, Opener, Postgres, Sqlite, wire

from arbitration.catalog.model import FactType
from arbitration.errors import FactError
from arbitration.facts import Declared, admit
from decision.sources.port import Cause, Served, SourceFault

NPS = Served("customer.nps", "int", "nps")
NAME = Served("customer.name", "string", "name")
QUERY = "SELECT nps, name FROM customers WHERE id = :customer_id"
CUSTOMERS = """
    CREATE TABLE customers (id text PRIMARY KEY, nps bigint, name text);
    INSERT INTO customers VALUES ('anna', 9, 'Anna'), ('bert', NULL, NULL), ('carl', 3, 'Carl');
"""


async def test_rows_come_in_the_order_of_the_keys(database: Database, opened: Opener) -> None:
    await database.run(CUSTOMERS)
    source = opened(database.url, QUERY, NPS, NAME)
    rows = await source.fetch([("carl",), ("nobody",), ("anna",)])
    assert rows == [
        {"customer.nps": 3, "customer.name": "Carl"},
        None,
        {"customer.nps": 9, "customer.name": "Anna"},
    ]


async def test_null_is_left_out(database: Database, opened: Opener) -> None:
    await database.run(CUSTOMERS)
    assert await opened(database.url, QUERY, NPS, NAME).fetch([("bert",)]) == [{}]


@pytest.mark.parametrize("end", [";", " ;\n ", " -- as agreed", "\n-- as agreed\n"])
async def test_a_query_may_end_as_people_end_it(database: Database, opened: Opener, end: str) -> None:
    await database.run(CUSTOMERS)
    assert await opened(database.url, QUERY + end, NPS).fetch([("anna",)]) == [{"customer.nps": 9}]


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE customers; --",
        "x' OR '1'='1",
        '"',
        "\\",
        ":customer_id",
        "$1",
        "%s?",
        "Zoë 🦊 \u202e",
        "",
        "9",
    ],
)
async def test_values_are_never_part_of_the_statement(database: Database, opened: Opener, name: str) -> None:
    await database.run(CUSTOMERS)
    source = opened(database.url, QUERY, NPS)
    assert await source.fetch([(name,)]) == [None]
    quoted = name.replace("'", "''")
    # A text of several statements, as the run of a single one would be with placeholders.
    await database.run(f"INSERT INTO customers VALUES ('{quoted}', 1, 'x'); SELECT 1;")
    assert await source.fetch([(name,), ("anna",)]) == [{"customer.nps": 1}, {"customer.nps": 9}]


async def test_a_null_character_is_that_customers_matter(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, QUERY, NPS)
    with pytest.raises(SourceFault) as caught:
        await source.fetch([("an\0na",)])
    assert (caught.value.cause, caught.value.ill) == (Cause.BAD_REPLY, False)
    assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]


async def test_half_a_character_is_that_customers_matter(database: Database, opened: Opener) -> None:
    await database.run(CUSTOMERS)
    with pytest.raises(SourceFault) as caught:
        await opened(database.url, QUERY, NPS).fetch([("\ud800",)])
    assert (caught.value.cause, caught.value.ill) == (Cause.BAD_REPLY, False)


async def test_more_than_one_row_is_refused(database: Database, opened: Opener) -> None:
    await database.run(CUSTOMERS)
    source = opened(database.url, "SELECT nps FROM customers WHERE id <> :customer_id", NPS)
    with pytest.raises(SourceFault, match="more than one row") as caught:
        await source.fetch([("anna",)])
    assert (caught.value.cause, caught.value.ill) == (Cause.BAD_REPLY, False)


@pytest.mark.parametrize("customer", ["anna", "nobody"])
async def test_a_column_that_is_not_there_is_named(database: Database, opened: Opener, customer: str) -> None:
    await database.run(CUSTOMERS)
    source = opened(database.url, QUERY, Served("customer.age", "int", "age"))
    with pytest.raises(SourceFault, match="'age'") as caught:
        await source.fetch([(customer,)])
    assert caught.value.cause == Cause.BAD_REPLY


async def test_a_column_that_is_there_twice_is_named(postgres: Postgres, opened: Opener) -> None:
    with pytest.raises(SourceFault, match="2 columns are named 'nps'"):
        await opened(postgres.url, "SELECT 1 AS nps, 2 AS nps", NPS).fetch([("anna",)])


async def test_a_giant_result_costs_two_rows(database: Database, opened: Opener) -> None:
    source = opened(database.url, database.endless, NPS, timeout="2s")
    await opened(database.url, "SELECT 1 AS nps", NPS).fetch([("anna",)])
    async with asyncio.timeout(2):
        with pytest.raises(SourceFault, match="more than one row"):
            await source.fetch([("anna",)])


async def test_inputs_of_every_type(database: Database, opened: Opener) -> None:
    sent: dict[str, Any] = {
        "i": 2**62,
        "d": 1.5,
        "b": True,
        "s": "x",
        "at": datetime(2026, 1, 31, 8, tzinfo=UTC),
    }
    await database.run(
        "CREATE TABLE things (i bigint, d double precision, b boolean, s text, at timestamp, nps int);"
        f"INSERT INTO things VALUES ({2**62}, 1.5, TRUE, 'x', '2026-01-31 07:59:59', 9);"
    )
    query = "SELECT nps FROM things WHERE i = :i AND d = :d AND b = :b AND s = :s AND at < :at"
    source = opened(database.url, query, NPS, inputs={name: f"customer.{name}" for name in sent})
    assert await source.fetch([tuple(sent.values())]) == [{"customer.nps": 9}]
    earlier = {**sent, "at": sent["at"] - timedelta(seconds=2)}
    assert await source.fetch([tuple(earlier.values())]) == [None]


async def test_a_list_of_strings_as_an_input(sqlite: Sqlite, postgres: Postgres, opened: Opener) -> None:
    of = {"tags": "customer.tags"}
    key = (("a", "b"),)
    listed = opened(postgres.url, "SELECT cardinality(:tags) AS nps", NPS, inputs=of)
    assert await listed.fetch([key]) == [{"customer.nps": 2}]
    as_json = opened(sqlite.url, "SELECT count(*) AS nps FROM json_each(:tags)", NPS, inputs=of)
    assert await as_json.fetch([key]) == [{"customer.nps": 2}]


async def test_an_input_may_be_unused_and_one_used_twice(database: Database, opened: Opener) -> None:
    of = {"id": "customer_id", "mail": "identity.mail"}
    source = opened(database.url, "SELECT 7 AS nps WHERE :id = 'a' OR :id = 'b'", NPS, inputs=of)
    assert await source.fetch([("b", "x@example.org")]) == [{"customer.nps": 7}]


AT_EIGHT = datetime(2026, 1, 31, 8, tzinfo=UTC)
SAME: list[tuple[str, FactType, object]] = [
    ("7", "int", 7),
    ("1.5", "double", 1.5),
    ("7", "double", 7.0),
    ("CAST('Zoë' AS text)", "string", "Zoë"),
    ("(1 = 1)", "bool", True),
    ("(1 = 2)", "bool", False),
    ("1", "bool", True),
    ("CAST('2026-01-31 08:00:00' AS text)", "timestamp", AT_EIGHT),
    ("CAST('2026-01-31T10:00:00+02:00' AS text)", "timestamp", AT_EIGHT),
    ("""CAST('["a", "b"]' AS text)""", "strings", ("a", "b")),
]
POSTGRES: list[tuple[str, FactType, object]] = [
    ("timestamp '2026-01-31 08:00'", "timestamp", AT_EIGHT),
    ("timestamptz '2026-01-31 10:00+02'", "timestamp", AT_EIGHT),
    ("date '2026-01-31'", "timestamp", datetime(2026, 1, 31, tzinfo=UTC)),
    ("uuid '00000000-0000-0000-0000-00000000000a'", "string", "00000000-0000-0000-0000-00000000000a"),
    ("sum(v) FROM (VALUES (bigint '3'), (4)) AS t(v)", "int", 7),
    ("ARRAY['a', 'b']", "strings", ("a", "b")),
    (
        "ARRAY[uuid '00000000-0000-0000-0000-00000000000a']",
        "strings",
        ("00000000-0000-0000-0000-00000000000a",),
    ),
    ("""jsonb '["a", "b"]'""", "strings", ("a", "b")),
    ("""json '["a", "b"]'""", "strings", ("a", "b")),
    ("jsonb 'true'", "bool", True),
]
REFUSED: list[tuple[str, FactType]] = [
    ("numeric '1.5'", "int"),
    ("numeric 'NaN'", "double"),
    ("numeric '1e400'", "double"),
    ("numeric '1e400'", "int"),
    ("float8 'Infinity'", "double"),
    ("2", "bool"),
    ("'7'", "int"),
    ("7", "string"),
    ("bytea 'a'", "string"),
    ("time '08:00'", "timestamp"),
    ("interval '1 day'", "timestamp"),
    ("'soon'", "timestamp"),
    ("point '(1,2)'", "strings"),
    ("int4range '[1,2]'", "string"),
    ("ARRAY['a', NULL]", "strings"),
    ("ARRAY[ARRAY['a']]", "strings"),
    ("jsonb '{}'", "strings"),
    ("'not json'", "strings"),
    ("numeric '1.5'", "string"),
    ("timestamp '2026-01-31 08:00'", "string"),
    ("timestamp '2026-01-31 08:00'", "double"),
    ("inet '10.0.0.1'", "int"),
]


async def _value(database: Database, opened: Opener, expression: str, kind: FactType) -> object:
    source = opened(
        database.url, f"SELECT {expression.replace(' FROM', ' AS x FROM')}", Served("v", kind, "x")
    )
    if " FROM" not in expression:
        source = opened(database.url, f"SELECT {expression} AS x", Served("v", kind, "x"))
    (row,) = await source.fetch([("anna",)])
    assert row is not None
    return admit("v", row["v"], Declared(kind))


@pytest.mark.parametrize(("expression", "kind", "value"), SAME)
async def test_values_become_what_they_are_declared(
    database: Database, opened: Opener, expression: str, kind: FactType, value: object
) -> None:
    found = await _value(database, opened, expression, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("expression", "kind", "value"), POSTGRES)
async def test_types_that_only_postgresql_has(
    postgres: Postgres, opened: Opener, expression: str, kind: FactType, value: object
) -> None:
    found = await _value(postgres, opened, expression, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("expression", "kind"), REFUSED)
async def test_what_does_not_fit_is_left_to_the_border(
    postgres: Postgres, opened: Opener, expression: str, kind: FactType
) -> None:
    with pytest.raises(FactError):
        await _value(postgres, opened, expression, kind)


async def test_a_time_that_python_does_not_have(postgres: Postgres, opened: Opener) -> None:
    source = opened(postgres.url, "SELECT timestamp '20000-01-01' AS x", Served("v", "timestamp", "x"))
    with pytest.raises(SourceFault) as caught:
        await source.fetch([("anna",)])
    assert (caught.value.cause, caught.value.ill) == (Cause.BAD_REPLY, False)


async def test_bytes_of_sqlite_are_left_to_the_border(sqlite: Sqlite, opened: Opener) -> None:
    with pytest.raises(FactError):
        await _value(sqlite, opened, "x'6162'", "string")


async def test_times_are_compared_in_utc(postgres: Postgres, opened: Opener) -> None:
    await postgres.run("ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; SELECT 1;")
    try:
        query = "SELECT 1 AS nps WHERE timestamp '2026-01-31 08:00' = :at"
        source = opened(postgres.url, query, NPS, inputs={"at": "customer.at"})
        at = AT_EIGHT.astimezone(timezone(timedelta(hours=5)))
        assert await source.fetch([(at,)]) == [{"customer.nps": 1}]
    finally:
        await postgres.run("ALTER DATABASE postgres RESET timezone; SELECT 1;")


async def test_a_warm_call_is_one_round_trip(postgres: Postgres, opened: Opener, tmp_path: Path) -> None:
    await postgres.run(CUSTOMERS)
    async with wire(postgres, tmp_path) as between:
        source = opened(between.url, QUERY, NPS)
        await source.fetch([("anna",)])
        between.sent = 0
        assert await source.fetch([("carl",)]) == [{"customer.nps": 3}]
        assert between.sent == 1
        await source.close()


def test_sqlalchemy_is_loaded_with_the_first_question() -> None:
    script = "import decision.sources.sql, sys; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

"""What may be in a body, before anything is made of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from support import Service

from decision.catalog_files import read_catalog
from decision.errors import Rejected
from decision.strict_json import DEEPEST, LONGEST_TEXT, MOST_ITEMS, MOST_VALUES, parse


def refusal(body: bytes) -> tuple[int, list[tuple[str, str]]]:
    with pytest.raises(Rejected) as caught:
        parse(body)
    return caught.value.status, [(fault.field, fault.code) for fault in caught.value.errors]


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "body",
    [
        nested(DEEPEST),
        b"[" * DEEPEST + b"]" * DEEPEST,
        orjson.dumps({"a": [0] * MOST_ITEMS}),
        orjson.dumps({str(n): n for n in range(MOST_ITEMS)}),
        orjson.dumps({"a": "x" * LONGEST_TEXT}),
        orjson.dumps({"requests": [{"placements": [{"id": "a"}] * 20}] * 1000}),
    ],
)
def test_what_is_within_the_limits_is_read(body: bytes) -> None:
    assert parse(body) == orjson.loads(body)


@pytest.mark.parametrize(
    ("body", "status", "faults"),
    [
        (nested(DEEPEST + 1), 400, [(".".join("a" * DEEPEST), "too_deep")]),
        (b"[" * 100 + b"]" * 100, 400, [("[0]" * DEEPEST, "too_deep")]),
        (b"[" * 100_000 + b"]" * 100_000, 400, [("body", "malformed_json")]),
        (b"[" * 100_000, 400, [("body", "malformed_json")]),
        (b'{"a":' * 100_000, 400, [("body", "malformed_json")]),
        (b"[" * 900 + b"NaN" + b"]" * 900, 422, [("[0]" * 900, "not_finite")]),
        (orjson.dumps({"a": {"b": [0] * (MOST_ITEMS + 1)}}), 422, [("a.b", "too_many")]),
        (orjson.dumps({"a": {str(n): n for n in range(MOST_ITEMS + 1)}}), 422, [("a", "too_many")]),
        (orjson.dumps([0] * (MOST_ITEMS + 1)), 422, [("body", "too_many")]),
        (orjson.dumps({"a": ["", "x" * (LONGEST_TEXT + 1)]}), 422, [("a[1]", "too_long")]),
        (orjson.dumps({"a": {"x" * (LONGEST_TEXT + 1): 1}}), 422, [("a", "too_long")]),
        (b"[" + b"[]," * MOST_VALUES + b"0]", 422, [("body", "too_many")]),
        (orjson.dumps([["x" * (LONGEST_TEXT + 1)]] * 3), 422, [(f"[{n}][0]", "too_long") for n in range(3)]),
        (b"9" * 100_000, 400, [("body", "malformed_json")]),
        (b"[" + b"NaN," * 5_000 + b"0]", 422, [(f"[{n}]", "not_finite") for n in range(100)]),
    ],
)  # fmt: skip
def test_what_is_not_is_refused_by_its_path(body: bytes, status: int, faults: list[Any]) -> None:
    begin = time.process_time()
    assert refusal(body) == (status, faults)
    assert time.process_time() - begin < 1


def test_a_name_in_a_path_is_short() -> None:
    [(field, _)] = refusal(orjson.dumps({"x" * 1000: ["x" * (LONGEST_TEXT + 1)]}))[1]
    assert field == "x" * 64 + "[0]"


async def test_a_line_of_an_import_has_the_same_limits(service: Service) -> None:
    lines = [
        nested(50),
        b"[" * 100_000,
        b'{"customer_id": "b"}',
        b'{"customer_id": "c", "attributes": {"nps": NaN}}',
    ]
    head = {"content-type": "application/x-ndjson"}
    reply = (
        await service.client.post("/v1/customers:import", content=b"\n".join(lines), headers=head)
    ).json()
    assert (reply["imported"], reply["rejected"]) == (1, 3)
    codes = [(each["line"], each["errors"][0]["code"]) for each in reply["errors"]]
    assert codes == [(1, "too_deep"), (2, "malformed_json"), (4, "not_finite")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)), "too_many"),
        ("actions: &a [*a, *a, *a]\n", "too_deep"),
        ("a: " + "[" * 100 + "]" * 100, "too_deep"),
        ("\n".join(" " * n + "a:" for n in range(1_000)), "too_deep"),
    ],
)  # fmt: skip
def test_a_file_of_a_catalog_cannot_grow(tmp_path: Path, text: str, code: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("decision.catalog_files._MOST_NODES", 5_000)
    (tmp_path / "one.yaml").write_text(text)
    begin = time.process_time()
    _, problems = read_catalog(tmp_path / "one.yaml")
    assert [problem.code for problem in problems] == [code]
    assert time.process_time() - begin < 2


def test_tags_of_yaml_make_no_objects(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    (tmp_path / "one.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {owned}']\n")
    read_catalog(tmp_path / "one.yaml")
    assert not owned.exists()

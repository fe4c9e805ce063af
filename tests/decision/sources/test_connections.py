"""Connections: read from a file, filled from the environment, and their secrets shown to nobody."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from decision.errors import Rejected
from decision.sources.connections import read_connections

SECRET = "tok-7f3a"


def read(tmp_path: Path, text: str, **environment: str) -> dict:
    file = tmp_path / "connections.yaml"
    file.write_text(text, encoding="utf-8")
    return read_connections(file, environment)


def test_variables_are_filled_in_everywhere(tmp_path: Path) -> None:
    text = """
crm:
  url: https://${HOST}/api/
  headers: {Authorization: "Bearer ${TOKEN}", X-Two: "${TOKEN}${HOST}"}
  ca_file: ${CA}
  calls: 4
dwh: {url: "postgresql+asyncpg://reader:${TOKEN}@db/service"}
"""
    found = read(tmp_path, text, HOST="crm.example", TOKEN=SECRET, CA=certifi.where())
    assert found["crm"].url.get_secret_value() == "https://crm.example/api", "no slash at the end"
    assert found["crm"].plain_headers() == {
        "Authorization": f"Bearer {SECRET}",
        "X-Two": f"{SECRET}crm.example",
    }
    assert (found["crm"].ca_file, found["crm"].calls) == (Path(certifi.where()), 4)
    assert found["crm"].web
    assert not found["dwh"].web
    assert read(tmp_path, "a: {url: 'sqlite+aiosqlite://'}")["a"].url.get_secret_value().endswith("//")
    assert found["dwh"].calls == 32


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    text = """
dwh: {url: "postgresql+asyncpg://u:${TOKEN}@dwh.example/x"}
crm: {url: "https://crm.example", headers: {A: "${TOKEN}"}}
"""
    for found in read(tmp_path, text, TOKEN=SECRET).values():
        assert SECRET not in repr(found) + str(found) + found.model_dump_json()


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("crm: {url: '${HOST}', headers: {A: '${TOKEN}', B: '${TOKEN}'}}", ["HOST", "TOKEN"]),
        ("crm: {}", ["crm.url"]),
        ("crm: {url: 'http://x', zork: tok-7f3a}", ["crm.zork"]),
        ("crm: {url: [tok-7f3a]}", ["crm.url"]),
        ("crm: {url: 'http://x', calls: 0}", ["crm.calls"]),
        ("crm: {url: 'http://x', ca_file: /nowhere/tok-7f3a}", ["crm.ca_file"]),
        (f"crm: {{url: 'http://x', ca_file: {__file__}}}", ["crm.ca_file"]),
        ("crm: {url: 'http://x', headers: [tok-7f3a]}", ["crm.headers"]),
        ("3rm: {url: 'http://x'}", ["3rm.[key]"]),
        ("- tok-7f3a", ["body"]),
    ],
)
def test_every_fault_is_named_and_no_value_is(tmp_path: Path, text: str, fields: list[str]) -> None:
    with pytest.raises(Rejected) as raised:
        read(tmp_path, text)
    assert [error.field for error in raised.value.errors] == fields
    assert SECRET not in str(raised.value) + repr(raised.value.errors)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("text", ["crm: {url: tok-7f3a", "crm: 'tok-7f3a\n b: \x00"])
def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Rejected) as raised:
        read(tmp_path, text)
    assert "cannot be read" in raised.value.detail
    assert SECRET not in raised.value.detail


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        read_connections(tmp_path / "none.yaml", {})


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("http://a", True),
        ("https://a:1/b", True),
        ("https://u:tok-7f3a@a/b", None),
        ("https://a/b?key=tok-7f3a", None),
        ("https://a:99999", None),
        ("https://a:tok-7f3a", None),
        ("https://", None),
        ("https:///a", None),
        ("ftp://tok-7f3a", None),
        ("a.example/tok-7f3a", None),
        ("sqlite+aiosqlite:///x", False),
        ("postgresql+asyncpg://u:tok-7f3a@a:tok/x", None),
        ("postgresql://u:tok-7f3a@a/x", None),
        ("mysql+aiomysql://u:tok-7f3a@a/x", None),
    ],
)
def test_a_url_names_a_host_or_a_database(tmp_path: Path, url: str, *, web: bool | None) -> None:
    text = f"crm: {{url: '{url}'}}"
    if web is not None:
        assert read(tmp_path, text)["crm"].web is web
        return
    with pytest.raises(Rejected) as raised:
        read(tmp_path, text)
    (error,) = raised.value.errors
    assert error.field == "crm.url"
    assert SECRET not in error.message + str(raised.value)


@pytest.mark.parametrize(
    "more",
    [
        "headers: {A: b}",
        "answer_bytes: 4096",
        f"ca_file: {certifi.where()}",
    ],
)
def test_what_a_database_would_not_heed_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(Rejected) as raised:
        read(tmp_path, f"dwh: {{url: 'sqlite+aiosqlite:///x', {more}}}")
    (error,) = raised.value.errors
    assert error.field == "dwh"
    assert more.partition(":")[0] in error.message


def test_a_header_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as raised:
        read(tmp_path, "crm: {url: 'http://x', headers: {A: '${TOKEN}'}}", TOKEN=f"{SECRET}\n")
    assert [error.field for error in raised.value.errors] == ["crm.headers.A"]

"""What goes over the wire to a JSON service, whatever a customer is called, and what is taken of a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import orjson
import pytest
from faults.unruly import Unruly
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from arbitration.catalog.sources import HttpSource
from arbitration.facts import Value
from decision.sources.connections import Connection
from decision.sources.http import Http, filled_path
from decision.sources.port import Cause, Row, Served, SourceFault
from decision.sources.web import open_client

ASKED = Served("customer.asked", "string", "asked")

HOSTILE = [
    "../../admin",
    "..\\..\\admin",
    "%2e%2e",
    "%2e%2e/admin",
    "%252e%252e",
    "...",
    "a/b",
    "a?b=c",
    "a&b=c",
    "a#b",
    "a;b=c",
    "@evil.example",
    ":80@evil.example",
    "//evil.example/",
    "http://evil.example/",
    "a\r\nX-Evil: yes",
    "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "%0d%0aX-Evil: yes",
    "a\nb",
    "\x00",
    "a\x00b",
    "\x7f\x1b",
    " ",
    "a b",
    "a+b",
    "Zoë 東京 🎉",
    "\u202e\ufeff\u2028",
    "/",
    "//",
    "\\",
    "{customer_id}",
    "{other}",
    "100%",
    "'\"<>`|^[]",
    "x" * 4096,
]
STEPS = ["..", "."]  # another path, encoded or not


@pytest.fixture(scope="module")
def upstream() -> Iterator[Unruly]:
    with Unruly() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


def source(
    upstream: Unruly, client: httpx.AsyncClient, behaviour: str, served: Served = ASKED, **more: Any
) -> Http:
    connection = Connection(
        url=SecretStr(upstream.url(behaviour)), headers={"authorization": SecretStr("Bearer s3cret")}
    )
    return Http(HttpSource(id="crm", kind="http", **more), [served], connection, client)


async def sent(
    upstream: Unruly, client: httpx.AsyncClient, value: Value, **more: Any
) -> tuple[dict[str, Any], Row | None]:
    """The one request that a fetch caused, and its row."""
    behaviour = "wire"
    before = len(upstream.asked(behaviour))
    (row,) = await source(upstream, client, behaviour, **more).fetch([(value,)])
    (request,) = upstream.asked(behaviour)[before:]
    hosts = [value for name, value in request["headers"] if name.lower() == "host"]
    assert hosts == [f"127.0.0.1:{upstream.ports['http']}"]
    assert "x-evil" not in [name.lower() for name, _ in request["headers"]]
    assert dict(request["headers"])["authorization"] == "Bearer s3cret"
    return request, row


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_value_stays_within_its_path_segment(
    upstream: Unruly, client: httpx.AsyncClient, value: str
) -> None:
    request, row = await sent(upstream, client, value, path="/v1/of/{customer_id}")
    method, target, protocol = request["line"].split(" ")
    assert (method, protocol, request["body"]) == ("GET", "HTTP/1.1", "")
    *before, segment = target.split("/")
    assert before == ["", "wire", "v1", "of"]
    assert not set(segment) & set("?#&;@:\\")
    assert unquote(segment, errors="strict") == value
    assert row == {"customer.asked": value}


@pytest.mark.parametrize("value", [*HOSTILE, *STEPS, ""])
async def test_a_value_stays_within_its_query_parameter(
    upstream: Unruly, client: httpx.AsyncClient, value: str
) -> None:
    request, _ = await sent(upstream, client, value, path="/v1/find?id={customer_id}&limit=1")
    path, _, query = request["line"].split(" ")[1].partition("?")
    assert path == "/wire/v1/find"
    found = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    assert found == [("id", value), ("limit", "1")]


@pytest.mark.parametrize("value", [*HOSTILE, *STEPS, ""])
async def test_a_value_stays_a_string_of_its_body(
    upstream: Unruly, client: httpx.AsyncClient, value: str
) -> None:
    body = {"id": "{customer_id}", "more": ["id: {customer_id}!", 1, None], "{customer_id}": True}
    request, _ = await sent(upstream, client, value, path="/v1/find", method="POST", body=body)
    assert request["line"] == "POST /wire/v1/find HTTP/1.1"
    assert orjson.loads(request["body"].encode("latin-1")) == {
        "id": value,
        "more": [f"id: {value}!", 1, None],
        "{customer_id}": True,
    }


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("/of/{customer_id}", ".."),
        ("/of/{customer_id}", "."),
        ("/of/{customer_id}", ""),
        ("/of/{customer_id}/more", ""),
        ("/of/.{customer_id}", "."),
        ("/of/{customer_id}.", "."),
        ("/of/%2e{customer_id}", "."),
        ("/of/{customer_id}{customer_id}", "."),
        ("/{customer_id}?x=1", ".."),
        ("/../of/{customer_id}", "anna"),
        ("/%2E./of/{customer_id}", "anna"),
    ],
)
async def test_a_value_that_would_be_another_path_is_not_sent(
    upstream: Unruly, client: httpx.AsyncClient, template: str, value: str
) -> None:
    with pytest.raises(SourceFault) as fault:
        await source(upstream, client, "untouched", path=template).fetch([(value,)])
    assert (fault.value.cause, fault.value.ill) == (Cause.NOT_FOUND, False)
    assert upstream.asked("untouched") == []


@given(st.text(), st.text())
def test_a_filled_path_has_the_structure_of_its_template(one: str, two: str) -> None:
    template = "/v1/{one}/x-{two}/{one}{two}?a={one}&b={two}{one}&c=1"
    try:
        path, _, query = filled_path(template, {"one": one, "two": two}).partition("?")
    except SourceFault:
        assert one in ("", ".", "..") or {one, two} <= {"", ".", ".."}
        return
    assert path.isascii()
    assert query.isascii()
    assert [unquote(each) for each in path.split("/")] == ["", "v1", one, f"x-{two}", one + two]
    assert parse_qsl(query, keep_blank_values=True) == [("a", one), ("b", two + one), ("c", "1")]
    # and the client does not read it in another way
    url = httpx.URL(f"http://crm.test/base{path}?{query}")
    assert (url.host, url.raw_path.decode()) == ("crm.test", f"/base{path}?{query}")


async def test_a_redirect_is_not_followed(upstream: Unruly, client: httpx.AsyncClient) -> None:
    with pytest.raises(SourceFault) as fault:
        await source(upstream, client, "redirect", path="/{customer_id}").fetch([("anna",)])
    assert fault.value.cause is Cause.BAD_REPLY
    assert upstream.connected("elsewhere") == 0


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("asked", {"customer.asked": "c-7"}),
        ("risk", {"customer.asked": 7}),
        ("nothing.there", {}),
        ("length(asked)", {"customer.asked": 3}),
        ("`[1]`", {"customer.asked": [1]}),
    ],
)
async def test_values_are_taken_by_their_expression(
    upstream: Unruly, client: httpx.AsyncClient, path: str, row: Row
) -> None:
    served = Served("customer.asked", "string", path)
    assert await source(upstream, client, "fine", served, path="/{customer_id}").fetch([("c-7",)]) == [row]


@pytest.mark.parametrize("path", ["length(risk)", "contains(nothing[].code, 'X')", "ceil(to_number('inf'))"])
async def test_an_expression_that_cannot_take_what_is_there_costs_its_value_only(path: str) -> None:
    def answered(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b'{"risk": 7}'))

    served = [Served("customer.odd", "int", path), Served("customer.risk", "int", "risk")]
    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client:
        specification = HttpSource(id="crm", kind="http", path="/{customer_id}")
        connection = Connection(url=SecretStr("http://crm.test"))
        (row,) = await Http(specification, served, connection, client).fetch([("c-7",)])
    assert row == {"customer.odd": {}, "customer.risk": 7}, "an object, which no type admits: bad_value"


async def test_a_value_alone_in_the_body_keeps_its_type(upstream: Unruly, client: httpx.AsyncClient) -> None:
    for value in (True, 7, 0.5, "7", ("a", "b")):
        request, _ = await sent(
            upstream,
            client,
            value,
            path="/x",
            method="POST",
            body={"v": "{customer_id}", "t": "<{customer_id}>"},
        )
        found = orjson.loads(request["body"])
        assert found["v"] == (list(value) if isinstance(value, tuple) else value)
        assert type(found["v"]) is type(orjson.loads(orjson.dumps(value)))
        assert isinstance(found["t"], str)

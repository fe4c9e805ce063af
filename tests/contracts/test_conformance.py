"""Every operation answers as the OpenAPI document says, whatever it is sent. The short form of
`make schemathesis`: it checks statuses and content types, with requests made from the document's schemas."""

from __future__ import annotations

import random
import re
from typing import Any
from urllib.parse import quote

import pytest
from support import Service, asking

_TEXTS = [
    "anna",
    "agent",
    "panel",
    "web",
    "given",
    "nps",
    "email",
    "a",
    "default",
    "2026-01-01T00:00:00Z",
    "1d",
]
_TEXTS += ["ä", "x" * 65, "x" * 600, "", "\x00", "a b", "-", "../..", "%2e", "=1+1", "2026-02-30", "'; --"]
_JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    2**63,
    2**70,
    "",
    "\x00",
    "x" * 300,
    [],
    {},
    [[]],
    {"a": {}},
    "NaN",
]
_REQUESTS = 4


class Maker:
    """Makes values that fit a schema, and some that do not quite."""

    def __init__(self, seed: int, document: dict[str, Any]) -> None:
        self.random = random.Random(seed)
        self._schemas = document["components"]["schemas"]

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """A value, as far as the schema is understood."""
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.value(self.random.choice(schema[several]), depth + 1)
        if "const" in schema or "enum" in schema:
            return schema.get("const", self.random.choice(schema.get("enum", [None])))
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                most = min(schema.get("maxItems", 3), 3) if depth < 8 else 0
                count = self.random.randint(min(schema.get("minItems", 0), most), most)
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "string":
                fits = [text for text in _TEXTS if re.search(schema.get("pattern", ""), text)]
                return self.random.choice(fits or _TEXTS)
            case "integer":
                return self.random.randint(
                    int(schema.get("minimum", -1)), min(int(schema.get("maximum", 9)), 99)
                )
            case "number":
                return self.random.choice([0, 0.5, 1, -1.5, 1e300])
            case "boolean":
                return self.random.random() < 0.5
            case "null":
                return None
        return self.random.choice(_JUNK)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        needed = schema.get("required", [])
        found = {
            name: self.value(each, depth + 1)
            for name, each in schema.get("properties", {}).items()
            if name in needed or (depth < 8 and self.random.random() < 0.4)
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and self.random.random() < 0.5:
            found[self.random.choice(_TEXTS)] = self.value(more, depth + 1)
        return found

    def spoilt(self, value: Any) -> Any:
        """The same with one thing in it that is something else."""
        if isinstance(value, dict) and value and self.random.random() < 0.8:
            name = self.random.choice(list(value))
            return {**value, name: self.spoilt(value[name])}
        if isinstance(value, list) and value and self.random.random() < 0.8:
            at = self.random.randrange(len(value))
            return [*value[:at], self.spoilt(value[at]), *value[at + 1 :]]
        return self.random.choice(_JUNK)


def request(
    maker: Maker, operation: dict[str, Any], path: str, known: dict[str, str]
) -> tuple[str, Any, Any]:
    """A path, a query and a body."""
    query = {}
    for parameter in operation.get("parameters", []):
        name, schema = parameter["name"], parameter["schema"]
        value = maker.value(schema) if maker.random.random() < 0.6 else maker.random.choice(_TEXTS)
        if parameter["in"] == "path":
            value = known.get(name, value) if maker.random.random() < 0.5 else value
            # A slash, however it is written, begins another part of the path, and so is another route.
            value = str(value).replace("/", "")
            path = path.replace(f"{{{name}}}", quote(value or "x", safe=""))
        elif parameter["in"] == "query" and maker.random.random() < 0.7:
            query[name] = str(value)
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return path, query, None
    body = maker.value(content["application/json"]["schema"])
    return path, query, maker.spoilt(body) if maker.random.random() < 0.5 else body


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_every_operation_answers_as_documented(service: Service, seed: int) -> None:
    document = (await service.client.get("/openapi.json")).json()
    maker = Maker(seed, document)
    decision = await service.client.post("/v1/decisions", json=asking())
    known = {"customer_id": "anna", "decision_id": decision.json()["decision_id"], "policy": "default"}
    operations = [
        (method, path, operation)
        for path, of in document["paths"].items()
        for method, operation in of.items()
    ]
    wrong, answered = [], set()
    for method, path, operation in operations * (_REQUESTS if seed == 1 else 60 * _REQUESTS):
        where, query, body = request(maker, operation, path, known)
        given: dict[str, Any] = {} if body is None else {"json": body}
        if body is None and "requestBody" in operation:
            lines = f'{{"customer_id": "anna", "attributes": {{"nps": {maker.random.choice(["1", "x"])}}}}}\n'
            given = {"content": lines, "headers": {"content-type": "application/x-ndjson"}}
        reply = await service.client.request(method, where, params=query, **given)
        answered.add(reply.status_code)
        declared = operation["responses"].get(str(reply.status_code))
        kinds = {} if declared is None else declared.get("content", {})
        kind = reply.headers.get("content-type", "").partition(";")[0] if reply.content else ""
        if declared is None or reply.status_code >= 500 or (kind or None) not in (kinds or {None: {}}):
            wrong.append((method, where, query, body, reply.status_code, kind, reply.text[:200]))
    assert not wrong, wrong[:3]
    assert answered >= {200, 204, 404, 409, 422}

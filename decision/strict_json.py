"""JSON as callers send it, parsed strictly: no NaN, no Infinity, valid UTF-8, bounded depth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import orjson

from decision.errors import FieldError, Rejected

DEEPEST = 100


def parse(body: bytes) -> Any:
    """`body` as JSON. Raises Rejected: 400 where it is malformed, 422 naming numbers that are not finite."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(body, error) from error
    if body.count(b"[") + body.count(b"{") > DEEPEST and _depth(parsed) > DEEPEST:
        errors = [FieldError("body", "too_deep", f"nested more than {DEEPEST} levels deep")]
        raise Rejected(400, "malformed_json", "The body is nested too deeply.", errors)
    return parsed


def _depth(node: object) -> int:
    depth, level = 0, [node]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    return depth


def _malformed(body: bytes, error: orjson.JSONDecodeError) -> Rejected:
    # Only on the way to a refusal: the lenient parser tells a number that is not finite from broken JSON.
    try:
        fields = list(_not_finite(json.loads(body), ""))
    except (ValueError, RecursionError):
        fields = []
    if fields:
        errors = [FieldError(field or "body", "not_finite", "must be a finite number") for field in fields]
        return Rejected(422, "invalid_request", "A number is not finite.", errors)
    where = f"line {error.lineno}, column {error.colno}"
    message = f"not JSON at {where}: {error.msg}"
    errors = [FieldError("body", "malformed_json", message)]
    return Rejected(400, "malformed_json", "The body is not JSON.", errors)


def _not_finite(node: object, path: str) -> Iterator[str]:
    if isinstance(node, float) and not math.isfinite(node):
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _not_finite(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _not_finite(value, f"{path}[{index}]")

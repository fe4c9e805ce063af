"""JSON as callers send it, parsed strictly: no NaN, no Infinity, valid UTF-8, bounded in depth and number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from decision.errors import FieldError, Rejected

DEEPEST = 32
MOST_ITEMS = 10_000
"""Entries of one list, or of one object."""
LONGEST_TEXT = 100_000
"""Characters of one string, or of one name. Of most fields, less: their own limits tell."""
MOST_VALUES = 500_000
"""Commas and opening brackets of a body: so many values take some 60 MB, and 0.1 s to read."""
_NAMED = 100  # faults, at most: no reply lists more


def parse(body: bytes) -> Any:
    """`body` as JSON. Raises Rejected: 400 where it is malformed or too deep, 422 naming the numbers that are
    not finite, or the field that is too large."""
    opened = body.count(b"[") + body.count(b"{")
    if opened + body.count(b",") > MOST_VALUES:
        raise _too_large([FieldError("body", "too_many", f"at most {MOST_VALUES} commas and brackets")])
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(body, error) from error
    if (opened > DEEPEST or len(body) > MOST_ITEMS) and not _fits(parsed):
        raise _too_large(list(islice(_too_large_in(parsed, "", 0), _NAMED)))
    return parsed


def _fits(parsed: object) -> bool:
    # Level by level: this is for every large body, and names nothing.
    level = [parsed]
    for _ in range(DEEPEST):
        within: list[object] = []
        for node in level:
            if _long(node):
                return False
            if isinstance(node, list):
                if len(node) > MOST_ITEMS:
                    return False
                within += node
            elif isinstance(node, dict):
                if len(node) > MOST_ITEMS:
                    return False
                within += node
                within += node.values()
        if not within:
            return True
        level = within
    return not any(isinstance(node, list | dict) or _long(node) for node in level)


def _long(node: object) -> bool:
    return isinstance(node, str) and len(node) > LONGEST_TEXT


def _too_large_in(node: object, path: str, depth: int) -> Iterator[FieldError]:
    field = path or "body"
    if _long(node):
        yield FieldError(field, "too_long", f"a text has at most {LONGEST_TEXT} characters")
    if not isinstance(node, list | dict):
        return
    if depth >= DEEPEST:
        yield FieldError(field, "too_deep", f"nested more than {DEEPEST} levels deep")
    elif len(node) > MOST_ITEMS:
        yield FieldError(field, "too_many", f"at most {MOST_ITEMS} entries")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _too_large_in(value, f"{path}[{index}]", depth + 1)
    else:
        for key, value in node.items():
            if len(key) > LONGEST_TEXT:
                yield FieldError(field, "too_long", f"a name has at most {LONGEST_TEXT} characters")
            else:
                name = key[:64]
                yield from _too_large_in(value, f"{path}.{name}" if path else name, depth + 1)


def _too_large(errors: list[FieldError]) -> Rejected:
    if any(error.code == "too_deep" for error in errors):
        return Rejected(400, "malformed_json", "The body is nested too deeply.", errors)
    return Rejected(422, "invalid_request", "The body holds too much.", errors)


def _malformed(body: bytes, error: orjson.JSONDecodeError) -> Rejected:
    # Only on the way to a refusal: the lenient parser tells a number that is not finite from broken JSON.
    try:
        fields = list(islice(_not_finite(json.loads(body), ""), _NAMED))
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

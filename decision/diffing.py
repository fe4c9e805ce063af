"""What differs between two catalogs, part by part, in words a reviewer can follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Difference:
    """One change at `path`. `before` is None where it was added, `after` where it was removed."""

    kind: Literal["added", "removed", "changed"]
    path: str
    before: object = None
    after: object = None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every difference between two catalog documents. Parts are matched by id; where those that
    stay come in another order, that is one more difference: the first policy is the default."""
    return list(_differ("", before, after))


def _differ(path: str, before: object, after: object) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list) and _have_ids(before) and _have_ids(after):
        before, after = _by_id(before), _by_id(after)
        here, there = [key for key in before if key in after], [key for key in after if key in before]
        if here != there:
            yield Difference("changed", f"{path} (order)", here, there)
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield Difference("changed", path, before, after)
        return
    for key in before:
        if key not in after:
            yield Difference("removed", _join(path, key), before[key])
    for key, value in after.items():
        if key not in before:
            yield Difference("added", _join(path, key), None, value)
        else:
            yield from _differ(_join(path, key), before[key], value)


def _have_ids(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) and "id" in item for item in items)


def _by_id(items: list[Any]) -> dict[str, Any]:
    return {item["id"]: item for item in items}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key

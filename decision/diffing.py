"""What differs between two catalogs, part by part, in words a reviewer can follow; and as data.

The same for the command line and the API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["added", "removed", "changed"]

_RULES = ("eligibility", "applicability", "suitability")
_LONGEST = 300
# What a list of parts is called where one of them is meant.
_ONE = {
    "scores": "score",
    "context": "context value",
    "policies": "policy",
    "contact_policies": "contact policy",
    "quiet_hours": "quiet hours",
    "fairness": "fairness",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One change at `path`. `before` is None where it was added, `after` where it was removed."""

    kind: Kind
    path: str
    before: object = None
    after: object = None
    keys: tuple[str, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """What changed in its part, in words: `lever 1.0 → 1.5`."""
        where = " ".join(_within(self.keys))
        if self.kind == "changed":
            return f"{where} {_quoted(self.before)} → {_quoted(self.after)}".strip()
        return f"{where}: {self.kind} {_spelled(self.value)}".removeprefix(": ")

    @property
    def value(self) -> object:
        """What was added or removed."""
        return self.after if self.kind == "added" else self.before


@dataclass(frozen=True, slots=True)
class PartDifference:
    """All that changed in one part of the catalog: `action renew_12m`, or a section of single values."""

    part: str
    kind: Kind
    changes: tuple[Difference, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The part and, indented, each change, as text."""
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.kind]
        head = f"{sign} {_shown(self.part)}"
        if self.kind == "changed":
            return (head, *(f"    {each.text}" for each in self.changes))
        whole = self.changes[0].value
        if not isinstance(whole, Mapping):
            return (f"{head} {_quoted(whole)}",)
        told = {key: value for key, value in whole.items() if key != "id" and not _nothing(value)}
        return (head, *(f"    {line}" for key, value in told.items() for line in _lines(key, value)))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every difference between two catalog documents. Parts are matched by id; where those that
    stay come in another order, that is one more difference: the first policy is the default. Rules are
    matched by what they say."""
    return list(_differ((), before, after))


def by_part(found: Sequence[Difference]) -> list[PartDifference]:
    """Differences, gathered by the part of the catalog they are in, in the order they were found in."""
    parts: dict[str, list[Difference]] = {}
    for each in found:
        parts.setdefault(_part(each.keys), []).append(each)
    return [
        PartDifference(part, "changed" if len(each[0].keys) != 2 else each[0].kind, tuple(each))
        for part, each in parts.items()
    ]


def _differ(keys: tuple[str, ...], before: object, after: object) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list):
        if keys and keys[-1] in _RULES:
            yield from _rules(keys, before, after)
            return
        if _have_ids(before) and _have_ids(after):
            before, after = _by_id(before), _by_id(after)
            here, there = [key for key in before if key in after], [key for key in after if key in before]
            if here != there:
                yield _found("changed", (*keys[:-1], f"{keys[-1]} (order)"), here, there)
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield _found("changed", keys, before, after)
        return
    for key in before:
        if key not in after:
            yield _found("removed", (*keys, key), before[key], None)
    for key, value in after.items():
        if key not in before:
            yield _found("added", (*keys, key), None, value)
        else:
            yield from _differ((*keys, key), before[key], value)


def _rules(keys: tuple[str, ...], before: list[Any], after: list[Any]) -> Iterator[Difference]:
    gone = [rule for rule in before if rule not in after]
    new = [rule for rule in after if rule not in before]
    for rule in gone:
        yield _found("removed", keys, rule, None)
    for rule in new:
        yield _found("added", keys, None, rule)
    if not gone and not new:
        yield _found("changed", (*keys[:-1], f"{keys[-1]} (order)"), before, after)


def _found(kind: Kind, keys: tuple[str, ...], before: object, after: object) -> Difference:
    return Difference(kind, ".".join(keys), before, after, keys)


def _have_ids(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) and "id" in item for item in items)


def _by_id(items: list[Any]) -> dict[str, Any]:
    return {item["id"]: item for item in items}


def _one(section: str) -> str:
    return _ONE.get(section, section.removesuffix("s")).replace("_", " ")


def _part(keys: tuple[str, ...]) -> str:
    if len(keys) < 2:
        return keys[0] if keys else "catalog"
    return f"{_one(keys[0])} {keys[1]}"


def _within(keys: tuple[str, ...]) -> Iterator[str]:
    """The place within a part."""
    inside = list(keys[2:])
    while inside:
        key = inside.pop(0)
        if key in ("treatments", "incentives", "challengers") and inside:
            yield f"{_one(key)} {inside.pop(0)}"
        else:
            yield key


def _lines(key: str, value: object) -> Iterator[str]:
    if isinstance(value, list) and (key in _RULES or _have_ids(value)):
        for each in value:
            yield f"{_one(key) if key not in _RULES else key}: {_spelled(each)}"
    else:
        yield f"{key}: {_spelled(value)}"


def _spelled(value: object) -> str:
    """A value as a person would write it. A rule is its text, with the reason it stands for."""
    if isinstance(value, str):
        text = _shown(value)
    elif isinstance(value, Mapping) and "rule" in value:
        text = _shown(f"{str(value['rule']).strip()} (why: {value.get('why')})")
    elif isinstance(value, Mapping) and "id" in value:
        rest = {key: each for key, each in value.items() if key != "id" and not _nothing(each)}
        text = _shown(f"{value['id']} {_json(rest)}" if rest else str(value["id"]))
    else:
        text = _shown(_json(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _quoted(value: object) -> str:
    return f'"{_spelled(value)}"' if isinstance(value, str) else _spelled(value)


def _nothing(value: object) -> bool:
    return value is None or value in ([], {}, "")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shown(text: str) -> str:
    """What would not be seen, or would move what is, written out: nobody is to approve what he cannot see."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text.strip())

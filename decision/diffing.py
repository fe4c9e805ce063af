"""What differs between two catalogs, part by part, in words a reviewer can follow; and as data.

The same for the command line and the API.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["added", "removed", "changed"]

_RULES = ("eligibility", "applicability", "suitability")
# A longer text that was changed is told without what is the same at both ends, but for so much of it.
_LONGEST = 300
_AROUND = 60
# Printable, as Unicode has it, and yet nothing is seen of them: fillers, selectors of a variant, blanks.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U0001d159\U000e0100-\U000e01ef]"
)
_WORD = re.compile(r"\w+")
# Scripts that people do write into one word with Latin letters, and that do not look like them.
_APART = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL")
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
            before, after = _pair(_quoted(self.before), _quoted(self.after))
            return f"{where} {before} → {after}".strip()
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
        head = f"{sign} {shown(self.part)}"
        if self.kind == "changed":
            return (head, *(f"    {each.text}" for each in self.changes))
        whole = self.changes[0].value
        if not isinstance(whole, Mapping):
            return (f"{head} {_quoted(whole)}",)
        told = {key: value for key, value in whole.items() if key != "id" and not _nothing(value)}
        return (head, *(f"    {line}" for key, value in told.items() for line in _lines(key, value)))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every difference between two catalog documents. Parts are matched by id; where those that
    stay come in another order, that is one more difference, and another one where the first policy, which is
    the default, is not the same. Rules are matched by what they say."""
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
    if isinstance(before, list) and isinstance(after, list):
        if keys and keys[-1] in _RULES:
            if before != after:
                yield from _rules(keys, before, after)
            return
        if _have_ids(before) and _have_ids(after):
            before, after = _by_id(before), _by_id(after)
            here, there = [key for key in before if key in after], [key for key in after if key in before]
            first, now = next(iter(before), None), next(iter(after), None)
            if keys == ("policies",) and first and now and first != now:
                yield _found("changed", ("default policy",), first, now)
            if here != there:
                yield _found("changed", (*keys[:-1], f"{keys[-1]} (order)"), here, there)
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        if _json(before) != _json(after):  # as values, 1 and true are equal
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
        return shown(value) if value == value.strip() else _quoted(value)
    if isinstance(value, Mapping) and "rule" in value:
        return shown(f"{str(value['rule']).strip()} (why: {value.get('why')})")
    if isinstance(value, Mapping) and "id" in value:
        rest = {key: each for key, each in value.items() if key != "id" and not _nothing(each)}
        return shown(f"{value['id']} {_json(rest)}" if rest else str(value["id"]))
    return shown(_json(value))


def _quoted(value: object) -> str:
    return shown(_json(value)) if isinstance(value, str) else _spelled(value)


def _nothing(value: object) -> bool:
    return value is None or value in ([], {}, "")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _pair(before: str, after: str) -> tuple[str, str]:
    """Two texts, told apart: where they may look alike all that is not ASCII is written out, and of long ones
    all is there from the first difference to the last."""
    if _alike(before, after):
        before, after = _plain(before), _plain(after)
    if max(len(before), len(after)) <= _LONGEST:
        return before, after
    shortest = min(len(before), len(after))
    start = next((at for at in range(shortest) if before[at] != after[at]), shortest)
    most = shortest - start
    end = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    return _middle(before, start, end), _middle(after, start, end)


def _middle(text: str, start: int, end: int) -> str:
    """Of a text, of which `start` and `end` characters are the same in the other, what matters."""
    first, last = max(start - _AROUND, 0), len(text) - max(end - _AROUND, 0)
    return "…" * (first > 0) + text[first:last] + "…" * (last < len(text))


def _alike(before: str, after: str) -> bool:
    """Whether two texts differ only where a character is not ASCII, which may look like the other."""
    if unicodedata.normalize("NFKC", before) == unicodedata.normalize("NFKC", after):
        return True
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(a == b or not (a + b).isascii() for a, b in pairs)


def shown(text: str) -> str:
    """A text in which nobody overlooks anything: written out is what would not be seen or would move what is,
    and what may pass for a Latin letter in a Latin word."""
    text = "".join(each if each.isprintable() else _plain(each) for each in text)
    return _WORD.sub(_one_script, _UNSEEN.sub(lambda found: _plain(found[0]), text))


def _one_script(word: re.Match[str]) -> str:
    text = word[0]
    if text.isascii() or not any("LATIN" in unicodedata.name(each, "") for each in text):
        return text
    return "".join(each if each.isascii() or not _foreign(each) else _plain(each) for each in text)


def _foreign(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "").startswith(_APART)


def _plain(text: str) -> str:
    return "".join(each if each.isascii() and each.isprintable() else ascii(each)[1:-1] for each in text)

"""Facts: the typed values a decision is made from, keyed by dotted name (`customer.nps`).

A fact that is not known is simply not there. Values are bool, int, float, str, aware UTC datetime,
or tuple of str, matching the declared type exactly, so nothing downstream needs to check again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from arbitration.errors import FactError

if TYPE_CHECKING:
    from arbitration.catalog.model import Catalog, FactType

Value = bool | int | float | str | datetime | tuple[str, ...]
Facts = Mapping[str, Value]

_INT64 = 2**63
STORE = "store"
DERIVED = "derived"
REQUEST = "request"
MAX_STRING = 4_096
MAX_STRINGS = 256


@dataclass(frozen=True, slots=True)
class Declared:
    """What a catalog says of one fact. `channels`: where a context value exists (None: everywhere).

    `origin`: the source it comes from, STORE, DERIVED or REQUEST.
    """

    type: FactType
    min: float | None = None
    max: float | None = None
    values: frozenset[str] | None = None
    pii: bool = False
    channels: frozenset[str] | None = None
    origin: str = STORE


def personal(name: str) -> bool:
    """Whether a fact is about the customer, and not about the situation alone."""
    return not name.startswith("context.")


def declarations(catalog: Catalog) -> dict[str, Declared]:
    """Every fact of the catalog by dotted name."""
    found: dict[str, Declared] = {}
    for attribute in catalog.attributes:
        values = None if attribute.values is None else frozenset(attribute.values)
        found[f"customer.{attribute.id}"] = Declared(
            attribute.type,
            attribute.min,
            attribute.max,
            values,
            attribute.pii,
            origin=attribute.source if attribute.derive is None else DERIVED,
        )
    for score in catalog.scores:
        found[f"scores.{score.id}"] = Declared("double", score.min, score.max, origin=score.source)
    for item in catalog.context:
        values = None if item.values is None else frozenset(item.values)
        channels = None if item.channels is None else frozenset(item.channels)
        found[f"context.{item.id}"] = Declared(
            item.type, item.min, item.max, values, channels=channels, origin=REQUEST
        )
    return found


def admit(field: str, raw: object, declared: Declared) -> Value:
    """`raw` (a JSON value) as a value of the declared type.

    Whole floats are not ints and numbers are not strings: what does not fit is refused rather than
    bent. Raises FactError naming `field`.
    """
    value = _of_type(field, raw, declared)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if declared.min is not None and value < declared.min:
            raise FactError(field, f"{_shown(value, declared)} is less than the minimum {declared.min:g}")
        if declared.max is not None and value > declared.max:
            raise FactError(field, f"{_shown(value, declared)} is greater than the maximum {declared.max:g}")
    if declared.values is not None:
        for text in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
            if text not in declared.values:
                allowed = ", ".join(sorted(declared.values))
                raise FactError(field, f"{_shown(text, declared)} is not one of {allowed}")
    return value


def admitter(field: str, declared: Declared) -> Callable[[object], Value]:
    """`admit` with its declaration settled, for facts that are admitted again and again: what is plainly of
    the type and within its bounds passes at once."""

    def slowly(raw: object) -> Value:
        return admit(field, raw, declared)

    low = -math.inf if declared.min is None else declared.min
    high = math.inf if declared.max is None else declared.max
    if declared.type == "bool":
        return lambda raw: raw if raw is True or raw is False else slowly(raw)
    if declared.type == "int":
        low, high = max(low, -_INT64), min(high, _INT64 - 1)
        return lambda raw: raw if type(raw) is int and low <= raw <= high else slowly(raw)
    if declared.type == "double":
        low, high = max(low, -sys.float_info.max), min(high, sys.float_info.max)
        return lambda raw: raw if type(raw) is float and low <= raw <= high else slowly(raw)
    if declared.type == "timestamp":
        return lambda raw: _timestamp(field, raw, declared) if type(raw) is str else slowly(raw)
    if declared.type == "string" and declared.values is not None:
        known = frozenset(text for text in declared.values if _plain(text))
        return lambda raw: raw if type(raw) is str and raw in known else slowly(raw)
    if declared.type == "string":
        return lambda raw: raw if type(raw) is str and _plain(raw) else slowly(raw)
    return slowly


def _plain(text: str) -> bool:
    return text.isascii() and len(text) <= MAX_STRING and "\0" not in text


def _of_type(field: str, raw: object, declared: Declared) -> Value:
    kind = declared.type
    match kind:
        case "bool" if isinstance(raw, bool):
            return raw
        case "int" if isinstance(raw, int) and not isinstance(raw, bool):
            if not -_INT64 <= raw < _INT64:
                raise FactError(field, "an int has at most 64 bits")
            return raw
        case "double" if isinstance(raw, int | float) and not isinstance(raw, bool):
            if isinstance(raw, int) and not -_INT64 <= raw < _INT64:
                raise FactError(field, "a number has at most 64 bits")
            if not math.isfinite(raw):
                raise FactError(field, "a number must be finite")
            return float(raw)
        case "string" if isinstance(raw, str):
            return _text(field, raw)
        case "timestamp" if isinstance(raw, str):
            return _timestamp(field, raw, declared)
        case "strings" if isinstance(raw, list | tuple):
            if len(raw) > MAX_STRINGS:
                raise FactError(field, f"more than {MAX_STRINGS} strings")
            if not all(isinstance(item, str) for item in raw):
                raise FactError(field, "must be a list of strings")
            return tuple(_text(field, item) for item in raw)
    wanted = {"timestamp": "an RFC 3339 time with its offset", "strings": "a list of strings"}
    raise FactError(field, f"must be {wanted.get(kind, f'of type {kind}')}, not {_kind(raw)}")


def _text(field: str, raw: str) -> str:
    if len(raw) > MAX_STRING:
        raise FactError(field, f"a string has at most {MAX_STRING} characters")
    if any("\ud800" <= character <= "\udfff" for character in raw) if not raw.isascii() else False:
        raise FactError(field, "half of a surrogate pair is no character")
    if "\0" in raw:
        raise FactError(field, "a string has no null characters")
    return raw


def _timestamp(field: str, raw: str, declared: Declared) -> datetime:
    try:
        instant = datetime.fromisoformat(raw)
        if instant.tzinfo is None:
            raise FactError(field, "a timestamp needs its offset: 2026-01-31T08:00:00Z")
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FactError(field, f"{_shown(raw, declared)} is not an RFC 3339 time") from error


def _kind(raw: object) -> str:
    names = {
        bool: "a bool",
        int: "an int",
        float: "a double",
        str: "a string",
        dict: "an object",
        list: "a list",
    }
    return "null" if raw is None else names.get(type(raw), type(raw).__name__)


def _shown(value: Value, declared: Declared) -> str:
    if declared.pii:
        return "the value"
    if not isinstance(value, str):
        return str(value)
    return repr(value if len(value) <= 40 else value[:37] + "...")


def to_json(value: Value) -> object:
    """A value as JSON that says its own type: timestamps as `{"timestamp": …}`, the rest as it is."""
    if isinstance(value, datetime):
        return {"timestamp": rfc3339(value)}
    return list(value) if isinstance(value, tuple) else value


_SELF_SPOKEN = frozenset({bool, int, float, str})


def plain(facts: Facts) -> dict[str, object]:
    """`to_json` of each."""
    return {name: value if type(value) in _SELF_SPOKEN else to_json(value) for name, value in facts.items()}


def from_json(raw: object) -> Value:
    """The inverse of `to_json`; a catalog is not needed to read old inputs."""
    if isinstance(raw, dict):
        return datetime.fromisoformat(raw["timestamp"])
    if isinstance(raw, list):
        return tuple(raw)
    assert isinstance(raw, bool | int | float | str)
    return raw


def rfc3339(instant: datetime) -> str:
    """UTC with microseconds where there are any, and `Z`."""
    return instant.isoformat().replace("+00:00", "Z")

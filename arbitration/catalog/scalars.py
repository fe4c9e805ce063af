"""Scalars of the authoring model. They stay text as authored; these functions give their meaning."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

# Words that CEL's grammar keeps for itself: `customer.in` could never be written in a rule.
_RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let"}
    | {"loop", "null", "package", "namespace", "return", "true", "var", "void", "while"}
)
_DURATION = re.compile(r"^(\d{1,6})(ms|[smhdw])$")
_LONGEST = timedelta(days=36_500)  # added to any time that occurs, it is still a time
_LAST_YEAR = 9998
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """`"250ms"`, `"90s"`, `"15m"`, `"24h"`, `"30d"`, `"2w"` as a timedelta. ValueError on anything else."""
    if (match := _DURATION.match(text)) is None:
        raise ValueError("a duration is a whole number and one of ms, s, m, h, d, w: 15m, 24h, 30d")
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if span > _LONGEST:
        raise ValueError(f"a duration has at most {_LONGEST.days} days")
    return span


def moment(text: str, *, end_of_day: bool = False) -> datetime:
    """A date or an RFC 3339 time with its offset, as UTC. A bare date is midnight UTC.

    With `end_of_day` a bare date means the midnight that ends it. ValueError on anything else.
    """
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        day = date.fromisoformat(text)
        if day.year > _LAST_YEAR:
            raise ValueError(f"a year is at most {_LAST_YEAR}")
        return datetime.combine(day + timedelta(days=1 if end_of_day else 0), time(0), UTC)
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("a time needs its offset: 2026-01-31T08:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time lies between the years 1 and 9999") from error


def _duration_text(text: str) -> str:
    duration(text)
    return text


def _moment_text(text: str) -> str:
    moment(text)
    return text


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"'{name}' is a reserved word of the rule language")
    return name


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_\-]{0,63}$")]
"""Of an action, treatment, group, channel, placement, policy, purpose."""

Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"), AfterValidator(_not_reserved)
]
"""Of an attribute, score or context value: an identifier of the rule language."""

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
DurationText = Annotated[str, AfterValidator(_duration_text)]
MomentText = Annotated[str, AfterValidator(_moment_text)]
# Far above any money or weight; products of them are capped here too, to stay within the floats.
LARGEST = 1e12
# Of money that is counted: it is kept as whole ten-thousandths of the currency, so that sums are exact.
DECIMALS = 4
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def ticks(money: float) -> int:
    """Money in ten-thousandths of the currency, exactly."""
    return round(money * 10.0**DECIMALS)

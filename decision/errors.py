"""The shell's branch of the error hierarchy (root: `arbitration.errors.NextBestActionError`).

NextBestActionError
├── StoreUnavailable    the database cannot be read or written now; nothing was half-written
│   └── StoreBusy       … as more waits to be written than it can take; this was not even tried
├── InternalError       a fault of ours, already logged
├── Conflict            an id that was already used for something else
└── Rejected            a request that cannot be served as asked; carries what the caller may see

The public problem and the private cause are two things: `Rejected` holds only what a caller may
know, the cause travels as `__cause__` into the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arbitration.errors import NextBestActionError


class StoreUnavailable(NextBestActionError):
    """The store cannot serve now. Retrying later may help; nothing was half-written."""


class StoreBusy(StoreUnavailable):
    """The store does not keep up: it was refused at once, rather than left to wait."""


class InternalError(NextBestActionError):
    """A fault of ours, already logged; the caller learns no more than that."""


class Conflict(NextBestActionError):
    """The id in `field` was used before, with other content."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: `field` is its path in the body, `code` is from a closed list."""

    field: str
    code: str
    message: str


class Rejected(NextBestActionError):
    """A request refused with HTTP `status` and problem `code`; names the fields at fault. `headers`: what the
    reply says beside."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)


def validation_errors(details: Sequence[Any], skip: int = 0) -> list[FieldError]:
    """pydantic's findings, each under the path of its field; the first `skip` path parts are ours."""
    return [
        FieldError(
            _spell(detail["loc"][skip:]) or _named_in(detail["msg"]),
            detail["type"],
            detail["msg"].removeprefix("Value error, "),
        )
        for detail in details
    ]


def _spell(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _named_in(message: str) -> str:
    """The field a rule about several fields speaks of: it comes first in its sentence."""
    sentence = message.removeprefix("Value error, ")
    if ": " in sentence:
        return sentence.partition(":")[0]
    return "customer_id" if "customer_id" in sentence else "body"

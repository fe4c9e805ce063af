"""The shell's branch of the error hierarchy (root: `arbitration.errors.NextBestActionError`).

NextBestActionError
├── StoreUnavailable    the database cannot be read or written now; nothing was half-written
├── Conflict            an id that was already used for something else
└── Rejected            a request that cannot be served as asked; carries what the caller may see

The public problem and the private cause are two things: `Rejected` holds only what a caller may
know, the cause travels as `__cause__` into the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arbitration.errors import NextBestActionError


class StoreUnavailable(NextBestActionError):
    """The store cannot serve now. Retrying later may help; nothing was half-written."""


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
    """A request refused with HTTP `status` and problem `code`; names the fields at fault."""

    def __init__(self, status: int, code: str, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)

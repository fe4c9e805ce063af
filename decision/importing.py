"""Imports customers from NDJSON lines or parsed rows: faulty ones are reported by line and skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from arbitration.catalog.compile import CompiledCatalog
from decision.errors import Conflict, FieldError, Rejected, validation_errors
from decision.messages import ImportLine
from decision.profiles import profile_errors
from decision.storage.port import Customer, Identity, Profiles
from decision.strict_json import parse

BATCH = 500
REPORTED = 100
LONGEST_LINE = 1024 * 1024

OnReject = Callable[[int, Sequence[FieldError], object], None]
"""Told of every row that is rejected: its number, its faults, and the row as it came (JSON or text)."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    customer: Customer
    source: object


class Importer:
    """Checks rows against a catalog and stores them in batches; `imported`, `rejected`, `errors` tell.

    `errors` holds the first `reported` rejected rows; `on_reject` is told of all. A row whose identity
    belongs to another customer is found only when its batch is stored, so after later rows.
    """

    def __init__(
        self,
        store: Profiles,
        catalog: CompiledCatalog,
        reported: int = REPORTED,
        on_reject: OnReject | None = None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._reported = reported
        self._on_reject = on_reject
        self._number = 0
        self._waiting: list[_Waiting] = []
        self.imported = 0
        self.rejected = 0
        self.errors: list[tuple[int, Sequence[FieldError]]] = []

    async def line(self, line: bytes) -> None:
        """Takes one NDJSON line. Empty lines only count."""
        self._number += 1
        if not line.strip():
            return
        if len(line) > LONGEST_LINE:
            fault = FieldError("body", "too_large", f"a line has at most {LONGEST_LINE} bytes")
            self.reject(self._number, [fault], None)
            return
        try:
            raw = parse(line)
        except Rejected as error:
            self.reject(self._number, error.errors, line.decode(errors="replace").strip())
            return
        await self.row(self._number, raw, raw)

    async def row(self, number: int, raw: object, source: object) -> None:
        """Takes one row, as the JSON object an NDJSON line would hold; `source` is the row as it came."""
        try:
            message = ImportLine.model_validate(raw)
        except ValidationError as error:
            self.reject(number, validation_errors(error.errors()), source)
            return
        customer = Customer(
            message.customer_id,
            message.attributes,
            message.scores,
            message.consents,
            tuple(Identity(name.type, name.value) for name in message.identities),
        )
        if errors := profile_errors(self._catalog, customer):
            self.reject(number, errors, source)
            return
        self._waiting.append(_Waiting(number, customer, source))
        if len(self._waiting) >= BATCH:
            await self.finish()

    def reject(self, number: int, errors: Sequence[FieldError], source: object) -> None:
        """Counts row `number` as rejected; keeps the first errors for the report."""
        self.rejected += 1
        if len(self.errors) < self._reported:
            self.errors.append((number, errors))
        if self._on_reject is not None:
            self._on_reject(number, errors, source)

    async def finish(self) -> None:
        """Stores what is waiting."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            await self._put(waiting)

    async def _put(self, waiting: Sequence[_Waiting]) -> None:
        """Stores all, or, where there is a conflict, each half for itself, down to the row at fault."""
        try:
            await self._store.put_customers([row.customer for row in waiting])
            self.imported += len(waiting)
        except Conflict as error:
            if len(waiting) == 1:
                fault = FieldError(error.field, "conflict", error.message)
                self.reject(waiting[0].number, [fault], waiting[0].source)
                return
            middle = len(waiting) // 2
            await self._put(waiting[:middle])
            await self._put(waiting[middle:])

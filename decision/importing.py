"""Imports customers from NDJSON lines or parsed rows: faulty ones are reported by line and skipped."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from arbitration.catalog.compile import CompiledCatalog
from decision.errors import Conflict, FieldError, Rejected, validation_errors
from decision.messages import ImportLine
from decision.profiles import profile_errors
from decision.storage.port import Customer, Identity, Profiles
from decision.strict_json import parse

BATCH = 500
REPORTED = 100


class Importer:
    """Checks rows against a catalog and stores them in batches; `imported`, `rejected`, `errors` tell."""

    def __init__(self, store: Profiles, catalog: CompiledCatalog, reported: int = REPORTED) -> None:
        self._store = store
        self._catalog = catalog
        self._reported = reported
        self._number = 0
        self._waiting: list[tuple[int, Customer]] = []
        self.imported = 0
        self.rejected = 0
        self.errors: list[tuple[int, Sequence[FieldError]]] = []

    async def line(self, line: bytes) -> None:
        """Takes one NDJSON line. Empty lines only count."""
        self._number += 1
        if not line.strip():
            return
        try:
            raw = parse(line)
        except Rejected as error:
            self.reject(self._number, error.errors)
            return
        await self.row(self._number, raw)

    async def row(self, number: int, raw: object) -> None:
        """Takes one row, as the JSON object an NDJSON line would hold."""
        try:
            message = ImportLine.model_validate(raw)
        except ValidationError as error:
            self.reject(number, validation_errors(error.errors()))
            return
        customer = Customer(
            message.customer_id,
            message.attributes,
            message.scores,
            message.consents,
            tuple(Identity(name.type, name.value) for name in message.identities),
        )
        if errors := profile_errors(self._catalog, customer):
            self.reject(number, errors)
            return
        self._waiting.append((number, customer))
        if len(self._waiting) >= BATCH:
            await self.finish()

    def reject(self, number: int, errors: Sequence[FieldError]) -> None:
        """Counts row `number` as rejected; keeps the first errors for the report."""
        self.rejected += 1
        if len(self.errors) < self._reported:
            self.errors.append((number, errors))

    async def finish(self) -> None:
        """Stores what is waiting."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            await self._store.put_customers([customer for _, customer in waiting])
            self.imported += len(waiting)
        except Conflict:
            await self._one_by_one(waiting)

    async def _one_by_one(self, waiting: list[tuple[int, Customer]]) -> None:
        for number, customer in waiting:
            try:
                await self._store.put_customers([customer])
                self.imported += 1
            except Conflict as error:
                self.reject(number, [FieldError(error.field, "conflict", error.message)])

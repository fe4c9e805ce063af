"""Takes customers from NDJSON lines or parsed rows: faulty ones are reported by line and skipped.

Two ways: each row is a whole profile that replaces the stored one (`replacing`), or a change that goes into
it (`merging`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from arbitration.catalog.compile import CompiledCatalog
from decision.errors import Conflict, FieldError, Rejected, validation_errors
from decision.messages import (
    Consent,
    CustomerMessage,
    CustomerPatch,
    IdentityMessage,
    ImportLine,
    PushLine,
)
from decision.profiles import profile_errors
from decision.storage.port import Change, ConsentDetail, Customer, Identity, Profiles
from decision.strict_json import parse

BATCH = 500
REPORTED = 100
LONGEST_LINE = 1024 * 1024

OnReject = Callable[[int, Sequence[FieldError], object], None]
"""Told of every row that is rejected: its number, its faults, and the row as it came (JSON or text)."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a row is read (raises pydantic's ValidationError), how a batch is stored, all or none, and when."""

    read: Callable[[object], Change]
    store: Callable[[Sequence[Change]], Awaitable[object]]
    clock: Callable[[], datetime]


def replacing(store: Profiles, clock: Callable[[], datetime]) -> Way:
    """Rows are profiles (`ImportLine`); each is stored whole."""

    def read(raw: object) -> Change:
        message = ImportLine.model_validate(raw)
        return Change(to_customer(message.customer_id, message))

    async def put(changes: Sequence[Change]) -> None:
        await store.put_customers([change.customer for change in changes], clock())

    return Way(read, put, clock)


def merging(store: Profiles, clock: Callable[[], datetime]) -> Way:
    """Rows are changes (`PushLine`), merged into the stored profiles."""

    def read(raw: object) -> Change:
        message = PushLine.model_validate(raw)
        return to_change(message.customer_id, message)

    async def patch(changes: Sequence[Change]) -> None:
        await store.patch_customers(changes, clock())

    return Way(read, patch, clock)


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    change: Change
    source: object


class Importer:
    """Checks rows against a catalog and stores them in batches; `imported`, `rejected`, `errors` tell.

    `errors` holds the first `reported` rejected rows; `on_reject` is told of all. A row whose identity
    belongs to another customer is found only when its batch is stored, so after later rows.
    """

    def __init__(
        self,
        way: Way,
        catalog: CompiledCatalog,
        reported: int = REPORTED,
        on_reject: OnReject | None = None,
    ) -> None:
        self._way = way
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
            change = self._way.read(raw)
        except ValidationError as error:
            self.reject(number, validation_errors(error.errors()), source)
            return
        if errors := profile_errors(self._catalog, change.customer, self._way.clock):
            self.reject(number, errors, source)
            return
        self._waiting.append(_Waiting(number, change, source))
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
            await self._keep(waiting)

    async def _keep(self, waiting: Sequence[_Waiting]) -> None:
        """Stores all, or, where there is a conflict, each half for itself, down to the row at fault."""
        try:
            await self._way.store([row.change for row in waiting])
            self.imported += len(waiting)
        except Conflict as error:
            if len(waiting) == 1:
                fault = FieldError(error.field, "conflict", error.message)
                self.reject(waiting[0].number, [fault], waiting[0].source)
                return
            middle = len(waiting) // 2
            await self._keep(waiting[:middle])
            await self._keep(waiting[middle:])


def to_customer(customer_id: str, profile: CustomerMessage) -> Customer:
    """A profile message as the store's record."""
    consents, details = _consents(profile.consents)
    identities = to_identities(profile.identities)
    return Customer(
        customer_id,
        profile.attributes,
        profile.scores,
        consents,
        identities,
        details,
        profile.restricted,
    )


def to_change(customer_id: str, patch: CustomerPatch) -> Change:
    """A message of change as the store's record; null removes."""
    sections = {"attributes": patch.attributes, "scores": patch.scores, "consents": patch.consents}
    remove = [
        (name, key) for name, values in sections.items() for key, value in values.items() if value is None
    ]
    attributes, scores = (
        {key: value for key, value in values.items() if value is not None}
        for values in (patch.attributes, patch.scores)
    )
    answered = {purpose: each for purpose, each in patch.consents.items() if each is not None}
    consents, details = _consents(answered)
    identities = to_identities(patch.identities)
    given = Customer(customer_id, attributes, scores, consents, identities, details, patch.restricted)
    return Change(given, tuple(remove))


def _consents(given: Mapping[str, Consent]) -> tuple[dict[str, str], dict[str, ConsentDetail]]:
    answers: dict[str, str] = {}
    details: dict[str, ConsentDetail] = {}
    for purpose, each in given.items():
        if isinstance(each, str):
            answers[purpose] = each
            continue
        answers[purpose] = each.status
        if each.at is not None or each.source is not None:
            details[purpose] = ConsentDetail(each.at, each.source)
    return answers, details


def to_identities(messages: Sequence[IdentityMessage]) -> tuple[Identity, ...]:
    """Identity messages as the store's records."""
    return tuple(Identity(message.type, message.value) for message in messages)

"""The border of facts: what callers and stores say is checked against the catalog here, once.

What a caller says wrongly is refused with the field's name. What is *stored* wrongly (written under an
older catalog) is left out and named in `degraded`: it costs quality, never the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

from arbitration.catalog.compile import CompiledCatalog
from arbitration.errors import FactError
from arbitration.facts import Declared, Value, admit
from decision.errors import FieldError
from decision.storage.port import Customer, Identity, Profiles

_SECTIONS = {"attributes": "customer", "scores": "scores"}
CONSENTS = ("given", "withdrawn")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is known of a customer at a moment; see `arbitration.inputs.Inputs` for the fields."""

    facts: Mapping[str, Value] = field(default_factory=dict)
    consents: Mapping[str, str] = field(default_factory=dict)
    stops: tuple[tuple[str, str], ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a request is about: a customer, an identity, or an identity that proved to be a customer.

    `pseudonym` stands in for the customer id of somebody not known: it keeps their requests, responses
    and stops apart from others'. No customer id has a control character. `unresolved`: there was no time
    to find out who it is.
    """

    customer_id: str | None
    pseudonym: str | None = None
    degraded: tuple[str, ...] = ()
    unresolved: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """What the ledger knows this subject by, the one to record it by first."""
        return tuple(key for key in (self.customer_id, self.pseudonym) if key is not None)


async def resolve(
    store: Profiles, customer_id: str | None, identity: Identity | None, deadline: float
) -> Subject:
    """Whom a request is about. An unknown identity is nobody we know, and no error.

    `deadline`: by the clock of the event loop, as in `gather`.
    """
    if customer_id is not None or identity is None:
        return Subject(customer_id)
    pseudonym = "\x1f" + hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
    try:
        found = await _within(deadline, partial(store.resolve, identity))
    except TimeoutError:
        return Subject(None, pseudonym, ("identity:timeout",), unresolved=True)
    return Subject(found, pseudonym, () if found is not None else ("identity:not_found",))


async def gather(
    store: Profiles, catalog: CompiledCatalog, subject: Subject, now: datetime, deadline: float
) -> Gathered:
    """Everything stored of whom a request is about, typed; until the `deadline`.

    Without its stops a decision is made as if every stop there could be were in force: a limit that
    cannot be read is kept. So it is for someone who could not be resolved in time.
    """
    if subject.unresolved:
        return Gathered(stops=_every_stop(catalog), degraded=subject.degraded)
    try:
        stops = [
            stop for key in subject.keys for stop in await _within(deadline, partial(store.stops, key, now))
        ]
    except TimeoutError:
        missing = (*subject.degraded, "stops:timeout", "profile:timeout")
        return Gathered(stops=_every_stop(catalog), degraded=missing)
    resting = tuple(dict.fromkeys((stop.scope, stop.target) for stop in stops))
    if subject.customer_id is None:
        return Gathered(stops=resting, degraded=subject.degraded)
    try:
        customer = await _within(deadline, partial(store.customer, subject.customer_id))
    except TimeoutError:
        return Gathered(stops=resting, degraded=("profile:timeout",))
    if customer is None:
        return Gathered(stops=resting, degraded=("profile:not_found",))
    facts, degraded = _stored_facts(customer, catalog.declared)
    return Gathered(facts, customer.consents, resting, degraded)


async def _within(deadline: float, read: Callable[[], Awaitable[T]]) -> T:
    """The result of a read, if there is time for it. Raises TimeoutError.

    A store that reads inline cannot be interrupted; so time is also looked at before each read.
    """
    if asyncio.get_running_loop().time() >= deadline:
        raise TimeoutError
    async with asyncio.timeout_at(deadline):
        return await read()


def _every_stop(catalog: CompiledCatalog) -> tuple[tuple[str, str], ...]:
    actions = (action for action in catalog.model.actions if action.stop is not None)
    targets = (
        ("action", action.id) if action.stop and action.stop.scope == "action" else ("group", action.group)
        for action in actions
    )
    return tuple(dict.fromkeys(targets))


def _stored_facts(
    customer: Customer, declared: Mapping[str, Declared]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    facts: dict[str, Value] = {}
    degraded: list[str] = []
    for prefix, values in (("customer", customer.attributes), ("scores", customer.scores)):
        for key, raw in values.items():
            name = f"{prefix}.{key}"
            if (fact := declared.get(name)) is None:
                continue
            try:
                facts[name] = admit(name, raw, fact)
            except FactError:
                degraded.append(f"{name}:bad_value")
    return facts, tuple(degraded)


def given_facts(
    catalog: CompiledCatalog,
    channel: str,
    context: Mapping[str, object],
    profile: Mapping[str, object],
    errors: list[FieldError],
) -> dict[str, Value]:
    """The facts a request states itself: its context and profile. What is wrong goes to `errors`."""
    facts: dict[str, Value] = {}
    for field_name, prefix, values in (("context", "context", context), ("profile", "customer", profile)):
        for key, raw in values.items():
            where, name = f"{field_name}.{key}", f"{prefix}.{key}"
            fact = catalog.declared.get(name)
            if fact is None or (fact.channels is not None and channel not in fact.channels):
                kind = "context value on this channel" if prefix == "context" else "attribute"
                errors.append(FieldError(where, "unknown_name", f"the catalog has no such {kind}"))
                continue
            try:
                facts[name] = admit(where, raw, fact)
            except FactError as error:
                errors.append(FieldError(where, "bad_value", error.message))
    return facts


def profile_errors(catalog: CompiledCatalog, customer: Customer, prefix: str = "") -> list[FieldError]:
    """What is wrong with a profile someone wants to store. `prefix` is put before each field's path."""
    errors: list[FieldError] = []
    for section, root in _SECTIONS.items():
        values: Mapping[str, object] = getattr(customer, section)
        for key, raw in values.items():
            where = f"{prefix}{section}.{key}"
            if (fact := catalog.declared.get(f"{root}.{key}")) is None:
                message = f"the catalog declares no {section.removesuffix('s')} '{_short(key)}'"
                errors.append(FieldError(where, "unknown_name", message))
                continue
            try:
                admit(where, raw, fact)
            except FactError as error:
                errors.append(FieldError(where, "bad_value", error.message))
    errors += _consent_errors(catalog, customer.consents, prefix)
    return errors


def _consent_errors(
    catalog: CompiledCatalog, consents: Mapping[str, str], prefix: str
) -> Iterable[FieldError]:
    purposes = {purpose.id for purpose in catalog.model.purposes}
    for purpose, answer in consents.items():
        where = f"{prefix}consents.{purpose}"
        if purpose not in purposes:
            message = f"the catalog declares no purpose '{_short(purpose)}'"
            yield FieldError(where, "unknown_name", message)
        elif answer not in CONSENTS:
            yield FieldError(where, "bad_value", "must be given or withdrawn")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."

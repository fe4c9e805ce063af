"""The border of facts: what callers say of a customer is checked against the catalog here, once.

What does not fit is refused, with the field's name. What sources and the store bring is checked when it is
gathered (`decision.gathering`), and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

from arbitration.catalog.compile import CompiledCatalog
from arbitration.errors import FactError
from arbitration.facts import DERIVED, STORE, Value, admit
from decision.errors import FieldError
from decision.gathering import CONSENTS
from decision.storage.port import Customer

_SECTIONS = {"attributes": "customer", "scores": "scores"}
_AHEAD = timedelta(days=1)  # of our clock: others are set otherwise


def given_facts(
    catalog: CompiledCatalog,
    channels: Collection[str],
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
            if fact is None or (fact.channels is not None and fact.channels.isdisjoint(channels)):
                kind = "context value on this channel" if prefix == "context" else "attribute"
                errors.append(FieldError(where, "unknown_name", f"the catalog has no such {kind}"))
                continue
            try:
                facts[name] = admit(where, raw, fact)
            except FactError as error:
                errors.append(FieldError(where, "bad_value", error.message))
    return facts


def profile_errors(
    catalog: CompiledCatalog, customer: Customer, clock: Callable[[], datetime]
) -> list[FieldError]:
    """What is wrong with a profile someone wants to store. `clock` gives aware UTC."""
    errors: list[FieldError] = []
    for section, root in _SECTIONS.items():
        values: Mapping[str, object] = getattr(customer, section)
        for key, raw in values.items():
            where = f"{section}.{key}"
            if (fact := catalog.declared.get(f"{root}.{key}")) is None:
                message = f"the catalog declares no {section.removesuffix('s')} '{_short(key)}'"
                errors.append(FieldError(where, "unknown_name", message))
                continue
            if fact.origin != STORE:
                errors.append(_elsewhere(where, fact.origin))
                continue
            try:
                admit(where, raw, fact)
            except FactError as error:
                errors.append(FieldError(where, "bad_value", error.message))
    errors += _consent_errors(catalog, customer.consents)
    for purpose, detail in customer.consent_details.items():
        if detail.at is not None and detail.at - clock() > _AHEAD:
            errors.append(FieldError(f"consents.{purpose}.at", "bad_value", "is more than a day ahead"))
    return errors


def _consent_errors(catalog: CompiledCatalog, consents: Mapping[str, str]) -> Iterable[FieldError]:
    purposes = {purpose.id: purpose.source for purpose in catalog.model.purposes}
    for purpose, answer in consents.items():
        where = f"consents.{purpose}"
        if purpose not in purposes:
            message = f"the catalog declares no purpose '{_short(purpose)}'"
            yield FieldError(where, "unknown_name", message)
        elif purposes[purpose] != STORE:
            yield _elsewhere(where, purposes[purpose])
        elif answer not in CONSENTS:
            yield FieldError(where, "bad_value", "must be given or withdrawn")


def _elsewhere(where: str, origin: str) -> FieldError:
    how = "is derived from others" if origin == DERIVED else f"comes from the source '{origin}'"
    return FieldError(where, "not_stored", f"this value {how}; it is not stored here")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."

"""Records to database rows and back. Times are integers: microseconds since 1970 UTC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from decision.storage.port import (
    PSEUDONYM,
    ConsentDetail,
    Customer,
    DecisionRecord,
    Identity,
    Label,
    Names,
    ResponseRecord,
    SnapshotRecord,
)
from decision.storage.profile import Profile, names_in

Row = tuple[Any, ...]

DECISION = (
    "decision_id, customer_id, request_id, request_hash, decided_at, channel, mode, catalog_version,"
    " snapshots, inputs, reply, activation"
)
RESPONSE = (
    "response_id, decision_id, customer_id, treatment, outcome, value, occurred_at, received_at, corrects"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Exact, unlike `timestamp()`, which rounds to a float. Raises TypeError for a naive time."""
    return (moment - _EPOCH) // _MICROSECOND


def optional_micros(moment: datetime | None) -> int | None:
    """As `micros`; None stays None."""
    return None if moment is None else micros(moment)


def moment(value: int) -> datetime:
    """The inverse of `micros`, in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def optional_moment(value: int | None) -> datetime | None:
    """As `moment`; None stays None."""
    return None if value is None else moment(value)


def text(value: Mapping[str, Any] | list[Any]) -> str:
    """JSON text; the order of keys is kept."""
    return orjson.dumps(dict(value) if isinstance(value, Mapping) else value).decode()


def customer(row: Row) -> Customer:
    """From (customer_id, attributes, scores, consents, identities as a JSON list of pairs, restricted).

    A consent is its answer, or, where more is known of it, an object: `status`, `at` and `source`.
    """
    attributes, scores, consents, pairs = map(orjson.loads, row[1:5])
    identities, restricted = _identities(pairs), True if row[5] else None
    if "status" not in row[3]:  # so it is for nearly everybody; what is read for each decision is kept short
        return Customer(row[0], attributes, scores, consents, identities, restricted=restricted)
    known = {purpose: each for purpose, each in consents.items() if isinstance(each, dict)}
    answers = consents | {purpose: each["status"] for purpose, each in known.items()}
    details = {
        purpose: ConsentDetail(optional_moment(each["at"]), each["source"]) for purpose, each in known.items()
    }
    return Customer(row[0], attributes, scores, answers, identities, details, restricted)


def profile(row: Row) -> Profile:
    """From a row of `customer`, told_at, told_apart."""
    stored = customer(row[:6])
    told_at, apart = row[6], orjson.loads(row[7])
    return Profile(stored, {name: apart.get(name, told_at) for name in names_in(stored)})


def customer_row(
    customer_id: str, customer: Customer, told_at: int | None, told_apart: Mapping[str, int | None] = {}
) -> Row:
    """(customer_id, attributes, scores, consents, told_at, told_apart, restricted), under the id given."""
    consents: Mapping[str, Any] = customer.consents
    if customer.consent_details:
        consents = {**consents, **{of: _detailed(customer, of) for of in customer.consent_details}}
    sections = (text(customer.attributes), text(customer.scores), text(consents))
    return (customer_id, *sections, told_at, text(told_apart), customer.restricted)


def _detailed(customer: Customer, purpose: str) -> dict[str, Any]:
    detail = customer.consent_details[purpose]
    at = optional_micros(detail.at)
    return {"status": customer.consents[purpose], "at": at, "source": detail.source}


def profile_row(profile: Profile) -> Row:
    """As `customer_row`: the time that most values have, and the others by name."""
    counted = Counter(profile.told.values()).most_common(1)
    told_at = counted[0][0] if counted else None
    apart = {name: at for name, at in profile.told.items() if at != told_at}
    return customer_row(profile.customer.customer_id, profile.customer, told_at, apart)


def names(row: Row) -> Names:
    """From (customer_id, its other keys as a JSON list, identities as a JSON list of pairs)."""
    if row[1] == row[2] == "[]":
        return Names(row[0])
    keys: list[str] = sorted(orjson.loads(row[1]))
    merged = tuple(key for key in keys if not key.startswith(PSEUDONYM))
    pseudonyms = tuple(key for key in keys if key.startswith(PSEUDONYM))
    return Names(row[0], merged, pseudonyms, _identities(orjson.loads(row[2])))


def _identities(pairs: list[list[str]]) -> tuple[Identity, ...]:
    return tuple(Identity(type, value) for type, value in sorted(pairs))


def decision_row(record: DecisionRecord) -> Row:
    """In the order of `DECISION`."""
    return (
        record.decision_id,
        record.customer_id,
        record.request_id,
        record.request_hash,
        micros(record.decided_at),
        record.channel,
        record.mode,
        record.catalog_version,
        text(record.snapshots),
        record.inputs,
        record.reply,
        record.activation,
    )


def decision(row: Row) -> DecisionRecord:
    """From a row in the order of `DECISION`."""
    id, customer_id, request_id, request_hash, decided, channel, mode, catalog, snapshots, *rest = row
    inputs, reply, activation = rest
    return DecisionRecord(
        decision_id=id,
        customer_id=customer_id,
        request_id=request_id,
        request_hash=request_hash,
        decided_at=moment(decided),
        channel=channel,
        mode=mode,
        catalog_version=catalog,
        snapshots=orjson.loads(snapshots),
        inputs=inputs,
        reply=reply,
        activation=activation,
    )


def response_row(record: ResponseRecord) -> Row:
    """In the order of `RESPONSE`."""
    return (
        record.response_id,
        record.decision_id,
        record.customer_id,
        record.treatment,
        record.outcome,
        record.value,
        micros(record.occurred_at),
        micros(record.received_at),
        record.corrects,
    )


def response(row: Row) -> ResponseRecord:
    """From a row in the order of `RESPONSE`; the stops are not kept with a response."""
    id, decision_id, customer_id, treatment, outcome, value, occurred, received, corrects = row
    return ResponseRecord(
        response_id=id,
        decision_id=decision_id,
        customer_id=customer_id,
        treatment=treatment,
        outcome=outcome,
        value=value,
        occurred_at=moment(occurred),
        received_at=moment(received),
        corrects=corrects,
    )


def label_row(label: Label) -> Row:
    """(decision_id, treatment, outcomes, due_at)."""
    outcomes = None if label.outcomes is None else orjson.dumps(label.outcomes).decode()
    return (label.decision_id, label.treatment, outcomes, optional_micros(label.due_at))


def label(row: Row) -> Label:
    """From (decision_id, treatment, outcomes, due_at)."""
    decision_id, treatment, outcomes, due = row
    pairs = None if outcomes is None else tuple((name, value) for name, value in orjson.loads(outcomes))
    return Label(decision_id, treatment, pairs, optional_moment(due))


def snapshot_row(record: SnapshotRecord) -> Row:
    """(version, lineage, created_at, content)."""
    return (record.version, record.lineage, micros(record.created_at), record.content)


def snapshot(row: Row) -> SnapshotRecord:
    """From (version, lineage, created_at, content)."""
    version, lineage, created, content = row
    return SnapshotRecord(version, lineage, moment(created), content)

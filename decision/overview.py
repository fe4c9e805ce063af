"""Everything known of a customer now, for people to look at: each value with its source and its age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arbitration.catalog.compile import CompiledCatalog
from arbitration.derived import Derivation
from arbitration.facts import DERIVED, REQUEST, rfc3339
from decision.gathering import Gathered, Gatherer, TimeBudget
from decision.live import Live
from decision.responding import treatments
from decision.sources.port import Cause
from decision.storage.port import (
    ConsentDetail,
    Customer,
    DecisionRecord,
    Reservation,
    ResponseRecord,
    Standing,
    Store,
)
from decision.subjects import known

_SECTIONS = {"customer": "attributes", "scores": "scores", "consents": "consents"}
_UNKNOWN = (Cause.NOT_FOUND, Cause.MISSING_INPUT)
_RECENT = 10
_SECONDS = 2.0  # somebody looks at it: more patience than a decision has


@dataclass(frozen=True, slots=True)
class Told:
    """A value with where it comes from. `as_of` and `age`: when it was told or fetched, where that is known.

    `freshness`: `fresh`, `stale` (older than its source's ttl) or `missing`, then `cause` says why if
    anything went wrong.
    """

    name: str
    value: object
    source: str
    as_of: datetime | None
    freshness: str
    cause: str | None


class Overview:
    """Looks customers up. `clock` gives aware UTC."""

    def __init__(self, store: Store, live: Live, gatherer: Gatherer, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._live = live
        self._gatherer = gatherer
        self._clock = clock

    async def of(self, customer_id: str) -> dict[str, Any] | None:
        """The customer as `decision.messages.OverviewReply`; None where the store does not know them and
        every source says the same. Raises StoreUnavailable, and Rejected while no catalog is published."""
        catalog = self._live.serving.published.compiled
        times = await self._store.as_of(customer_id)  # before the values: never newer than these
        now = self._clock()
        budget = TimeBudget(asyncio.get_running_loop().time(), _SECONDS)
        situation = await self._store.situation(customer_id, now, catalog.limits)
        names = situation.names
        subject = known(names)
        gathered = await self._gatherer.gather(catalog, subject, situation, {}, now, budget)
        if gathered.stored is None and all(answer.cause in _UNKNOWN for answer in gathered.answers.values()):
            return None
        history = await self._history(subject.keys, _RECENT)
        stored = gathered.stored
        return {
            "customer_id": names.customer_id,
            "attributes": {} if stored is None else stored.attributes,
            "scores": {} if stored is None else stored.scores,
            "consents": {} if stored is None else stored.consents,
            "consent_records": {} if stored is None else consent_records(stored, times),
            "identities": [{"type": each.type, "value": each.value} for each in names.identities],
            "restricted": stored is not None and bool(stored.restricted),
            "merged": list(names.merged),
            "facts": [_fact(told, now) for told in _told(catalog, gathered, times, now)],
            "degraded": list(gathered.degraded),
            **limiting(gathered.standing or Standing(), catalog),
            "decisions": history,
        }

    async def history(self, customer_id: str, limit: int) -> dict[str, Any]:
        """The customer's newest decisions, as `decision.messages.HistoryReply`. Raises StoreUnavailable."""
        names = await self._store.names(customer_id)
        return {
            "customer_id": names.customer_id,
            "decisions": await self._history(names.keys, limit),
        }

    async def _history(self, keys: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
        decisions, responses = await self._store.history(keys, limit)
        deferred = [each.decision_id for each in decisions if each.activation == "deferred"]
        return recent(decisions, responses, await self._store.reservations(deferred) if deferred else ())


def consent_records(customer: Customer, told: Mapping[str, datetime]) -> dict[str, dict[str, Any]]:
    """The stored consents, each as `decision.messages.ConsentReply`. `told`: when each value was, by name."""
    found = {}
    for purpose, status in customer.consents.items():
        detail = customer.consent_details.get(purpose, ConsentDetail())
        told_at = told.get(f"consents.{purpose}")
        at = detail.at or told_at
        found[purpose] = {
            "status": status,
            "at": None if at is None else rfc3339(at),
            "source": detail.source,
            "told_at": None if told_at is None else rfc3339(told_at),
        }
    return found


def limiting(standing: Standing, catalog: CompiledCatalog) -> dict[str, Any]:
    """What limits a customer now, as in `decision.messages.OverviewReply`."""
    windows = {(control.id, control.valid.from_ or "") for control in catalog.model.control_groups}
    return {
        "stops": [
            {
                "scope": stop.scope,
                "target": stop.target,
                "until": None if stop.until is None else rfc3339(stop.until),
            }
            for stop in standing.stops
        ],
        "held_back": [
            {"contact_policy": policy, "target": target, "until": rfc3339(until)}
            for (policy, target), until in sorted(standing.holds.items())
        ],
        "control_groups": {
            each.control_group: each.member
            for each in standing.memberships
            if (each.control_group, each.since) in windows
        },
    }


def recent(
    decisions: Sequence[DecisionRecord],
    responses: Sequence[ResponseRecord],
    reservations: Sequence[Reservation],
) -> list[dict[str, Any]]:
    """Decisions with what came back for each, as `decision.messages.HistoryDecision`."""
    reserved: dict[str, list[dict[str, Any]]] = {}
    for each in reservations:
        reserved.setdefault(each.decision_id, []).append(
            {
                "treatment": each.treatment,
                "state": each.state,
                "due_at": rfc3339(each.due_at),
                "settled_at": None if each.settled_at is None else rfc3339(each.settled_at),
            }
        )
    answers: dict[str, list[dict[str, Any]]] = {}
    for response in responses:
        answers.setdefault(response.decision_id, []).append(
            {
                "response_id": response.response_id,
                "treatment": response.treatment or None,
                "outcome": response.outcome,
                "value": response.value,
                "occurred_at": rfc3339(response.occurred_at),
                "corrects": response.corrects,
            }
        )
    return [
        {
            "decision_id": decision.decision_id,
            "decided_at": rfc3339(decision.decided_at),
            "channel": decision.channel,
            "mode": decision.mode,
            "activation": decision.activation,
            "reservations": reserved.get(decision.decision_id, []),
            "treatments": treatments(decision),
            "responses": answers.get(decision.decision_id, []),
        }
        for decision in decisions
    ]


def _told(
    catalog: CompiledCatalog, gathered: Gathered, times: Mapping[str, datetime], now: datetime
) -> Iterator[Told]:
    origins = {name: fact.origin for name, fact in catalog.declared.items()}
    origins |= {f"consents.{purpose.id}": purpose.source for purpose in catalog.model.purposes}
    values: dict[str, object] = {
        **gathered.facts,
        **{f"consents.{purpose}": answer for purpose, answer in gathered.consents.items()},
    }
    unfit = {each.removesuffix(f":{Cause.BAD_VALUE}") for each in gathered.degraded}
    details = {} if gathered.stored is None else gathered.stored.consent_details
    times = {**times, **{f"consents.{of}": each.at for of, each in details.items() if each.at is not None}}
    found: dict[str, Told] = {}
    for name, origin in origins.items():
        answer = gathered.answers.get(origin)
        if origin in (REQUEST, DERIVED):
            continue
        if name not in values:
            cause = None if answer is None or answer.cause == Cause.STALE else answer.cause
            told = Cause.BAD_VALUE if name in unfit else cause
            found[name] = Told(name, None, origin, None, "missing", told)
            continue
        prefix, _, rest = name.partition(".")
        as_of = times.get(f"{_SECTIONS[prefix]}.{rest}")
        if answer is not None:
            as_of = now - timedelta(seconds=answer.age)
        stale = answer is not None and answer.cause == Cause.STALE
        found[name] = Told(name, values[name], origin, as_of, "stale" if stale else "fresh", None)
    for each in (each for level in catalog.derivations.levels for each in level):
        found[each.name] = _derived(each, values.get(each.name), found, unfit)
    yield from (found[name] for name in origins if name in found)


def _derived(each: Derivation, value: object, found: Mapping[str, Told], unfit: Collection[str]) -> Told:
    """A derived value is as old as the oldest of what it was worked out from."""
    if value is None:
        cause = Cause.BAD_VALUE if each.name in unfit else None
        return Told(each.name, None, DERIVED, None, "missing", cause)
    used = [found[name] for name in each.program.names if name in found and found[name].value is not None]
    stale = any(told.freshness == "stale" for told in used)
    as_of = min((told.as_of for told in used if told.as_of is not None), default=None)
    return Told(each.name, value, DERIVED, as_of, "stale" if stale else "fresh", None)


def _fact(told: Told, now: datetime) -> dict[str, Any]:
    value = told.value
    return {
        "name": told.name,
        "value": rfc3339(value) if isinstance(value, datetime) else value,
        "source": told.source,
        "as_of": None if told.as_of is None else rfc3339(told.as_of),
        "age_seconds": None if told.as_of is None else max(0.0, round((now - told.as_of).total_seconds(), 3)),
        "freshness": told.freshness,
        "cause": told.cause,
    }

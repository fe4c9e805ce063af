"""Everything that is held of a customer, as one JSON document, written piece by piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from arbitration.catalog.compile import CompiledCatalog
from arbitration.errors import NextBestActionError
from arbitration.facts import STORE, rfc3339
from decision.auditing import mark_of, to_json
from decision.errors import FieldError, Rejected, StoreUnavailable
from decision.live import Live
from decision.overview import consent_records, limiting, recent
from decision.replaying import Replaying
from decision.storage.port import Customer, DecisionRecord, Situation, Store

log = logging.getLogger(__name__)

_DECISIONS_AT_ONCE = 50
_ENTRIES_AT_ONCE = 1_000
_SUBJECTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of a customer. Of the history only the ids: it may be long."""

    situation: Situation
    told: Mapping[str, datetime]
    decision_ids: Sequence[str]
    at: datetime


class Exporting:
    """Writes down what is held of a customer. `clock` gives aware UTC."""

    def __init__(self, store: Store, live: Live, replaying: Replaying, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._live = live
        self._replaying = replaying
        self._clock = clock

    async def held(self, customer_id: str) -> Held:
        """What is held under an id. Raises Rejected (404) where nothing is."""
        limits = self._live.serving.published.compiled.limits
        told = await self._store.as_of(customer_id)  # before the values: never newer than these
        now = self._clock()
        situation = await self._store.situation(customer_id, now, limits)
        ids = await self._store.recorded(situation.names.keys)
        standing, names = situation.standing, situation.names
        if not (situation.profile or ids or standing.stops or standing.memberships or names.keys[1:]):
            error = FieldError("customer_id", "unknown_customer", "nothing is held under this id")
            raise Rejected(404, "unknown_customer", "There is no such customer.", [error])
        return Held(situation, told, ids, now)

    async def written(self, held: Held) -> AsyncIterator[bytes]:
        """The document, as `decision.privacy.messages.CustomerExport`. Others get their turn between any two
        pieces, each of which is at most one decision, made again."""
        opening = orjson.dumps(_document(held, self._live.serving.published.compiled))
        yield opening[:-1] + b',"decisions":['
        first = True
        for begin in range(0, len(held.decision_ids), _DECISIONS_AT_ONCE):
            async for decision in self._decisions(held.decision_ids[begin : begin + _DECISIONS_AT_ONCE]):
                yield (b"" if first else b",") + orjson.dumps(decision)
                first = False
                await asyncio.sleep(0)
        yield b'],"audit":['
        first = True
        async for entry in self._entries(held):
            yield (b"" if first else b",") + orjson.dumps(entry)
            first = False
        yield b"]}"

    async def _decisions(self, ids: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        found = await self._store.decisions(ids)
        records = [found[id] for id in ids if id in found and not found[id].erased]
        responses = await self._store.responses(ids)
        reservations = await self._store.reservations(ids)
        for record, told in zip(records, recent(records, responses, reservations), strict=True):
            explanation, unexplained = await self._explained(record)
            yield told | {
                "recorded_as": record.customer_id,
                "request_id": record.request_id,
                "catalog_version": record.catalog_version,
                "snapshots": dict(record.snapshots),
                "inputs": orjson.Fragment(record.inputs),
                "reply": orjson.Fragment(record.reply),
                "explanation": explanation,
                "unexplained": unexplained,
            }

    async def _explained(self, record: DecisionRecord) -> tuple[dict[str, Any] | None, str | None]:
        """The explanation of a decision; or why there is none any more."""
        try:
            return await self._replaying.explained(record), None
        except StoreUnavailable:
            raise
        except Rejected as error:
            return None, error.code
        except NextBestActionError as error:
            return None, f"{type(error).__name__}: {error}"
        except Exception:  # a fault of ours must not cut off what is already being sent
            log.exception("decision %s could not be explained", record.decision_id)
            return None, "internal_error"

    async def _entries(self, held: Held) -> AsyncIterator[dict[str, Any]]:
        """What the audit trail has of the customer: by the mark of each id, then by decision."""
        secret, names = await self._store.secret(), held.situation.names
        subjects = [mark_of(secret, id) for id in (names.customer_id, *names.merged)]
        subjects += [f"decision:{id}" for id in held.decision_ids]
        for begin in range(0, len(subjects), _SUBJECTS_AT_ONCE):
            among, last = subjects[begin : begin + _SUBJECTS_AT_ONCE], 0
            while entries := await self._store.entries(last, _ENTRIES_AT_ONCE, subjects=among):
                last = entries[-1].seq
                for entry in entries:
                    told = to_json(entry)
                    yield {name: told[name] for name in ("seq", "at", "kind", "actor", "detail")}
                await asyncio.sleep(0)


def _document(held: Held, catalog: CompiledCatalog) -> dict[str, Any]:
    """All but the history and the audit trail."""
    names, standing = held.situation.names, held.situation.standing
    customer = held.situation.profile or Customer(names.customer_id)
    limits = limiting(standing, catalog)
    return {
        "customer_id": names.customer_id,
        "exported_at": rfc3339(held.at),
        "merged": list(names.merged),
        "recorded_as": list(names.keys),
        "identities": [{"type": each.type, "value": each.value} for each in names.identities],
        "restricted": bool(customer.restricted),
        "values": list(_values(customer, held.told, catalog)),
        "consents": list(_consents(customer, held.told, catalog)),
        "stops": limits["stops"],
        "held_back": limits["held_back"],
        "control_groups": [
            {
                "control_group": each.control_group,
                "since": each.since or None,
                "member": each.member,
                "share": each.share,
            }
            for each in standing.memberships
        ],
    }


def _values(
    customer: Customer, told: Mapping[str, datetime], catalog: CompiledCatalog
) -> Iterator[dict[str, Any]]:
    attributes = {each.id: (each.description, each.pii) for each in catalog.model.attributes}
    scores = {each.id: (each.description, False) for each in catalog.model.scores}
    for section, values, declared in (
        ("attributes", customer.attributes, attributes),
        ("scores", customer.scores, scores),
    ):
        for key, value in values.items():
            description, pii = declared.get(key, (None, None))
            yield {
                "name": f"{section}.{key}",
                "value": value,
                "source": STORE,
                "told_at": _time(told.get(f"{section}.{key}")),
                "description": description,
                "pii": pii,
            }


def _consents(
    customer: Customer, told: Mapping[str, datetime], catalog: CompiledCatalog
) -> Iterator[dict[str, Any]]:
    purposes = {each.id: each for each in catalog.model.purposes}
    for purpose, record in consent_records(customer, told).items():
        known = purposes.get(purpose)
        yield {
            "purpose": purpose,
            **record,
            "description": None if known is None else known.description,
            "profiling": None if known is None else known.profiling,
        }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)

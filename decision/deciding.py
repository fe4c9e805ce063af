"""One request from the door to the ledger: check, gather, decide, commit, reply."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from arbitration.decide import decide
from arbitration.errors import NextBestActionError
from arbitration.facts import Value
from arbitration.inputs import Inputs
from decision.errors import FieldError, InternalError, Rejected
from decision.gathering import Gatherer, TimeBudget
from decision.live import Live, Serving
from decision.messages import DecisionRequest
from decision.profiles import given_facts
from decision.replies import Asked, reply_bytes
from decision.storage.port import DecisionRecord, Identity, Store
from decision.subjects import resolve

log = logging.getLogger(__name__)

_AT_ONCE = 64


class Deciding:
    """Answers decision requests. `clock` gives aware UTC; `new_id` a fresh UUIDv7 as text; `timeout_ms` is
    the time of a request that names none."""

    def __init__(
        self,
        store: Store,
        live: Live,
        gatherer: Gatherer,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        timeout_ms: int,
    ) -> None:
        self._store = store
        self._live = live
        self._gatherer = gatherer
        self._clock = clock
        self._new_id = new_id
        self._timeout_ms = timeout_ms

    async def decide(self, request: DecisionRequest) -> bytes:
        """The reply to one request, committed. Raises Rejected or StoreUnavailable, and then nothing was."""
        (result,) = await self.decide_all([request])
        if isinstance(result, NextBestActionError):
            raise result
        return result

    async def decide_all(
        self, requests: Sequence[DecisionRequest | NextBestActionError]
    ) -> list[bytes | NextBestActionError]:
        """The replies to many, committed together. A request that fails does not touch its neighbours;
        one that is an error already stays that error. Raises StoreUnavailable if none could be committed."""
        prepared = await self._all_prepared(requests)
        fresh = [item for item in prepared if isinstance(item, DecisionRecord)]
        committed = iter(await self._store.commit_decisions(fresh) if fresh else ())
        return [
            _answer(item, next(committed)) if isinstance(item, DecisionRecord) else item for item in prepared
        ]

    async def _all_prepared(
        self, requests: Sequence[DecisionRequest | NextBestActionError]
    ) -> list[DecisionRecord | bytes | NextBestActionError]:
        """Several at once, since most of the time is waiting for sources; each has its own time."""
        waiting = iter(enumerate(requests))
        prepared: dict[int, DecisionRecord | bytes | NextBestActionError] = {}

        async def work() -> None:
            for number, request in waiting:
                prepared[number] = await self._prepared(request)
                await asyncio.sleep(0)  # a long batch must not keep single requests waiting

        if len(requests) == 1:
            return [await self._prepared(requests[0])]
        await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, len(requests)))))
        return [prepared[number] for number in range(len(requests))]

    async def _prepared(
        self, request: DecisionRequest | NextBestActionError
    ) -> DecisionRecord | bytes | NextBestActionError:
        if isinstance(request, NextBestActionError):
            return request
        try:
            return await self._prepare(request)
        except NextBestActionError as error:
            return error
        except Exception as error:  # a fault of ours must not fail the neighbours either
            log.exception("a request could not be decided")
            return InternalError(str(error))

    async def _prepare(self, request: DecisionRequest) -> DecisionRecord | bytes:
        serving = self._live.serving
        seconds = (request.timeout_ms or self._timeout_ms) / 1000
        budget = TimeBudget(asyncio.get_running_loop().time(), seconds)
        asked_for = request.identity
        identity = None if asked_for is None else Identity(asked_for.type, asked_for.value)
        subject = await resolve(self._store, request.customer_id, identity, budget.deadline)
        # A retry is answered as before, even where the catalog has changed since, or who it is about
        # has become known.
        content = _content_hash(request) if request.request_id is not None else ""
        if request.request_id is not None:
            # Of two customers that became one, each may have used the id: the one asked for comes first.
            keys = (subject.asked_as, *(key for key in subject.keys if key != subject.asked_as))
            earlier = await self._store.decision_of_request(keys, request.request_id)
            if earlier is not None:
                return _same_request(earlier, content).reply
        given, placements = _check(request, serving)
        now = self._clock()
        known = await self._gatherer.gather(serving.published.compiled, subject, given, now, budget)
        inputs = Inputs(
            decision_id=self._new_id(),
            now=now,
            customer_id=subject.customer_id,
            channel=request.channel,
            placements=placements,
            facts=known.facts,
            consents=known.consents,
            stops=known.stops,
            degraded=known.degraded,
            fetched={id: round(each.age, 3) for id, each in known.answers.items() if each.row is not None},
            given=tuple(given),
        )
        asked = Asked(request.request_id, request.explain)
        made = decide(inputs, serving.published.compiled, serving.snapshots)
        return DecisionRecord(
            decision_id=inputs.decision_id,
            customer_id=subject.keys[0],
            request_id=request.request_id,
            request_hash=content,
            decided_at=now,
            channel=request.channel,
            mode=request.mode,
            catalog_version=made.catalog_version,
            snapshots=made.snapshots,
            inputs=recorded(inputs, asked),
            reply=reply_bytes(made, serving.published, asked),
        )


def _check(
    request: DecisionRequest, serving: Serving
) -> tuple[dict[str, Value], tuple[tuple[str, int], ...]]:
    catalog = serving.published.compiled
    errors: list[FieldError] = []
    if request.channel not in catalog.channels:
        known = ", ".join(catalog.channels)
        errors.append(FieldError("channel", "unknown_channel", f"there are the channels {known}"))
        raise _invalid(errors)
    placements: list[tuple[str, int]] = []
    for number, asked in enumerate(request.placements):
        candidates = catalog.candidates.get(asked.id)
        if candidates is None or candidates.channel.id != request.channel:
            here = ", ".join(p.id for p in catalog.model.placements if p.channel == request.channel)
            message = f"the channel '{request.channel}' has the placements {here or '(none)'}"
            errors.append(FieldError(f"placements[{number}].id", "unknown_placement", message))
            continue
        slots = candidates.placement.slots
        if asked.limit is not None and asked.limit > slots:
            message = f"the placement '{asked.id}' has {slots} slot(s)"
            errors.append(FieldError(f"placements[{number}].limit", "over_limit", message))
        placements.append((asked.id, asked.limit or slots))
    facts = given_facts(catalog, request.channel, request.context, request.profile, errors)
    if errors:
        raise _invalid(errors)
    return facts, tuple(placements)


def _invalid(errors: Sequence[FieldError]) -> Rejected:
    return Rejected(422, "invalid_request", "The request does not fit the published catalog.", errors)


def _answer(mine: DecisionRecord, committed: DecisionRecord) -> bytes | NextBestActionError:
    if committed.decision_id == mine.decision_id:
        return mine.reply
    try:
        return _same_request(committed, mine.request_hash).reply
    except Rejected as error:
        return error


def _same_request(earlier: DecisionRecord, content: str) -> DecisionRecord:
    if earlier.request_hash != content:
        message = "this request_id was used before for another request"
        detail = "A request_id names one request; this one asks for something else."
        raise Rejected(
            409, "request_id_reused", detail, [FieldError("request_id", "request_id_reused", message)]
        )
    return earlier


def _content_hash(request: DecisionRequest) -> str:
    # Not by which of their names the customer is called: a request id is the customer's anyway.
    content = orjson.dumps(
        request.model_dump(exclude={"request_id", "timeout_ms", "customer_id", "identity"}),
        option=orjson.OPT_SORT_KEYS,
    )
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def recorded(inputs: Inputs, asked: Asked) -> bytes:
    """What the ledger keeps to make the decision again."""
    return orjson.dumps({**inputs.to_json(), "request_id": asked.request_id, "explain": asked.explain})


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded inputs, read back."""

    inputs: Inputs
    asked: Asked


def read_recorded(content: bytes) -> Recorded:
    """The inverse of `recorded`."""
    raw = orjson.loads(content)
    return Recorded(Inputs.from_json(raw), Asked(raw["request_id"], raw["explain"]))

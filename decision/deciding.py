"""One request from the door to the ledger: check, gather, decide, commit, reply. In one file, as it is the
one path that every decision takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, cast

import orjson

from arbitration.catalog.compile import taken
from arbitration.contact import Contact, Limits, Shown, State, micros
from arbitration.decide import Decision, decide
from arbitration.errors import NextBestActionError
from arbitration.inputs import Inputs
from decision.asking import Request, content_hash, fit
from decision.errors import FieldError, InternalError, Rejected, StoreUnavailable
from decision.gathering import Gathered, Gatherer, TimeBudget
from decision.governance.halts import Halts
from decision.limiting import Limited, budget_periods, limited
from decision.live import Live, Serving
from decision.logs import about, access
from decision.messages import DecisionRequest
from decision.metrics import Metrics, result_of
from decision.replies import Asked, reply_bytes, reserved_until
from decision.storage.port import (
    BudgetPeriod,
    Claim,
    DecisionRecord,
    Identity,
    Membership,
    Situation,
    Store,
)
from decision.subjects import Subject, subject_of
from decision.tracing import Stage, span, tell
from decision.waiting import until

log = logging.getLogger(__name__)

_AT_ONCE = 64
# How often a decision may be overtaken by changes of what it rests on. After that it keeps every limit there
# could be, and so rests on nothing that could change.
_ATTEMPTS = 10


# Made for every decision, and never changed: to have that checked would cost four times as much.
@dataclass(slots=True)
class _Prepared:
    """A request with everything gathered for it."""

    request: DecisionRequest
    content: str
    serving: Serving
    asked: Request
    subject: Subject
    now: datetime
    decision_id: str
    known: Gathered
    memberships: tuple[Membership, ...]
    budgets: Mapping[str, BudgetPeriod]


@dataclass(slots=True)
class _Made:
    """A decision that is not committed yet. `attempts`: how often it was overtaken."""

    prepared: _Prepared
    record: DecisionRecord
    no_actions: tuple[str, ...]
    degraded: tuple[str, ...]
    attempts: int = 0


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
        metrics: Metrics,
        halts: Halts,
    ) -> None:
        self._store = store
        self._live = live
        self._gatherer = gatherer
        self._clock = clock
        self._new_id = new_id
        self._timeout_ms = timeout_ms
        self._metrics = metrics
        self._halts = halts

    async def decide(self, request: DecisionRequest) -> bytes:
        """The reply to one request, committed. Raises Rejected, and then nothing was; StoreUnavailable, and
        then it may have been."""
        began = perf_counter()
        about.set((None, None))
        answered: _Made | None = None
        try:
            result, answered = await self._decide(request)
        except NextBestActionError as error:
            result = error
        self._tell(perf_counter() - began, result, answered)
        if isinstance(result, NextBestActionError):
            raise result
        return result

    async def _decide(self, request: DecisionRequest) -> tuple[bytes | NextBestActionError, _Made | None]:
        """As `decide`; with what was made and committed now, if anything was."""
        turn = await _guarded(self._prepare(request))
        while isinstance(turn, _Made):
            with self._stage("commit"):
                (kept,) = await self._store.commit_decisions([turn.record])
            if kept is not None:
                mine = kept.decision_id == turn.record.decision_id
                return _answer(turn.record, kept), turn if mine else None
            turn = await _guarded(self._again(turn))
        return turn, None

    async def decide_all(
        self, requests: Sequence[DecisionRequest | NextBestActionError]
    ) -> list[bytes | NextBestActionError]:
        """The replies to many, committed together. A request that fails does not touch its neighbours;
        one that is an error already stays that error. Raises StoreUnavailable where the store fails: some may
        be committed then, and are found by their `request_id`."""
        began = perf_counter()
        about.set((None, None))
        made: dict[int, _Made] = {}
        try:
            results = await self._decide_all(requests, made)
        except NextBestActionError as error:
            for _ in requests:
                self._tell(perf_counter() - began, error, None)
            raise
        seconds = perf_counter() - began
        for number, result in enumerate(results):
            self._tell(seconds, result, made.get(number))
        return results

    async def _decide_all(
        self, requests: Sequence[DecisionRequest | NextBestActionError], answered: dict[int, _Made]
    ) -> list[bytes | NextBestActionError]:
        """As `decide_all`; `answered` becomes those that were made and committed now."""
        results: dict[int, _Made | bytes | NextBestActionError] = {}
        await self._each(results, {n: partial(self._prepare, r) for n, r in enumerate(requests)})
        turn = {number: result for number, result in results.items() if isinstance(result, _Made)}
        stale: dict[int, _Made] = {}
        first = True
        while turn or stale:
            try:
                with self._stage("commit"):
                    committed = await self._store.commit_decisions([made.record for made in turn.values()])
            except StoreUnavailable as error:
                if first:
                    raise
                results.update(dict.fromkeys((*turn, *stale), error))  # their neighbours are committed
                break
            for (number, made), kept in zip(turn.items(), committed, strict=True):
                if kept is None:
                    stale[number] = made
                else:
                    results[number] = _answer(made.record, kept)
                    if kept.decision_id == made.record.decision_id:
                        answered[number] = made
            first = False
            # Several of one customer would overtake each other again and again: they take turns.
            heads = {made.record.customer_id: number for number, made in sorted(stale.items(), reverse=True)}
            await self._each(results, {n: partial(self._again, stale.pop(n)) for n in heads.values()})
            again = {number: results[number] for number in heads.values()}
            turn = {number: result for number, result in again.items() if isinstance(result, _Made)}
        return [cast("bytes | NextBestActionError", results[number]) for number in range(len(requests))]

    async def _each(self, results: dict[int, Any], work: Mapping[int, Callable[[], Awaitable[Any]]]) -> None:
        """Does some work for several requests at once, since most of the time is waiting for sources."""
        waiting = iter(work.items())

        async def worker() -> None:
            for number, do in waiting:
                results[number] = await _guarded(do())
                await asyncio.sleep(0)  # a long batch must not keep single requests waiting

        await asyncio.gather(*(worker() for _ in range(min(_AT_ONCE, len(work)))))

    def _tell(self, seconds: float, result: bytes | NextBestActionError, mine: _Made | None) -> None:
        """Counts what came of a request, and logs it where that is wanted."""
        came = "answered"
        if mine is not None:
            self._metrics.decided(mine.record.channel, mine.no_actions, mine.degraded)
        else:
            came = result_of(result) if isinstance(result, NextBestActionError) else "repeated"
            self._metrics.not_decided(came)
        if access.isEnabledFor(logging.INFO):
            _log(came, seconds, mine)

    def _stage(self, name: str) -> Stage:
        return Stage(name, self._metrics.stages[name])

    async def _prepare(self, request: DecisionRequest | NextBestActionError) -> _Made | bytes:
        if isinstance(request, NextBestActionError):
            raise request
        about.set((None, request.request_id))
        with span("prepare"):
            return await self._prepared(request)

    async def _prepared(self, request: DecisionRequest) -> _Made | bytes:
        serving = self._live.serving
        seconds = (request.timeout_ms or self._timeout_ms) / 1000
        budget = TimeBudget(asyncio.get_running_loop().time(), seconds)
        catalog, now = serving.published.compiled, self._clock()
        content = content_hash(request) if request.request_id is not None else ""
        unfit: Rejected | None = None
        budgets: Mapping[str, BudgetPeriod] = {}
        try:
            asked = fit(request, catalog)
            budgets = budget_periods(catalog, asked.placement_ids, now)
        except Rejected as error:
            if request.request_id is None:
                raise
            unfit = error
        with self._stage("resolve"):
            subject, situation = await self._look(
                request, now, catalog.limits, budgets.values(), budget.deadline
            )
        # A retry is answered as before, even where the catalog has changed since, or who it is about
        # has become known.
        if situation is not None and situation.earlier is not None:
            return _same_request(situation.earlier, content).reply
        if unfit is not None:
            raise unfit
        with self._stage("gather"):
            known = await self._gatherer.gather(catalog, subject, situation, asked.given, now, budget)
        memberships = () if known.standing is None else known.standing.memberships
        decision_id = self._new_id()
        about.set((decision_id, request.request_id))
        tell(decision_id=decision_id)
        return self._make(
            _Prepared(
                request, content, serving, asked, subject, now, decision_id, known, memberships, budgets
            )
        )

    async def _again(self, made: _Made) -> _Made | bytes:
        """The decision anew, after what it rests on has changed."""
        prepared, attempts = made.prepared, made.attempts + 1
        about.set((prepared.decision_id, prepared.request.request_id))
        self._metrics.made_again.inc()
        limits = prepared.serving.published.compiled.limits
        deadline = asyncio.get_running_loop().time() + self._timeout_ms / 1000
        subject, situation = await self._look(
            prepared.request, prepared.now, limits, prepared.budgets.values(), deadline
        )
        erased = situation is not None and prepared.known.life not in (0, situation.standing.life)
        mine = prepared.subject
        if erased or (subject.keys, subject.limited_as) != (mine.keys, mine.limited_as):
            fresh = await self._prepare(prepared.request)
            return replace(fresh, attempts=attempts) if isinstance(fresh, _Made) else fresh
        standing = None if situation is None else situation.standing
        degraded = prepared.known.degraded if situation else (*prepared.known.degraded, *subject.degraded)
        if standing is not None and attempts == _ATTEMPTS:
            standing = None
            degraded = (*degraded, "limits:contended")
        known = replace(prepared.known, standing=standing, degraded=degraded)
        memberships = prepared.memberships if standing is None else standing.memberships
        again = replace(prepared, known=known, memberships=memberships)
        return replace(self._make(again), attempts=attempts)

    async def _look(
        self,
        request: DecisionRequest,
        now: datetime,
        limits: Limits,
        budgets: Collection[BudgetPeriod],
        deadline: float,
    ) -> tuple[Subject, Situation | None]:
        """Whom a request is about, and what the store has of them; None where it has not answered in time."""
        asked_for = request.identity
        identity = None if asked_for is None else Identity(asked_for.type, asked_for.value)
        who = identity or cast("str", request.customer_id)
        found: Situation | None = None
        with suppress(TimeoutError):
            found = await until(
                deadline, self._store.situation(who, now, limits, budgets, request.request_id)
            )
        return subject_of(who, found), found

    def _make(self, prepared: _Prepared) -> _Made:
        request, asked, known, now = prepared.request, prepared.asked, prepared.known, prepared.now
        published = prepared.serving.published
        limits = limited(
            published.compiled,
            asked.placement_ids,
            asked.channels,
            prepared.subject.limited_as[0],
            known.standing,
            prepared.memberships,
            known.facts,
            now,
            prepared.budgets,
        )
        inputs = Inputs(
            decision_id=prepared.decision_id,
            now=now,
            customer_id=prepared.subject.customer_id,
            channels=asked.channels,
            placements=asked.placements,
            facts=known.facts,
            consents=known.consents,
            objects=known.objects,
            stops=limits.stops,
            holds=limits.holds,
            quiet=limits.quiet,
            budgets=limits.budgets,
            controls=limits.controls,
            assigned=limits.assigned,
            degraded=(*known.degraded, *limits.degraded),
            fetched={id: round(each.age, 3) for id, each in known.answers.items() if each.row is not None},
            given=tuple(asked.given),
            halts=self._halts.in_force,
        )
        with self._stage("decide"):
            made = decide(inputs, published.compiled, prepared.serving.snapshots)
        live = request.mode == "live"
        repeat = Asked(request.request_id, request.explain, request.activation if live else "immediate")
        with self._stage("render"):
            reply, kept = reply_bytes(made, published, repeat), recorded(inputs, repeat)
        record = DecisionRecord(
            decision_id=inputs.decision_id,
            customer_id=prepared.subject.keys[0],
            request_id=request.request_id,
            request_hash=prepared.content,
            decided_at=now,
            channel=made.channel or asked.channels[0],
            mode=request.mode,
            catalog_version=made.catalog_version,
            snapshots=made.snapshots,
            inputs=kept,
            reply=reply,
            activation=request.activation,
            claim=_claim(prepared, limits, made) if live else None,
            life=known.life,
        )
        no_actions = tuple(slate.no_action for slate in made.slates if slate.no_action is not None)
        return _Made(prepared, record, no_actions, inputs.degraded)


async def _guarded(work: Awaitable[_Made | bytes]) -> _Made | bytes | NextBestActionError:
    try:
        return await work
    except NextBestActionError as error:
        return error
    except Exception as error:  # a fault of ours must not fail the neighbours either
        log.exception("a request could not be decided")
        return InternalError(str(error))


def _log(came: str, seconds: float, made: _Made | None) -> None:
    fields: dict[str, object] = {"result": came, "ms": round(seconds * 1000, 3)}
    if made is not None:
        record = made.record
        fields |= {"decision_id": record.decision_id, "request_id": record.request_id}
        fields |= {"channel": record.channel, "degraded": list(made.degraded)}
    access.info("decision", extra={"fields": fields})


def _claim(prepared: _Prepared, limits: Limited, made: Decision) -> Claim:
    catalog = prepared.serving.published.compiled
    arms = [item.arm for slate in made.slates for item in slate.items]
    channel = made.channel or prepared.asked.channels[0]
    deferred = prepared.request.activation == "deferred"
    state: State = "reserved" if deferred else "firm"
    budgets = prepared.budgets
    return Claim(
        keys=prepared.subject.limited_as,
        limits=catalog.limits,
        standing=prepared.known.standing,
        ranges=limits.ranges,
        contact=Contact(
            micros(prepared.now),
            channel,
            tuple(Shown(arm.treatment.id, arm.action.id, arm.group.id, state) for arm in arms),
            deferred,
        ),
        takes=tuple(
            (arm.treatment.id, budgets[arm.action.id], taken(arm)) for arm in arms if arm.action.id in budgets
        ),
        due_at=reserved_until(made, catalog) if deferred else None,
        joins=limits.joins,
    )


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


def recorded(inputs: Inputs, asked: Asked) -> bytes:
    """What the ledger keeps to make the decision again."""
    plain = inputs.to_json()
    plain |= {"request_id": asked.request_id, "explain": asked.explain, "activation": asked.activation}
    return orjson.dumps(plain)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded inputs, read back."""

    inputs: Inputs
    asked: Asked


def read_recorded(content: bytes) -> Recorded:
    """The inverse of `recorded`."""
    raw = orjson.loads(content)
    asked = Asked(raw["request_id"], raw["explain"], raw.get("activation"))
    return Recorded(Inputs.from_json(raw), asked)

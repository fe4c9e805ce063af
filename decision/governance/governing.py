"""Changes of the catalog and emergency stops, carried out: each step is checked against the newest state, and
is in force in the moment in which it is in the audit trail. For the API, the command line and the job alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from arbitration.catalog.compile import canonical
from arbitration.catalog.problems import Source
from arbitration.errors import CatalogError
from arbitration.facts import rfc3339
from decision.clock import new_id
from decision.diffing import PartDifference, by_part, differences
from decision.errors import Conflict, FieldError, Rejected
from decision.fairness.verdicts import check_publishable
from decision.governance.changes import Change, Step, allow, approval_needed, event, seen
from decision.governance.halts import Halt, Scope, check_known
from decision.live import Live
from decision.publishing import Published, check_document
from decision.register import Register
from decision.storage.port import Event, Json, Store


@dataclass(frozen=True, slots=True)
class Ground:
    """What a step rests on: the catalog that is live, as it is stored, so that it need not be one that this
    code can still serve. `version` is None while there is none."""

    version: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def four_eyes(self) -> bool:
        """Whether what takes its place needs another's approval."""
        return bool(self.document.get("governance", {}).get("four_eyes"))


Decide = Callable[[Register, Ground], Sequence[Event]]


class Governing:
    """Takes the steps. `clock` gives aware UTC, `ids` fresh ids; `serving`: this process serves what it
    publishes. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        live: Live,
        register: Register,
        clock: Callable[[], datetime],
        ids: Callable[[], str] = new_id,
        *,
        serving: bool = True,
    ) -> None:
        self._store = store
        self._live = live
        self._register = register
        self._clock = clock
        self._ids = ids
        self._serving = serving
        self._latest = Ground()

    async def halt(self, actor: str, scope: Scope, target: str, why: str) -> Halt:
        """Shows nothing of it to anybody any more. Raises Rejected: 422 where the live catalog does not have
        it, 409 where it is halted already."""
        id, ground = self._ids(), await self._ground()
        check_known(ground.document, scope, target)
        await self._register.act(lambda now: [now.halts.begin(actor, id, scope, target, why)], self._clock())
        return self._register.halts.halt(id)

    async def resume(self, actor: str, id: str, why: str) -> None:
        """Ends a halt. Raises Rejected (404)."""
        await self._register.act(lambda now: [now.halts.end(actor, id, why)], self._clock())

    async def draft(self, actor: str, document: Mapping[str, Any], title: str, why: str) -> Change:
        """Begins a change. Raises CatalogError where the document could not be published."""
        id, version = self._ids(), await self._kept(document)

        def drafted(_: Register, ground: Ground) -> list[Event]:
            detail = {"title": title, "why": why, "version": version, "base": ground.version}
            return [event(id, "draft", actor, detail)]

        await self._step(drafted)
        return self._register.changes.change(id)

    async def edit(
        self, actor: str, id: str, document: Mapping[str, Any], why: str, title: str | None = None
    ) -> Change:
        """Gives a change another document: an approval does not cover it. Raises as `draft` and `take`."""
        await self.change(id)  # where there is none, nothing is kept
        version = await self._kept(document)

        def edited(register: Register, ground: Ground) -> list[Event]:
            allow(register.changes.change(id), "edit", actor, four_eyes=ground.four_eyes)
            detail = {"why": why, "title": title, "version": version, "base": ground.version}
            return [event(id, "edit", actor, detail)]

        await self._step(edited)
        return self._register.changes.change(id)

    async def take(self, actor: str, id: str, step: Step, why: str, version: str | None = None) -> Change:
        """Submits, approves, rejects, comments or withdraws. `version`: of the document that is approved,
        which is the one the actor has seen. Raises Rejected: 404, 409, 403."""

        def taken(register: Register, ground: Ground) -> list[Event]:
            change = register.changes.change(id)
            if step == "approve":
                seen(change, version)
            allow(change, step, actor, four_eyes=ground.four_eyes)
            return [event(id, step, actor, {"why": why, "version": change.version})]

        await self._step(taken)
        return self._register.changes.change(id)

    async def publish(
        self,
        actor: str,
        id: str,
        version: str,
        why: str,
        at: datetime | None = None,
        until: datetime | None = None,
    ) -> Change:
        """Makes a change live, if `version` is that of its document, or has it made so at a time; `until`:
        then the catalog that is live before it is put back, unless another was published meanwhile. Raises
        Rejected: 404, 409, 403; 422 where a time is not to come."""
        now = self._clock()
        if at is not None and at <= now:
            raise _no_time("at", "it is to be in the future; without it, it is published now")
        if until is not None and until <= (at or now):
            raise _no_time("until", "it is to be after the publication")
        if at is None:
            await self._publish(actor, id, version, why, until, now)
            return self._register.changes.change(id)

        def scheduled(register: Register, ground: Ground) -> list[Event]:
            change = register.changes.change(id)
            seen(change, version)
            allow(change, "schedule", actor, four_eyes=ground.four_eyes)
            check_publishable(register, change.version)
            detail = {"why": why, "version": change.version, "at": rfc3339(at), "until": _told(until)}
            return [event(id, "schedule", actor, detail)]

        await self._step(scheduled)
        return self._register.changes.change(id)

    async def publish_directly(
        self, actor: str, version: str, document: bytes, detail: Mapping[str, Json]
    ) -> datetime:
        """Publishes a document, as its change where one has all it needs, until the time planned with it;
        what is live already expires when it would have. Raises Rejected: 403; 409 where its time is over."""
        now = self._clock()

        def published(register: Register, ground: Ground) -> list[Event]:
            check_publishable(register, version)
            change = register.changes.ready(version, four_eyes=ground.four_eyes)
            if change is not None and version != ground.version:
                until = None if change.schedule is None else change.schedule.until
                _check_until(until, now, ground)
                return [_publication(change, actor, ground, {**detail, "until": _told(until)})]
            if ground.four_eyes and change is None and version not in register.changes.proved:
                raise approval_needed(version)
            return [_direct("catalog.publish", actor, version, ground, detail)]

        return await self._make_live(version, document, published, now)

    async def roll_back(self, actor: str, version: str, detail: Mapping[str, Json]) -> datetime:
        """Publishes a version anew. Raises Rejected: 404 where it never was; with four eyes, 403 where it was
        not live with an approval, and has none."""
        document = await self._store.catalog(version)
        ever = document is not None and any(
            each.version == version for each in await self._store.publications(_ALL)
        )
        if document is None or not ever:
            error = FieldError("version", "unknown_catalog_version", "no catalog was published under it")
            raise Rejected(404, "unknown_catalog_version", "There is no such catalog version.", [error])
        await self._live.published(version)  # refuses a version this code cannot serve any more

        def rolled_back(register: Register, ground: Ground) -> list[Event]:
            check_publishable(register, version)
            changes = register.changes
            if ground.four_eyes and not (version in changes.proved or changes.ready(version, four_eyes=True)):
                raise approval_needed(version)
            return [_direct("catalog.rollback", actor, version, ground, detail)]

        return await self._make_live(version, document, rolled_back)

    async def carry_out(self, change: Change, actor: str) -> None:
        """Publishes a change whose time has come, if it still may be. Raises Rejected, CatalogError."""
        schedule, now = change.schedule, self._clock()
        assert schedule is not None
        why = f"scheduled by {schedule.by}"
        await self._publish(actor, change.id, change.version, why, schedule.until, now, due=True)

    async def put_back(self, change: Change, actor: str) -> None:
        """Puts back what was live before a change whose time is over, if nothing has taken its place. Raises
        Rejected, CatalogError."""
        found = self._register.changes.expired(self._clock())
        if found is None or found[0].id != change.id:
            return
        _, version = found
        await self._live.published(version)
        document = await self._store.catalog(version)
        assert document is not None

        def expired(register: Register, ground: Ground) -> list[Event]:
            if register.changes.expired(self._clock()) != found:
                raise _Done
            if ground.version != change.version:
                raise Rejected(409, "superseded", "Another catalog was published meanwhile.")
            return [event(change.id, "expire", actor, {"version": version, "why": "its time is over"})]

        await self._make_live(version, document, expired)

    async def fail(self, change: Change, actor: str, code: str, message: str) -> None:
        """Writes down that what was planned with a change was not done; it is not tried again."""

        def failed(register: Register, _: Ground) -> list[Event]:
            if register.changes.change(change.id) != change:
                raise _Done
            return [event(change.id, "fail", actor, {"code": code, "message": message})]

        try:
            await self._step(failed)
        except _Done:
            return

    async def change(self, id: str) -> Change:
        """A change as it is now. Raises Rejected (404)."""
        await self._register.refresh()
        return self._register.changes.change(id)

    async def changes(self) -> list[Change]:
        """All there ever were, the newest first."""
        await self._register.refresh()
        return [*reversed(self._register.changes.all.values())]

    async def halts(self) -> tuple[Halt, ...]:
        """Those in force, in the order they began in."""
        await self._register.refresh()
        return self._register.halts.all

    async def effect(self, change: Change) -> tuple[str | None, list[PartDifference]]:
        """What a change would change of the catalog that is live now; where it is over, what it changed or
        would have. The version it is compared with, and the differences."""
        after = await self._plain_of(change.version)
        against = (await self._ground()).version if change.open else change.replaced
        before = {} if against is None else await self._plain_of(against)
        return against, by_part(differences(before, after))

    async def differ(self, document: Mapping[str, Any]) -> tuple[str | None, list[PartDifference]]:
        """What publishing a document would change of the live catalog, and its version. Raises CatalogError
        where it could not be published."""
        after = orjson.loads((await _checked(document))[1])
        against = (await self._ground()).version
        before = {} if against is None else await self._plain_of(against)
        return against, by_part(differences(before, after))

    async def live_version(self) -> str | None:
        """Of the catalog that is live."""
        publication = await self._store.live_catalog()
        return None if publication is None else publication.version

    async def _plain_of(self, version: str) -> dict[str, Any]:
        """A kept catalog as it would be stored today: what is new in the model since is no difference."""
        try:
            content = canonical((await self._live.published(version)).compiled.model)
        except CatalogError:  # one that cannot be served any more is compared as it is
            content = await self._store.catalog(version) or b"{}"
        found: dict[str, Any] = orjson.loads(content)
        return found

    async def _ground(self) -> Ground:
        version = await self.live_version()
        if version != self._latest.version:
            document = None if version is None else await self._store.catalog(version)
            self._latest = Ground(version, {} if document is None else orjson.loads(document))
        return self._latest

    async def _kept(self, document: Mapping[str, Any]) -> str:
        published, content = await _checked(document)
        await self._store.keep_catalog(published.version, content)
        return published.version

    async def _publish(
        self,
        actor: str,
        id: str,
        version: str,
        why: str,
        until: datetime | None,
        now: datetime,
        *,
        due: bool = False,
    ) -> None:
        """`due`: only if it is planned for by now."""
        seen(await self.change(id), version)
        await self._live.published(version)  # refuses what this code cannot serve
        document = await self._store.catalog(version)
        assert document is not None

        def made(register: Register, ground: Ground) -> list[Event]:
            newest = register.changes.change(id)
            if due and (newest.schedule is None or newest.schedule.at > now):
                raise _Done
            seen(newest, version)
            allow(newest, "publish", actor, four_eyes=ground.four_eyes)
            check_publishable(register, newest.version)
            _check_until(until, now, ground)
            return [_publication(newest, actor, ground, {"why": why, "until": _told(until)})]

        await self._make_live(version, document, made, now)

    async def _make_live(
        self, version: str, document: bytes, decide: Decide, at: datetime | None = None
    ) -> datetime:
        at = at or self._clock()

        async def carry_out(events: Sequence[Event], seq: int) -> None:
            await self._store.publish_catalog(version, document, at, events, seq)

        try:
            await self._step(decide, carry_out, at)
        except _Done:
            return at
        if self._serving:
            await self._live.refresh()
        return at

    async def _step(
        self,
        decide: Decide,
        carry_out: Callable[[Sequence[Event], int], Any] | None = None,
        at: datetime | None = None,
    ) -> None:
        ground = await self._ground()

        async def checked(events: Sequence[Event], seq: int) -> None:
            nonlocal ground
            newest = await self.live_version()
            if newest != ground.version:
                # All that is written after entry `seq` fails; what came before it is seen here.
                ground = await self._ground()
                raise Conflict("expected", "another catalog was published meanwhile")
            if carry_out is None:
                await self._store.append(events, now, seq)
            else:
                await carry_out(events, seq)

        now = at or self._clock()
        await self._register.act(lambda register: decide(register, ground), now, checked)


_ALL = 1_000_000


class _Done(Rejected):
    """Somebody else has done it, or it is not to be done any more."""

    def __init__(self) -> None:
        super().__init__(409, "wrong_state", "It is done already, or not to be done any more.")


async def _checked(document: Mapping[str, Any]) -> tuple[Published, bytes]:
    checked = await asyncio.to_thread(check_document, Source(document))
    if checked.published is None:
        raise CatalogError(checked.problems)
    return checked.published, checked.document


def _publication(change: Change, actor: str, ground: Ground, detail: Mapping[str, Json]) -> Event:
    known = {**detail, "version": change.version, "previous": ground.version}
    return event(change.id, "publish", actor, known)


def _direct(kind: str, actor: str, version: str, ground: Ground, detail: Mapping[str, Json]) -> Event:
    known = {key: value for key, value in {**detail, "previous": ground.version}.items() if value is not None}
    return Event(kind, actor, f"catalog:{version}", known, state=True)


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _check_until(until: datetime | None, now: datetime, ground: Ground) -> None:
    if until is not None and until <= now:
        raise Rejected(409, "too_late", "Its time was over before it could be published.")
    if until is not None and ground.version is None:
        raise _no_time("until", "there is no catalog yet that could be put back")


def _no_time(field: str, message: str) -> Rejected:
    return Rejected(422, "invalid_request", "The request has faults.", [FieldError(field, "time", message)])

"""The learner: reads the ledger, keeps each policy's sums, and writes them as immutable snapshots.

Labels, snapshots and the cursor move in one transaction that also checks that the cursor is where this
learner left it. So an event counts exactly once, whether the learner is restarted, killed, or doubled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

import numpy as np
import orjson

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.keeping import EraseAfter
from arbitration.errors import SnapshotError
from arbitration.facts import Facts, from_json
from arbitration.policy.mabwiser.history import History
from arbitration.policy.state import State
from arbitration.snapshot import empty_state, fingerprint, lineage, save
from decision.fault_log import FaultLog
from decision.labels import ItemKey, label_of, reward, value
from decision.metrics import LearnerMetrics
from decision.privacy.keeping import Keeping
from decision.publishing import load_published
from decision.responding import treatments
from decision.storage.port import (
    Cursor,
    DecisionRecord,
    Label,
    Outcomes,
    ResponseRecord,
    SnapshotRecord,
    Store,
)

log = logging.getLogger(__name__)

BATCH = 5_000
_LONGEST_PAUSE = 60.0
_REMEMBERED = 16  # catalogs
# The longest pause between two looks whether the learner that leads is gone, or the store is there again.
_STANDBY = 1.0
# What was learned fades in steps of 1.1 %, each of them a new snapshot.
_STEPS_PER_HALF_LIFE = 64


@dataclass(frozen=True, slots=True)
class Change:
    """A label that changed: what had come of the item (None: nothing learned), and what has now."""

    decision: DecisionRecord
    treatment: str
    before: Outcomes | None
    after: Outcomes | None


@dataclass
class _Learned:
    """What the learner holds in memory; it can always be read back from the store."""

    catalog: CompiledCatalog
    cursor: Cursor
    states: dict[str, State | History]
    stale: set[str] = field(default_factory=set)


class Learner:
    """Turns the ledger into snapshots. `clock` gives aware UTC; `signing_key`: for those that need one."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        signing_key: bytes = b"",
        metrics: LearnerMetrics | None = None,
    ) -> None:
        self._metrics = metrics or LearnerMetrics()
        self._store = store
        self._clock = clock
        self._signing_key = signing_key
        self._learned: _Learned | None = None
        self._catalogs: dict[str, CompiledCatalog] = {}
        self._keeping = Keeping(store, clock)
        self._faults = FaultLog(log, "learning failed; it is tried again from what the store holds")

    async def run(self, interval: float) -> None:
        """Learns every `interval` seconds until cancelled, while no other learner does; and erases what was
        kept long enough. What fails is logged and tried again.

        Every round with news leaves a snapshot behind for good, and the more is known the less a round
        adds: so with n events learned the pause grows to n / 10,000 seconds, at most a minute.
        """
        led = None
        while True:
            pause = min(interval, _STANDBY)
            leads = False
            try:
                leads = await self._store.lead()
                self._metrics.leading.set(leads)
                if leads != led:
                    log.info("learning" if leads else "another learner leads; standing by")
                    led = leads
                if leads:
                    while await self.step() >= BATCH:
                        pass
                    await self._keeping.due(self._erase_after())
                    self._metrics.last_round.set(self._clock().timestamp())
                    pause = max(interval, min(self._events() / 10_000, _LONGEST_PAUSE))
                self._faults.well()
            except Exception as error:  # noqa: BLE001
                self._metrics.leading.set(leads)
                self._faults.fault(error)
            await asyncio.sleep(pause)

    def _erase_after(self) -> EraseAfter:
        return EraseAfter() if self._learned is None else self._learned.catalog.model.erase_after

    def _events(self) -> float:
        states = self._learned.states.values() if self._learned is not None else ()
        return max((_events(state) for state in states), default=0.0)

    async def step(self, limit: int = BATCH) -> int:
        """Reads at most `limit` new decisions and responses, and learns what they say.

        Returns how many were read or came due. Raises StoreUnavailable, or Conflict where another
        learner was faster; the next step then starts from what the store holds.
        """
        try:
            return await self._step(limit)
        except BaseException:
            self._learned = None  # the sums may hold what was not committed
            raise

    async def _step(self, limit: int) -> int:
        learned = await self._current()
        if learned is None:
            return 0
        now = self._clock()
        decisions, responses, cursor = await self._store.unread(learned.cursor, limit)
        self._metrics.lag.set(_lag(decisions, responses, now))
        due = await self._store.due_labels(now, limit)
        erasures = await self._store.erasures(limit)
        for policy, state in learned.states.items():
            if _fade(state, now):
                learned.stale.add(policy)
        if not (decisions or responses or due or erasures or learned.stale):
            return 0
        labels, changes = await self._judge(decisions, responses, due, erasures, now)
        seen: Seen = {}
        for policy, state in list(learned.states.items()):
            try:
                if add_changes(state, learned.catalog, policy, changes, seen):
                    learned.stale.add(policy)
            except SnapshotError:
                log.exception("policy %s cannot learn this; it is learned again from the ledger", policy)
                del learned.states[policy]
        learned.stale &= learned.states.keys()
        made = [await self._saved(learned, policy, now) for policy in sorted(learned.stale)]
        snapshots = [record for record in made if record is not None]
        lineages = [lineage(learned.catalog, policy) for policy in learned.states]
        learned.cursor = await self._store.commit_learning(
            labels,
            snapshots,
            cursor,
            expected=learned.cursor,
            lineages=lineages,
            unlearned=erasures,
        )
        learned.stale.clear()
        self._metrics.events.inc(len(decisions) + len(responses))
        if max(len(decisions), len(responses)) < limit:
            self._metrics.lag.set(0)
        return max(len(decisions), len(responses), len(due), len(erasures))

    async def _judge(
        self,
        decisions: Sequence[DecisionRecord],
        responses: Sequence[ResponseRecord],
        due: Sequence[Label],
        erasures: Sequence[str],
        now: datetime,
    ) -> tuple[list[Label], list[Change]]:
        """The labels to write, and those of them that change what is learned.

        Whatever has moved, an item's label is worked out anew from all that the ledger has of it.
        """
        by_id = {decision.decision_id: decision for decision in decisions}
        moved = [*by_id, *(each.decision_id for each in responses), *(each.decision_id for each in due)]
        moved += erasures
        by_id |= await self._store.decisions([name for name in dict.fromkeys(moved) if name not in by_id])
        ids = list(by_id)
        erased, pending = await self._store.erased(ids), set(erasures)
        before = await self._store.labels(ids)
        heard: dict[str, list[ResponseRecord]] = {id: [] for id in ids}
        for response in await self._store.responses(ids):
            heard[response.decision_id].append(response)
        labels: dict[ItemKey, Label] = {}
        catalogs = {
            version: await self._catalog(version)
            for version in dict.fromkeys(decision.catalog_version for decision in by_id.values())
        }
        for id, decision in by_id.items():
            if id in erased:
                continue
            channel = catalogs[decision.catalog_version].channels[decision.channel]
            for treatment in treatments(decision):
                label = label_of(decision, treatment, channel, heard[id], now)
                if label is not None and label != before.get((id, treatment)):
                    labels[id, treatment] = label
        changes = [
            Change(by_id[key[0]], key[1], before[key].outcomes if key in before else None, label.outcomes)
            for key, label in labels.items()
        ]
        changes += [
            Change(by_id[id], treatment, label.outcomes, None)
            for (id, treatment), label in before.items()
            if id in pending  # each just once: with its labels removed
        ]
        return list(labels.values()), changes

    async def _current(self) -> _Learned | None:
        """What is learned so far, under the live catalog; read back from the store where it must be."""
        publication = await self._store.live_catalog()
        if publication is None:
            return None
        catalog = await self._catalog(publication.version)
        learned = self._learned
        if learned is None:
            learned = _Learned(catalog, await self._store.cursor(), {})
            current = await self._store.current_snapshots()
            for policy in catalog.policies:
                # A snapshot of neighbours holds the newest events only: they are read again from the ledger.
                if isinstance(empty_state(catalog, policy), State):
                    state = await self._restored(current.get(lineage(catalog, policy)))
                    if state is not None:
                        learned.states[policy] = state
        learned.catalog = catalog
        learned.states = {
            policy: state
            for policy, state in learned.states.items()
            if policy in catalog.policies
            and state.fingerprint == fingerprint(catalog, policy)
            and not self._worn(state)
        }
        for policy in catalog.policies:
            if policy not in learned.states:
                learned.states[policy] = await self._relearn(catalog, policy)
                if learned.states[policy].rows:
                    learned.stale.add(policy)
        self._learned = learned
        return learned

    async def _saved(self, learned: _Learned, policy: str, now: datetime) -> SnapshotRecord | None:
        state = learned.states[policy]
        try:
            version, content = await asyncio.to_thread(
                save, learned.catalog, policy, state, self._signing_key
            )
        except SnapshotError:
            log.exception("policy %s learns, but no snapshot can be made of it", policy)
            return None
        # Policies may have learned the same; their snapshots are still two.
        return SnapshotRecord(f"{policy}-{version}", lineage(learned.catalog, policy), now, content)

    def _worn(self, state: State | History) -> bool:
        """Whether it has to be learned again: too much was taken back of what it held, or the clock was set
        back by more than what has faded can be unfaded for."""
        if isinstance(state, History):
            return state.exhausted
        ahead = state.landmark - self._clock().timestamp()
        return state.half_life is not None and ahead > state.half_life

    async def _restored(self, version: str | None) -> State | None:
        record = None if version is None else await self._store.snapshot(version)
        if record is None:
            return None
        try:
            return State.from_bytes(record.content, record.version.rpartition("-")[2])
        except SnapshotError:
            log.exception("snapshot %s is refused; its policy is learned again from the ledger", version)
            return None

    async def _relearn(self, catalog: CompiledCatalog, policy: str) -> State | History:
        """A policy's state from every label there is: what the snapshots must always equal."""
        state = empty_state(catalog, policy)
        _fade(state, self._clock())
        changes: list[Change] = []
        async for decision, label in self._store.learned():
            changes.append(Change(decision, label.treatment, None, label.outcomes))
            if len(changes) >= BATCH:
                add_changes(state, catalog, policy, changes, {})
                changes.clear()
        add_changes(state, catalog, policy, changes, {})
        return state

    async def _catalog(self, version: str) -> CompiledCatalog:
        catalog = self._catalogs.pop(version, None)
        if catalog is None:
            document = await self._store.catalog(version)
            assert document is not None, version
            catalog = (await asyncio.to_thread(load_published, version, document)).compiled
        self._catalogs[version] = catalog  # the one used last is the last
        while len(self._catalogs) > _REMEMBERED:
            del self._catalogs[next(iter(self._catalogs))]
        return catalog


Context = tuple[Facts, datetime]
Seen = dict[str, Context | None]
"""The recorded contexts of decisions, by id: read once for all policies. None: not to be learned from."""


def _events(state: State | History) -> float:
    """How many events a state holds; those kept one by one make larger snapshots, and count tenfold."""
    return 10.0 * len(state) if isinstance(state, History) else float(state.count.sum())


def _lag(decisions: Sequence[DecisionRecord], responses: Sequence[ResponseRecord], now: datetime) -> float:
    """Seconds since the oldest of them came; 0 where there is none."""
    came = [each.decided_at for each in decisions[:1]] + [each.received_at for each in responses[:1]]
    return max((now - min(came)).total_seconds(), 0.0) if came else 0.0


def _fade(state: State | History, now: datetime) -> bool:
    """Lets a state forget as far as it should by `now`; whether that changed what it knows."""
    if isinstance(state, History) or state.half_life is None:
        return False
    step = state.half_life / _STEPS_PER_HALF_LIFE
    landmark = now.timestamp() // step * step
    moved = landmark != state.landmark
    state.forget_until(landmark)
    return moved and bool(state.rows)


def add_changes(
    state: State | History, catalog: CompiledCatalog, policy: str, changes: Sequence[Change], seen: Seen
) -> bool:
    """Adds changes to a policy's sums; whether there were any that count."""
    scale = catalog.policies[policy].value_scale

    @cache
    def worth(channel: str, said: Outcomes | None) -> float | None:
        if said is None:
            return None
        by = catalog.channels[channel]
        return reward(by, said) if scale is None else value(by, said) / scale

    arms: list[str] = []
    places: list[int] = []  # of the context, among `contexts`
    rewards: list[float] = []
    weights: list[float] = []
    times: list[float] = []
    contexts: list[Context] = []
    place_of: dict[str, int] = {}
    for change in changes:
        decision = change.decision
        if decision.channel not in catalog.channels:
            continue
        old, new = worth(decision.channel, change.before), worth(decision.channel, change.after)
        if old == new:
            continue
        name = decision.decision_id
        if name not in seen:
            seen[name] = _context(decision.inputs)
        if (context := seen[name]) is None:
            continue  # to learn from who objects to profiling would be to profile
        place = place_of.setdefault(name, len(contexts))
        if place == len(contexts):
            contexts.append(context)
        for counted, weight in ((old, -1.0), (new, 1.0)):
            if counted is not None:
                arms.append(change.treatment)
                places.append(place)
                rewards.append(counted)
                weights.append(weight)
                times.append(decision.decided_at.timestamp())
    if arms:
        encoder = catalog.encoders[policy]
        x = np.array([encoder.encode(facts, now) for facts, now in contexts])[places]
        state.add(arms, x, np.array(rewards), np.array(weights), np.array(times))
    return bool(arms)


def _context(inputs: bytes) -> Context | None:
    """What recorded inputs say of the customer and the situation, and when; nothing else of them is read, as
    this is most of the work of learning. None where the customer objects to profiling."""
    raw = orjson.loads(inputs)
    if raw.get("objects", False):
        return None
    facts = raw["facts"]
    facts |= {name: from_json(each) for name, each in facts.items() if isinstance(each, dict | list)}
    return facts, datetime.fromisoformat(raw["now"])

"""What each policy of a candidate had learned when a logged decision was made."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, Iterable
from datetime import datetime
from typing import Literal

from arbitration.errors import SnapshotError
from arbitration.policy.state import State
from arbitration.snapshot import PRIOR, Snapshot, empty_state, lineage, load, save
from decision.learner import BATCH, Change
from decision.learner import add_changes as learn
from decision.live import Live
from decision.publishing import Published
from decision.storage.port import DecisionRecord, Label, Store

Origin = Literal["then", "before", "first_half", "prior"]
"""`then`: the snapshot the logged decision was made with. `before`: the newest one of the policy's lineage
that was there before it. `first_half`: learned from the first half of the log, which is then not judged on.
`prior`: nothing is learned yet."""

_LISTED = 1_000_000


class Loaded:
    """Snapshots, of which the one last used of each policy of a catalog stays loaded: along a log they change
    seldom, and there may be many policies."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._held: dict[tuple[str, str], Snapshot] = {}

    async def get(self, published: Published, policy: str, version: str) -> Snapshot:
        """A snapshot of a policy, over the arms of a catalog. Raises SnapshotError."""
        held = self._held.get((published.version, policy))
        if held is None or held.version != version:
            held = await self._live.snapshot(published, policy, version)
            self._held[published.version, policy] = held
        return held


class States:
    """The snapshots a candidate would have had. `used`: by policy, how often each origin was used."""

    def __init__(self, store: Store, loaded: Loaded, candidate: Published, signing_key: bytes) -> None:
        self._store = store
        self._loaded = loaded
        self._candidate = candidate
        self._signing_key = signing_key
        self._lines = {policy: lineage(candidate.compiled, policy) for policy in candidate.compiled.policies}
        self._logged: dict[tuple[str, str], str] = {}
        self._made: dict[str, list[tuple[datetime, str]]] = {}
        self._learned: dict[str, Snapshot] = {}
        self.used: defaultdict[str, Counter[Origin]] = defaultdict(Counter)
        self.refused: dict[str, str] = {}

    async def prepare(self, logged: Iterable[Published], until: datetime) -> list[str]:
        """Looks up what there is. Returns the policies to be learned: those that no catalog of the log has,
        and of which no state was made by `until`, the log's end."""
        known = {lineage(each.compiled, policy) for each in logged for policy in each.compiled.policies}
        for policy, line in self._lines.items():
            listed = await self._store.snapshots(line, _LISTED)
            self._made[policy] = sorted((created, version) for version, created in listed)
        return [
            policy
            for policy, made in self._made.items()
            if self._lines[policy] not in known and (not made or made[0][0] > until)
        ]

    async def learn(
        self,
        policies: list[str],
        log: AsyncIterable[tuple[DecisionRecord, tuple[Label, ...]]],
        until: datetime,
    ) -> None:
        """Learns these policies from the labels of `log`; what they forget, they forget as of `until`."""
        catalog = self._candidate.compiled
        states = {policy: empty_state(catalog, policy) for policy in policies}
        for state in states.values():
            if isinstance(state, State):
                state.forget_until(until.timestamp())
        changes: list[Change] = []

        def add() -> None:
            for policy, state in states.items():
                learn(state, catalog, policy, changes, {})
            changes.clear()

        async for record, labels in log:
            changes += (Change(record, label.treatment, None, label.outcomes) for label in labels)
            if len(changes) >= BATCH:
                add()
        add()
        for policy, state in states.items():
            try:
                version, content = save(catalog, policy, state, self._signing_key)
                self._learned[policy] = load(catalog, policy, version, content, version, self._signing_key)
            except SnapshotError as error:
                self.refused[policy] = str(error)

    async def at(
        self, record: DecisionRecord, logged: Published, policies: Iterable[str]
    ) -> dict[str, Snapshot]:
        """Of some policies of the candidate, for one logged decision. Raises SnapshotError."""
        found = {}
        for policy in policies:
            origin, version = self._version(policy, record, logged)
            self.used[policy][origin] += 1
            if origin == "first_half":
                found[policy] = self._learned[policy]
            else:
                found[policy] = await self._loaded.get(self._candidate, policy, version)
        return found

    def _version(self, policy: str, record: DecisionRecord, logged: Published) -> tuple[Origin, str]:
        line = self._lines[policy]
        if policy in record.snapshots and policy in logged.compiled.policies:
            if (logged.version, policy) not in self._logged:
                self._logged[logged.version, policy] = lineage(logged.compiled, policy)
            if self._logged[logged.version, policy] == line:
                return "then", record.snapshots[policy]
        if policy in self._learned:
            return "first_half", ""
        made = self._made[policy]
        before = bisect_right(made, record.decided_at, key=lambda each: each[0])
        return ("before", made[before - 1][1]) if before else ("prior", PRIOR)

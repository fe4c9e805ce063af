"""Which snapshot of a policy is served: the newest, or one that somebody pinned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser.history import History
from arbitration.policy.posterior import sums_of
from arbitration.policy.state import State
from arbitration.snapshot import PRIOR, empty_state, lineage
from decision.errors import FieldError, Rejected
from decision.live import Live
from decision.storage.port import Store

LISTED = 100


@dataclass(frozen=True, slots=True)
class PolicyServed:
    """What a policy of the live catalog decides with. `snapshot`: its version, or `prior`; `newest`: what it
    would be if none were pinned; `refused`: the version it should be but that cannot be used; `learned`: how
    many outcomes it rests on."""

    policy: str
    snapshot: str
    newest: str
    pinned: str | None
    refused: str | None
    learned: float


@dataclass(frozen=True, slots=True)
class ArmLearned:
    """What two snapshots know of an arm: how many outcomes, and their mean reward (None without any)."""

    treatment: str
    count_before: float
    count_after: float
    mean_before: float | None
    mean_after: float | None


class Pinning:
    """Lists, compares, pins and rolls back the snapshots of the live catalog's policies. `clock` gives aware
    UTC. All raise Rejected (404) for a policy that the live catalog does not have."""

    def __init__(self, store: Store, live: Live, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._live = live
        self._clock = clock

    async def served(self) -> list[PolicyServed]:
        """Every policy, in the catalog's order."""
        pins, newest, serving = (
            await self._store.pins(),
            await self._store.newest_snapshots(),
            self._live.serving,
        )
        found = []
        for policy in serving.published.compiled.policies:
            line = lineage(serving.published.compiled, policy)
            snapshot = serving.snapshots[policy]
            found.append(
                PolicyServed(
                    policy,
                    snapshot.version,
                    newest.get(line, PRIOR),
                    pins.get(line),
                    self._live.refused.get(policy),
                    snapshot.learned,
                )
            )
        return found

    async def versions(self, policy: str) -> list[tuple[str, datetime]]:
        """The snapshots of a policy and when each was made, the newest first, at most `LISTED`."""
        return await self._store.snapshots(self._lineage(policy), LISTED)

    async def pin(self, policy: str, version: str | None) -> None:
        """Serves a version until another is pinned; None: the newest again. Raises Rejected (404 for a
        version that is no snapshot of this policy in this catalog, 422 for one that cannot be used)."""
        line = self._lineage(policy)
        if version is not None:
            await self._usable(policy, version)
        await self._store.pin(line, version, self._clock())
        await self._live.refresh()

    async def roll_back(self, policy: str) -> str:
        """Pins the snapshot made before the one that is served; its version. Raises Rejected (409) where
        there is none."""
        served = self._live.serving.snapshots[self._known(policy)].version
        served = self._live.refused.get(policy, served)
        versions = [version for version, _ in await self._store.snapshots(self._lineage(policy), LISTED)]
        before = versions[versions.index(served) + 1 :] if served in versions else []
        if not before:
            detail = f"There is no snapshot before {served}."
            raise Rejected(
                409, "no_earlier_snapshot", detail, [FieldError("policy", "no_earlier_snapshot", detail)]
            )
        await self.pin(policy, before[0])
        return before[0]

    async def compare(self, policy: str, before: str, after: str) -> list[ArmLearned]:
        """What two snapshots of a policy know of each arm either knows, by treatment. Raises Rejected as
        `pin`, and (422) for a snapshot that is no sum over events."""
        states = [
            await self._state(policy, field, version)
            for field, version in (("before", before), ("after", after))
        ]
        arms = sorted({arm for state in states for arm in state.rows})
        (_, moment_before, _, count_before), (_, moment_after, _, count_after) = (
            sums_of(state, arms) for state in states
        )
        return [
            ArmLearned(arm, float(old), float(new), _mean(paid_old, old), _mean(paid_new, new))
            for arm, old, new, paid_old, paid_new in zip(
                arms, count_before, count_after, moment_before[:, 0], moment_after[:, 0], strict=True
            )
        ]

    def _known(self, policy: str) -> str:
        if policy not in self._live.serving.published.compiled.policies:
            known = ", ".join(self._live.serving.published.compiled.policies)
            error = FieldError("policy", "unknown_policy", f"the live catalog has the policies {known}")
            raise Rejected(404, "unknown_policy", "There is no such policy.", [error])
        return policy

    def _lineage(self, policy: str) -> str:
        return lineage(self._live.serving.published.compiled, self._known(policy))

    async def _usable(self, policy: str, version: str, field: str = "version") -> bytes:
        record = await self._store.snapshot(version)
        if record is None or record.lineage != self._lineage(policy):
            message = "this policy has no such snapshot under the live catalog"
            raise Rejected(
                404,
                "unknown_snapshot",
                "There is no such snapshot.",
                [FieldError(field, "unknown_snapshot", message)],
            )
        try:
            await self._live.snapshot(self._live.serving.published, policy, version)
        except SnapshotError as error:
            raise _unusable(field, error) from error
        return record.content

    async def _state(self, policy: str, field: str, version: str) -> State:
        content = await self._usable(policy, version, field)
        if isinstance(empty_state(self._live.serving.published.compiled, policy), History):
            message = "a neighborhood_policy keeps single events, no sums that could be compared"
            raise _unusable(field, SnapshotError(message))
        try:
            return State.from_bytes(content)
        except SnapshotError as error:
            raise _unusable(field, error) from error


def _unusable(field: str, error: SnapshotError) -> Rejected:
    return Rejected(
        422,
        "unusable_snapshot",
        "The snapshot cannot be used.",
        [FieldError(field, "unusable_snapshot", str(error))],
    )


def _mean(paid: np.float64, count: np.float64) -> float | None:
    return float(paid / count) if count > 1e-9 else None

"""Routes for learned snapshots: list, compare, pin, go back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from arbitration.facts import rfc3339
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.messages import (
    ArmComparison,
    ComparisonReply,
    Key,
    PinRequest,
    PolicyReply,
    PolicySnapshotsReply,
    SnapshotReply,
    SnapshotsReply,
)

router = APIRouter(prefix="/v1/snapshots", tags=["learning"], route_class=StrictRoute)
Version = Annotated[Key, Query()]


@router.get("", operation_id="listPolicies", responses=documented())
async def policies(parts: Parts) -> SnapshotsReply:
    """What each policy of the live catalog decides with."""
    return SnapshotsReply(policies=[PolicyReply(**asdict(each)) for each in await parts.pinning.served()])


@router.get("/{policy}", operation_id="listSnapshots", responses=documented(404))
async def versions(policy: str, parts: Parts) -> PolicySnapshotsReply:
    """The newest snapshots of a policy under the live catalog."""
    found = await parts.pinning.versions(policy)
    return PolicySnapshotsReply(
        snapshots=[SnapshotReply(version=version, created_at=rfc3339(at)) for version, at in found]
    )


@router.get("/{policy}/comparison", operation_id="compareSnapshots", responses=documented(400, 404, 422))
async def compare(policy: str, before: Version, after: Version, parts: Parts) -> ComparisonReply:
    """What two snapshots of a policy know of each treatment."""
    found = await parts.pinning.compare(policy, before, after)
    return ComparisonReply(treatments=[ArmComparison(**asdict(each)) for each in found])


@router.put("/{policy}/pin", operation_id="pinSnapshot", responses=documented(400, 404, 413, 415, 422))
async def pin(policy: str, request: PinRequest, parts: Parts) -> SnapshotsReply:
    """Serves this snapshot, whatever is learned, until another is pinned or the pin is taken away."""
    await parts.pinning.pin(policy, request.version)
    return await policies(parts)


@router.delete("/{policy}/pin", operation_id="unpinSnapshot", responses=documented(404))
async def unpin(policy: str, parts: Parts) -> SnapshotsReply:
    """Serves the newest snapshot again."""
    await parts.pinning.pin(policy, None)
    return await policies(parts)


@router.post("/{policy}/rollback", operation_id="rollbackSnapshot", responses=documented(404, 409))
async def roll_back(policy: str, parts: Parts) -> SnapshotsReply:
    """Pins the snapshot made before the one that is served."""
    await parts.pinning.roll_back(policy)
    return await policies(parts)

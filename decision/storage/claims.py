"""Whether what a decision rests on is still so. Pure; shared by all backends."""

from __future__ import annotations

from decision.storage.port import Claim, Standing


def holds_still(claim: Claim, found: Standing) -> bool:
    """Whether a claim with a standing may be committed where `found` is what there is now."""
    assert claim.standing is not None
    recorded = {(each.control_group, each.since): each.member for each in found.memberships}
    return (
        _resting(found) == _resting(claim.standing)
        and found.holds.keys() == claim.standing.holds.keys()
        and all(least <= found.used[period] <= most for period, (least, most) in claim.ranges.items())
        and all(
            recorded.get((join.control_group, join.since), join.member) == join.member for join in claim.joins
        )
    )


def _resting(standing: Standing) -> set[tuple[str, str]]:
    return {(stop.scope, stop.target) for stop in standing.stops}

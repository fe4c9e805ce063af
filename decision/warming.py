"""First decisions, so that no customer's is the first: what is made once is made, and what fails is found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from arbitration.decide import decide
from arbitration.inputs import Inputs
from arbitration.snapshot import Snapshot
from decision.publishing import Published
from decision.replies import Asked, reply_bytes

_NOBODY = "00000000-0000-0000-0000-000000000000"


def warm(published: Published, snapshots: Mapping[str, Snapshot], now: datetime) -> None:
    """Decides for every placement of every channel about somebody unknown, and writes the reply; nothing of
    it is kept or counted. `now`: aware UTC. Raises whatever a decision raises."""
    model = published.compiled.model
    for channel in model.channels:
        placements = tuple((each.id, each.slots) for each in model.placements if each.channel == channel.id)
        inputs = Inputs(_NOBODY, now, None, (channel.id,), placements)
        reply_bytes(decide(inputs, published.compiled, snapshots), published, Asked())

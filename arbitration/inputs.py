"""All that a decision depends on, beside the catalog and the snapshots. What the ledger keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from arbitration.facts import Facts, from_json, plain, rfc3339


@dataclass(frozen=True, slots=True)
class Inputs:
    """One request with everything gathered for it.

    `channels`: where it may be shown; of several, one is chosen. `placements`: (placement id, how many items
    at most), in the order they are filled. `facts`: what is
    known, by dotted name. `consents`: purpose → `given` or `withdrawn`. `objects`: to profiling. `stops`: the
    (scope, id) pairs, scope `action` or `group`, that rest for this customer at `now`. `holds`: contact
    policy → target (`*`: each) → until when it holds back (None: not known). `quiet`: the channels that are
    quiet at `now`, and until when. `budgets`: action → what is left of its budget, in times or ticks of
    money, where that is too little for some arm; None: what is left is not known. `controls`: control group →
    whether the customer is in it. `assigned`: champion → the challenger that decides for this customer in its
    place. `degraded`: what could not be gathered, and why. `now` is aware UTC and the
    only time there is. No decision depends on `fetched` (for each source that answered, how many seconds
    before) and `given` (the facts the request stated itself): they are there to say where a fact came from.
    `halts`: the (scope, id) pairs, scope `action`, `group` or `channel`, of which nothing may be shown to
    anybody. All times but `now` are RFC 3339 texts, as they are recorded.
    """

    decision_id: str
    now: datetime
    customer_id: str | None
    channels: tuple[str, ...]
    placements: tuple[tuple[str, int], ...]
    facts: Facts = field(default_factory=dict)
    consents: Mapping[str, str] = field(default_factory=dict)
    stops: tuple[tuple[str, str], ...] = ()
    degraded: tuple[str, ...] = ()
    fetched: Mapping[str, float] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    objects: bool = False
    holds: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    quiet: Mapping[str, str] = field(default_factory=dict)
    budgets: Mapping[str, int] | None = field(default_factory=dict)
    controls: Mapping[str, bool] = field(default_factory=dict)
    assigned: Mapping[str, str] = field(default_factory=dict)
    halts: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON that can be read back without a catalog."""
        written: dict[str, Any] = {
            "decision_id": self.decision_id,
            "now": rfc3339(self.now),
            "customer_id": self.customer_id,
            "channels": list(self.channels),
            "placements": [list(placement) for placement in self.placements],
            "facts": plain(self.facts),
            "consents": dict(self.consents),
            "objects": self.objects,
            "stops": [list(stop) for stop in self.stops],
            "holds": self.holds,
            "quiet": self.quiet,
            "budgets": self.budgets,
            "controls": self.controls,
            "assigned": self.assigned,
            "degraded": list(self.degraded),
            "fetched": dict(self.fetched),
            "given": list(self.given),
        }
        if self.halts:
            written["halts"] = [list(halt) for halt in self.halts]
        return written

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Inputs:
        """The inverse of `to_json`. What was recorded before a part of it was there lacks that part."""
        return cls(
            decision_id=raw["decision_id"],
            now=datetime.fromisoformat(raw["now"]),
            customer_id=raw["customer_id"],
            channels=tuple(raw["channels"]) if "channels" in raw else (raw["channel"],),
            placements=tuple((name, limit) for name, limit in raw["placements"]),
            facts={name: from_json(value) for name, value in raw["facts"].items()},
            consents=raw["consents"],
            objects=raw.get("objects", False),
            stops=tuple((scope, target) for scope, target in raw["stops"]),
            holds=raw.get("holds", {}),
            quiet=raw.get("quiet", {}),
            budgets=raw.get("budgets", {}),
            controls=raw.get("controls", {}),
            assigned=raw.get("assigned", {}),
            degraded=tuple(raw["degraded"]),
            fetched=raw.get("fetched", {}),
            given=tuple(raw.get("given", ())),
            halts=tuple((scope, target) for scope, target in raw.get("halts", ())),
        )

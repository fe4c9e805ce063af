"""What is exported: a row for each item shown, and one for each placement that showed nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from arbitration.facts import Value
from arbitration.features import Vector
from decision.storage.port import Outcomes

Label = Literal["closed", "open", "none"]


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm that a draw could fall on. `mean`: the deciding policy's estimate of its reward (in shares of
    `value_scale`, where it learns values); `priority`: what arms are compared by. Both are None where nothing
    was estimated."""

    placement: str
    treatment: str
    action: str
    group: str
    probability: float
    mean: float | None
    priority: float | None


@dataclass(frozen=True, slots=True)
class Item:
    """A pick. `draw` counts from 1 within the decision, `rank` within the placement.
    `selection_probability`: given the picks before; `cumulative_probability`: of this pick and all before it.
    `arms`: all that the draw could fall on, this one among them. `label`: `closed` with outcomes, `open`
    while only the contact is known, `none` without a contact; only where closed there are `outcomes`,
    `reward` and `value`."""

    draw: int
    rank: int
    arm: Arm
    propensity: float | None
    cumulative_probability: float
    arms: tuple[Arm, ...]
    label: Label
    outcomes: Outcomes | None
    reward: float | None
    value: float | None

    @property
    def selection_probability(self) -> float:
        """As in the reply, to the last bit."""
        return self.arm.probability


@dataclass(frozen=True, slots=True)
class Row:
    """`item` is None where the placement showed nothing of its own: then `no_action_reason` says why, and
    `fallback` whether its fallback was shown. `policy`: the one that decided; `snapshot`: with what it had
    learned, None where nothing was estimated. `facts`: by dotted name, those that may leave. `x`: the
    features of the live catalog, float64 (d,). Of who objects to profiling there are neither personal facts
    nor `x` nor `customer`."""

    decision_id: str
    decided_at: datetime
    customer: str | None
    channel: str
    placement: str
    item: Item | None
    no_action_reason: str | None
    fallback: bool
    policy: str
    snapshot: str | None
    apprentice: bool
    catalog_version: str
    control_groups: tuple[str, ...]
    degraded: tuple[str, ...]
    objects: bool
    facts: Mapping[str, Value]
    x: Vector | None


class Sink(Protocol):
    """A file format."""

    def write(self, row: Row) -> bool:
        """Takes a row in, or leaves it out where the format has no place for it; whether it was taken."""

    def finish(self) -> None:
        """Writes what is still to be written."""

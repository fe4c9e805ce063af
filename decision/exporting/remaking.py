"""Reads the log: every decision made again, with what came of it.

What a decision could have shown, and how likely, is not recorded; it follows from the recorded inputs, the
catalog and the snapshots of then. A decision that does not come out again as it was answered is left out, and
counted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson

from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.catalog.model import Channel, FactType
from arbitration.decide import Decision, Slate
from arbitration.errors import InputsError, SnapshotError
from arbitration.facts import personal
from arbitration.features import Encoder
from arbitration.following import Pick, picks
from decision import labels
from decision.exporting.columns import Declarations, fact_types, feature_encoder, sources
from decision.exporting.errors import ExportError
from decision.exporting.rows import Arm, Item, Row
from decision.live import Live
from decision.replaying import made_again
from decision.storage.port import DecisionRecord, Label, Store

Customers = Literal["hashed", "plain", "none"]

DIGITS = 12  # what replies are rounded to
_ALIKE = 1e-9  # the linear algebra of two machines may differ by as much


@dataclass(frozen=True, slots=True)
class Window:
    """The decisions with since ≤ decided_at < until; None: open."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass
class Log:
    """The decisions of a window, and what of them is exported. `decisions`: how many there are; `lost`: the
    ids of those that did not come out again."""

    store: Store
    live: Live
    window: Window
    decisions: int
    facts: dict[str, FactType]
    encoder: Encoder
    name: Callable[[str], str | None]
    versions: frozenset[str]
    lost: list[str] = field(default_factory=list)

    async def rows(self) -> AsyncGenerator[list[Row], None]:
        """The rows of each decision, in commit order; none where it is lost."""
        async for record, found in self.store.decided(self.window.since, self.window.until):
            if record.catalog_version not in self.versions:
                continue  # decided since, with facts that have no column
            answered = _answered(record.reply)
            try:
                again = await made_again(self.live, record)
            except (SnapshotError, InputsError):
                again = None
            if again is None or not _alike(again.decision, answered):
                self.lost.append(record.decision_id)
                yield []
            else:
                channel = again.published.compiled.channels[record.channel]
                arms = _Arms(again.decision, again.published.compiled, self.facts.keys())
                yield list(self._rows(record, again.decision, channel, arms, found, answered))

    def _rows(
        self,
        record: DecisionRecord,
        decision: Decision,
        channel: Channel,
        arms: _Arms,
        found: Sequence[Label],
        answered: Sequence[Answered],
    ) -> Iterator[Row]:
        inputs = decision.inputs
        facts = {
            name: value
            for name, value in inputs.facts.items()
            if name in self.facts and not (inputs.objects and personal(name))
        }
        x = None if inputs.objects else self.encoder.encode(inputs.facts, inputs.now)[1:]
        customer = None if inputs.objects else self.name(record.customer_id)
        control_groups = tuple(sorted(name for name, member in inputs.controls.items() if member))
        fallbacks = {placement for placement, treatment, _ in answered if treatment is None}
        slates = {slate.candidates.placement.id: slate for slate in decision.slates}

        def row(slate: Slate, item: Item | None) -> Row:
            placement = slate.candidates.placement
            return Row(
                decision_id=record.decision_id,
                decided_at=record.decided_at,
                customer=customer,
                channel=placement.channel,
                placement=placement.id,
                item=item,
                no_action_reason=None if slate.no_action is None else str(slate.no_action),
                fallback=placement.id in fallbacks,
                policy=slate.policy.id,
                snapshot=decision.snapshots.get(slate.policy.id),
                apprentice=slate.apprentice,
                catalog_version=record.catalog_version,
                control_groups=control_groups,
                degraded=inputs.degraded,
                objects=inputs.objects,
                facts=facts,
                x=x,
            )

        known = {label.treatment: label for label in found}
        cumulative = 1.0
        for draw, pick in enumerate(picks(decision), start=1):
            cumulative *= pick.probability
            slate = slates[pick.placement]
            told = slate.items[pick.rank - 1].propensity
            propensity = None if arms.estimates_hidden(slate) else told
            label = known.get(pick.treatment)
            yield row(slate, _item(draw, pick, arms, propensity, cumulative, channel, label))
        for slate in decision.slates:
            if not slate.items:
                yield row(slate, None)


async def survey(
    store: Store, live: Live, window: Window, *, customers: Customers, pii: bool, key: bytes
) -> Log:
    """What there is in a window: the log is read once for its size and its catalogs, before any row.

    `key`: of the keyed hash that customers are named by where `hashed`. Raises ExportError where no catalog
    has been published.
    """
    publication = await store.live_catalog()
    if publication is None:
        raise ExportError("no catalog has been published yet, so there is nothing to export")
    count, versions = 0, {publication.version: None}
    async for record, _ in store.decided(window.since, window.until):
        count += 1
        versions[record.catalog_version] = None
    met: list[Declarations] = [(await live.published(version)).compiled.declared for version in versions]
    now = (await live.published(publication.version)).compiled.model
    return Log(
        store,
        live,
        window,
        count,
        fact_types(met, pii=pii),
        feature_encoder(now, met, pii=pii),
        _naming(customers, key),
        frozenset(versions),
    )


def _naming(customers: Customers, key: bytes) -> Callable[[str], str | None]:
    match customers:
        case "plain":
            return lambda customer: customer
        case "none":
            return lambda customer: None
        case "hashed":
            return lambda customer: hashlib.blake2b(customer.encode(), key=key, digest_size=16).hexdigest()


def _item(
    draw: int,
    pick: Pick,
    arms: _Arms,
    propensity: float | None,
    cumulative: float,
    channel: Channel,
    label: Label | None,
) -> Item:
    could = {name: arms.arm(*name, chance) for name, chance in pick.chances.items()}
    outcomes = None if label is None else label.outcomes
    return Item(
        draw=draw,
        rank=pick.rank,
        arm=could[pick.placement, pick.treatment],
        propensity=propensity,
        cumulative_probability=cumulative,
        arms=tuple(could.values()),
        label="none" if label is None else "open" if outcomes is None else "closed",
        outcomes=outcomes,
        reward=None if outcomes is None else labels.reward(channel, outcomes),
        value=None if outcomes is None else labels.value(channel, outcomes),
    )


class _Arms:
    """The arms of a decision, by name. A number that is worked out from a fact which is not exported (`known`
    are those that are) is left out: a value may be somebody's salary."""

    def __init__(self, decision: Decision, catalog: CompiledCatalog, known: Collection[str]) -> None:
        self._catalog = catalog
        self._hidden = catalog.declared.keys() - set(known)
        self._slates = {}
        for slate in decision.slates:
            mean, priority = slate.mean.copy(), slate.priority
            if self.estimates_hidden(slate):
                mean[:] = priority[:] = math.nan
            priority[self._telling(slate.candidates)] = math.nan
            self._slates[slate.candidates.placement.id] = slate, mean, priority

    def estimates_hidden(self, slate: Slate) -> bool:
        """Whether what the policy estimates is worked out from what is not exported."""
        chosen, every = slate.policy.features, self._catalog.model.features
        names = [feature.id for feature in every] if chosen is None else chosen
        return any(not self._hidden.isdisjoint(sources(name, every)) for name in names)

    def _telling(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """The arms whose weight is worked out from what is not exported."""
        telling = np.zeros(len(candidates), dtype=np.bool_)
        for number, arms in candidates.value_programs:
            if not self._hidden.isdisjoint(self._catalog.values[number].names):
                telling |= arms
        for clause, weights in zip(candidates.weight_clauses, candidates.weights, strict=True):
            if not self._hidden.isdisjoint(self._catalog.rules.programs[clause].names):
                telling |= weights != 1
        return telling

    def arm(self, placement: str, treatment: str, chance: float) -> Arm:
        slate, mean, priority = self._slates[placement]
        number = slate.candidates.treatment_numbers[treatment]
        arm = slate.candidates.arms[number]
        return Arm(
            placement,
            treatment,
            arm.action.id,
            arm.group.id,
            round(chance, DIGITS),
            _rounded(mean[number]),
            _rounded(priority[number]),
        )


def _rounded(number: float) -> float | None:
    return None if math.isnan(number) else round(float(number), DIGITS)


Answered = tuple[str, str | None, float]
"""What a reply says of an item: placement, treatment (None: the fallback), selection probability."""


def _answered(reply: bytes) -> list[Answered]:
    return [
        (placement["id"], None if item["is_fallback"] else item["treatment"], item["selection_probability"])
        for placement in orjson.loads(reply)["placements"]
        for item in placement["items"]
    ]


def _alike(decision: Decision, answered: Sequence[Answered]) -> bool:
    """Whether a decision shows what was answered, with the probabilities that were answered."""
    made = [
        (slate.candidates.placement.id, item.arm.treatment.id, item.selection_probability)
        for slate in decision.slates
        for item in slate.items
    ]
    given = [item for item in answered if item[1] is not None]
    return len(made) == len(given) and all(
        a[:2] == b[:2] and abs(a[2] - b[2]) <= _ALIKE for a, b in zip(made, given, strict=True)
    )

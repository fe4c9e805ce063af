"""The authoring model: what a marketing team writes, as plain data (DESIGN: catalog).

One document with one list per kind of thing. Everything is JSON: times and durations stay text.
References between the parts, rules and templates are checked by `arbitration.catalog.validate`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from arbitration.catalog.fairness import FairnessBound, bands_fault
from arbitration.catalog.governing import Governance
from arbitration.catalog.keeping import EraseAfter
from arbitration.catalog.learning import Feature, Policy
from arbitration.catalog.limits import (
    MOST,
    Budget,
    ContactPolicy,
    ControlGroup,
    Direction,
    Outcome,
    QuietHours,
    Stop,
    Validity,
    ZoneName,
    one_or_several,
)
from arbitration.catalog.scalars import (
    DurationText,
    Expression,
    Finite,
    Id,
    MomentText,
    Name,
    NotNegative,
    Positive,
    Share,
)
from arbitration.catalog.sources import Source
from arbitration.facts import STORE

FactType = Literal["bool", "int", "double", "string", "timestamp", "strings"]


Path = Annotated[str, Field(min_length=1, max_length=500)]
"""What a source calls a value."""


class Part(BaseModel):
    """Base of every part: immutable, strict, and no field that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Fact(Part):
    """A typed value that rules, features and templates may name.

    `strings` is a list of strings. `min` and `max` (inclusive) bound numbers, `values` lists the
    only strings allowed; a value outside is refused at the border, never seen by a rule.
    """

    id: Name
    type: FactType
    min: Finite | None = None
    max: Finite | None = None
    values: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    description: str = ""

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Fact:
        if (self.min is not None or self.max is not None) and self.type not in ("int", "double"):
            raise ValueError("min and max are for numbers")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        if self.values is not None and self.type not in ("string", "strings"):
            raise ValueError("values are for strings")
        return self


class Attribute(Fact):
    """`customer.<id>`: what is known of a customer. The value of one marked `pii` is left out of
    explanations and error messages.

    `source`: where it is fetched from, under what `path` there (see the kinds of sources). `derive`: a rule
    for it over other facts instead, worked out whenever it is needed. One that is `sensitive` is no feature
    unless that is allowed there, and has a fairness report; `bands`: the ascending edges (each begins a band)
    by which a number or a timestamp is reported.
    """

    pii: bool = False
    sensitive: bool = False
    bands: (
        Annotated[tuple[Finite, ...], Field(strict=False, min_length=1)]
        | Annotated[tuple[MomentText, ...], Field(strict=False, min_length=1)]
        | None
    ) = None
    source: Id = STORE
    path: Path | None = None
    derive: Expression | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> Attribute:
        if self.derive is not None and (self.source != STORE or self.path is not None):
            raise ValueError("derive takes the place of source and path")
        return _pathless_store(self)

    @model_validator(mode="after")
    def _bands_fit(self) -> Attribute:
        if self.bands is not None:
            if not self.sensitive:
                raise ValueError("bands are for sensitive attributes")
            if (message := bands_fault(self.type, self.bands)) is not None:
                raise ValueError(message)
        return self


class ContextValue(Fact):
    """`context.<id>`: what a caller says of the situation, on the channels named (default: all)."""

    channels: Annotated[tuple[Id, ...], Field(strict=False)] | None = None


class Score(Part):
    """`scores.<id>`: a model's number for a customer, always a double. `source` and `path`: as of an
    attribute."""

    id: Name
    min: Finite | None = None
    max: Finite | None = None
    source: Id = STORE
    path: Path | None = None
    description: str = ""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Score:
        return _pathless_store(self)


class Purpose(Part):
    """Something a customer consents to, or not. `source` and `path`: as of an attribute; the source answers
    `given` or `withdrawn`, or true or false.

    `profiling`: who has withdrawn it objects to profiling, and is decided for without personal data.
    """

    id: Id
    source: Id = STORE
    path: Path | None = None
    profiling: bool = False
    description: str = ""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Purpose:
        return _pathless_store(self)


Sourced = TypeVar("Sourced", Attribute, Score, Purpose)


def _pathless_store(part: Sourced) -> Sourced:
    if part.source == STORE and part.path is not None:
        raise ValueError("path is for what comes from a source")
    return part


class Group(Part):
    """A family of actions. A lower `tier` goes first: no arm of a tier shows while a lower one is left."""

    id: Id
    tier: Annotated[int, Field(ge=0, le=99)] = 0
    consent: Id | None = None
    description: str = ""


class Channel(Part):
    """Where content is shown and how an answer there is valued.

    `direction`: who begins; contact policies may count by it. `contact` is the event from which the customer
    has had a contact, and may be expected to answer: the decision itself (an agent reads it out, a mail
    leaves) or the reported `impression`.
    `rewards` maps each outcome the channel knows to its reward in 0..1; an outcome not listed is
    refused. `combine`: what counts of several outcomes of one item: the best (`max`), the `last` one by its
    own time, or all together (`sum`). `response_window`: with no answer so long after the contact, the label
    is `no_response`; and what was reserved is released when nothing was heard so long after the decision.
    `quiet_hours`: when nothing goes out, by the customer's time.
    """

    id: Id
    direction: Direction
    contact: Literal["decision", "impression"] = "decision"
    consent: Id | None = None
    rewards: Annotated[dict[Outcome, Share], Field(min_length=1)]
    combine: Literal["max", "last", "sum"] = "max"
    response_window: DurationText
    quiet_hours: Annotated[tuple[QuietHours, ...], Field(strict=False)] = ()
    description: str = ""

    @model_validator(mode="after")
    def _impression_is_no_answer(self) -> Channel:
        if "impression" in self.rewards:
            raise ValueError("an impression is an exposure, not an outcome with a reward")
        return self

    @property
    def outcomes(self) -> frozenset[str]:
        """What a response on this channel may report."""
        return frozenset(self.rewards) | {"impression"}


class ContentField(Part):
    """A field of a placement's content. What is filled into an `html` field is escaped."""

    id: Name
    type: Literal["text", "html"] = "text"
    required: bool = True


class Placement(Part):
    """A named list of slots on a channel.

    `fallback` is shown when no arm is left; without it the reply says why there is none.
    `max_per_group` bounds how many items of one group a slate may hold.
    """

    id: Id
    channel: Id
    slots: Annotated[int, Field(ge=1, le=50)] = 1
    content: Annotated[tuple[ContentField, ...], Field(strict=False, min_length=1)]
    fallback: dict[Name, str] | None = None
    max_per_group: Annotated[int, Field(ge=1)] | None = None
    policy: Id | None = None


class Rule(Part):
    """A rule with the reason it stands for, in words an agent can say."""

    rule: Expression
    why: Annotated[str, Field(min_length=1, max_length=500)]


Clause = Expression | Rule
Clauses = Annotated[tuple[Clause, ...], Field(strict=False)]


class Incentive(Part):
    """A variant of a treatment: what it adds to the cost, and the content fields it says otherwise."""

    id: Id
    cost: NotNegative = 0.0
    content: dict[Name, str] = Field(default_factory=dict)


class Treatment(Part):
    """One presentation of an action, for one channel and placement: the arm of the bandit.

    `cost`: what showing it costs, in the catalog's currency; it is taken off the action's value. With
    `incentives` each of them is an arm of its own, named `<treatment>:<incentive>`.
    """

    id: Id
    channel: Id
    placement: Id
    content: dict[Name, str]
    cost: NotNegative = 0.0
    incentives: Annotated[tuple[Incentive, ...], Field(strict=False)] = ()

    @property
    def variants(self) -> tuple[Treatment, ...]:
        """The arms it stands for, each a treatment without incentives."""
        if not self.incentives:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    "id": f"{self.id}:{each.id}",
                    "cost": self.cost + each.cost,
                    "content": {**self.content, **each.content},
                    "incentives": (),
                }
            )
            for each in self.incentives
        )


class Action(Part):
    """What could be proposed. `value` is money in the catalog's currency: a number, or a rule for one.

    `exempt`: contact policies and control groups that leave it alone, and `quiet_hours`: for what must be
    said, like a legal notice. It still counts as a contact.
    """

    id: Id
    group: Id
    description: str = ""
    tier: Annotated[int, Field(ge=0, le=99)] | None = None
    value: NotNegative | Expression = 1.0
    lever: NotNegative = 1.0
    valid: Validity = Validity()
    eligibility: Clauses = ()
    applicability: Clauses = ()
    suitability: Clauses = ()
    stop: (
        Annotated[
            Annotated[Stop, Tag("one")]
            | Annotated[tuple[Stop, ...], Field(strict=False, min_length=1), Tag("several")],
            Discriminator(one_or_several),
        ]
        | None
    ) = None
    budget: Budget | None = None
    exempt: Annotated[tuple[Id, ...], Field(strict=False)] = ()
    treatments: Annotated[tuple[Treatment, ...], Field(strict=False, min_length=1)]

    @property
    def stops(self) -> tuple[Stop, ...]:
        """Its stops, however they were written."""
        return self.stop if isinstance(self.stop, tuple) else () if self.stop is None else (self.stop,)


class ContextWeight(Part):
    """While `when` holds, priorities are multiplied by `weight`: of an action, a group, or all."""

    id: Id
    when: Expression
    weight: Positive
    action: Id | None = None
    group: Id | None = None


class Catalog(Part):
    """A whole catalog. Its version is the hash of its content (`arbitration.catalog.version`).

    `time_zone`: of calendar periods and quiet hours that name none; `customer_time_zone`: the attribute
    (a string) with the customer's own, by which quiet hours go where it is known. `retention`: how long the
    ledger is kept at least; no limit can look further back. `erase_after`: how long it is kept at most.
    """

    name: str = ""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    time_zone: ZoneName = "UTC"
    customer_time_zone: Name | None = None
    retention: DurationText = "730d"
    erase_after: EraseAfter = EraseAfter()
    governance: Governance = Governance()
    attributes: Annotated[tuple[Attribute, ...], Field(strict=False)] = ()
    scores: Annotated[tuple[Score, ...], Field(strict=False)] = ()
    context: Annotated[tuple[ContextValue, ...], Field(strict=False)] = ()
    purposes: Annotated[tuple[Purpose, ...], Field(strict=False)] = ()
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    groups: Annotated[tuple[Group, ...], Field(strict=False)] = ()
    channels: Annotated[tuple[Channel, ...], Field(strict=False)] = ()
    placements: Annotated[tuple[Placement, ...], Field(strict=False)] = ()
    features: Annotated[tuple[Feature, ...], Field(strict=False)] = ()
    policies: Annotated[tuple[Policy, ...], Field(strict=False)] = ()
    context_weights: Annotated[tuple[ContextWeight, ...], Field(strict=False)] = ()
    contact_policies: Annotated[tuple[ContactPolicy, ...], Field(strict=False, max_length=MOST)] = ()
    control_groups: Annotated[tuple[ControlGroup, ...], Field(strict=False, max_length=MOST)] = ()
    actions: Annotated[tuple[Action, ...], Field(strict=False)] = ()
    fairness: Annotated[tuple[FairnessBound, ...], Field(strict=False, max_length=MOST)] = ()

"""The limiting part of the authoring model: contact policies, quiet hours, budgets, stops, control groups."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from arbitration.calendars import zone
from arbitration.catalog.scalars import DurationText, Id, MomentText, NotNegative, Share, duration

Outcome = Literal["impression", "click", "accepted", "rejected", "converted", "no_response"]
Event = Literal["decision", "impression", "click", "accepted", "rejected", "converted", "no_response"]
Direction = Literal["inbound", "outbound"]
Level = Literal["customer", "direction", "channel", "group", "action", "treatment"]
Period = Literal["day", "week", "month", "quarter", "year"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Behaviour = Literal["no_action", "random_eligible", "propensity_only", "no_levers", "random_propensity"]

QUIET_HOURS = "quiet_hours"
"""What an action that keeps no quiet hours lists in `exempt`."""
MOST = 100
"""Contact policies, and control groups, in a catalog."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _zone_name(text: str) -> str:
    zone(text)
    return text


def _clock_time(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text) and text != "24:00":
        raise ValueError("a time of day is written 08:30")
    return text


ZoneName = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone_name)]
ClockTime = Annotated[str, AfterValidator(_clock_time)]


class Selection(_Part):
    """Some arms: those of all kinds that are named; a kind that is not named leaves all."""

    directions: Annotated[tuple[Direction, ...], Field(strict=False, min_length=1)] | None = None
    channels: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    groups: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    actions: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None


class ContactPolicy(_Part):
    """At most so many contacts with a customer in a time.

    What is counted: decisions with an event `on` (made at all, or answered so), each decision once, by
    `per`: all of a customer's together, or those on one direction or channel, of one group, action or
    treatment. Where `at_most` are counted `within` a sliding window, or in `each` calendar period (of
    `time_zone`; default: the catalog's), the arms that would add to them are held back until it is over, or
    for `rest` after the last of them. `gap`: held back so long after each. `unless`: this event starts the
    count anew. `of` narrows what is counted, and `holds` what is held back (default: the same).
    """

    id: Id
    on: Event = "decision"
    per: Level = "customer"
    of: Selection = Selection()
    holds: Selection | None = None
    at_most: Annotated[int, Field(ge=1, le=1000)] | None = None
    within: DurationText | None = None
    each: Period | None = None
    time_zone: ZoneName | None = None
    rest: DurationText | None = None
    gap: DurationText | None = None
    unless: Outcome | None = None
    description: str = ""

    @model_validator(mode="after")
    def _is_one_limit(self) -> ContactPolicy:
        for text in (self.within, self.gap, self.rest):
            if text is not None and not duration(text):
                raise ValueError("no time at all limits nothing")
        if sum(kind is not None for kind in (self.within, self.each, self.gap)) != 1:
            raise ValueError("give one of within, each and gap")
        if (self.at_most is None) != (self.gap is not None):
            raise ValueError("at_most goes with within and each, and not with gap")
        if self.rest is not None and self.within is None:
            raise ValueError("rest goes with within")
        if self.time_zone is not None and self.each is None:
            raise ValueError("time_zone goes with each")
        if self.unless == self.on:
            raise ValueError("the event that starts the count anew cannot be the one that is counted")
        if self.per != "customer" and self.holds is not None:
            raise ValueError("holds goes with per: customer, else what is counted is held back")
        return self


class QuietHours(_Part):
    """Hours of the customer's day in which nothing goes out: `from` until `to`, into the next day where that
    is earlier, on the `days` on which they begin. Without times: whole days."""

    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] | None = None
    from_: Annotated[ClockTime, Field(alias="from")] = "00:00"
    to: ClockTime = "24:00"

    @model_validator(mode="after")
    def _has_an_end(self) -> QuietHours:
        if self.from_ in (self.to, "24:00"):
            raise ValueError("quiet hours end at another time than they begin, and begin before 24:00")
        return self


class Budget(_Part):
    """How often an action may be proposed to anybody: `total` times or, in the catalog's currency, for
    `money` of its treatments' cost; ever, or in `each` calendar period of `time_zone` (default: the
    catalog's)."""

    total: Annotated[int, Field(ge=0, le=10**12)] | None = None
    money: NotNegative | None = None
    each: Period | None = None
    time_zone: ZoneName | None = None

    @model_validator(mode="after")
    def _is_one_limit(self) -> Budget:
        if (self.total is None) == (self.money is None):
            raise ValueError("give either total or money")
        if self.time_zone is not None and self.each is None:
            raise ValueError("time_zone goes with each")
        return self


def one_or_several(written: object) -> str:
    """Which form was written, so that faults are found in that form alone."""
    return "several" if isinstance(written, list | tuple) else "one"


class Stop(_Part):
    """After one of the outcomes `on`, the action, its whole group, or each of a list of actions rests, on
    every channel.

    `for`: how long; without it, for good.
    """

    on: Annotated[tuple[Outcome, ...], Field(strict=False, min_length=1)]
    scope: Annotated[
        Annotated[Literal["action", "group"], Tag("one")]
        | Annotated[tuple[Id, ...], Field(strict=False, min_length=1, max_length=100), Tag("several")],
        Discriminator(one_or_several),
    ] = "action"
    for_: Annotated[DurationText | None, Field(alias="for")] = None


class Validity(_Part):
    """From (inclusive) to; a bare date as `to` includes that day."""

    from_: Annotated[MomentText | None, Field(alias="from")] = None
    to: MomentText | None = None


class ControlGroup(_Part):
    """A `share` of customers for whom a part of the machine is off, to measure what it brings.

    Who is in it follows from a hash of `salt` (default: the id) and the customer, and is recorded at the
    first exposure within `valid`. It covers the arms of `groups` and `actions` (default: all).
    `no_action`: they are not shown. `random_eligible`: among them each is as likely. `propensity_only`:
    among them only the propensity counts. `no_levers`: their levers count as 1. `random_propensity`: their
    propensities are random numbers.
    """

    id: Id
    share: Share
    behaviour: Behaviour
    salt: Annotated[str, StringConstraints(max_length=100)] | None = None
    valid: Validity = Validity()
    groups: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    actions: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    description: str = ""

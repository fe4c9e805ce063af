"""The messages of the fairness report."""

from __future__ import annotations

from typing import Literal

from arbitration.catalog.fairness import Measure, Unreported
from decision.messages import Reply


class FairnessLevel(Reply):
    """The customers with one value, or in one band, of a sensitive attribute; `level` is null where it was
    not known. `pooled`: the levels that were put together: those with fewer than `fewest_customers`, and
    as many of the next smallest as make it so many. `customers` is null where they are too few even so."""

    level: str | None
    pooled: list[str | None] | None
    customers: int | None


class FairnessFigure(Reply):
    """What a level was shown, or accepted: `taken` of `chances`. `ratio`: its `rate` over that of the
    reference, with an interval of the report's confidence for itself; `high` is null where it has no bound.
    `stands_out`: it differs from 1 by more than chance explains, all ratios of the report considered
    together. `reason`: why there is no figure, or no ratio; `withheld`: with it, that of too few customers
    could be worked out."""

    level: str | None
    pooled: bool
    customers: int | None
    chances: float | None
    taken: float | None
    rate: float | None
    ratio: float | None
    low: float | None
    high: float | None
    stands_out: bool
    reason: Literal["too_few_customers", "withheld", "reference", "no_reference", "nothing_taken"] | None


class FairnessLine(Reply):
    """`exposure`: of the decisions on channels where it can be shown, those that showed the action, any of
    the group, or anything (`overall`, `name` is null). `acceptance`: of the items shown whose outcome is
    known, those with the outcome that their channel rewards highest."""

    by: Literal["overall", "group", "action"]
    name: str | None
    measure: Measure
    levels: list[FairnessFigure]


class FairnessAttribute(Reply):
    """A sensitive attribute. `unreported`: why there are no levels. `reference`: the largest known level,
    which the others are compared with. `rules`, `features`: those of the live catalog that use it, or what
    is worked out from it."""

    attribute: str
    unreported: Unreported | None
    rules: list[str]
    features: list[str]
    reference: str | None
    levels: list[FairnessLevel]
    lines: list[FairnessLine]


class FairnessReply(Reply):
    """Exposure and acceptance by sensitive attributes, as these were recorded with each decision. `ratios`:
    how many there are."""

    as_of: str
    since: str | None
    until: str | None
    channel: str | None
    confidence: float
    fewest_customers: int
    ratios: int
    attributes: list[FairnessAttribute]

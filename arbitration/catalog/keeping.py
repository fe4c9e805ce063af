"""The keeping part of the authoring model: after how long what is kept of customers is erased."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from arbitration.catalog.problems import Problem
from arbitration.catalog.scalars import DurationText, duration

if TYPE_CHECKING:
    from arbitration.catalog.references import Checker


class EraseAfter(BaseModel):
    """How long each kind of data is kept; what is not named is kept for good.

    `profiles`: customers of whom nothing was told, for whom nothing was decided and from whom nothing was
    received for so long are erased, as if they had asked for it. `decisions`: goes by whole months, with all
    that belongs to them. `snapshots`: of what was learned; a decision that was made with one cannot be made
    again without it. The live ones and the pinned stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    profiles: DurationText | None = None
    decisions: DurationText | None = None
    snapshots: DurationText | None = None


def keeping_problems(checker: Checker) -> Iterator[Problem]:
    """What contradicts `retention`, which is how long limits may count on the ledger."""
    kept = checker.catalog.retention
    for name, after in checker.catalog.erase_after:
        if after is not None and duration(after) < duration(kept):
            message = f"is shorter than the ledger is kept ({kept}, `retention`)"
            yield checker.source.problem("within_retention", ("erase_after", name), message)

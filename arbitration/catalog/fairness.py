"""The fairness part of the authoring model: bounds, and the bands of sensitive attributes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arbitration.catalog.scalars import Id, Name, moment

if TYPE_CHECKING:
    from arbitration.catalog.model import Attribute

Measure = Literal["exposure", "acceptance"]
Edges = tuple[float, ...] | tuple[str, ...]
_MOST_EDGES = 20


class FairnessBound(BaseModel):
    """No level of a sensitive attribute may have less than `min_ratio` of the rate of the level with the
    highest: of `exposure` (how many of their decisions show it) or of `acceptance` (how many of the items
    shown are accepted); of one action, of one group, or of anything at all.

    0.8 is the four-fifths rule of the US Uniform Guidelines on Employee Selection Procedures, 29 CFR
    1607.4(D).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Id
    attribute: Name
    measure: Measure
    min_ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.8
    action: Id | None = None
    group: Id | None = None

    @model_validator(mode="after")
    def _of_one(self) -> FairnessBound:
        if self.action is not None and self.group is not None:
            raise ValueError("give either action or group")
        return self


def bands_fault(type: str, bands: Edges) -> str | None:
    """Why `bands` do not fit an attribute of a type, or None: ascending numbers, or times."""
    if type not in ("int", "double", "timestamp"):
        return "bands are for numbers and timestamps"
    times = [each for each in bands if isinstance(each, str)]
    if bool(times) != (type == "timestamp"):
        return "bands are times for a timestamp, and numbers for a number"
    if len(bands) > _MOST_EDGES:
        return f"at most {_MOST_EDGES} edges"
    try:
        edges = edges_of(bands)
    except ValueError as error:
        return f"bands: {error}"
    if any(a >= b for a, b in pairwise(edges)):
        return "bands must ascend"
    return None


def edges_of(bands: Edges) -> tuple[float, ...]:
    """The edges as numbers; times as epoch seconds. ValueError for what is no time."""
    return tuple(moment(each).timestamp() if isinstance(each, str) else each for each in bands)


Unreported = Literal["no_values", "no_bands", "a_list"]


def unreported(attribute: Attribute) -> Unreported | None:
    """Why a sensitive attribute has no levels to compare, or None. A list of strings is none of several
    levels; other strings need `values`, numbers and times `bands`."""
    match attribute.type:
        case "strings":
            return "a_list"
        case "string" if attribute.values is None:
            return "no_values"
        case "int" | "double" | "timestamp" if attribute.bands is None:
            return "no_bands"
    return None

"""The governing part of the authoring model: how the catalog itself may be changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Governance(BaseModel):
    """`four_eyes`: nobody can publish a catalog in this one's place that another than its author has not
    approved."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    four_eyes: bool = False

"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from decision.access.scopes import SCOPES

if TYPE_CHECKING:
    from decision.access.keys import Key
    from decision.access.visitors import Visitor


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller that is known. `name`: as the audit trail has it; `key`: where it came with one; `visitor`:
    for whom alone it speaks, where it is a browser."""

    name: str
    scopes: frozenset[str]
    key: Key | None = None
    visitor: Visitor | None = None


LOCAL = Actor("local", frozenset(SCOPES))
"""Whoever calls from this machine while no key was ever made."""
SERVICE = "service"
"""What the service does of itself."""

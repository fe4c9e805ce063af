"""What is left of the ledger of an erased customer. Pure but for chance; shared by all backends."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b

import orjson

from decision.storage.port import ERASED

_NAMED = ("treatment", "action", "group")


def nobody() -> str:
    """A key that stands for one erased customer, and leads to nobody."""
    return ERASED + secrets.token_hex(16)


def shown(reply: bytes) -> bytes:
    """Of a reply, the arms it showed: names of the catalog, which reports and reservations go by."""
    placements = orjson.loads(reply).get("placements", ())
    items = [[{name: item.get(name) for name in _NAMED} for item in each["items"]] for each in placements]
    return orjson.dumps({"placements": [{"items": each} for each in items]})


def renaming() -> Callable[[str, str | None], str | None]:
    """A function of (customer's key, response id) that gives each response another name, always the same: so
    it stays known what corrects what. What it is keyed with is kept by nobody."""
    salt = secrets.token_bytes(32)

    def renamed(key: str, response_id: str | None) -> str | None:
        if response_id is None:
            return None
        return blake2b(repr((key, response_id)).encode(), key=salt, digest_size=16).hexdigest()

    return renamed

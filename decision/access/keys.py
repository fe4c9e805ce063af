"""API keys: made from 256 random bits, shown once, kept as a hash.

A key says its id, so it is found by one look-up, and then compared. Its secret is far too long to be guessed,
so one SHA-256 is enough to keep it by; slow hashes are for what people choose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_args

from arbitration.catalog.limits import Outcome
from arbitration.facts import rfc3339
from decision.access.scopes import SCOPES, Scope
from decision.errors import FieldError, Rejected
from decision.storage.port import Entry, Event, Json

SECRET, PUBLISHABLE = "nba_", "nbapub_"
"""What a key begins with, so that it is recognised where it should not be."""
# As a browser writes it: a host in ASCII, a port where it is not the usual one. http is for this machine.
_ORIGIN = re.compile(
    r"(https://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|http://(localhost|127\.0\.0\.1))"
    r"(:[1-9][0-9]{0,4})?"
)
_ID_BYTES, _SECRET_BYTES = 5, 32


@dataclass(frozen=True, slots=True)
class Publishable:
    """What makes a key fit to be seen: it works in browsers on `origins`, for the visitor that a token says
    which is signed with the other half of `verifying` (PEM), decides on `channels`, and reports
    `outcomes`."""

    origins: frozenset[str]
    channels: frozenset[str]
    verifying: str
    outcomes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its secret. `limit`: so many requests a minute; None: as many as it likes. `first`: the
    id of the key that it was rotated from, in the end: whoever holds one after the other stays the same to
    all that asks for two people."""

    id: str
    name: str
    scopes: frozenset[str]
    hash: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    limit: int | None = None
    publishable: Publishable | None = None
    first: str = ""

    def refusal(self, now: datetime) -> str | None:
        """Why it does not work now: `revoked` or `expired`; None where it does."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else None


class Made(NamedTuple):
    """A new key: the one time its secret is there, and the event that brings it into force."""

    id: str
    token: str
    event: Event


class Keys:
    """All keys there ever were: what follows from the audit trail."""

    def __init__(self) -> None:
        self._by_id: dict[str, Key] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, id: str) -> Key | None:
        """The key with an id, whatever became of it."""
        return self._by_id.get(id)

    def found(self, token: str) -> Key | None:
        """The key that a token is the secret of, whatever became of it; None where there is none."""
        id, _, _ = token.removeprefix(SECRET).removeprefix(PUBLISHABLE).partition("_")
        key = self._by_id.get(id)
        same = hmac.compare_digest(hashed(token), "" if key is None else key.hash)
        return key if same else None

    def origins(self, now: datetime) -> frozenset[str]:
        """From where browsers may call."""
        open_ = [each.publishable.origins for each in self if each.publishable and not each.refusal(now)]
        return frozenset[str]().union(*open_)

    def apply(self, entry: Entry) -> None:
        """Follows the audit trail."""
        kind, id, detail = entry.event.kind, entry.event.subject.removeprefix("key:"), entry.event.detail
        if kind == "key.create":
            self._by_id[id] = _key(id, entry, detail)
        elif kind == "key.revoke":
            self._by_id[id] = replace(self._by_id[id], revoked_at=entry.at)
        elif kind == "key.expire":
            at = datetime.fromisoformat(str(detail["at"]))
            self._by_id[id] = replace(self._by_id[id], expires_at=at)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to be made."""

    name: str
    scopes: Collection[Scope]
    expires_at: datetime | None = None
    limit: int | None = None
    publishable: Publishable | None = None
    first: str | None = None


def make(wanted: Wanted, actor: str) -> Made:
    """A new key. Raises Rejected where nothing of the kind can be made."""
    unknown = sorted(set(wanted.scopes) - set(SCOPES))
    if unknown or not wanted.scopes:
        raise _refused("scopes", f"there are {', '.join(SCOPES)}, and not {', '.join(unknown) or 'none'}")
    if wanted.limit is not None and not 1 <= wanted.limit <= 1_000_000:
        raise _refused("limit", "a limit is from 1 to 1,000,000 requests a minute")
    if wanted.publishable is not None and set(wanted.scopes) - {"decide", "respond"}:
        raise _refused("scopes", "a publishable key may only decide and respond")
    id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()
    prefix = SECRET if wanted.publishable is None else PUBLISHABLE
    token = f"{prefix}{id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return Made(id, token, Event("key.create", actor, f"key:{id}", _detail(wanted, token), state=True))


def publishable(
    origins: Iterable[str], channels: Iterable[str], verifying: str, outcomes: Iterable[str]
) -> Publishable:
    """What makes a key publishable. Raises Rejected where an origin is none, or the PEM is no key."""
    from decision.access.visitors import public_key

    for origin in origins:
        if _ORIGIN.fullmatch(origin) is None or origin.endswith((":443", ":80")):
            raise _refused("origin", f"{origin} is no origin: https://www.example.com is one")
    try:
        public_key(verifying)
    except ValueError as error:
        raise _refused("verify_with", f"it {error}") from error
    if unknown := sorted(set(outcomes) - set(get_args(Outcome))):
        raise _refused("outcome", f"there are {', '.join(get_args(Outcome))}, and not {', '.join(unknown)}")
    if not channels:
        raise _refused("channel", "a publishable key is for channels, which are to be named")
    return Publishable(frozenset(origins), frozenset(channels), verifying, frozenset(outcomes))


def revoked(keys: Keys, id: str, actor: str) -> Sequence[Event]:
    """Has a key not work any more. Raises Rejected where there is none; nothing where it is so already."""
    if (key := keys.get(id)) is None:
        raise _unknown(id)
    return [] if key.revoked_at is not None else [Event("key.revoke", actor, f"key:{id}", state=True)]


def rotated(
    keys: Keys, id: str, actor: str, now: datetime, overlap: timedelta
) -> tuple[Made, Sequence[Event]]:
    """A new key like one there is, which still works for a while. Raises Rejected where that one does not."""
    key = keys.get(id)
    if key is None:
        raise _unknown(id)
    if (refusal := key.refusal(now)) is not None:
        raise _refused("id", f"the key {id} is {refusal}")
    lasted = None if key.expires_at is None else now + (key.expires_at - key.created_at)
    wanted = Wanted(key.name, _scopes(key.scopes), lasted, key.limit, key.publishable, key.first)
    new = make(wanted, actor)
    until = min(now + overlap, key.expires_at or now + overlap)
    ends = Event("key.expire", actor, f"key:{id}", {"at": rfc3339(until), "rotated_to": new.id}, state=True)
    return new, [new.event, ends]


def hashed(token: str) -> str:
    """What a key is kept by."""
    return hashlib.sha256(token.encode()).hexdigest()


def _scopes(given: Collection[str]) -> list[Scope]:
    return [scope for scope in SCOPES if scope in given]


def _detail(wanted: Wanted, token: str) -> dict[str, Json]:
    detail: dict[str, Json] = {
        "name": wanted.name,
        "scopes": [*_scopes(wanted.scopes)],
        "hash": hashed(token),
    }
    if wanted.expires_at is not None:
        detail["expires_at"] = rfc3339(wanted.expires_at)
    if wanted.limit is not None:
        detail["limit"] = wanted.limit
    if wanted.first is not None:
        detail["first"] = wanted.first
    if (shown := wanted.publishable) is not None:
        detail["publishable"] = {
            "origins": [*sorted(shown.origins)],
            "channels": [*sorted(shown.channels)],
            "verifying": shown.verifying,
            "outcomes": [*sorted(shown.outcomes)],
        }
    return detail


def _key(id: str, entry: Entry, detail: Mapping[str, Any]) -> Key:
    shown, expires = detail.get("publishable"), detail.get("expires_at")
    return Key(
        id,
        detail["name"],
        frozenset(detail["scopes"]),
        detail["hash"],
        entry.at,
        entry.event.actor,
        None if expires is None else datetime.fromisoformat(expires),
        limit=detail.get("limit"),
        publishable=None
        if shown is None
        else Publishable(
            frozenset(shown["origins"]),
            frozenset(shown["channels"]),
            shown["verifying"],
            frozenset(shown["outcomes"]),
        ),
        first=detail.get("first", id),
    )


def _unknown(id: str) -> Rejected:
    return Rejected(
        404, "unknown_key", "There is no such key.", [FieldError("id", "unknown_key", f"no {id}")]
    )


def _refused(field: str, message: str) -> Rejected:
    return Rejected(
        422, "invalid_key", f"No such key can be made: {message}.", [FieldError(field, "key", message)]
    )

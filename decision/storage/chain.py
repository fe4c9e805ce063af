"""How the entries of the audit trail are chained: each carries a hash over itself and the one before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from decision.errors import StoreUnavailable
from decision.storage import rows
from decision.storage.port import Entry, Event

BEGIN = "0" * 64
"""What stands for the hash before the first entry."""


class Link(NamedTuple):
    """An entry as it is stored. The texts are bytes: what was tampered with need not be text any more."""

    seq: int
    at: int
    kind: bytes
    actor: bytes
    subject: bytes
    detail: bytes
    state: bool
    hash: bytes


def linked(event: Event, seq: int, at: int, before: str) -> Link:
    """The link that an event becomes after the one with the hash `before`."""
    link = Link(
        seq,
        at,
        event.kind.encode(),
        event.actor.encode(),
        event.subject.encode(),
        orjson.dumps(event.detail, option=orjson.OPT_SORT_KEYS),
        event.state,
        b"",
    )
    return link._replace(hash=hashed(link, before.encode()))


def hashed(link: Link, before: bytes) -> bytes:
    """SHA-256, in hexadecimal, over the hash before and every column, each with its length ahead of it: so no
    two different entries are hashed over the same bytes."""
    digest = hashlib.sha256()
    columns = (
        before, b"%d" % link.seq, b"%d" % link.at, link.kind, link.actor, link.subject, link.detail,
        b"%d" % link.state,
    )  # fmt: skip
    for column in columns:
        digest.update(b"%d:" % len(column))
        digest.update(column)
    return digest.hexdigest().encode()


def entry(link: Link) -> Entry:
    """A link, read. Raises ValueError where it was tampered with so that it cannot be."""
    event = Event(
        link.kind.decode(),
        link.actor.decode(),
        link.subject.decode(),
        orjson.loads(link.detail),
        bool(link.state),
    )
    return Entry(link.seq, rows.moment(link.at), event, link.hash.decode())


def readable(link: Link) -> Entry:
    """As `entry`. Raises StoreUnavailable: who rests on the trail must not go on without a part of it."""
    try:
        return entry(link)
    except ValueError as error:
        message = f"entry {link.seq} of the audit trail cannot be read: run `decision audit verify`"
        raise StoreUnavailable(message) from error


class Walk:
    """Goes along the chain and says what is wrong first.

    `since`: the entry to begin with; where that is not the first, the one before it is taken as it is.
    `anchors`: entries, by number, and the hashes they must have: the head, as it was at the beginning, and
    what was noted elsewhere.
    """

    def __init__(self, since: int, *anchors: tuple[int, str]) -> None:
        self.next = max(since - 1, 1)
        self.least = -(2**62) if since <= 1 else self.next  # below the first there must be none
        self.fault: str | None = None
        self._anchors = dict(anchors)
        self._before: bytes | None = BEGIN.encode() if since <= 1 else None

    def take(self, links: Sequence[Link]) -> None:
        """Takes the next entries."""
        for link in links:
            if link.seq != self.next:
                self.fault = f"entry {self.next} is missing: {link.seq} comes in its place"
            elif self._before is not None and hashed(link, self._before) != link.hash:
                self.fault = f"entry {link.seq} was changed, or what is before it"
            elif self._anchors.get(link.seq, "").encode() not in (b"", link.hash):
                self.fault = f"entry {link.seq} is another than was noted"
            if self.fault is not None:
                return
            self._before, self.next = link.hash, link.seq + 1
            self.least = self.next

    def end(self, head: tuple[int, str]) -> str | None:
        """What is wrong, after the last entry; `head`: as it is now, when others may have come."""
        last, hash = self.next - 1, (self._before or BEGIN.encode()).decode()
        if self.fault is None and (missing := max(self._anchors, default=0)) > last:
            self.fault = f"the chain ends at entry {last}, and not at {missing} as it did"
        if self.fault is None and (head[0] < last or (head[0] == last and head[1] != hash)):
            self.fault = f"entry {last} was put at the end"
        return self.fault

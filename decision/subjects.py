"""Whom a request is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from decision.storage.port import PSEUDONYM, Identity, Names, Situation, pseudonym


@dataclass(slots=True)  # not frozen: see `decision.deciding`
class Subject:
    """A customer, or somebody known by an identity that leads to no customer.

    `keys`: what the ledger knows this subject by, the one to record it by first: the customer's id, the
    ids that were merged into it, and the pseudonyms it was recorded under while it was a stranger.
    `once`: where a stranger comes by an identity that once was a customer's, all names of that customer: it
    is recorded among theirs, so limits count them together. `asked_as`: the key for the name the request
    used. `identities`: by type.
    """

    customer_id: str | None
    keys: tuple[str, ...]
    asked_as: str
    identities: Mapping[str, str] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    once: tuple[str, ...] = ()

    @property
    def limited_as(self) -> tuple[str, ...]:
        """The keys that limits are counted under."""
        return self.once or self.keys

    @property
    def ids(self) -> tuple[str, ...]:
        """The customer's ids, the one it was asked for by first; a stranger has none."""
        ids = (key for key in self.keys if not key.startswith(PSEUDONYM))
        return tuple(sorted(ids, key=lambda id: id != self.asked_as))


def subject_of(who: str | Identity, found: Situation | None) -> Subject:
    """Whom a request is about, by what the store has of them (None: there was no time to find out). An
    unknown identity is nobody we know, and no error."""
    if isinstance(who, Identity):
        if found is None:
            return _stranger(who, "store:timeout")
        if found.stranger:
            return replace(_stranger(who, "identity:not_found"), once=found.names.keys)
        return known(found.names, found.names.customer_id, who)
    if found is None:
        return Subject(who, (who,), who, degraded=("store:timeout",))
    return known(found.names, who)


def known(names: Names, asked_for: str | None = None, identity: Identity | None = None) -> Subject:
    """The subject that a customer is. `asked_for`: the id that was asked for (default: the customer's own);
    `identity`: the one that led to it, if one did."""
    by_type = {each.type: each.value for each in reversed(names.identities)}
    asked_as = asked_for or names.customer_id
    if identity is not None:
        by_type[identity.type] = identity.value
        asked_as = pseudonym(identity)
    return Subject(names.customer_id, names.keys, asked_as, by_type)


def _stranger(identity: Identity, degraded: str) -> Subject:
    key = pseudonym(identity)
    return Subject(None, (key,), key, {identity.type: identity.value}, (degraded,))

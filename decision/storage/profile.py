"""A stored profile with the times its values were told: how a change and another profile go into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from decision.storage.port import Change, Customer, Identity

SECTIONS = ("attributes", "scores", "consents")


@dataclass(frozen=True, slots=True)
class Profile:
    """`told`: by name (`attributes.nps`), microseconds since 1970; None: told before times were kept."""

    customer: Customer
    told: Mapping[str, int | None]


def names_in(customer: Customer) -> list[str]:
    """The name of each value: `attributes.nps`."""
    return [f"{section}.{key}" for section in SECTIONS for key in getattr(customer, section)]


def patched(profile: Profile, change: Change, at: int) -> Profile:
    """The profile after a change told `at`. Its identities come sorted."""
    stored, given = profile.customer, change.customer
    sections: dict[str, dict[str, Any]] = {name: dict(getattr(stored, name)) for name in SECTIONS}
    for section, key in change.remove:
        sections[section].pop(key, None)
    for section, values in sections.items():
        values.update(getattr(given, section))
    identities = sorted({*stored.identities, *given.identities}, key=lambda each: (each.type, each.value))
    result = _customer(stored.customer_id, sections, tuple(identities))
    told = {**profile.told, **dict.fromkeys(names_in(given), at)}
    return Profile(result, {name: told[name] for name in names_in(result)})


def retold(profile: Profile, given: Customer, at: int) -> Profile:
    """The profile after one of several systems told `at` all it knows: what it leaves out is not gone, and
    what another has withdrawn stays `withdrawn`."""
    stored = profile.customer.consents
    consents = {
        purpose: answer
        for purpose, answer in given.consents.items()
        if stored.get(purpose) != "withdrawn" or answer == "withdrawn"
    }
    return patched(profile, Change(replace(given, consents=consents)), at)


def joined(ours: Profile, theirs: Profile) -> Profile:
    """Both in one, under our id. Identities are left out: they are moved, not joined."""
    told: dict[str, int | None] = {}
    sections: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        mine, other = getattr(ours.customer, section), getattr(theirs.customer, section)
        sections[section] = {}
        for key in (*mine, *(key for key in other if key not in mine)):
            name = f"{section}.{key}"
            source = theirs if _theirs_wins(ours, theirs, section, key) else ours
            sections[section][key] = getattr(source.customer, section)[key]
            told[name] = source.told[name]
    return Profile(_customer(ours.customer.customer_id, sections), told)


def _theirs_wins(ours: Profile, theirs: Profile, section: str, key: str) -> bool:
    mine, other = getattr(ours.customer, section), getattr(theirs.customer, section)
    if key not in mine or key not in other:
        return key in other
    if section == "consents" and (mine[key] == "withdrawn") != (other[key] == "withdrawn"):
        return bool(other[key] == "withdrawn")
    name = f"{section}.{key}"
    when, theirs_when = ours.told[name], theirs.told[name]
    return theirs_when is not None and (when is None or theirs_when > when)


def _customer(
    customer_id: str, sections: Mapping[str, dict[str, Any]], identities: tuple[Identity, ...] = ()
) -> Customer:
    attributes, scores, consents = (sections[name] for name in SECTIONS)
    return Customer(customer_id, attributes, scores, consents, identities)

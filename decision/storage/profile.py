"""A stored profile with the times its values were told: how a change and another profile go into it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from arbitration.contact import micros, moment
from decision.storage.port import Change, ConsentDetail, Customer, Identity

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
    """The profile after a change told `at`; consents older than its own stay out. Identities come sorted."""
    stored, given = profile.customer, _not_outdated(profile, change.customer, at)
    sections: dict[str, dict[str, Any]] = {name: dict(getattr(stored, name)) for name in SECTIONS}
    for section, key in change.remove:
        sections[section].pop(key, None)
    details = _details(stored, sections["consents"].keys() - given.consents.keys())
    for section, values in sections.items():
        values.update(getattr(given, section))
    identities = sorted({*stored.identities, *given.identities}, key=lambda each: (each.type, each.value))
    restricted = stored.restricted if given.restricted is None else given.restricted
    result = _customer(
        stored.customer_id, sections, {**details, **given.consent_details}, tuple(identities), restricted
    )
    told = {**profile.told, **dict.fromkeys(names_in(given), at)}
    return Profile(result, {name: told[name] for name in names_in(result)})


def replaced(profile: Profile, given: Customer, at: int) -> Profile:
    """`given`, told `at`, in place of the profile, but for consents older than its own."""
    stored = profile.customer
    bare = Customer(stored.customer_id, consents=stored.consents, consent_details=stored.consent_details)
    return patched(Profile(_only(bare, given.consents), profile.told), Change(given), at)


def retold(profile: Profile, given: Customer, at: int) -> Profile:
    """The profile after one of several systems told `at` all it knows: what it leaves out is not gone, and
    what another has withdrawn stays `withdrawn`."""
    stored = profile.customer.consents
    kept = [
        purpose
        for purpose, answer in given.consents.items()
        if stored.get(purpose) != "withdrawn" or answer == "withdrawn"
    ]
    return patched(profile, Change(_only(given, kept)), at)


def joined(ours: Profile, theirs: Profile) -> Profile:
    """Both in one, under our id; restricted where either is. Identities are left out: they are moved, not
    joined."""
    told: dict[str, int | None] = {}
    details: dict[str, ConsentDetail] = {}
    sections: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        mine, other = getattr(ours.customer, section), getattr(theirs.customer, section)
        sections[section] = {}
        for key in (*mine, *(key for key in other if key not in mine)):
            name = f"{section}.{key}"
            source = theirs if _theirs_wins(ours, theirs, section, key) else ours
            sections[section][key] = getattr(source.customer, section)[key]
            told[name] = source.told[name]
            if section == "consents":
                details |= _details(source.customer, (key,))
    restricted = ours.customer.restricted or theirs.customer.restricted
    return Profile(_customer(ours.customer.customer_id, sections, details, (), restricted), told)


def _theirs_wins(ours: Profile, theirs: Profile, section: str, key: str) -> bool:
    mine, other = getattr(ours.customer, section), getattr(theirs.customer, section)
    if key not in mine or key not in other:
        return key in other
    if section == "consents" and (mine[key] == "withdrawn") != (other[key] == "withdrawn"):
        return bool(other[key] == "withdrawn")
    when, theirs_when = _when(ours, section, key), _when(theirs, section, key)
    return theirs_when is not None and (when is None or theirs_when > when)


def _when(profile: Profile, section: str, key: str) -> int | None:
    """When a consent was given or withdrawn; else, and of other values, when it was told."""
    detail = profile.customer.consent_details.get(key) if section == "consents" else None
    return profile.told[f"{section}.{key}"] if detail is None or detail.at is None else micros(detail.at)


def _not_outdated(profile: Profile, given: Customer, at: int) -> Customer:
    """`given` without the consents that are older than those of the profile, none of them later than `at`."""
    if not given.consent_details:
        return given
    details = {
        purpose: detail if detail.at is None else replace(detail, at=min(detail.at, moment(at)))
        for purpose, detail in given.consent_details.items()
    }
    given = replace(given, consent_details=details)
    return _only(given, [purpose for purpose in given.consents if not _outdated(profile, given, purpose)])


def _outdated(profile: Profile, given: Customer, purpose: str) -> bool:
    own = given.consent_details.get(purpose, ConsentDetail()).at
    if own is None or purpose not in profile.customer.consents:
        return False
    recorded = _when(profile, "consents", purpose)
    undoes = profile.customer.consents[purpose] == "withdrawn" and given.consents[purpose] != "withdrawn"
    return recorded is not None and (micros(own) < recorded or (micros(own) == recorded and undoes))


def _only(customer: Customer, purposes: Collection[str]) -> Customer:
    consents = {purpose: answer for purpose, answer in customer.consents.items() if purpose in purposes}
    return replace(customer, consents=consents, consent_details=_details(customer, purposes))


def _details(customer: Customer, purposes: Collection[str]) -> dict[str, ConsentDetail]:
    return {purpose: detail for purpose, detail in customer.consent_details.items() if purpose in purposes}


def _customer(
    customer_id: str,
    sections: Mapping[str, dict[str, Any]],
    details: Mapping[str, ConsentDetail],
    identities: tuple[Identity, ...] = (),
    restricted: bool | None = None,
) -> Customer:
    attributes, scores, consents = (sections[name] for name in SECTIONS)
    return Customer(customer_id, attributes, scores, consents, identities, details, restricted)

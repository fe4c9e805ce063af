"""What a request asks for, checked against the catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import orjson

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.model import Placement
from arbitration.facts import Value
from decision.errors import FieldError, Rejected
from decision.messages import DecisionRequest, PlacementRequest
from decision.profiles import given_facts


@dataclass(slots=True)  # not frozen: see `decision.deciding`
class Request:
    """What a request asks for, once it fits the catalog: the channels to choose from, (placement, how many
    items at most), and the facts it states itself."""

    channels: tuple[str, ...]
    placements: tuple[tuple[str, int], ...]
    given: dict[str, Value]

    @property
    def placement_ids(self) -> list[str]:
        """The placements, in the order in which they are filled."""
        return [id for id, _ in self.placements]


def fit(request: DecisionRequest, catalog: CompiledCatalog) -> Request:
    """The request, if it fits the catalog. Raises Rejected (422) with everything that does not."""
    errors: list[FieldError] = []
    channels = tuple(request.channels or [request.channel or ""])
    for number, channel in enumerate(channels):
        if channel not in catalog.channels:
            field = "channel" if request.channels is None else f"channels[{number}]"
            known = ", ".join(catalog.channels)
            errors.append(FieldError(field, "unknown_channel", f"there are the channels {known}"))
    if errors:
        raise _invalid(errors)
    wanted = request.placements
    if wanted is None:
        wanted = [PlacementRequest(id=placement.id) for placement in _placements(catalog, channels)]
    if not wanted:
        field = "channel" if request.channels is None else "channels"
        raise _invalid([FieldError(field, "no_placements", "there is no placement here")])
    placements: list[tuple[str, int]] = []
    policies: set[str] = set()
    for number, asked in enumerate(wanted):
        candidates = catalog.candidates.get(asked.id)
        if candidates is None or candidates.channel.id not in channels:
            named = ", ".join(p.id for p in _placements(catalog, channels))
            message = f"the channel '{', '.join(channels)}' has the placements {named or '(none)'}"
            errors.append(FieldError(f"placements[{number}].id", "unknown_placement", message))
            continue
        slots = candidates.placement.slots
        if asked.limit is not None and asked.limit > slots:
            message = f"the placement '{asked.id}' has {slots} slot(s)"
            errors.append(FieldError(f"placements[{number}].limit", "over_limit", message))
        policies.add(candidates.policy.id)
        placements.append((asked.id, asked.limit or slots))
    if len(channels) > 1 and len(policies) > 1:
        message = f"a channel is chosen by one policy; these placements have {', '.join(sorted(policies))}"
        errors.append(FieldError("placements", "several_policies", message))
    facts = given_facts(catalog, channels, request.context, request.profile, errors)
    if errors:
        raise _invalid(errors)
    return Request(channels, tuple(placements), facts)


def _placements(catalog: CompiledCatalog, channels: Collection[str]) -> list[Placement]:
    return [placement for placement in catalog.model.placements if placement.channel in channels]


def _invalid(errors: Sequence[FieldError]) -> Rejected:
    return Rejected(422, "invalid_request", "The request does not fit the published catalog.", errors)


def content_hash(request: DecisionRequest) -> str:
    """Of what is asked for, to tell a retry from another request under the same id."""
    # Not by which of their names the customer is called: a request id is the customer's anyway.
    content = request.model_dump(exclude={"request_id", "timeout_ms", "customer_id", "identity"})
    if content["channels"] is None:
        del content["channels"]  # it was not there when the first requests were recorded
    spelled = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(spelled, digest_size=16).hexdigest()

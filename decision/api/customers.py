"""Routes for customers: profiles, identities, histories, imports.

An id that was merged names its survivor, whose id is the one in every reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented, field_problem
from decision.errors import FieldError, Rejected
from decision.importing import (
    LONGEST_LINE,
    Importer,
    merging,
    replacing,
    to_change,
    to_customer,
    to_identities,
)
from decision.messages import (
    ConsentReply,
    CustomerKey,
    CustomerMessage,
    CustomerPatch,
    CustomerReply,
    HistoryReply,
    IdentitiesRequest,
    IdentityMessage,
    ImportReply,
    NamesReply,
    OverviewReply,
)
from decision.overview import consent_records
from decision.privacy.erasing import erase
from decision.profiles import profile_errors
from decision.storage.port import Customer, Identity

router = APIRouter(prefix="/v1", tags=["customers"], route_class=StrictRoute)
CustomerId = Annotated[CustomerKey, Path()]
NDJSON = "application/x-ndjson"
_LINES = {"requestBody": {"required": True, "content": {NDJSON: {"schema": {"type": "string"}}}}}


@router.get("/customers/{customer_id}", operation_id="getCustomer", responses=documented(404))
async def get_customer(customer_id: CustomerId, parts: Parts) -> OverviewReply:
    """Everything known of the customer now: the profile as stored, every value with its source and age,
    fetched where that is how it is known, and the last decisions with what came back."""
    found = await parts.overview.of(customer_id)
    if found is None:
        raise _unknown()
    return OverviewReply.model_validate(found)


@router.put("/customers/{customer_id}", operation_id="putCustomer", responses=documented(400, 409, 413, 415))
async def put_customer(customer_id: CustomerId, profile: CustomerMessage, parts: Parts) -> CustomerReply:
    """Replaces the profile whole; the next decision sees it.

    A consent is `given` or `withdrawn`, or an object that also says when and by which way it was. One that is
    older than the recorded one changes nothing.

    Where other customers were merged into this one, nothing is removed, as each of their systems may tell
    only what it knows: values given are set, identities are added, and a consent that is `withdrawn` stays so
    until a PATCH says otherwise. The reply is the profile as it is stored then.
    """
    customer = to_customer(customer_id, profile)
    _check(parts, customer)
    await parts.store.put_customers([customer], parts.clock())
    told = await parts.store.as_of(customer_id)  # before the values: never newer than these
    stored = await parts.store.customer(customer_id)
    return _reply(stored or customer, told)  # None: deleted meanwhile


@router.patch(
    "/customers/{customer_id}", operation_id="patchCustomer", responses=documented(400, 409, 413, 415)
)
async def patch_customer(customer_id: CustomerId, change: CustomerPatch, parts: Parts) -> CustomerReply:
    """Changes what is given; null removes. The next decision sees it. Consents are as for PUT."""
    given = to_change(customer_id, change)
    _check(parts, given.customer)
    [customer] = await parts.store.patch_customers([given], parts.clock())
    return _reply(customer, await parts.store.as_of(customer_id))


@router.delete(
    "/customers/{customer_id}",
    operation_id="deleteCustomer",
    status_code=204,
    response_class=Response,
    responses=documented(404),
)
async def delete_customer(customer_id: CustomerId, parts: Parts) -> Response:
    """Erases the customer: profile, identities, merged ids, stops, consents, and of the history all that
    names anybody or tells of them. What was learned is taken back by the learner; what was recorded to learn
    from is kept until then, and no longer. To do it again changes nothing."""
    await erase(parts.store, customer_id, parts.clock())
    return Response(status_code=204)


@router.post(
    "/customers/{customer_id}/identities", operation_id="addIdentities", responses=documented(400, 413, 415)
)
async def add_identities(customer_id: CustomerId, proof: IdentitiesRequest, parts: Parts) -> NamesReply:
    """Proves that these identities are this customer's. This cannot be undone.

    Where one belongs to another customer, the two are one: the other is merged into this one. Its identities
    and history follow; of two values the one told later is kept, and a consent withdrawn on either side is
    withdrawn. The other's id names this customer from then on.
    """
    names = await parts.store.merge(customer_id, to_identities(proof.identities), parts.clock())
    return NamesReply(
        customer_id=names.customer_id, merged=list(names.merged), identities=_messages(names.identities)
    )


@router.get("/customers/{customer_id}/history", operation_id="getHistory", responses=documented())
async def history(
    customer_id: CustomerId, parts: Parts, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> HistoryReply:
    """The newest decisions for a customer and what came back for each."""
    return HistoryReply.model_validate(await parts.overview.history(customer_id, limit))


@router.post(
    "/customers:import",
    operation_id="importCustomers",
    response_model=ImportReply,
    responses=documented(415),
    openapi_extra=_LINES,
)
async def import_customers(request: Request, parts: Parts) -> Response:
    """Imports profiles from a stream of NDJSON, one `{"customer_id": …, …}` a line; each is stored as by PUT.

    Faulty lines are reported and skipped; the others are kept.
    """
    way = replacing(parts.store, parts.clock)
    return await _take(request, Importer(way, parts.live.serving.published.compiled))


@router.post(
    "/customers:push",
    operation_id="pushCustomers",
    response_model=ImportReply,
    responses=documented(415),
    openapi_extra=_LINES,
)
async def push_customers(request: Request, parts: Parts) -> Response:
    """Changes profiles from a stream of NDJSON, one `{"customer_id": …, …}` a line; null removes a key.

    Each line goes into the stored profile as a PATCH would. Faulty lines are reported and skipped; the
    others are kept.
    """
    way = merging(parts.store, parts.clock)
    return await _take(request, Importer(way, parts.live.serving.published.compiled))


async def _take(request: Request, importer: Importer) -> Response:
    declared = request.headers.get("content-type", "").partition(";")[0].strip()
    if declared != NDJSON:
        error = FieldError("Content-Type", "media_type", f"must be {NDJSON}")
        raise Rejected(415, "media_type", "The body must be declared as NDJSON.", [error])
    rest = b""
    async for chunk in request.stream():
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[: LONGEST_LINE + 1]  # enough for the importer to see that it is too long
        for line in lines:
            await importer.line(line)
    await importer.line(rest)
    await importer.finish()
    reply = {
        "imported": importer.imported,
        "rejected": importer.rejected,
        "errors": [
            {"line": line, "errors": [field_problem(error) for error in errors]}
            for line, errors in importer.errors
        ],
    }
    return Response(orjson.dumps(reply), media_type="application/json")


def _messages(identities: tuple[Identity, ...]) -> list[IdentityMessage]:
    return [IdentityMessage(type=name.type, value=name.value) for name in identities]


def _check(parts: Parts, customer: Customer) -> None:
    if errors := profile_errors(parts.live.serving.published.compiled, customer, parts.clock):
        raise Rejected(422, "invalid_profile", "The profile does not fit the published catalog.", errors)


def _reply(customer: Customer, told: Mapping[str, datetime]) -> CustomerReply:
    records = consent_records(customer, told)
    return CustomerReply(
        customer_id=customer.customer_id,
        attributes=dict(customer.attributes),
        scores=dict(customer.scores),
        consents=dict(customer.consents),
        consent_records={purpose: ConsentReply(**each) for purpose, each in records.items()},
        identities=_messages(customer.identities),
        restricted=bool(customer.restricted),
    )


def _unknown() -> Rejected:
    error = FieldError("customer_id", "unknown_customer", "there is no profile under this id")
    return Rejected(404, "unknown_customer", "There is no such customer.", [error])

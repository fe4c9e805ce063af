"""Routes for customers: profiles, histories, imports."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from arbitration.facts import rfc3339
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented, field_problem
from decision.errors import FieldError, Rejected
from decision.importing import LONGEST_LINE, Importer
from decision.messages import (
    CustomerMessage,
    CustomerPatch,
    CustomerReply,
    HistoryReply,
    IdentityMessage,
    ImportReply,
    Key,
)
from decision.profiles import profile_errors
from decision.responding import treatments
from decision.storage.port import Customer, Identity

router = APIRouter(prefix="/v1", tags=["customers"], route_class=StrictRoute)
CustomerId = Annotated[Key, Path()]
NDJSON = "application/x-ndjson"


@router.get("/customers/{customer_id}", operation_id="getCustomer", responses=documented(404))
async def get_customer(customer_id: CustomerId, parts: Parts) -> CustomerReply:
    """The profile as stored."""
    customer = await parts.store.customer(customer_id)
    if customer is None:
        raise _unknown()
    return _reply(customer)


@router.put("/customers/{customer_id}", operation_id="putCustomer", responses=documented(400, 409, 413, 415))
async def put_customer(customer_id: CustomerId, profile: CustomerMessage, parts: Parts) -> CustomerReply:
    """Replaces the profile whole; the next decision sees it."""
    customer = to_customer(customer_id, profile)
    _check(parts, customer)
    await parts.store.put_customers([customer])
    return _reply(customer)


@router.patch(
    "/customers/{customer_id}", operation_id="patchCustomer", responses=documented(400, 409, 413, 415)
)
async def patch_customer(customer_id: CustomerId, change: CustomerPatch, parts: Parts) -> CustomerReply:
    """Changes what is given; null removes. The next decision sees it."""
    sections = {name: getattr(change, name) for name in ("attributes", "scores", "consents")}
    remove = [
        (name, key) for name, values in sections.items() for key, value in values.items() if value is None
    ]
    kept = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in sections.items()
    }
    customer = Customer(customer_id, **kept, identities=_identities(change.identities))
    _check(parts, customer)
    return _reply(await parts.store.patch_customer(customer, remove))


@router.delete(
    "/customers/{customer_id}",
    operation_id="deleteCustomer",
    status_code=204,
    responses=documented(404),
)
async def delete_customer(customer_id: CustomerId, parts: Parts) -> None:
    """Removes the profile, its identities and what rests for the customer. The ledger stays as it is."""
    if not await parts.store.delete_customer(customer_id):
        raise _unknown()


@router.get("/customers/{customer_id}/history", operation_id="getHistory", responses=documented())
async def history(
    customer_id: CustomerId, parts: Parts, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> HistoryReply:
    """The newest decisions for a customer and what came back for each."""
    decisions, responses = await parts.store.history(customer_id, limit)
    answers: dict[str, list[dict[str, Any]]] = {}
    for response in responses:
        answers.setdefault(response.decision_id, []).append(
            {
                "response_id": response.response_id,
                "treatment": response.treatment,
                "outcome": response.outcome,
                "value": response.value,
                "occurred_at": rfc3339(response.occurred_at),
            }
        )
    return HistoryReply.model_validate(
        {
            "customer_id": customer_id,
            "decisions": [
                {
                    "decision_id": decision.decision_id,
                    "decided_at": rfc3339(decision.decided_at),
                    "channel": decision.channel,
                    "mode": decision.mode,
                    "treatments": treatments(decision),
                    "responses": answers.get(decision.decision_id, []),
                }
                for decision in decisions
            ],
        }
    )


@router.post(
    "/customers:import",
    operation_id="importCustomers",
    response_model=ImportReply,
    responses=documented(415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {NDJSON: {"schema": {"type": "string"}}},
        }
    },
)
async def import_customers(request: Request, parts: Parts) -> Response:
    """Imports profiles from a stream of NDJSON, one `{"customer_id": …, …}` a line.

    Faulty lines are reported and skipped; the others are kept.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip()
    if declared != NDJSON:
        error = FieldError("Content-Type", "media_type", f"must be {NDJSON}")
        raise Rejected(415, "media_type", "The body must be declared as NDJSON.", [error])
    importer = Importer(parts.store, parts.live.serving.published.compiled)
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


def to_customer(customer_id: str, profile: CustomerMessage) -> Customer:
    """A profile message as the store's record."""
    return Customer(
        customer_id, profile.attributes, profile.scores, profile.consents, _identities(profile.identities)
    )


def _identities(messages: list[IdentityMessage]) -> tuple[Identity, ...]:
    return tuple(Identity(message.type, message.value) for message in messages)


def _check(parts: Parts, customer: Customer) -> None:
    if errors := profile_errors(parts.live.serving.published.compiled, customer):
        raise Rejected(422, "invalid_profile", "The profile does not fit the published catalog.", errors)


def _reply(customer: Customer) -> CustomerReply:
    return CustomerReply(
        customer_id=customer.customer_id,
        attributes=dict(customer.attributes),
        scores=dict(customer.scores),
        consents=dict(customer.consents),
        identities=[IdentityMessage(type=name.type, value=name.value) for name in customer.identities],
    )


def _unknown() -> Rejected:
    error = FieldError("customer_id", "unknown_customer", "there is no profile under this id")
    return Rejected(404, "unknown_customer", "There is no such customer.", [error])

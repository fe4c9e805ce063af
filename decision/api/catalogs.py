"""Routes for the catalog: read, validate, publish, go back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body

from arbitration.catalog.problems import Source
from arbitration.errors import CatalogError
from arbitration.facts import rfc3339
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import catalog_problem, documented
from decision.errors import FieldError, Rejected
from decision.messages import (
    CatalogReply,
    FieldProblem,
    PublicationReply,
    RollbackRequest,
    ValidationReply,
    VersionsReply,
)
from decision.publishing import check_document

router = APIRouter(prefix="/v1/catalog", tags=["catalog"], route_class=StrictRoute)
Document = Annotated[dict[str, Any], Body(description="The catalog, as one JSON document.")]


@router.get("", operation_id="getCatalog", responses=documented())
async def get_catalog(parts: Parts) -> CatalogReply:
    """The live catalog."""
    catalog = parts.live.serving.published.compiled
    model = catalog.model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return CatalogReply(version=catalog.version, catalog=model)


@router.post("/validate", operation_id="validateCatalog", responses=documented(400, 413, 415))
async def validate(document: Document) -> ValidationReply:
    """Everything that is wrong with a catalog, at once. Publishes nothing."""
    checked = await asyncio.to_thread(check_document, Source(document))
    return ValidationReply(
        valid=checked.published is not None,
        version=None if checked.published is None else checked.published.version,
        problems=[FieldProblem(**catalog_problem(found)) for found in checked.problems],
    )


@router.post("/publish", operation_id="publishCatalog", responses=documented(400, 413, 415))
async def publish(document: Document, parts: Parts) -> PublicationReply:
    """Publishes a catalog: every worker decides with it within two seconds."""
    checked = await asyncio.to_thread(check_document, Source(document))
    if checked.published is None:
        raise CatalogError(checked.problems)
    return await _make_live(parts, checked.published.version, checked.document)


@router.get("/versions", operation_id="listCatalogVersions", responses=documented())
async def versions(parts: Parts) -> VersionsReply:
    """What was published when, newest first. The first is live."""
    publications = await parts.store.publications()
    return VersionsReply(
        versions=[
            PublicationReply(
                version=publication.version,
                published_at=rfc3339(publication.published_at),
                live=number == 0,
            )
            for number, publication in enumerate(publications)
        ]
    )


@router.post("/rollback", operation_id="rollbackCatalog", responses=documented(400, 404, 413, 415))
async def rollback(request: RollbackRequest, parts: Parts) -> PublicationReply:
    """Publishes an earlier version again."""
    document = await parts.store.catalog(request.version)
    if document is None:
        error = FieldError("version", "unknown_catalog_version", "no catalog was published under it")
        raise Rejected(404, "unknown_catalog_version", "There is no such catalog version.", [error])
    await parts.live.published(request.version)  # refuses a version this code cannot serve any more
    return await _make_live(parts, request.version, document)


async def _make_live(parts: Parts, version: str, document: bytes) -> PublicationReply:
    at = parts.clock()
    await parts.store.publish_catalog(version, document, at)
    await parts.live.refresh()
    return PublicationReply(version=version, published_at=rfc3339(at), live=True)

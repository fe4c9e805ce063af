"""Routes for the catalog: read, validate, publish, go back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from arbitration.catalog.problems import Source
from arbitration.errors import CatalogError
from arbitration.facts import rfc3339
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.guard import Caller
from decision.api.problems import catalog_problem, documented
from decision.governance.messages import Text
from decision.messages import (
    CatalogReply,
    FieldProblem,
    PublicationReply,
    RollbackRequest,
    ValidationReply,
    VersionsReply,
)
from decision.publishing import check_document
from decision.storage.port import Publication

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


@router.post("/publish", operation_id="publishCatalog", responses=documented(400, 409, 413, 415))
async def publish(
    document: Document, parts: Parts, caller: Caller, why: Annotated[Text | None, Query()] = None
) -> PublicationReply:
    """Publishes a catalog: every worker decides with it within two seconds. Where the live catalog asks for
    four eyes, only one that another than its authors has approved (`/v1/catalog/changes`)."""
    checked = await asyncio.to_thread(check_document, Source(document))
    if checked.published is None:
        raise CatalogError(checked.problems)
    version = checked.published.version
    at = await parts.governing.publish_directly(caller.name, version, checked.document, {"why": why})
    return _publication(parts, Publication(version, at), live=True)


@router.get("/versions", operation_id="listCatalogVersions", responses=documented())
async def versions(parts: Parts) -> VersionsReply:
    """What was published when, newest first. The first is live."""
    publications = await parts.store.publications()
    await parts.register.refresh()
    return VersionsReply(
        versions=[
            _publication(parts, publication, live=number == 0)
            for number, publication in enumerate(publications)
        ]
    )


@router.post("/rollback", operation_id="rollbackCatalog", responses=documented(400, 404, 409, 413, 415))
async def rollback(
    request: RollbackRequest, parts: Parts, caller: Caller, why: Annotated[Text | None, Query()] = None
) -> PublicationReply:
    """Publishes an earlier version again. Where the live catalog asks for four eyes, only one that was live
    with the approval of another than its authors before, or has it now."""
    at = await parts.governing.roll_back(caller.name, request.version, {"why": why})
    return _publication(parts, Publication(request.version, at), live=True)


def _publication(parts: Parts, publication: Publication, *, live: bool) -> PublicationReply:
    told = parts.register.changes.told.get((publication.version, publication.published_at))
    by, detail = (None, {}) if told is None else (told.by, told.detail)
    return PublicationReply.model_validate(
        {
            "version": publication.version,
            "published_at": rfc3339(publication.published_at),
            "live": live,
            "published_by": by,
            **{name: detail.get(name) for name in ("why", "title", "change")},
        }
    )

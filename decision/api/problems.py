"""Every error as a problem document, in one shape (RFC 9457), from one place."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from arbitration.catalog.problems import Problem as CatalogProblem
from arbitration.errors import CatalogError, NextBestActionError
from decision.errors import Conflict, FieldError, Rejected, StoreBusy, StoreUnavailable, validation_errors
from decision.fault_log import FaultLog

log = logging.getLogger(__name__)
_unavailable = FaultLog(log, "the store is unavailable")
_busy = FaultLog(log, "the store does not keep up, requests are refused")

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Invalid",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}
_CODES = {404: "not_found", 405: "method_not_allowed"}
_MOST_ERRORS = 100
ALONE, LISTED = "<one>", "<list>"
"""Names of the branches of a body that is one thing or a list of them; no part of a field's path."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for its OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    bodies = {408} if 415 in statuses else set()  # whoever sends one may stop in the middle
    return {
        status: {"description": _TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, *bodies, 401, 403, 422, 429, 500, 503})
    }


def problem_of(error: NextBestActionError) -> dict[str, Any]:
    """The public side of an error. The private side stays in the log."""
    if isinstance(error, Rejected):
        return problem(error.status, error.code, error.detail, map(field_problem, error.errors))
    if isinstance(error, Conflict):
        fields = [field_problem(FieldError(error.field, "conflict", error.message))]
        return problem(409, "conflict", "The request contradicts what is stored.", fields)
    if isinstance(error, CatalogError):
        return problem(
            422, "invalid_catalog", "The catalog has faults.", map(catalog_problem, error.problems)
        )
    if isinstance(error, StoreBusy):
        _busy.fault(error)
        return problem(503, "store_busy", "The store does not keep up; nothing was written.")
    if isinstance(error, StoreUnavailable):
        _unavailable.fault(error)
        return problem(503, "store_unavailable", "The store is unavailable; ask again, with the same ids.")
    log.error("unexpected", exc_info=error)
    return problem(500, "internal", "Something went wrong here; it was logged.")


def problem(status: int, code: str, detail: str, errors: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """A problem document as plain JSON."""
    return {
        "type": f"urn:next-best-action:problem:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": list(errors)[:_MOST_ERRORS],
    }


def field_problem(error: FieldError) -> dict[str, Any]:
    """One faulty field."""
    return {"field": error.field, "code": error.code, "message": error.message}


def catalog_problem(found: CatalogProblem) -> dict[str, Any]:
    """One fault of a catalog, with its place."""
    place = {"file": found.file, "line": found.line, "column": found.column, "excerpt": found.excerpt}
    known = {key: value for key, value in place.items() if value is not None}
    return {"field": found.path, "code": found.code, "message": found.message, **known}


def respond(document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A problem document as a response."""
    return Response(orjson.dumps(document), document["status"], headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem document."""
    app.add_exception_handler(NextBestActionError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, NextBestActionError)
    document = problem_of(error)
    headers = _limits(request) | (error.headers if isinstance(error, Rejected) else {})
    return respond(document, {"Retry-After": "1", **headers} if document["status"] == 503 else headers)


def _limits(request: Request) -> dict[str, str]:
    """What is left of the caller's limit, where there is one."""
    taken = getattr(request.state, "taken", None)
    return {} if taken is None else dict(taken.headers())


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes) and error.body:
        fields = [field_problem(FieldError("Content-Type", "media_type", "must be application/json"))]
        return respond(problem(415, "media_type", "The body must be declared as JSON.", fields))
    details = [
        {**detail, "loc": [part for part in detail["loc"][1:] if part not in (ALONE, LISTED)]}
        for detail in error.errors()
    ]
    errors = map(field_problem, validation_errors(details))
    return respond(problem(422, "invalid_request", "The request has faults.", errors), _limits(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI wraps whatever goes wrong while it reads a body; what we raised there is the better answer.
    if isinstance(error.__cause__, NextBestActionError):
        return await _ours(request, error.__cause__)
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers) if error.headers else None
    field, message = ("method", request.method) if error.status_code == 405 else ("path", request.url.path)
    fields = [field_problem(FieldError(field, code, f"{_short(message)} is not served here"))]
    return respond(problem(error.status_code, code, str(error.detail), fields), headers)


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."


async def _unexpected(_: Request, error: Exception) -> Response:
    log.error("unexpected", exc_info=error)
    return respond(problem(500, "internal", "Something went wrong here; it was logged."))

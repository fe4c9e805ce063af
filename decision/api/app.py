"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from decision.access.scopes import NEEDED
from decision.api import (
    audit,
    catalogs,
    customers,
    decisions,
    fairness,
    governance,
    headers,
    operations,
    privacy,
    problems,
    reports,
    responses,
    snapshots,
)
from decision.api.admission import OF_OPERATIONS, Admission, Door
from decision.api.body import BodyLimit, Direct
from decision.api.context import Context
from decision.api.cors import Cors
from decision.api.watching import Watched
from decision.messages import Problem

VERSION = "0.1.0"
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, or a token of the issuer that the service accepts; with each operation, the"
    " scope it needs. None is asked for while no key was ever made, and only this machine is listened to.",
}
_ROUTED = (
    decisions,
    responses,
    customers,
    privacy,
    catalogs,
    governance,
    snapshots,
    reports,
    fairness,
    audit,
    operations,
)


def create_app(context: Context) -> FastAPI:
    """The application around the parts of a service; opens and closes them with its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await context.store.open()
        try:
            await context.live.start()
            context.releasing.start()
            context.watching.start()
            context.scheduling.start()
            yield
        finally:
            await context.scheduling.stop()
            await context.watching.stop()
            await context.releasing.stop()
            await context.live.stop()
            await context.sources.close()
            if context.oidc is not None:
                await context.oidc.close()
            context.guard.close()
            await context.store.close()

    app = FastAPI(
        routes=[route for module in _ROUTED for route in module.router.routes],  # as they are, not made anew
        title="Next-best-action decision API",
        version=VERSION,
        summary="Picks the right content for a customer, explains why, and learns from what came back.",
        lifespan=lifespan,
        redirect_slashes=False,
        # The pages FastAPI offers load scripts from elsewhere, which closed networks do not have.
        docs_url=None,
        redoc_url=None,
        # Spans, where `decision.tracing` is set up; all else that FastAPI can tell, we tell ourselves.
        telemetry={"metrics": False, "logs": False, "operation_spans": False, "exclude": _of_operations},
    )
    app.state.context = context
    app.state.guard = context.guard
    app.state.door = Door()
    problems.install(app)
    app.add_middleware(Direct, routes=app.routes, handlers=app.exception_handlers)
    app.add_middleware(BodyLimit)
    app.add_middleware(Admission, door=app.state.door, shed=context.metrics.shed)
    app.add_middleware(Cors, allowed=lambda: context.register.keys.origins(context.clock()))
    app.add_middleware(Watched, metrics=context.metrics)  # the outermost: it sees what is refused, too
    headers.outermost(app)
    app.openapi = lambda: contract(app)  # type: ignore[method-assign]
    return app


def _of_operations(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in OF_OPERATIONS


def contract(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the one problem shape in place of FastAPI's own."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemas = document["components"]["schemas"]
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas["Problem"] = schema
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        document["components"]["securitySchemes"] = {"bearer": _BEARER}
        for path in document["paths"].values():
            for operation in path.values():
                need = NEEDED[operation["operationId"]]
                operation["security"] = [] if need.scope is None else [{"bearer": [need.scope]}]
        app.openapi_schema = document
    return app.openapi_schema

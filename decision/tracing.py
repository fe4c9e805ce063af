"""Traces, for OpenTelemetry: off, and nothing imported, unless they are asked for.

What leaves the process is chosen by the names of its attributes, in one place (`decision.spans`): what a
library notes of a call may hold a customer's id, as the URL of a source, the path of a request or the text of
an error do. Whatever is not listed there is left out.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

    from decision.metrics import Seconds

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NOTHING: AbstractContextManager[object] = nullcontext()
_tracer: Tracer | None = None


def wanted() -> bool:
    """Whether the environment asks for traces, in OpenTelemetry's own variables."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp" and (
        "OTEL_TRACES_EXPORTER" in os.environ or any(name in os.environ for name in _ENDPOINTS)
    )


def set_up() -> None:
    """Begins to trace, if that is asked for, and sends to an OTLP collector over HTTP, from a thread. To be
    called in each process, before it does anything. Without the extra `otel`, it says so and goes on."""
    if not wanted():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("traces are asked for, but need next-best-action[otel]; there are none")
        return
    trace_to(OTLPSpanExporter())


def trace_to(exporter: SpanExporter, *, at_once: bool = False) -> None:
    """Traces into `exporter`; `at_once`: without a thread. Once a process; from then on FastAPI makes a span
    of each request, under the caller's where it names one, and asyncpg and aiohttp of each call."""
    global _tracer
    from opentelemetry import trace
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    from decision.spans import Sparing

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come over this.
    named = os.environ.get("OTEL_SERVICE_NAME", "next-best-action")
    provider = TracerProvider(resource=Resource.create({"service.name": named}))
    sparing = Sparing(exporter)
    provider.add_span_processor(SimpleSpanProcessor(sparing) if at_once else BatchSpanProcessor(sparing))
    trace.set_tracer_provider(provider)
    AsyncPGInstrumentor().instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    _tracer = provider.get_tracer("decision")


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span around a block, if there are traces; in attributes' names, `_` stands for a dot."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=_dotted(attributes), record_exception=False)


def tell(**attributes: str | int) -> None:
    """Adds attributes to the span that is open here, if there are traces."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(_dotted(attributes))


def _dotted(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {name.replace("_", "."): value for name, value in attributes.items()}


class Stage:
    """Times a block into a histogram, and makes a span of it."""

    __slots__ = ("_began", "_seconds", "_span")

    def __init__(self, name: str, seconds: Seconds) -> None:
        self._span = None if _tracer is None else span(name)
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._began = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._seconds.observe(perf_counter() - self._began)
        if self._span is not None:
            self._span.__exit__(kind, error, where)

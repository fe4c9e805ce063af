"""What of a span leaves the process. Needs the extra `otel`; see `decision.tracing`."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status

_KEPT = frozenset(
    {
        "decision.id",
        "source.id",
        "error.type",
        "http.request.method",
        "http.method",
        "http.route",
        "http.response.status_code",
        "http.status_code",
        "url.scheme",
        "server.address",
        "server.port",
        "network.protocol.version",
        "db.system",
        "db.system.name",
        "db.name",
        "db.namespace",
        # The text with its placeholders: ours is all written that way, and a source's comes from the catalog.
        "db.statement",
        "db.query.text",
        "net.peer.name",
        "net.peer.port",
    }
)


class Sparing(SpanExporter):
    """Passes spans on with no more than the attributes above: no events, and no text of an error.

    Of calls that no request caused, as by who looks for news each moment, none are passed on.
    """

    def __init__(self, to: SpanExporter) -> None:
        self._to = to

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends what may leave."""
        spared = [_spared(each) for each in spans if each.kind != SpanKind.CLIENT or each.parent is not None]
        return self._to.export(spared) if spared else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Ends the one passed to."""
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Passed on."""
        return self._to.force_flush(timeout_millis)


def _spared(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes={name: value for name, value in (span.attributes or {}).items() if name in _KEPT},
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )

"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.decisions = Counter(
            "decisions_total", "Requests for a decision, by result.", ["result"], registry=self._registry
        )
        self.seconds = Histogram(
            "decision_seconds",
            "From the request being read to its decision being durable.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.responses = Counter(
            "responses_total", "Responses taken in, by outcome.", ["outcome"], registry=self._registry
        )
        self._refusals = Counter(
            "snapshot_refusals_total",
            "Learned snapshots that were refused as damaged, unsigned, or of something else.",
            ["policy"],
            registry=self._registry,
        )
        self._refused = Gauge(
            "snapshot_refused",
            "1 while a policy cannot be served the snapshot it should: an older one decides.",
            ["policy"],
            registry=self._registry,
        )
        self._known_refused: Mapping[str, str] = {}
        self._source_calls = Counter(
            "source_calls_total",
            "Calls to sources, by what came of them.",
            ["source", "result"],
            registry=self._registry,
        )
        self._source_seconds = Histogram(
            "source_seconds",
            "How long calls to sources took.",
            ["source"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def source_called(self, source: str, result: str, seconds: float) -> None:
        """Counts one call to a source: `result` is `ok` or a cause."""
        self._source_calls.labels(source, result).inc()
        self._source_seconds.labels(source).observe(seconds)

    def snapshots_refused(self, refused: Mapping[str, str]) -> None:
        """Takes note of the snapshot versions that are refused now, by policy."""
        for policy, version in refused.items():
            self._refused.labels(policy).set(1)
            if self._known_refused.get(policy) != version:
                self._refusals.labels(policy).inc()
        for policy in self._known_refused.keys() - refused.keys():
            self._refused.labels(policy).set(0)
        self._known_refused = dict(refused)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

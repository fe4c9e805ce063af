"""What Prometheus scrapes, put together from all processes that share a directory.

With PROMETHEUS_MULTIPROC_DIR set, prometheus_client keeps its values in files there, one of each kind for
each process, and any process can answer for all. Files are named by the process's *slot* (the variable
DECISION_METRICS_SLOT; its pid where there is none), which the next process takes over with the counts that
are in them: so counters never go back, and files do not pile up. Both are for whoever starts the processes
to set: a slot belongs to one living process, and when that ends its `gauge_live*` files are to be removed.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SHARED = "PROMETHEUS_MULTIPROC_DIR"
SLOT = "DECISION_METRICS_SLOT"

disable_created_metrics()  # type: ignore[no-untyped-call]  # as it is with shared values
_slot = os.environ.get(SLOT)
if SHARED in os.environ and _slot is not None:
    values.ValueClass = values.MultiProcessValue(lambda: _slot)  # type: ignore[no-untyped-call]


def exposed(registry: CollectorRegistry) -> bytes:
    """The text exposition of a registry, or, where processes share a directory, of them all."""
    return generate_latest(_All(registry))


def serve(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Answers scrapes from a thread of its own, until the process ends; for one that has no HTTP server."""
    server, _ = start_http_server(port, host, registry=_All(registry))
    return server


class _All(Collector):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        counted = list(_shared() if SHARED in os.environ else self._registry.collect())
        pids = [s for metric in counted if metric.name == "process_pid" for s in metric.samples]
        return [*counted, *_processes({each.labels["process"]: int(each.value) for each in pids})]


def _shared() -> Iterable[Metric]:
    collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
    for _ in range(3):
        try:
            return collector.collect()  # type: ignore[no-any-return, no-untyped-call]
        except struct.error:  # a process just begins, and its file is still empty
            time.sleep(0.001)
    return collector.collect()  # type: ignore[no-any-return, no-untyped-call]


def _processes(pids: Mapping[str, int]) -> list[Metric]:
    """CPU, memory, descriptors and start of each process, by its name: prometheus_client's own collector
    shows only one process, and not along with shared values."""
    found: dict[str, Metric] = {}
    for process, pid in pids.items():
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            kept = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            kept.samples += [Sample(each.name, {"process": process}, each.value) for each in metric.samples]
    return list(found.values())

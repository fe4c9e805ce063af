"""What the service counts, for Prometheus.

Labels take values from closed lists, or names of the catalog's; never what a request or a customer brings.
How the counts of several processes become one answer: `decision.exposition`.

What every request counts can be noted, and counted later, many at once (`Counts.hold`): to count takes a
lock and, where processes share, a write to a file, some fifteen times a decision.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Numbers
from collections.abc import Iterable, Mapping
from functools import cache
from threading import Lock
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from arbitration.errors import NextBestActionError
from arbitration.screening import NoAction
from decision.errors import Rejected, StoreUnavailable
from decision.exposition import SLOT, exposed

_BUCKETS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.05,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_STAGE_BUCKETS = (0.0001, 0.00025, *_BUCKETS)

RESULTS = ("answered", "repeated", "rejected", "unavailable", "failed")
"""What came of a request for a decision: made now; given before, to a retry; refused for what it asks;
refused for the state we are in; a fault of ours."""
SHED = ("full", "slow")
"""Why a request is refused for load; see `decision.api.admission`."""
STAGES = ("resolve", "gather", "decide", "render", "commit")
"""The parts of a decision's time: whom it is about, and what the store has of them; what sources say; what to
show; the reply and what the ledger keeps; until it is durable."""


class _Histogram(Histogram):
    """One that takes many at once."""

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Observes each."""
        amounts = list(amounts)
        if not amounts:
            return
        self._sum.inc(sum(amounts))
        for bucket, number in Numbers(bisect_left(self._upper_bounds, each) for each in amounts).items():
            self._buckets[bucket].inc(number)


class Seconds:
    """Durations, for a histogram."""

    __slots__ = ("_counts", "_histogram", "_noted")

    def __init__(self, counts: Counts, histogram: _Histogram) -> None:
        self._counts = counts
        self._histogram = histogram
        self._noted: list[float] = []

    def observe(self, seconds: float) -> None:
        """Notes one."""
        self._noted.append(seconds)
        if not self._counts.held:
            self.settle()

    def settle(self) -> None:
        """Counts what was noted."""
        self._histogram.observe_all(_taken(self._noted))


class Level:
    """A number that goes up and down, for a gauge."""

    __slots__ = ("_counts", "_gauge", "_value")

    def __init__(self, counts: Counts, gauge: Gauge) -> None:
        self._counts = counts
        self._gauge = gauge
        self._value = 0

    def inc(self, by: int = 1) -> None:
        """So many more."""
        self._value += by
        if not self._counts.held:
            self.settle()

    def settle(self) -> None:
        """Shows it."""
        self._gauge.set(self._value)


T = TypeVar("T")


def _taken(noted: list[T]) -> list[T]:
    # Whoever notes does so from another thread, perhaps: it only ever adds.
    taken = noted[: len(noted)]
    del noted[: len(taken)]
    return taken


class Counts:
    """Metrics of one process, in a registry of their own."""

    def __init__(self, role: str) -> None:
        """`role`: `api` or `learner`; with the process's slot, it names the process."""
        self.registry = CollectorRegistry()
        pid = self._gauge("process_pid", "Which process it is.", ["process"])
        pid.labels(f"{role}-{os.environ.get(SLOT, '0')}").set(os.getpid())
        self.held = False
        self._noted: list[Counter] = []
        self._turn = Lock()
        self._settling: list[Seconds | Level] = []

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes: of this process, or of all that share a directory with it.
        Blocks for some milliseconds."""
        self.settle()
        return exposed(self.registry)

    def hold(self) -> None:
        """From now on what is often counted is only noted, for who promises to call `settle` each second.
        A process that is killed loses that much."""
        self.held = True

    def settle(self) -> None:
        """Counts what was noted."""
        with self._turn:  # who scrapes does so in a thread
            for counter, number in Numbers(_taken(self._noted)).items():
                counter.inc(number)
            for each in self._settling:
                each.settle()

    def _seconds(self, histogram: Histogram) -> Seconds:
        assert isinstance(histogram, _Histogram)
        seconds = Seconds(self, histogram)
        self._settling.append(seconds)
        return seconds

    def _count(self, counter: Counter) -> None:
        self._noted.append(counter)
        if not self.held:
            self.settle()

    def _counter(self, name: str, help: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(
        self, name: str, help: str, labels: Iterable[str] = (), *, stages: bool = False
    ) -> Histogram:
        buckets = _STAGE_BUCKETS if stages else _BUCKETS
        return _Histogram(name, help, labels, buckets=buckets, registry=self.registry)

    def _gauge(
        self,
        name: str,
        help: str,
        labels: Iterable[str] = (),
        among: Literal["livemax", "livemin", "livesum", "liveall", "max"] = "livemax",
    ) -> Gauge:
        """`among`: how the gauges of several processes become one. Those that live count, or any ever."""
        return Gauge(name, help, labels, registry=self.registry, multiprocess_mode=among)


class Metrics(Counts):
    """What an API process counts."""

    def __init__(self) -> None:
        super().__init__("api")
        self._requests = self._counter(
            "http_requests_total",
            "HTTP requests answered, by route and status.",
            ["method", "route", "status"],
        )
        self._request = cache(self._requests.labels)  # each lookup there costs as much as to count
        for route in ("", "/v1/decisions", "/v1/responses"):
            for status in (500, 503):
                self._requests.labels("POST", route, status)  # else the first is no increase
        self.in_flight = Level(
            self, self._gauge("http_requests_in_flight", "HTTP requests under way.", among="livesum")
        )
        self._settling.append(self.in_flight)
        self._shed = self._counter("requests_shed_total", "Requests refused for load, by reason.", ["reason"])
        for reason in SHED:
            self._shed.labels(reason)
        self._credentials = self._counter(
            "credentials_refused_total", "Calls whose credential was not accepted, by cause.", ["cause"]
        )
        self._decisions = self._counter(
            "decisions_total", "Requests for a decision, by result and channel.", ["result", "channel"]
        )
        self._decision = cache(self._decisions.labels)
        for result in RESULTS:
            self._decisions.labels(result, "")
        self.seconds = self._seconds(
            self._histogram("decision_seconds", "From the request being read to its decision being durable.")
        )
        stages = self._histogram(
            "decision_stage_seconds", "Time of each stage of a decision.", ["stage"], stages=True
        )
        self.stages = {stage: self._seconds(stages.labels(stage)) for stage in STAGES}
        self._no_action = self._counter(
            "no_action_total", "Placements left without an action, by reason.", ["reason"]
        )
        for reason in NoAction:
            self._no_action.labels(reason)
        self._degraded = self._counter(
            "degraded_total",
            "What decisions had to do without, by kind (`sources`, `profile`, `limits`, …) and cause.",
            ["of", "cause"],
        )
        self._degradation = cache(self._degraded.labels)
        self.made_again = self._counter(
            "decisions_made_again_total", "Decisions overtaken by a change of what they rested on."
        )
        self._responses = self._counter("responses_total", "Responses taken in, by outcome.", ["outcome"])
        self._refusals = self._counter(
            "snapshot_refusals_total",
            "Learned snapshots that were refused as damaged, unsigned, or of something else.",
            ["policy"],
        )
        self._refused = self._gauge(
            "snapshot_refused",
            "1 while a policy cannot be served the snapshot it should: an older one decides.",
            ["policy"],
        )
        self._known_refused: Mapping[str, str] = {}
        self._source_calls = self._counter(
            "source_calls_total", "Calls to sources, by what came of them.", ["source", "result"]
        )
        self._source_seconds = self._histogram(
            "source_seconds", "How long calls to sources took.", ["source"]
        )
        self.circuits = self._gauge("source_circuit_open", "1 while a source is left alone.", ["source"])
        self.waiting = self._gauge("store_waiting", "Writes that wait for the store.", among="livesum")
        self.store_up = self._gauge("store_up", "1 while the store can be read.", among="livemin")
        self.snapshot_age = self._gauge(
            "snapshot_age_seconds",
            "How long ago the snapshot was made that a policy decides with; 0: nothing is learned.",
            ["policy"],
        )
        self.catalog_published = self._gauge(
            "catalog_published_timestamp_seconds",
            "When the catalog that is served was published.",
            among="liveall",
        )

    def answered(self, method: str, route: str, status: int) -> None:
        """Counts one HTTP request. `route`: its template, never its path; both empty where unknown."""
        self._count(self._request(method, route, status))

    def shed(self, reason: str) -> None:
        """Counts one request refused for load; see SHED."""
        self._shed.labels(reason).inc()

    def credential_refused(self, cause: str) -> None:
        """Counts one call whose credential was not accepted. `cause`: from the code, never from the call."""
        self._credentials.labels(cause).inc()

    def decided(self, channel: str, no_actions: Iterable[str], degraded: Iterable[str]) -> None:
        """Counts a decision that was made and committed."""
        self._count(self._decision("answered", channel))
        for reason in no_actions:
            self._count(self._no_action.labels(reason))
        for entry in degraded:
            what, _, cause = entry.rpartition(":")
            self._count(self._degradation(what.partition(".")[0], cause))

    def not_decided(self, result: str) -> None:
        """Counts a request that led to no new decision; see RESULTS."""
        self._count(self._decision(result, ""))

    def responded(self, outcome: str) -> None:
        """Counts a new response."""
        self._responses.labels(outcome).inc()

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


class LearnerMetrics(Counts):
    """What a learner counts."""

    def __init__(self) -> None:
        super().__init__("learner")
        self.leading = self._gauge("learner_leading", "1 while this learner is the one that learns.")
        self.lag = self._gauge(
            "learner_lag_seconds", "Age of the oldest decision or response not yet learned from; 0: none."
        )
        self.events = self._counter("learner_events_total", "Decisions and responses read.")
        self.last_round = self._gauge(
            "learner_last_round_timestamp_seconds",
            "When a leading learner last had nothing more to learn, or learned it.",
            among="max",
        )


def result_of(error: NextBestActionError) -> str:
    """The result that an error is counted as."""
    if isinstance(error, StoreUnavailable):
        return "unavailable"
    if isinstance(error, Rejected):
        return "rejected" if error.status < 500 else "unavailable"
    return "failed"

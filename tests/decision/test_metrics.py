"""What is counted: of one process, of several together, and never anything of a customer's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import Service, SlowStore, asking, running, treatments

from decision import exposition
from decision.errors import StoreUnavailable
from decision.metrics import LearnerMetrics, Metrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: bytes | str) -> Samples:
    """Each sample of an exposition, by name and labels."""
    text = text if isinstance(text, str) else text.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels; at least one must be there."""
    found = [value for (at, having), value in samples.items() if at == name and having >= labels.items()]
    assert found, (name, labels)
    return sum(found)


async def scraped(service: Service) -> Samples:
    reply = await service.client.get("/metrics")
    assert reply.status_code == 200, reply.text
    return parsed(reply.text)


async def test_decisions_are_counted_by_what_came_of_them(service: Service) -> None:
    await service.decide(request_id="r")
    await service.decide(request_id="r")
    await service.decide("stranger", "hero")
    await service.client.post("/v1/decisions", json=asking(placement="panel", channel="nowhere"))
    batch = {"requests": [asking(), {}, asking("stranger")]}
    await service.client.post("/v1/decisions:batch", json=batch)
    samples = await scraped(service)
    assert read(samples, "decisions_total", result="answered", channel="agent") == 3
    assert read(samples, "decisions_total", result="answered", channel="web") == 1
    assert read(samples, "decisions_total", result="repeated") == 1
    assert read(samples, "decisions_total", result="rejected") == 2
    assert read(samples, "decisions_total", result="failed") == 0
    assert read(samples, "no_action_total", reason="none_eligible") == 1
    assert read(samples, "degraded_total", of="profile", cause="not_found") == 2
    assert read(samples, "decision_seconds_count") == 3
    assert read(samples, "http_requests_total", route="/v1/decisions", status="422") == 1
    assert read(samples, "http_requests_in_flight") == 1  # the scrape itself


async def test_every_stage_is_timed(service: Service) -> None:
    await service.decide()
    samples = await scraped(service)
    stages = {dict(labels)["stage"] for name, labels in samples if name == "decision_stage_seconds_count"}
    assert stages == {"resolve", "gather", "decide", "render", "commit"}
    spent = sum(read(samples, "decision_stage_seconds_sum", stage=stage) for stage in stages)
    assert all(read(samples, "decision_stage_seconds_count", stage=stage) == 1 for stage in stages)
    assert 0 < spent < read(samples, "decision_seconds_sum")


async def test_what_was_overtaken_is_counted(service: Service) -> None:
    document = (await service.client.get("/v1/catalog")).json()["catalog"]
    document["contact_policies"] = [{"id": "once", "gap": "1d", "per": "channel"}]
    await service.publish(document)
    await service.client.post("/v1/decisions:batch", json={"requests": [asking()] * 3})
    assert read(await scraped(service), "decisions_made_again_total") >= 2


async def test_a_store_that_is_gone_is_seen(tmp_path: Path, document: dict[str, Any]) -> None:
    class Gone(SlowStore):
        gone = False

        async def commit_decisions(self, *args: Any) -> Any:
            if self.gone:
                raise StoreUnavailable("gone")
            return await super().commit_decisions(*args)

        async def ping(self) -> None:
            if self.gone:
                raise StoreUnavailable("gone")

        def waiting(self) -> int:
            return 7

    store = Gone(tmp_path / "s.db")
    async with running(tmp_path / "s.db", store=store) as service:
        await service.publish(document)
        assert read(await scraped(service), "store_up") == 1
        store.gone = True
        assert (await service.client.post("/v1/decisions", json=asking())).status_code == 503
        samples = await scraped(service)
    assert read(samples, "store_up") == 0
    assert read(samples, "store_waiting") == 7
    assert read(samples, "decisions_total", result="unavailable") == 1
    assert read(samples, "http_requests_total", route="/v1/decisions", status="503") == 1


async def test_ages_of_what_is_served(service: Service) -> None:
    published = service.clock.now.timestamp()
    assert read(await scraped(service), "snapshot_age_seconds", policy="default") == 0
    decision = await service.decide()
    await service.respond(decision, "accepted", "1", treatments(decision)[0])
    await service.learner().step()
    await service.context.live.refresh()
    service.clock.now += timedelta(seconds=90)
    samples = await scraped(service)
    assert read(samples, "snapshot_age_seconds", policy="default") == 90
    assert read(samples, "catalog_published_timestamp_seconds") == pytest.approx(published)


async def test_a_learner_says_how_far_behind_it_is(service: Service) -> None:
    metrics = LearnerMetrics()
    learner = service.learner()
    learner._metrics = metrics
    seen: list[float] = []
    judge = learner._judge

    async def judged(*args: Any) -> Any:
        seen.append(read(parsed(metrics.exposition()), "learner_lag_seconds"))
        return await judge(*args)

    learner._judge = judged  # type: ignore[method-assign]
    decision = await service.decide()
    await service.respond(decision, "accepted", "1", treatments(decision)[0])
    service.clock.now += timedelta(seconds=40)
    await service.decide()
    await learner.step(1)  # one decision of two, and the response
    samples = parsed(metrics.exposition())
    assert read(samples, "learner_lag_seconds") == 40
    assert read(samples, "learner_events_total") == 2
    service.clock.now += timedelta(seconds=5)
    await learner.step()
    samples = parsed(metrics.exposition())
    assert read(samples, "learner_lag_seconds") == 0
    assert read(samples, "learner_events_total") == 3
    assert seen == [40, 5]


MARKER = "marker-7c1f"


async def test_nothing_a_caller_brings_becomes_a_label(service: Service) -> None:
    client = service.client
    profile = {"attributes": {"first_name": MARKER}, "identities": [{"type": MARKER, "value": MARKER}]}
    await client.put(f"/v1/customers/{MARKER}", json=profile)
    await client.get(f"/{MARKER}")
    await client.request(MARKER.upper(), "/v1/decisions")
    await client.get(f"/v1/decisions/{MARKER}?{MARKER}={MARKER}")
    decision = await service.decide(MARKER, request_id=MARKER, profile={"nps": 3})
    for broken in ({"channel": MARKER}, {"context": {"page": MARKER}}, {"placements": [{"id": MARKER}]}):
        await client.post("/v1/decisions", json=asking(MARKER) | broken)
    message = {"response_id": MARKER, "decision_id": decision["decision_id"], "treatment": MARKER}
    await client.post("/v1/responses", json=message | {"outcome": MARKER})
    text = (await client.get("/metrics")).text
    assert MARKER not in text.lower()
    assert 'route="/v1/customers/{customer_id}"' in text


def test_each_process_shows_what_it_uses() -> None:
    samples = parsed(Metrics().exposition())
    assert read(samples, "process_pid", process="api-0") == os.getpid()
    assert read(samples, "process_resident_memory_bytes", process="api-0") > 1e6
    assert read(samples, "process_open_fds", process="api-0") > 2
    assert read(samples, "process_cpu_seconds_total", process="api-0") > 0


COUNTING = """
import sys
from decision.metrics import Metrics
metrics, times = Metrics(), int(sys.argv[1])
metrics.in_flight.inc()
metrics.waiting.set(2)
metrics.snapshot_age.labels("default").set(times)
for _ in range(times):
    metrics.decided("web", ("no_consent",), ("sources.crm:timeout",))
    metrics.seconds.observe(0.004)
print("counted", flush=True)
for line in sys.stdin:
    sys.stdout.write(metrics.exposition().decode() + "# end" + chr(10))
    sys.stdout.flush()
"""


class Counting:
    """A process that has counted, and can be asked."""

    def __init__(self, folder: Path, slot: int, times: int) -> None:
        environment = {**os.environ, exposition.SHARED: str(folder), exposition.SLOT: str(slot)}
        command = [sys.executable, "-c", COUNTING, str(times)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "counted\n"

    def scrape(self) -> Samples:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        lines = list(iter(self.process.stdout.readline, "# end\n"))
        return parsed("".join(lines))

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def test_several_processes_answer_as_one_and_the_dead_are_not_forgotten(tmp_path: Path) -> None:
    every = [one, two] = [Counting(tmp_path, 0, 3), Counting(tmp_path, 1, 4)]
    try:
        for each in every:
            each.ready()
        samples = one.scrape()
        assert read(samples, "decisions_total", result="answered", channel="web") == 7
        assert read(samples, "decision_seconds_bucket", le="0.005") == 7
        assert read(samples, "http_requests_in_flight") == 2
        assert read(samples, "store_waiting") == 4
        assert read(samples, "snapshot_age_seconds", policy="default") == 4
        for name, process in (("api-0", one), ("api-1", two)):
            assert read(samples, "process_pid", process=name) == process.process.pid
            assert read(samples, "process_resident_memory_bytes", process=name) > 1e6

        files = len(list(tmp_path.iterdir()))
        two.end()
        for file in tmp_path.glob("gauge_live*_1.db"):  # as the one that started it does
            file.unlink()
        samples = one.scrape()
        assert read(samples, "decisions_total", result="answered", channel="web") == 7
        assert read(samples, "http_requests_in_flight") == 1
        assert not [labels for name, labels in samples if ("process", "api-1") in labels]

        every.append(next_one := Counting(tmp_path, 1, 5))
        next_one.ready()
        samples = next_one.scrape()
        assert read(samples, "decisions_total", result="answered", channel="web") == 12
        assert read(samples, "decision_seconds_count") == 12
        assert read(samples, "http_requests_in_flight") == 2
        assert len(list(tmp_path.iterdir())) == files
    finally:
        for each in every:
            each.end()


def test_one_without_a_server_answers_scrapes_too() -> None:
    metrics = LearnerMetrics()
    metrics.events.inc(3)
    server = exposition.serve(metrics.registry, "127.0.0.1", 0)
    try:
        reply = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", trust_env=False)
    finally:
        server.shutdown()
        server.server_close()
    assert read(parsed(reply.text), "learner_events_total") == 3

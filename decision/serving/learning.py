"""The learner as a process."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from decision import collecting, exposition
from decision.clock import utc_now
from decision.learner import Learner
from decision.metrics import LearnerMetrics
from decision.serving.tether import say_ready, when_gone
from decision.settings import open_store, signing_key


def learn(
    store_url: str, interval: float, *, metrics_host: str, metrics_port: int | None, attached: bool
) -> None:
    """Runs the learner until SIGINT or SIGTERM; `attached`: also until its supervisor is gone. Raises
    StoreUnavailable where the store cannot be opened."""
    metrics = LearnerMetrics()
    if metrics_port is not None:
        try:
            exposition.serve(metrics.registry, metrics_host, metrics_port)
        except OSError as error:
            where = f"{metrics_host}:{metrics_port}"
            raise SystemExit(f"cannot answer scrapes on {where}: {error.strerror}") from None
    uvloop.run(_learn(store_url, interval, metrics, attached=attached))


async def _learn(store_url: str, interval: float, metrics: LearnerMetrics, *, attached: bool) -> None:
    store = open_store(store_url)
    await store.open()
    running = asyncio.create_task(Learner(store, utc_now, signing_key(), metrics).run(interval))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    if attached:
        when_gone(running.cancel)
        say_ready()
    try:
        with collecting.settled():  # a fifth of its time went into looking for garbage
            await asyncio.gather(running, return_exceptions=True)
    finally:
        await store.close()

"""Runs the service: one API process, and beside it the learner as a process of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence

import uvicorn
import uvloop

from decision.api.app import create_app
from decision.api.context import Context, build, utc_now
from decision.learner import Learner
from decision.settings import open_store, signing_key
from decision.sources.connections import Connections

log = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
_GRACE_SECONDS = 10.0


def serve(
    store_url: str,
    host: str,
    port: int,
    *,
    learner: bool,
    interval: float,
    connections: Connections,
    timeout_ms: int,
) -> None:
    """Serves until SIGINT or SIGTERM; finishes what is in flight first."""
    context = build(
        open_store(store_url), connections=connections, timeout_ms=timeout_ms, signing_key=signing_key()
    )
    uvloop.run(_serve(context, store_url, host, port, learner=learner, interval=interval))


async def _serve(
    context: Context, store_url: str, host: str, port: int, *, learner: bool, interval: float
) -> None:
    app = create_app(context)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=int(_GRACE_SECONDS),
    )
    command = [sys.executable, "-m", "decision", "learn", "--attached", "--store", store_url]
    command += ["--interval", str(interval)]
    task = asyncio.create_task(_keep_running(command)) if learner else None
    # uvicorn raises the signal that ended it once more when it is done; the learner must be ended first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(config)
    settling = asyncio.create_task(_settle(server))
    try:
        await server.serve()
    finally:
        settling.cancel()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _settle(server: uvicorn.Server) -> None:
    """Once all is loaded, takes it out of the garbage collector's sight: none of it is garbage, and to go
    through it, now and then, would stop every request for some 50 ms."""
    while not server.started:
        await asyncio.sleep(0.05)
    gc.collect()
    gc.freeze()


async def _keep_running(command: Sequence[str]) -> None:
    """Runs a child process, again if it ends; ends it when cancelled."""
    while True:
        # A session of its own: Ctrl-C reaches this process, which then ends the child in order. The pipe
        # is closed by the system when this process dies in whatever way, and the child ends with it.
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _GRACE_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()
            raise
        log.error("the learner ended with code %s; starting it again", code)
        await asyncio.sleep(_RESTART_SECONDS)


def learn(store_url: str, interval: float, *, attached: bool) -> None:
    """Runs the learner until SIGINT or SIGTERM; with `attached`, also until standard input ends."""
    uvloop.run(_learn(store_url, interval, attached=attached))


async def _learn(store_url: str, interval: float, *, attached: bool) -> None:
    store = open_store(store_url)
    await store.open()
    running = asyncio.create_task(Learner(store, utc_now, signing_key()).run(interval))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    if attached:
        loop.add_reader(sys.stdin, running.cancel)
    try:
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await store.close()

"""The process that `decision serve` becomes: it holds the listening socket and starts, watches, relieves and
ends the others.

It answers no requests itself and imports nothing of the service, so that it stays small, and what breaks the
service does not break it. All its children inherit the one socket, so a connection that waits to be accepted
waits for any of them, and none is lost with a process. Settings and secrets travel in the environment: a
command line can be read by everybody on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from decision.logs import as_told
from decision.serving.child import Child
from decision.serving.post import GRACE_SECONDS, Post
from decision.serving.slots import Slots

log = logging.getLogger("decision.serving.supervisor")  # it runs as __main__

_BACKLOG = 2048


class Supervisor:
    """Runs the service behind `listening`: each of the commands as often as told."""

    def __init__(
        self, listening: Sequence[socket.socket], worker: Sequence[str], workers: int, learner: Sequence[str]
    ) -> None:
        """`worker`: the command of an API process, which inherits the sockets; `learner`: that of the
        learner, empty where there is none."""
        self._listening = listening
        self._worker, self._learner = worker, learner
        self._workers = [Post(f"worker {number}", self._start_worker) for number in range(1, workers + 1)]
        self._learners = [Post("learner", self._start_learner)] if learner else []
        self._slots = Slots()
        self._children: set[Child] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        self._stop, self._relieve = asyncio.Event(), asyncio.Event()
        self._terminal = os.isatty(0)

    async def run(self) -> int:
        """Runs until it is told to end, or until the first worker of all ended before it was ready. Returns
        the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            working = tasks[0]
            code = int(working.result()) if working.done() else 0
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            in_order = await self._end()
        return code if in_order else 1

    async def _work(self) -> int:
        # One goes ahead: where it cannot start, neither can the others, and once is enough to be told why.
        first = await self._workers[0].fill()
        if not await first.ready():
            return await first.ended()
        log.info("ready on %s", ", ".join(map(_address, self._listening)))
        async with asyncio.TaskGroup() as group:
            for post in self._posts:
                group.create_task(post.keep())
            group.create_task(self._relieving())
        raise AssertionError("they never end")

    @property
    def _posts(self) -> list[Post]:
        return [*self._workers, *self._learners]

    async def _relieving(self) -> None:
        while True:
            await self._relieve.wait()
            self._relieve.clear()
            log.info("a rolling restart begins")
            for post in self._posts:
                if not await post.relieve():
                    log.error("the rolling restart ends at %s; those after it are not replaced", post.name)
                    break
            else:
                log.info("all processes are replaced")

    def _hung_up(self) -> None:
        # A terminal that was closed sends the same signal.
        (self._stop if self._terminal and not os.isatty(0) else self._relieve).set()

    async def _start_worker(self, name: str) -> Child:
        descriptors = [each.fileno() for each in self._listening]
        sockets = [option for number in descriptors for option in ("--socket", str(number))]
        return await self._started(name, [*self._worker, *sockets], descriptors)

    async def _start_learner(self, name: str) -> Child:
        return await self._started(name, self._learner, ())

    async def _started(self, name: str, command: Sequence[str], descriptors: Sequence[int]) -> Child:
        slot = self._slots.take()
        try:
            child = await Child.start(name, command, descriptors, self._slots.environment(slot))
        except OSError:
            self._slots.free(slot)
            raise
        self._children.add(child)
        task = asyncio.create_task(self._reap(child, slot))
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)
        return child

    async def _reap(self, child: Child, slot: int) -> None:
        await child.ended()
        self._children.discard(child)
        self._slots.free(slot)
        child.release()

    async def _end(self) -> bool:
        log.info("ending")
        for each in self._listening:
            each.close()
        in_order = await asyncio.gather(*(child.stop(GRACE_SECONDS) for child in self._children))
        await asyncio.gather(*self._reaping)
        self._slots.close()
        return all(in_order)


def listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of this machine that the host name has. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                listening.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
            except OSError as error:
                # `localhost` has an address of IPv6 also where there is no IPv6.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
        if missing is not None and not listening:
            raise missing
    except OSError:
        for each in listening:
            each.close()
        raise
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main() -> None:
    """`python -m decision.serving.supervisor`: what `decision serve` executes in its own place."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--interval", help="of the learner; none runs without it")
    options = parser.parse_args()
    as_told()
    command = [sys.executable, "-m", "decision"]
    learner = [*command, "learn", "--attached", "--interval", options.interval] if options.interval else []
    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        raise SystemExit(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from None
    raise SystemExit(asyncio.run(_run(listening, [*command, "worker"], options.workers, learner)))


async def _run(
    listening: Sequence[socket.socket], worker: Sequence[str], workers: int, learner: Sequence[str]
) -> int:
    return await Supervisor(listening, worker, workers, learner).run()


if __name__ == "__main__":
    main()

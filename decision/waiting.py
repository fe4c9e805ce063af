"""Waiting for something no longer than until a deadline, at no cost where there is nothing to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def until(deadline: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled at `deadline` (by the clock of the event loop), and not begun
    after it. Raises TimeoutError then.

    As `asyncio.timeout_at`, but that the timer is set only when `work` first waits: what is there already is
    had without one.
    """
    if asyncio.get_running_loop().time() >= deadline:
        work.close()
        raise TimeoutError
    try:
        awaited = work.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    async with asyncio.timeout_at(deadline):
        return await _rest(work, awaited)


@coroutine
def _rest(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """What `await work` would do from where it first waits, for `awaited`."""
    while True:
        try:
            try:
                came = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001  # cancellation, most often: it is the work's
                awaited = work.throw(error)
            else:
                awaited = work.send(came)
        except StopIteration as done:
            found: T = done.value
            return found

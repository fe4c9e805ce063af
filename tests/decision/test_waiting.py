"""Work is timed from when it first waits, and not at all where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from decision.waiting import until


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_is_there_is_had_unless_it_is_late() -> None:
    async def there() -> int:
        return 7

    assert await until(soon(5), there()) == 7
    with pytest.raises(TimeoutError):
        await until(soon(-1), there())


async def test_what_waits_a_little_is_had() -> None:
    async def waits() -> list[object]:
        found: list[object] = [await asyncio.sleep(0, "a")]
        found.append(await asyncio.sleep(0.001, "b"))
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError as error:
            found.append(type(error))
        return found

    assert await until(soon(5), waits()) == ["a", "b", TimeoutError]


async def test_what_waits_too_long_is_cancelled_and_tidies_up() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def tidied() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            told.append("tidied")

    async def waits() -> None:
        async with tidied():
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

    with pytest.raises(TimeoutError):
        await until(soon(0.01), waits())
    assert told == ["cancelled", "tidied"]


async def test_errors_are_its_own() -> None:
    async def fails(wait: float | None) -> None:
        if wait is not None:
            await asyncio.sleep(wait)
        raise LookupError("x")

    for wait in (None, 0, 0.001):
        with pytest.raises(LookupError):
            await until(soon(5), fails(wait))


async def test_who_is_cancelled_from_outside_is_cancelled() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        began.set()
        try:
            await asyncio.sleep(5)
        finally:
            ended.set()

    task = asyncio.create_task(until(soon(5), waits()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_it_saves_of_itself_is_had_late() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await until(soon(0.01), stubborn()) == "late"

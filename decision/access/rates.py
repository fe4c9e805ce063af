"""How often a key may be used: exact over all processes that share a directory.

The generic cell rate algorithm (ITU-T I.371, annex A): of each key one number is kept, the time when all it
has used will have come back. A quota of n in s seconds is full at first, gains one each s / n seconds, and
never holds more than n.

Numbers are in a file that processes map into memory, in the directory that they share anyway (see
`decision.exposition`); without one, in memory of this process's own. Which place a key has follows from its
id, so there is nothing to agree on, and nothing to give back: a number that is in the past says no more than
none at all, and the next key may have its place.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from pathlib import Path

from decision.exposition import SHARED

FILE = "rates"
"""The name of the file in the shared directory."""

_SECOND = 1_000_000_000
# The most that can be owed. A time that is further ahead is of before the machine was started.
_MOST = 2 * 86_400 * _SECOND
# A set has so many places; each is the mark of a key, and its time. With 10,000 keys that are in use at once
# the chance that any set is too small is 5 in a million; with 20,000 it is 6 in a hundred.
_SETS, _PLACES, _MARK = 4096, 16, 16
_TIMES = struct.Struct(f"={_PLACES}q")
_TIME = struct.Struct("=q")
_MARKS = _PLACES * _MARK
_SET = _MARKS + _TIMES.size


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in so many seconds, both whole numbers from 1: up to a million in up to a day. Raises
    ValueError, naming the field."""

    requests: int
    seconds: int

    def __post_init__(self) -> None:
        for name, most in (("requests", 1_000_000), ("seconds", 86_400)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: must be from 1 to {most}")


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it. `remaining`: what could be taken now. `reset_seconds`: until there is one more.
    `retry_seconds`: until what was refused could be had; 0 where it was allowed."""

    limit: Limit
    allowed: bool
    remaining: int
    reset_seconds: float
    retry_seconds: float

    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), and `Retry-After`
        where it was refused. Times are whole seconds, rounded up."""
        headers = {
            "RateLimit-Policy": f'"key";q={self.limit.requests};w={self.limit.seconds}',
            "RateLimit": f'"key";r={self.remaining};t={ceil(self.reset_seconds)}',
        }
        if not self.allowed:
            headers["Retry-After"] = str(max(ceil(self.retry_seconds), 1))
        return headers


class Rates:
    """What the keys have used. For one thread of a process, which holds a lock for some microseconds."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`environment`: says which directory processes share, if any. `clock`: seconds of CLOCK_MONOTONIC,
        which all processes of a machine have in common."""
        self._clock = clock
        self._descriptor: int | None = None
        if SHARED not in environment:
            self._memory = mmap.mmap(-1, _SETS * _SET)
            return
        file = Path(environment[SHARED]) / FILE
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Else a full disk would be found out only on writing to it, and that ends the process.
        os.posix_fallocate(self._descriptor, 0, _SETS * _SET)
        self._memory = mmap.mmap(self._descriptor, _SETS * _SET)

    def take(self, key: str | int, limit: Limit, cost: int = 1, held: int = 0) -> Taken:
        """Takes `cost` (from 1) of what the key may use now; all of it, or nothing.

        A cost above the whole quota is allowed when nothing of it is used, and is then owed, up to two days:
        the rate holds in the long run. A key that is given another limit starts anew.
        """
        start, mark = _place(key, limit)
        moment = int(self._clock() * _SECOND)
        # Rounded up, so that what fits is exactly the requests, and never one more.
        each = -(-limit.seconds * _SECOND // limit.requests)
        with self._locked(start):
            at = self._find(start, mark, moment)
            used = _TIME.unpack_from(self._memory, at)[0] - moment
            if not 0 < used <= _MOST:
                used = 0
            wait = used + (min(cost + held, limit.requests) - held - limit.requests) * each
            if wait <= 0:
                used = min(used + cost * each, _MOST)
                _TIME.pack_into(self._memory, at, moment + used)
        remaining = max(limit.requests - -(-used // each), 0)
        reset = used - (limit.requests - remaining - 1) * each if used else 0
        return Taken(limit, wait <= 0, remaining, reset / _SECOND, max(wait, 0) / _SECOND)

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.close()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _find(self, start: int, mark: bytes, moment: int) -> int:
        """Where the key's time is: a place that is its own, or else becomes it."""
        found = self._memory.find(mark, start, start + _MARKS)
        if found >= 0:
            return start + _MARKS + (found - start) // _MARK * _TIME.size
        times = _TIMES.unpack_from(self._memory, start + _MARKS)
        # Where all are in use, the one that has least to lose gets its whole quota back.
        place = times.index(min(times))
        at = start + _MARKS + place * _TIME.size
        self._memory[start + place * _MARK : start + (place + 1) * _MARK] = mark
        _TIME.pack_into(self._memory, at, moment)
        return at

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        """The kernel takes the lock back from a process that ends."""
        if self._descriptor is None:
            yield
            return
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, _SET, start)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _SET, start)


@lru_cache(maxsize=16_384)
def _place(key: str | int, limit: Limit) -> tuple[int, bytes]:
    """Where the key's set begins, and its mark in it."""
    said = f"{limit.requests} {limit.seconds} {key}".encode()
    mark = blake2b(said, digest_size=_MARK).digest()
    return int.from_bytes(mark[:8]) % _SETS * _SET, mark

"""The garbage collector of a worker, kept away from what stays.

A pass over a catalog of 3,000 arms takes some 60 ms, in which nothing is answered, and finds nothing: what
makes up a catalog has no cycles, and is gone with its last reader. So what is loaded is set aside
(`gc.freeze`), and the rest, which is little, is gone through seldom: a decision makes some thousand objects,
next to none of them in cycles, and by default every few of them would be looked through.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW, _MIDDLE, _OLD = 50_000, 20, 20
_settled = False


@contextmanager
def settled() -> Iterator[None]:
    """For as long as a process serves: sets aside all there is now."""
    global _settled
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, _MIDDLE, _OLD)
    _settled = True
    try:
        yield
    finally:
        _settled = False
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def loading() -> Iterator[None]:
    """Sets aside what is loaded within. Does nothing in a process that does not serve yet."""
    if not _settled:
        yield
        return
    gc.collect(1)  # else the garbage there is would be set aside too
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

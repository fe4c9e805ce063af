"""A child's side of the bond to its supervisor: its standard input is a socket, which the system closes when
the supervisor is gone, in whatever way, and on which the child says that it is ready."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_STDIN = 0


def say_ready() -> None:
    """Tells the supervisor, if there still is one."""
    try:
        os.write(_STDIN, b"!")
    except BrokenPipeError:  # the end of the socket says so too
        return


def when_gone(call: Callable[[], object]) -> None:
    """Has the running loop call once when the supervisor is gone."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(_STDIN)
        call()

    loop.add_reader(_STDIN, gone)

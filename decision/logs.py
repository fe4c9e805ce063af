"""How log lines are written: as text, or one JSON object a line.

Either names the decision that it is about, where there is one. Nothing in a line names a customer or holds
what is known of one. An exception's text may: a database quotes the row it refuses, a parser the input. So
of an exception a line has its class and where it happened, and its text only where that is ours (`words`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

Format = Literal["text", "json"]
FORMAT, ACCESS = "DECISION_LOG_FORMAT", "DECISION_ACCESS_LOG"

access = logging.getLogger("decision.access")
"""One line for each answered decision, with `extra={"fields": …}`; off unless asked for."""

about: ContextVar[tuple[str | None, str | None]] = ContextVar("about", default=(None, None))
"""Decision id and request id of what is under way here, as far as known."""


def set_up(format: Format, access_log: bool) -> None:
    """Writes everything from INFO on to standard error, and passes the choice on to child processes."""
    os.environ[FORMAT], os.environ[ACCESS] = format, str(int(access_log))
    as_told()


def as_told() -> None:
    """As `set_up`, with what the environment says, which is how child processes are told."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if os.environ.get(FORMAT) == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    wanted = os.environ.get(ACCESS, "").lower() in ("1", "true", "yes", "on")
    access.setLevel(logging.INFO if wanted else logging.WARNING)
    # It logs the URL of every call, and with it customers' ids.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.excepthook = _ended
    threading.excepthook = lambda of: _ended(of.exc_type, of.exc_value, of.exc_traceback)


def words(error: BaseException) -> str:
    """What may be said of an exception: its text where that was written here and is about no customer, or is
    the operating system's; else its class, and of PostgreSQL's which rule of the schema was met."""
    # Not before: the supervisor logs too, and is to stay small.
    from arbitration.errors import FactError, NextBestActionError
    from decision.errors import Conflict, InternalError, Rejected

    name = type(error).__name__
    # Withheld of ours is what quotes a request, or anybody's fault. The system names files and addresses.
    ours = not isinstance(error, Conflict | FactError | InternalError | Rejected)
    if isinstance(error, NextBestActionError | OSError) and ours:
        return str(error) or name
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        about = (getattr(error, f"{kind}_name", None) for kind in ("table", "column", "constraint"))
        return " ".join([f"{name}: SQLSTATE {state}", *filter(None, about)])
    return f"{name} (its text is withheld)"


def _ended(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("ended by a fault", exc_info=(kind, error, where))


class JsonLines(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, message; decision_id and request_id where known; what the line
    adds of its own; exception: the whole traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if exception := _exception(record):
            line["exception"] = exception
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people: the exception on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name} {_message(record)}{fields}"
        exception = _exception(record)
        return f"{line}\n{exception}" if exception else line


def _message(record: logging.LogRecord) -> str:
    if record.name == "asyncio":
        # It adds what the task, or the handle, is: with it the text of its exception.
        return record.getMessage().partition("\n")[0]
    if isinstance(record.args, tuple) and any(isinstance(each, BaseException) for each in record.args):
        args = (words(each) if isinstance(each, BaseException) else each for each in record.args)
        return str(record.msg) % tuple(args)
    return record.getMessage()


def _exception(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return "".join(_trace(record.exc_info[1], set())).rstrip("\n")


def _trace(error: BaseException, seen: set[int]) -> Iterator[str]:
    """As `traceback` has it, with `words` for each exception, its causes before it."""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _trace(before, seen)
        yield "\nfollowed by\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    name, said = type(error).__name__, words(error)
    yield f"{said if said.startswith(name) else f'{name}: {said}'}\n"
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(each) not in seen:
            yield "\ntogether with\n\n"
            yield from _trace(each, seen)


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    decision_id, request_id = about.get()
    known = {"decision_id": decision_id, "request_id": request_id}
    own: dict[str, Any] = getattr(record, "fields", {})
    return {name: value for name, value in {**known, **own}.items() if value is not None}

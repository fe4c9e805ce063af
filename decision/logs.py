"""How log lines are written: as text, or one JSON object a line.

Either names the decision that it is about, where there is one. Nothing in a line names a customer or holds
what is known of one, as far as we write it: an exception of the database may quote a value.
"""

from __future__ import annotations

import json
import logging
import os
from contextvars import ContextVar
from datetime import UTC, datetime
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


class JsonLines(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, message; decision_id and request_id where known; what the line
    adds of its own; exception: the whole traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people: the exception on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return f"{_time(record)} {record.levelname} {record.name} {super().format(record)}{fields}"


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    decision_id, request_id = about.get()
    known = {"decision_id": decision_id, "request_id": request_id}
    own: dict[str, Any] = getattr(record, "fields", {})
    return {name: value for name, value in {**known, **own}.items() if value is not None}

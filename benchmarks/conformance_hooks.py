"""What Schemathesis is told of this API; loaded by it (see `conformance.py`)."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    """The document has a text for the lines. It is sent, and with it profiles of its words."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return json.dumps(value).encode()
    lines = [{"customer_id": line or "x", "attributes": {"nps": len(line)}} for line in value.split()]
    return "\n".join([value, *map(json.dumps, lines)]).encode(errors="replace")

"""Stand-ins for a company's systems: a marketing platform, a CRM, a model server and a service database.

    python examples/live/systems.py SERVICE_DATABASE_FILE [PORT]

Serves until it is stopped. Customer `c-1` is the one to call about; `c-2` has a complaint open.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import exp
from typing import Any

NOW = datetime.now(UTC)


def marketing(customer: str) -> dict[str, Any] | None:
    """What the marketing platform says of a customer."""
    if customer not in ("c-1", "c-2"):
        return None
    return {
        "contract": {"account": f"A-{customer}", "ends_at": (NOW + timedelta(days=40)).isoformat()},
        "products": [{"code": "FIBRE"}, {"code": "TV"}],
    }


def permissions(asked: dict[str, Any]) -> dict[str, Any]:
    """What the CRM says may be done."""
    return {"person": asked["person"], "permissions": [{"purpose": "email", "allowed": True}]}


def churn(asked: dict[str, Any]) -> dict[str, Any]:
    """The model's answer: for each row the probability of staying and of leaving."""
    columns = {tensor["name"]: tensor["data"] for tensor in asked["inputs"]}
    leaving = [
        1 / (1 + exp(0.3 * nps + 0.02 * left - 2))
        for nps, left in zip(columns["nps"], columns["days_left"], strict=True)
    ]
    data = [share for each in leaving for share in (1 - each, each)]
    return {
        "model_name": "churn",
        "outputs": [{"name": "probability", "shape": [len(leaving), 2], "datatype": "FP64", "data": data}],
    }


class Systems(BaseHTTPRequestHandler):
    """All of them that speak HTTP, under one port."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        """The marketing platform: `/customers/{id}`."""
        self._answer(marketing(self.path.partition("?")[0].rpartition("/")[2]))

    def do_POST(self) -> None:
        """The CRM and the model."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(permissions(asked) if self.path.startswith("/crm") else churn(asked))

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what is asked names customers."""

    def _answer(self, found: dict[str, Any] | None) -> None:
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def service_database(file: str) -> None:
    """Fills the service database."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(
            "DROP TABLE IF EXISTS surveys; DROP TABLE IF EXISTS complaints;"
            "CREATE TABLE surveys (account TEXT PRIMARY KEY, nps INTEGER, resolved_at TEXT);"
            "CREATE TABLE complaints (account TEXT, closed_at TEXT);"
        )
        resolved = (NOW - timedelta(days=9)).isoformat()
        connection.executemany(
            "INSERT INTO surveys VALUES (?, ?, ?)", [("A-c-1", 3, resolved), ("A-c-2", 2, resolved)]
        )
        connection.execute("INSERT INTO complaints VALUES ('A-c-2', NULL)")


if __name__ == "__main__":
    service_database(sys.argv[1])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8101
    ThreadingHTTPServer(("127.0.0.1", port), Systems).serve_forever()

"""Nothing personal and nothing secret is in a log, a metric or a trace, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MARKER = "marker7c1f"


def test_no_output_holds_what_is_personal_or_secret(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, str(HERE / "telling.py"), str(tmp_path)],
        env={**environment, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told, said = done.stdout, done.stderr
    assert done.returncode == 1
    # It did all that it was to do, and had something to say of each.
    assert '"statuses": [200, ' in told, said[-2000:]
    for status in (400, 401, 404, 405, 409, 422, 500, 503):
        assert f" {status}" in told.partition("]")[0], told.partition("]")[0]
    for expected in ("http_requests_total", "/v1/customers/{customer_id}", "decision.id", "source.id"):
        assert expected in told
    for expected in (
        "unexpected",
        "a request could not be decided",
        "ValueError (its text is withheld)",
        "ValidationError (its text is withheld)",
        "UniqueViolationError: SQLSTATE 23505 customers",
        "ExceptionGroup (its text is withheld)",
        "RuntimeError (its text is withheld)",
        "KeyError (its text is withheld)",
        "the store is unavailable: the database cannot be written: disk I/O error",
        "source web: ",
        "Task exception was never retrieved",
        "it cannot be opened: the database cannot be",
        "a line for who looks closely",
        "ended by a fault",
        '"logger": "decision.access"',
    ):
        assert expected in said, expected
    secret = (tmp_path / "key").read_text().split("_", 2)[2]
    lines = [line for line in (told + said).splitlines() if MARKER in line or secret in line]
    assert not lines, lines[:5]

"""The command line: `decision …`."""

from __future__ import annotations

import logging
import os

from arbitration.errors import NextBestActionError
from decision import logs
from decision.cli import (
    audits,
    bakeoff,
    catalogs,
    customers,
    exports,
    keys,
    ledger,
    service,
    snapshots,
    whatif,
)
from decision.cli.base import app, complaints
from decision.errors import Rejected

__all__ = [
    "app",
    "audits",
    "bakeoff",
    "catalogs",
    "customers",
    "exports",
    "keys",
    "ledger",
    "main",
    "service",
    "snapshots",
    "whatif",
]


def main() -> None:
    """Entry point. A fault we know becomes one line and exit code 1, anything else a traceback."""
    # Decisions are many small products; threads of the linear algebra would only get in each other's way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logs.as_told()
    try:
        app()
    except Rejected as error:
        complaints.print(f"[red]{error.detail}[/red]", highlight=False)
        for fault in error.errors:
            complaints.print(
                f"  {fault.field}: {fault.message}", markup=False, highlight=False, soft_wrap=True
            )
        raise SystemExit(1) from None
    except NextBestActionError as error:
        if os.environ.get(logs.FORMAT) == "json":  # who reads the log must not miss its last line
            logging.getLogger("decision.cli").critical("%s", error)
        else:
            complaints.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None

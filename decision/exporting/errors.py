"""The export's branch of the error hierarchy (root: `arbitration.errors.NextBestActionError`)."""

from __future__ import annotations

from arbitration.errors import NextBestActionError


class ExportError(NextBestActionError):
    """An export that cannot be made as asked."""

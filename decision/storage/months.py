"""Calendar months in UTC: the steps in which the ledger is kept and forgotten."""

from __future__ import annotations

from datetime import UTC, datetime


def month_of(moment: datetime) -> datetime:
    """When the month of an aware moment began."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(month: datetime) -> datetime:
    """When the month ends that began then."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)

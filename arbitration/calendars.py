"""Calendar periods and quiet hours, by the clock on the wall of a time zone.

A clock on a wall is set forward and back, so local times may be missing or come twice, midnight included.
Both are therefore defined on instants, by what the clock shows at them. Instants are aware datetimes in UTC,
between the years 2 and 9998; beyond those some have no local time: OverflowError or ValueError.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from arbitration.catalog.limits import QuietHours

_DAY = 24 * 60
_WEEK = 7 * _DAY
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
# Two changes of a clock that cancel each other would go unseen within one step. None were ever this close:
# the closest are four days apart (Freetown, 1939).
_STEP = timedelta(days=1)

_Hours = tuple[Sequence[str] | None, str, str]


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name. ValueError on anything else."""
    if name not in _names():
        raise ValueError(f"no time zone is called '{name}'")
    return ZoneInfo(name)


@cache
def _names() -> frozenset[str]:
    # Asked before a file is opened: each kind of wrong name fails there in another way, and some do not fail,
    # such as the machine's own zone and those that count leap seconds.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def period_start(period: str, moment: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the `period` that holds `moment` began: a local day, week (from Monday), month,
    quarter or year.

    A period begins at the first instant at which the local date is in it or later. So where the clock skips
    midnight it begins at the jump; where the clock is set back across midnight, the new period has begun and
    the hour that comes again belongs to it. Periods follow each other without gap or overlap:
    `period_start(...) <= moment < period_end(...)`, and the end is the next one's start.
    ValueError on another `period`.
    """
    return _begins(_days(period, moment, zone)[0], zone)


def period_end(period: str, moment: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the period after the one that holds `moment` begins; see `period_start`."""
    return _begins(_days(period, moment, zone)[1], zone)


def quiet_until(rules: Sequence[QuietHours], moment: datetime, zone: ZoneInfo) -> datetime | None:
    """None where no rule applies at `moment`, else the first instant after it at which none does.

    A rule applies at an instant if the local clock then shows a time between its `from` (inclusive) and `to`
    (exclusive). An hour that comes twice is quiet twice, and an hour that is skipped is not waited for.
    ValueError if the rules are `always_quiet`.
    """
    if not rules:
        return None
    left = _minutes_left(_hours(rules))
    local = moment.astimezone(zone)
    minutes = left[_minute_of_week(local)]
    if not minutes:
        return None
    if minutes == _WEEK:
        raise ValueError("these quiet hours never end")
    while minutes:
        rest = timedelta(minutes=minutes, seconds=-local.second, microseconds=-local.microsecond)
        moment = _advanced(moment, min(rest, _STEP), zone)
        local = moment.astimezone(zone)
        minutes = left[_minute_of_week(local)]
    return moment


def always_quiet(rules: Sequence[QuietHours]) -> bool:
    """Whether these rules leave no minute of the week."""
    return all(_minutes_left(_hours(rules)))


def _days(period: str, moment: datetime, zone: ZoneInfo) -> tuple[date, date]:
    """The first day of the period that holds `moment`, and of the next."""
    first, following = _days_around(period, moment.astimezone(zone).date())
    if _begins(following, zone) <= moment:  # the clock was set back across midnight
        return _days_around(period, following)
    return first, following


def _days_around(period: str, day: date) -> tuple[date, date]:
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    if (months := _MONTHS.get(period)) is None:
        raise ValueError(f"a period is a day, week, month, quarter or year, not '{period}'")
    first = (day.year * 12 + day.month - 1) // months * months
    following = first + months
    return date(first // 12, first % 12 + 1, 1), date(following // 12, following % 12 + 1, 1)


@lru_cache(maxsize=4096)
def _begins(day: date, zone: ZoneInfo) -> datetime:
    """The first instant at which the local date is `day` or later."""
    midnight = datetime.combine(day, time(0), zone)
    instant = midnight.astimezone(UTC)  # of two midnights, the first
    # Datetimes of one zone compare by what the clock shows.
    if instant.astimezone(zone) == midnight:
        return instant
    before_the_jump = midnight.replace(fold=1).astimezone(UTC)
    return _first_second(before_the_jump, instant, lambda at: at.astimezone(zone) >= midnight)


def _hours(rules: Sequence[QuietHours]) -> tuple[_Hours, ...]:
    # Hashing strings is much quicker than hashing models.
    return tuple([(rule.days, rule.from_, rule.to) for rule in rules])


@lru_cache(maxsize=256)
def _minutes_left(hours: tuple[_Hours, ...]) -> array[int]:
    """For each minute of the week from Monday, how long it stays quiet from there, in minutes. 0: it is not,
    `_WEEK`: for ever."""
    quiet = bytearray(_WEEK)
    for days, from_, to in hours:
        begin = _minute_of_day(from_)
        length = (_minute_of_day(to) - begin) % _DAY or _DAY
        for day in days or _DAYS:
            for minute in range(begin, begin + length):
                quiet[(_DAYS.index(day) * _DAY + minute) % _WEEK] = 1
    left = array("H", bytes(2 * _WEEK))
    following = 0
    for minute in [*reversed(range(_WEEK))] * 2:  # twice: Sunday night runs on into Monday
        left[minute] = following = min(following + 1, _WEEK) if quiet[minute] else 0
    return left


def _minute_of_day(clock_time: str) -> int:
    return int(clock_time[:2]) * 60 + int(clock_time[3:])


def _minute_of_week(local: datetime) -> int:
    return local.weekday() * _DAY + local.hour * 60 + local.minute


def _advanced(moment: datetime, by: timedelta, zone: ZoneInfo) -> datetime:
    """`moment` and so much, or the change of the zone's clock if one comes first."""
    offset, later = moment.astimezone(zone).utcoffset(), moment + by
    if later.astimezone(zone).utcoffset() == offset:
        return later
    return _first_second(
        moment.replace(microsecond=0), later, lambda at: at.astimezone(zone).utcoffset() != offset
    )


def _first_second(after: datetime, until: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """The first whole second from `after` on at which it `holds`, as it does from there on; clocks change at
    whole seconds."""
    seconds = range((until - after) // timedelta(seconds=1) + 1)
    return after + timedelta(
        seconds=bisect_left(seconds, True, key=lambda n: holds(after + timedelta(seconds=n)))
    )

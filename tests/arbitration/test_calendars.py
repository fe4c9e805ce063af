"""Calendars: periods partition time, quiet hours go by the wall clock: against scans minute by minute."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from arbitration.calendars import always_quiet, period_end, period_start, quiet_until, zone
from arbitration.catalog.limits import Day, QuietHours

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = [
    "UTC",
    "Europe/Amsterdam",
    "America/New_York",
    "Australia/Lord_Howe",  # its summer time is half an hour
    "America/Sao_Paulo",  # until 2019 the clock skipped midnight
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Havana",  # set back from 01:00 to midnight
    "Atlantic/Azores",
    "America/Scoresbysund",  # set back at midnight, so the day before goes on
    "America/St_Johns",  # until 2011 set back from 00:01, to the day before
    "Pacific/Apia",  # had no 30 December 2011
    "Pacific/Kwajalein",  # had no 21 August 1993
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Europe/Dublin",
]
FIRST, LAST = datetime(1992, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
PERIODS: dict[str, Callable[[date], Hashable]] = {
    "day": lambda day: day,
    "week": lambda day: day.isocalendar()[:2],
    "month": lambda day: (day.year, day.month),
    "quarter": lambda day: (day.year, (day.month + 2) // 3),
    "year": lambda day: day.year,
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def hours(from_: str = "00:00", to: str = "24:00", *days: Day) -> QuietHours:
    return QuietHours(from_=from_, to=to, days=days or None)


@cache
def changes(name: str) -> list[datetime]:
    """The days in which the zone's clock is set."""
    place, days = ZoneInfo(name), [FIRST + n * DAY for n in range((LAST - FIRST).days)]
    offsets = [day.astimezone(place).utcoffset() for day in days]
    return [day for day, old, new in zip(days, offsets, offsets[1:], strict=False) if old != new]


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and an instant, mostly near where its clock is set or a month ends."""
    name = draw(st.sampled_from(ZONES))
    month_ends = st.builds(
        lambda y, m: datetime(y, m, 1, tzinfo=UTC), st.integers(1993, 2030), st.integers(1, 12)
    )
    centre = draw(st.one_of(st.sampled_from(changes(name) or [FIRST]), month_ends))
    minutes = draw(st.integers(-2 * 1440, 3 * 1440))
    return name, centre + minutes * MINUTE + draw(
        st.sampled_from([timedelta(0), -TICK, TICK, timedelta(seconds=31)])
    )


# --- zones


def test_a_zone_is_found_by_its_name_and_is_one_object() -> None:
    assert zone("Europe/Amsterdam") is zone("Europe/Amsterdam")
    assert zone("UTC").utcoffset(datetime(2026, 1, 1)) == timedelta(0)  # noqa: DTZ001
    assert zone("America/Argentina/Buenos_Aires").key == "America/Argentina/Buenos_Aires"


NO_ZONES = [
    "",
    ".",
    "/",
    "../x",
    "../zoneinfo/UTC",
    "/etc/localtime",
    "/usr/share/zoneinfo/UTC",
    "./UTC",
    "UTC/",
]
NO_ZONES += [
    "UTC\n",
    "Europe",
    "Europe/",
    "Europe/Atlantis",
    "europe/amsterdam",
    "CEST",
    "+02:00",
    "UTC+2",
    "local",
]
NO_ZONES += [
    "localtime",
    "posixrules",
    "right/UTC",
    "posix/UTC",
    "Factory",
    "tzdata.zi",
    "zone.tab",
    "a\0b",
    "é",
]
NO_ZONES += ["\ud800", "x" * 9000]


@pytest.mark.parametrize("name", NO_ZONES)
def test_anything_else_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone is called '"):
        zone(name)


# --- periods


def first_instant(day: date, place: ZoneInfo) -> datetime:
    """Scanned for: the first minute at which the local date is `day` or later."""
    instant = datetime.combine(day, time(0), UTC) - 30 * HOUR
    while instant.astimezone(place).date() < day:
        instant += MINUTE
    return instant


def scanned_period(period: str, moment: datetime, place: ZoneInfo) -> tuple[datetime, datetime]:
    key, day = PERIODS[period], moment.astimezone(place).date()
    while first_instant(day + DAY, place) <= moment:
        day += DAY
    first, following = day, day
    while key(first - DAY) == key(day):
        first -= DAY
    while key(following) == key(day):
        following += DAY
    return first_instant(first, place), first_instant(following, place)


@pytest.mark.parametrize("period", PERIODS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(moments())
def test_periods_are_those_that_a_scan_finds(period: str, where_when: tuple[str, datetime]) -> None:
    place, moment = ZoneInfo(where_when[0]), where_when[1]
    found = period_start(period, moment, place), period_end(period, moment, place)
    assert found == scanned_period(period, moment, place)
    assert all(instant.tzinfo is UTC for instant in found)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(moments(), st.sampled_from(list(PERIODS)))
def test_periods_partition_time(where_when: tuple[str, datetime], period: str) -> None:
    place, moment = ZoneInfo(where_when[0]), where_when[1]
    start, end = period_start(period, moment, place), period_end(period, moment, place)
    assert start <= moment < end
    for within in (start, end - TICK):
        assert (period_start(period, within, place), period_end(period, within, place)) == (start, end)
    assert period_start(period, end, place) == end
    assert period_end(period, start - TICK, place) == start


@pytest.mark.parametrize("name", ZONES)
def test_days_follow_each_other_through_decades(name: str) -> None:
    place, instant, days = zone(name), FIRST, 0
    while instant < LAST:
        instant, before = period_end("day", instant, place), instant
        assert period_start("day", instant - TICK, place) == period_start("day", before, place)
        days += 1
    dates = (LAST - TICK).astimezone(place).date() - FIRST.astimezone(place).date()
    assert days == dates.days + 1 - (name in ("Pacific/Apia", "Pacific/Kwajalein"))


@pytest.mark.parametrize(
    ("name", "period", "moment", "start", "end"),
    [
        ("UTC", "day", "2024-02-29T23:59:59.999999Z", "2024-02-29T00:00Z", "2024-03-01T00:00Z"),
        ("UTC", "year", "2026-01-01T00:00Z", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        ("UTC", "quarter", "2025-12-31T23:59Z", "2025-10-01T00:00Z", "2026-01-01T00:00Z"),
        ("UTC", "month", "2024-02-10T00:00Z", "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
        # The first week of 2026 begins in 2025.
        ("UTC", "week", "2026-01-01T00:00Z", "2025-12-29T00:00Z", "2026-01-05T00:00Z"),
        ("Asia/Kathmandu", "year", "2025-12-31T18:15Z", "2026-01-01T00:00+05:45", "2027-01-01T00:00+05:45"),
        # 23 hours, 25 hours.
        ("Europe/Amsterdam", "day", "2026-03-29T12:00Z", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("Europe/Amsterdam", "day", "2026-10-25T12:00Z", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        # Midnight is skipped.
        ("America/Sao_Paulo", "day", "2018-11-04T03:00Z", "2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"),
        (
            "America/Sao_Paulo",
            "day",
            "2018-11-04T02:59:59Z",
            "2018-11-03T00:00-03:00",
            "2018-11-04T01:00-02:00",
        ),
        # It lies within what is skipped.
        ("America/Toronto", "day", "1919-03-31T12:00Z", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
        # Midnight comes twice, within one day.
        ("America/Havana", "day", "2026-11-01T05:30Z", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"),
        ("Atlantic/Azores", "day", "2026-10-25T00:30Z", "2026-10-25T00:00Z", "2026-10-26T00:00-01:00"),
        # At midnight the clock is set back: the day has one hour more.
        (
            "America/Scoresbysund",
            "day",
            "2026-10-25T01:30Z",
            "2026-10-24T00:00-01:00",
            "2026-10-25T00:00-02:00",
        ),
        # At 00:01 on the 7th the clock was set back to 23:01 on the 6th: the 7th had begun.
        ("America/St_Johns", "day", "2010-11-07T02:40Z", "2010-11-07T00:00-02:30", "2010-11-08T00:00-03:30"),
        ("America/St_Johns", "week", "2011-11-06T12:00Z", "2011-10-31T00:00-02:30", "2011-11-07T00:00-03:30"),
        # A day that never was.
        ("Pacific/Apia", "day", "2011-12-30T09:59Z", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
        ("Pacific/Apia", "day", "2011-12-30T10:00Z", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
        ("Pacific/Kwajalein", "day", "1993-08-21T11:00Z", "1993-08-20T00:00-12:00", "1993-08-22T00:00+12:00"),
        # A day that came twice, but for an hour, is one day.
        ("Pacific/Kwajalein", "day", "1969-09-30T14:00Z", "1969-09-30T00:00+11:00", "1969-10-01T00:00-12:00"),
    ],
)
def test_periods_by_example(name: str, period: str, moment: str, start: str, end: str) -> None:
    place = zone(name)
    assert period_start(period, at(moment), place) == at(start)
    assert period_end(period, at(moment), place) == at(end)


def test_another_period_is_refused() -> None:
    for bound in (period_start, period_end):
        with pytest.raises(ValueError, match="not 'hour'"):
            bound("hour", FIRST, zone("UTC"))


# --- quiet hours


def is_quiet(rules: list[QuietHours], moment: datetime, place: ZoneInfo) -> bool:
    """The definition: the clock shows a time within an interval that began today or yesterday."""
    local = moment.astimezone(place)
    shown, today, yesterday = local.isoformat()[11:16], DAYS[local.weekday()], DAYS[local.weekday() - 1]
    for rule in rules:
        days = rule.days or DAYS
        if rule.from_ < rule.to:
            if today in days and rule.from_ <= shown < rule.to:
                return True
        elif (today in days and shown >= rule.from_) or (yesterday in days and shown < rule.to):
            return True
    return False


def scanned_quiet_until(rules: list[QuietHours], moment: datetime, place: ZoneInfo) -> datetime | None:
    if not is_quiet(rules, moment, place):
        return None
    instant = moment.replace(second=0, microsecond=0) + MINUTE
    while is_quiet(rules, instant, place):
        instant += MINUTE
    return instant


CLOCK = st.one_of(
    st.sampled_from(
        ["00:00", "00:01", "01:00", "01:30", "01:59", "02:00", "02:30", "03:00", "23:00", "23:59", "24:00"]
    ),
    st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
)
SOME_DAYS = st.none() | st.lists(st.sampled_from(DAYS), min_size=1, max_size=6, unique=True).map(tuple)
INTERVALS = st.tuples(CLOCK, CLOCK).filter(lambda times: times[0] not in (times[1], "24:00"))
RULES = st.lists(
    st.builds(lambda times, days: QuietHours(from_=times[0], to=times[1], days=days), INTERVALS, SOME_DAYS),
    min_size=1,
    max_size=4,
)
FREETOWN = ("Africa/Freetown", at("1939-08-31T12:00Z"))
NIGHTS_AND_SUNDAY = [hours("21:00", "08:00"), hours("00:00", "24:00", "sun")]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(RULES, moments())
@example(NIGHTS_AND_SUNDAY, ("Europe/Amsterdam", at("2026-03-28T23:15:31.000001Z")))
@example(NIGHTS_AND_SUNDAY, ("Pacific/Apia", at("2011-12-30T09:00Z")))
# Its clock was set forward by 20 minutes on the Friday and back on the Monday, when 23:50 came twice.
@example([hours("00:00", "23:50", "mon"), hours("00:00", "24:00", *DAYS[3:])], FREETOWN)
def test_quiet_lasts_until_a_scan_says_it_ends(
    rules: list[QuietHours], where_when: tuple[str, datetime]
) -> None:
    assume(not always_quiet(rules))
    place, moment = ZoneInfo(where_when[0]), where_when[1]
    until = quiet_until(rules, moment, place)
    assert until == scanned_quiet_until(rules, moment, place)
    assert until is None or until.tzinfo is UTC


@settings(max_examples=80, deadline=None, derandomize=True)
@given(INTERVALS, st.data())
def test_a_night_whose_end_the_clock_touches(times: tuple[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in ZONES if changes(name)]))
    moment = data.draw(st.sampled_from(changes(name))) + data.draw(st.integers(-600, 1800)) * MINUTE
    rules, place = [hours(*times)], ZoneInfo(name)
    assert quiet_until(rules, moment, place) == scanned_quiet_until(rules, moment, place)


@pytest.mark.parametrize(
    ("rules", "name", "moment", "until"),
    [
        ([hours("21:00", "08:00")], "UTC", "2026-01-01T20:59:59.999999Z", None),
        ([hours("21:00", "08:00")], "UTC", "2026-01-01T21:00Z", "2026-01-02T08:00Z"),
        ([hours("21:00", "08:00")], "UTC", "2026-01-02T07:59:59.999999Z", "2026-01-02T08:00Z"),
        ([hours("21:00", "08:00")], "UTC", "2026-01-02T08:00Z", None),
        ([hours("21:00", "24:00")], "UTC", "2026-01-01T23:59:59.999999Z", "2026-01-02T00:00Z"),
        ([hours("21:00", "00:00")], "UTC", "2026-01-01T23:59:59.999999Z", "2026-01-02T00:00Z"),
        # `days` are those on which it begins: 2 January 2026 is a Friday.
        ([hours("21:00", "08:00", "fri")], "UTC", "2026-01-02T07:00Z", None),
        ([hours("21:00", "08:00", "fri")], "UTC", "2026-01-03T07:00Z", "2026-01-03T08:00Z"),
        ([hours("21:00", "08:00", "sun")], "UTC", "2026-01-05T07:00Z", "2026-01-05T08:00Z"),
        # Saturday's night, Sunday, and Sunday's night.
        (NIGHTS_AND_SUNDAY, "Asia/Kathmandu", "2026-01-03T21:30+05:45", "2026-01-05T08:00+05:45"),
        # 02:30 is skipped: quiet ends at the jump. It comes twice: at the first, and then again.
        (
            [hours("22:00", "02:30")],
            "Europe/Amsterdam",
            "2026-03-29T01:59:59+01:00",
            "2026-03-29T03:00+02:00",
        ),
        ([hours("02:15", "02:45")], "Europe/Amsterdam", "2026-03-29T00:59:59Z", None),
        ([hours("02:15", "02:45")], "Europe/Amsterdam", "2026-03-29T01:00Z", None),
        (
            [hours("22:00", "02:30")],
            "Europe/Amsterdam",
            "2026-10-25T02:29:59+02:00",
            "2026-10-25T02:30+02:00",
        ),
        ([hours("22:00", "02:30")], "Europe/Amsterdam", "2026-10-25T02:30+02:00", None),
        ([hours("22:00", "02:30")], "Europe/Amsterdam", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00"),
        ([hours("22:00", "03:00")], "Europe/Amsterdam", "2026-10-25T02:30+02:00", "2026-10-25T03:00+01:00"),
        ([hours("02:30", "03:00")], "Europe/Amsterdam", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00"),
        # Half an hour back, from 02:00 to 01:30.
        ([hours("22:00", "01:45")], "Australia/Lord_Howe", "2026-04-05T01:50+11:00", None),
        (
            [hours("22:00", "02:00")],
            "Australia/Lord_Howe",
            "2026-04-05T01:50+11:00",
            "2026-04-05T02:00+10:30",
        ),
        # The Friday that never was: the night of the 29th ends on the 31st.
        ([hours("22:00", "08:00")], "Pacific/Apia", "2011-12-29T23:00-10:00", "2011-12-31T08:00+14:00"),
        (
            [hours("22:00", "08:00", "thu")],
            "Pacific/Apia",
            "2011-12-29T23:00-10:00",
            "2011-12-31T00:00+14:00",
        ),
    ],
)
def test_quiet_hours_by_example(rules: list[QuietHours], name: str, moment: str, until: str | None) -> None:
    assert quiet_until(rules, at(moment), zone(name)) == (at(until) if until else None)


def test_the_only_free_minutes_of_a_week_may_be_skipped() -> None:
    rules = [
        hours("02:30", "02:00", *DAYS[:5]),
        hours("00:00", "24:00", "sat"),
        hours("02:30", "24:00", "sun"),
    ]
    rules += [hours("00:00", "02:00", "sun"), hours("00:00", "24:00", *DAYS[:5])]
    place = zone("Europe/Amsterdam")
    assert quiet_until(rules, at("2026-03-23T12:00Z"), place) == at("2026-04-05T02:00+02:00")


def test_without_rules_nothing_is_quiet() -> None:
    assert quiet_until([], FIRST, zone("UTC")) is None
    assert not always_quiet([])


@pytest.mark.parametrize(
    ("rules", "always"),
    [
        ([hours()], True),
        ([hours("08:00", "20:00"), hours("20:00", "08:00")], True),
        ([hours("08:00", "20:00"), hours("20:00", "07:59")], False),
        ([hours("08:00", "20:00"), hours("20:01", "08:00")], False),
        ([hours("00:00", "24:00", *DAYS[:6]), hours("12:00", "24:00", "sun")], False),
        ([hours("00:00", "24:00", *DAYS[:6]), hours("12:00", "11:59", "sat", "sun")], False),
        (
            [
                hours("00:00", "24:00", *DAYS[:6]),
                hours("12:00", "11:59", "sat", "sun"),
                hours("11:00", "12:00"),
            ],
            True,
        ),
        ([hours("00:00", "24:00", *DAYS[1:]), hours("00:01", "24:00", "mon")], False),
    ],
)
def test_rules_that_never_end_are_told(rules: list[QuietHours], always: bool) -> None:
    assert always_quiet(rules) is always
    week = [at("2026-01-05T00:00Z") + n * MINUTE for n in range(7 * 1440)]
    assert all(is_quiet(rules, minute, zone("UTC")) for minute in week) is always
    if always:
        with pytest.raises(ValueError, match="never end"):
            quiet_until(rules, FIRST, zone("Europe/Amsterdam"))

"""How often a key may be used: exactly so often, by however many processes, and what a caller is told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from decision.access import rates as module
from decision.access.rates import Limit, Rates, Taken


class Clock:
    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["shared", "alone"])
def rates(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Any:
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if request.param == "shared" else {}
    opened = Rates(shared, clock)
    yield opened
    opened.close()


LIMIT = Limit(10, 5)


def allowed(rates: Rates, key: str, times: int, limit: Limit = LIMIT) -> int:
    return sum(rates.take(key, limit).allowed for _ in range(times))


def test_a_quota_is_full_at_first_and_comes_back_evenly(rates: Rates, clock: Clock) -> None:
    assert allowed(rates, "a", 30) == 10
    for _ in range(20):
        clock.now += 0.5
        assert allowed(rates, "a", 3) == 1
    clock.now += 5
    assert allowed(rates, "a", 30) == 10
    clock.now += 1_000_000
    assert allowed(rates, "a", 30) == 10


@pytest.mark.parametrize(
    "limit", [Limit(1, 1), Limit(3, 1), Limit(7, 60), Limit(1_000, 1), Limit(1_999, 7), Limit(1, 86_400)]
)
def test_exactly_the_quota_fits_at_any_time_of_any_clock(limit: Limit) -> None:
    clock = Clock()
    rates = Rates({}, clock)
    for clock.now in (0.0, 0.1, 3.3e6 + 1 / 3, 4e8 + 0.7):
        assert allowed(rates, f"at {clock.now}", limit.requests + 5, limit) == limit.requests


def test_keys_do_not_take_from_each_other(rates: Rates) -> None:
    assert [allowed(rates, key, 30) for key in ("a", "b", "a" * 500, "ä", "")] == [10] * 5
    assert not rates.take("a", LIMIT).allowed
    assert rates.take("a", Limit(11, 5)).allowed  # another limit is another quota


def test_it_tells_what_is_left_and_when_there_is_more(rates: Rates, clock: Clock) -> None:
    assert rates.take("a", LIMIT) == Taken(LIMIT, True, 9, 0.5, 0)
    clock.now += 0.2
    assert rates.take("a", LIMIT, 8) == Taken(LIMIT, True, 1, 0.3, 0)
    assert rates.take("a", LIMIT, 3) == Taken(LIMIT, False, 1, 0.3, 0.8)
    assert rates.take("a", LIMIT) == Taken(LIMIT, True, 0, 0.3, 0)
    refused = rates.take("a", LIMIT)
    assert refused == Taken(LIMIT, False, 0, 0.3, 0.3)
    clock.now += refused.retry_seconds
    assert rates.take("a", LIMIT).allowed


def test_all_of_a_cost_is_taken_or_nothing(rates: Rates, clock: Clock) -> None:
    assert rates.take("a", LIMIT, 7).allowed
    assert not rates.take("a", LIMIT, 4).allowed
    assert rates.take("a", LIMIT, 3).allowed
    clock.now += 5
    assert rates.take("a", LIMIT, 10).remaining == 0


def test_a_cost_above_the_quota_is_owed(rates: Rates, clock: Clock) -> None:
    assert rates.take("a", LIMIT, 1).allowed
    refused = rates.take("a", LIMIT, 100)
    assert refused == Taken(LIMIT, False, 9, 0.5, 0.5)
    clock.now += 0.5
    assert rates.take("a", LIMIT, 100) == Taken(LIMIT, True, 0, 45.5, 0)
    clock.now += 45.4
    assert not rates.take("a", LIMIT).allowed
    clock.now += 0.2
    assert rates.take("a", LIMIT).allowed


def test_no_more_is_owed_than_two_days_and_nothing_to_another_start_of_the_machine(
    rates: Rates, clock: Clock
) -> None:
    day = Limit(1, 86_400)
    assert rates.take("a", day, 10**12) == Taken(day, True, 0, 2 * 86_400.0, 0)
    assert rates.take("a", day).retry_seconds == 2 * 86_400
    clock.now -= 1
    assert rates.take("a", day).allowed


def test_over_any_span_no_more_goes_through_than_quota_and_rate_give(clock: Clock) -> None:
    rates, chance, passed = Rates({}, clock), random.Random(5), list[tuple[float, int]]()
    for _ in range(3_000):
        clock.now += chance.expovariate(4)
        cost = chance.choice([1, 1, 1, 2, 5])
        if rates.take("a", LIMIT, cost).allowed:
            passed.append((clock.now, cost))
    for first in range(0, len(passed), 7):
        total = 0
        for at, cost in passed[first:]:
            total += cost
            assert total <= 10 + (at - passed[first][0]) * 2 + 1e-6
    assert sum(cost for _, cost in passed) > 0.95 * 2 * (clock.now - 5_000)


def test_a_clock_that_is_a_little_behind_gives_nothing_away(rates: Rates, clock: Clock) -> None:
    assert allowed(rates, "a", 10) == 10
    clock.now -= 0.01
    assert not rates.take("a", LIMIT).allowed


def test_places_are_used_again_and_memory_has_a_bound(rates: Rates, clock: Clock) -> None:
    size = len(rates._memory)
    for number in range(2_000):
        assert rates.take(f"old {number}", LIMIT).allowed
    clock.now += 5
    assert [allowed(rates, f"new {number}", 12) for number in range(500)] == [10] * 500
    assert [allowed(rates, f"new {number}", 1) for number in range(500)] == [0] * 500
    assert len(rates._memory) == size == 4096 * 384


def test_where_a_set_is_full_the_key_that_has_used_least_begins_anew(
    rates: Rates, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETS", 1)
    module._place.cache_clear()
    keys = [str(number) for number in range(16)]
    for used, key in enumerate(keys, 1):
        assert rates.take(key, Limit(100, 100), used).allowed
    assert rates.take("more", Limit(100, 100), 50).remaining == 50
    assert rates.take("1", Limit(100, 100)).remaining == 97
    assert rates.take("0", Limit(100, 100)).remaining == 99
    module._place.cache_clear()


_CHILD = """
import json, sys, time
from decision.access.rates import Limit, Rates
rates = Rates({"PROMETHEUS_MULTIPROC_DIR": sys.argv[1]})
seconds, limit = float(sys.argv[2]), Limit(*json.loads(sys.argv[3]))
print(flush=True)
sys.stdin.readline()
got, tried, refused, end = [0, 0], 0, 0, time.monotonic() + seconds
while time.monotonic() < end if seconds else refused < 20:
    tried += 1
    allowed = rates.take(("one", "two")[tried % 2], limit).allowed
    got[tried % 2] += allowed
    refused = 0 if allowed else refused + 1
print(json.dumps(got))
"""


def _taken_by(processes: int, shared: Path, seconds: float, limit: Limit) -> list[list[int]]:
    """What each process got of each of two keys, in so many seconds (0: until there is no more). They all
    begin once all are ready."""
    terms = json.dumps([limit.requests, limit.seconds])
    command = [sys.executable, "-c", _CHILD, str(shared), str(seconds), terms]
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(processes)]
        for each in started:
            each.stdout.readline()
        for each in started:
            each.stdin.write(b"\n")
            each.stdin.flush()
        return [json.loads(each.stdout.readline()) for each in started]


def test_processes_together_take_exactly_the_quota(tmp_path: Path) -> None:
    # So slow that none comes back meanwhile, so much that they meet at it many times.
    found = _taken_by(3, tmp_path, 0, Limit(4_000, 86_400))
    assert [sum(each[key] for each in found) for key in (0, 1)] == [4_000, 4_000]
    assert sum(min(each) > 0 for each in found) > 1


@pytest.mark.long
def test_processes_together_keep_to_the_rate(tmp_path: Path) -> None:
    for limit in (Limit(100, 1), Limit(5_000, 1)):
        shared = tmp_path / str(limit.requests)
        shared.mkdir()
        found = _taken_by(4, shared, 10, limit)
        for key in (0, 1):
            total = sum(each[key] for each in found)
            assert limit.requests * 10.9 < total <= limit.requests * 11 + 1


def test_headers_are_those_of_the_draft() -> None:
    taken = Taken(Limit(100, 60), True, 99, 0.6, 0)
    assert taken.headers() == {
        "RateLimit-Policy": '"key";q=100;w=60',
        "RateLimit": '"key";r=99;t=1',
    }
    refused = Taken(Limit(1, 86_400), False, 0, 3_600.01, 3_600.01).headers()
    assert (refused["RateLimit"], refused["Retry-After"]) == ('"key";r=0;t=3601', "3601")
    assert Taken(Limit(9, 1), False, 0, 0.0, 1e-9).headers()["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("requests", "seconds", "field"),
    [
        (0, 1, "requests"),
        (-1, 1, "requests"),
        (1_000_001, 1, "requests"),
        (1, 0, "seconds"),
        (1, 86_401, "seconds"),
    ],
)
def test_a_limit_that_is_none_is_refused(requests: int, seconds: int, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        Limit(requests, seconds)


def test_where_there_is_no_directory_it_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Rates({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")})

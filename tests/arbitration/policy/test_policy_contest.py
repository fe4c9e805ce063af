"""A contest that is asked again and again says each time what the integral of its own says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbitration.policy import contest
from arbitration.policy.contest import Contest
from arbitration.policy.thompson import best_of_normals

Floats = npt.NDArray[np.float64]

ERROR = 1e-6  # what `Contest.chances` promises


def beliefs(seed: int, count: int, likeness: float, narrow: float) -> tuple[Floats, Floats]:
    """Priorities as they come: rates of some percent times values; some arms hardly known, some exactly."""
    rng = np.random.default_rng(seed)
    value = 50 * np.exp(rng.normal(0, likeness, count))
    rate = rng.beta(2, 25, count)
    events = 50 * np.exp(rng.uniform(0, 12, count) * narrow)
    sd = np.sqrt(rate / events)
    sd[rng.random(count) < 0.05] = 0.0
    value[rng.random(count) < 0.05] = 0.0
    return rate * value, sd * value


@settings(max_examples=120, deadline=None)
@example(seed=2607, count=200, likeness=2.0, narrow=0.0, removed=4, best_first=False)
@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([1, 2, 3, 5, 20, 47, 49, 60, 200, 400]),
    likeness=st.sampled_from([0.0, 0.5, 2.0]),
    narrow=st.sampled_from([0.0, 0.5, 1.0]),
    removed=st.integers(0, 4),
    best_first=st.booleans(),
)
def test_each_time_it_is_as_if_asked_for_the_first_time(
    seed: int, count: int, likeness: float, narrow: float, removed: int, best_first: bool
) -> None:
    mean, sd = beliefs(seed, count, likeness, narrow)
    rng = np.random.default_rng(seed)
    asked = Contest(mean, sd, removed)
    left = np.arange(count)
    for _ in range(min(removed + 1, count)):
        chances = asked.chances(left)
        expected = best_of_normals(mean[left], sd[left])
        assert chances == pytest.approx(expected, abs=ERROR)
        assert chances.sum() == pytest.approx(1, abs=1e-12)
        assert (chances >= 0).all()
        taken = (
            int(chances.argmax()) if best_first else int(rng.choice(len(left), p=expected / expected.sum()))
        )
        left = np.delete(left, taken)


def test_who_had_no_chance_beside_the_best_may_be_the_best_without_them() -> None:
    mean = np.append(np.full(60, 1.0), [5.0, 9.0])
    sd = np.append(np.full(60, 0.2), [0.01, 0.01])
    asked = Contest(mean, sd, 2)
    assert asked.chances(np.arange(62))[61] == pytest.approx(1)
    assert asked.chances(np.arange(61))[60] == pytest.approx(1)
    assert asked.chances(np.arange(60)) == pytest.approx(np.full(60, 1 / 60), abs=ERROR)


def test_more_may_be_taken_than_was_said() -> None:
    mean, sd = np.arange(80.0), np.full(80, 0.1)
    asked = Contest(mean, sd, 1)
    assert asked.chances(np.arange(10))[9] == pytest.approx(1, abs=ERROR)


def test_what_slots_have_in_common_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the other tests would compare the integral with itself."""
    mean, sd = beliefs(1, 60, 0.5, 0.0)
    asked = Contest(mean, np.maximum(sd, 0.1), 2)

    def alone(mean: Floats, sd: Floats) -> Floats:
        raise AssertionError("integrated by itself")

    monkeypatch.setattr(contest, "best_of_normals", alone)
    for count in (60, 59, 58):
        asked.chances(np.arange(count))

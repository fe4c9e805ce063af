"""A history is a multiset: events in any order, taken back before or after they came, leave the same.

Events are drawn from fixed seeds; nothing is a statistical comparison, so there are no false alarms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser.history import Events, History

SIZE = 2
ALL = 60
_RNG = np.random.default_rng(0)
# Few distinct values: the same event often comes twice, and many share a time.
CHOSEN: list[str] = _RNG.choice(["a", "b", "c"], ALL).tolist()
X = _RNG.integers(0, 2, (ALL, SIZE)).astype(np.float64)
REWARD = _RNG.integers(0, 2, ALL).astype(np.float64)
AT = np.floor(np.arange(ALL) / 20)


def add(history: History, which: Any, weight: float = 1.0) -> History:
    arms = [CHOSEN[event] for event in which]
    history.add(arms, X[which], REWARD[which], np.full(len(which), weight), AT[which])
    return history


def same(left: Events, right: Events) -> bool:
    arrays = ((left.arm, right.arm), (left.x, right.x), (left.reward, right.reward))
    return left.arms == right.arms and all(np.array_equal(ours, theirs) for ours, theirs in arrays)


def filled(which: Any, keep: int = 20) -> History:
    return add(History("encoding", SIZE, keep), list(which))


@given(st.permutations(range(ALL)), st.integers(0, ALL), st.sets(st.integers(0, ALL - 1), max_size=15))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_order_and_what_is_taken_back_was_never_there(
    order: list[int], cut: int, wrong: set[int]
) -> None:
    history = filled(order[:cut])
    add(history, sorted(wrong), -1.0)
    add(history, order[cut:])
    assert same(history.newest(), filled(event for event in range(ALL) if event not in wrong).newest())


@pytest.mark.parametrize("keep", [1, 7, ALL, 1000])
def test_the_newest_are_trained_on(keep: int) -> None:
    events = filled(range(ALL), keep).newest()
    count = min(keep, ALL)
    assert list(events.arms) == sorted({events.arms[arm] for arm in events.arm})
    assert len(events.arm) == len(events.x) == len(events.reward) == count
    rows = sorted((AT[i], CHOSEN[i], REWARD[i], *X[i]) for i in range(ALL))[-count:]
    found = [(events.arms[a], r, *x) for a, r, x in zip(events.arm, events.reward, events.x, strict=True)]
    assert sorted(found) == sorted(row[1:] for row in rows)


def test_what_is_no_longer_needed_is_dropped_and_the_rest_is_the_same() -> None:
    rng = np.random.default_rng(1)
    at, x = rng.permutation(1000).astype(np.float64), rng.random((1000, SIZE))
    kept, whole = History("e", SIZE, 50), History("e", SIZE, 1000)
    for part in np.array_split(np.arange(1000), 40):
        for history in (kept, whole):
            history.add(["a"] * len(part), x[part], x[part, 0], np.ones(len(part)), at[part])
    assert len(kept) <= 4 * 50
    # Of the 50 newest 30 are taken back; older ones take their place.
    wrong = np.argsort(at)[-30:]
    for history in (kept, whole):
        history.add(["a"] * 30, x[wrong], x[wrong, 0], -np.ones(30), at[wrong])
    assert np.array_equal(kept.newest().x, whole.newest().x[-50:])
    # What is older than all that is kept is not known any more, and changes nothing.
    before = kept.newest()
    oldest = np.argsort(at)[:5]
    kept.add(["a"] * 5, x[oldest], x[oldest, 0], -np.ones(5), at[oldest])
    assert same(kept.newest(), before)


def test_nothing_at_all() -> None:
    events = add(filled([5]), [5], -1.0).newest()
    assert events.arms == ()
    assert events.x.shape == (0, SIZE)
    assert len(events.arm) == len(events.reward) == 0


def test_minus_zero_is_zero() -> None:
    history = History("e", 1, 5)
    history.add(["a"], np.zeros((1, 1)), np.zeros(1), np.ones(1), np.ones(1))
    history.add(["a"], -np.zeros((1, 1)), -np.zeros(1), -np.ones(1), np.ones(1))
    assert len(history) == 0
    assert not history.rows


@pytest.mark.parametrize("place", range(5))
def test_what_is_no_event_is_refused(place: int) -> None:
    history = filled(range(3))
    arrays = [np.ones((2, SIZE)), np.ones(2), np.ones(2), np.ones(2)]
    if place < 4:
        arrays[place][-1] = np.nan
    else:
        arrays[2][-1] = 0.5
    with pytest.raises(SnapshotError):
        history.add(["a", "b"], *arrays)
    assert len(history) == 3


def test_a_history_that_lost_too_much_says_so() -> None:
    history = History("encoding", 1, 10)
    arms, x, at = ["a"] * 100, np.arange(100.0)[:, None], np.arange(100.0)
    history.add(arms, x, np.ones(100), np.ones(100), at)
    assert not history.exhausted
    history.add(arms[-5:], x[-5:], np.ones(5), -np.ones(5), at[-5:])
    assert not history.exhausted
    history.add(arms[-40:-5], x[-40:-5], np.ones(35), -np.ones(35), at[-40:-5])
    assert history.exhausted

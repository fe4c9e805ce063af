"""Learned state is a sum over events: it can be split, merged, reordered, corrected and trusted.

Events are drawn from fixed seeds; nothing is a statistical comparison, so there are no false alarms.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arbitration.errors import SnapshotError
from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]

SIZE = 4
ARMS = ("renew", "upsell", "survey")


@dataclass(frozen=True)
class Events:
    arms: list[str]
    x: Floats
    rewards: Floats

    def __getitem__(self, which: npt.NDArray[np.intp]) -> Events:
        return Events([self.arms[event] for event in which], self.x[which], self.rewards[which])

    def __len__(self) -> int:
        return len(self.arms)


def events(count: int = 200, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    arms: list[str] = rng.choice(ARMS, count).tolist()
    return Events(arms, rng.normal(size=(count, SIZE)), rng.random(count))


def add(state: State, some: Events, weight: float = 1.0) -> State:
    state.add(some.arms, some.x, some.rewards, np.full(len(some), weight))
    return state


def learned(some: Events) -> State:
    return add(State("encoding", SIZE), some)


def sums(state: State) -> dict[str, Floats]:
    """Per arm, all its sums side by side."""
    return {
        arm: np.concatenate([state.outer[row], state.moment[row], [state.squares[row], state.count[row]]])
        for arm, row in state.rows.items()
    }


def assert_same(left: State, right: State) -> None:
    ours, theirs = sums(left), sums(right)
    assert set(ours) == set(theirs)
    for arm, of_arm in ours.items():
        assert of_arm == pytest.approx(theirs[arm], abs=1e-12, rel=1e-12)


def test_the_sums_are_what_they_are_called() -> None:
    some = events(50)
    state = learned(some)
    upper = np.triu_indices(SIZE)
    for arm, row in state.rows.items():
        mine = some[np.flatnonzero(np.array(some.arms) == arm)]
        assert state.outer[row] == pytest.approx((mine.x.T @ mine.x)[upper])
        assert state.moment[row] == pytest.approx(mine.x.T @ mine.rewards)
        assert state.squares[row] == pytest.approx(mine.rewards @ mine.rewards)
        assert state.count[row] == len(mine)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_order_and_any_split_come_to_the_same(cut: int, seed: int) -> None:
    some = events()
    order = np.random.default_rng(seed).permutation(len(some))
    merged = learned(some[order[:cut]])
    merged.merge(learned(some[order[cut:]]))
    assert_same(merged, learned(some))


def test_one_by_one_is_all_at_once() -> None:
    some = events(60)
    state = State("encoding", SIZE)
    for event in range(len(some)):
        add(state, some[np.array([event])])
    assert_same(state, learned(some))


def test_an_event_taken_back_was_never_there() -> None:
    some, wrong = events(), events(50, seed=1)
    assert_same(add(add(learned(some), wrong), wrong, -1.0), learned(some))


def test_a_late_outcome_revises_exactly() -> None:
    """`no_response` became a conversion: the old reward is taken back, the new one added."""
    some = events()
    silent = Events(some.arms, some.x, np.where(np.arange(len(some)) < 30, 0.0, some.rewards))
    state, first = learned(silent), np.arange(30)
    assert_same(add(add(state, silent[first], -1.0), some[first]), learned(some))


def test_one_batch_may_add_and_take_back() -> None:
    some, wrong = events(40), events(15, seed=1)
    mixed = Events(some.arms + wrong.arms * 2, np.vstack([some.x, wrong.x, wrong.x]), np.zeros(70))
    mixed.rewards[:] = np.concatenate([some.rewards, wrong.rewards, wrong.rewards])
    order = np.random.default_rng(3).permutation(70)
    weight = np.concatenate([np.ones(55), -np.ones(15)])[order]
    state, shuffled = State("encoding", SIZE), mixed[order]
    state.add(shuffled.arms, shuffled.x, shuffled.rewards, weight)
    assert_same(state, learned(some))


def test_weights_count_by_as_much() -> None:
    some = events(30)
    twice = add(add(learned(some), some), some, 0.5)
    state = add(State("encoding", SIZE), some, 2.5)
    assert_same(state, twice)


def test_erasing_a_customer_leaves_what_the_others_taught() -> None:
    some = events()
    customer = np.arange(len(some)) % 7
    state = add(learned(some), some[np.flatnonzero(customer == 3)], -1.0)
    assert_same(state, learned(some[np.flatnonzero(customer != 3)]))


def test_an_arm_wholly_erased_counts_nothing() -> None:
    some = events(20)
    state = add(learned(some), some, -1.0)
    assert all(of_arm == pytest.approx(np.zeros_like(of_arm), abs=1e-12) for of_arm in sums(state).values())
    assert (state.count == 0).all()


def test_no_events_change_nothing() -> None:
    state = learned(events())
    version, _ = state.to_bytes()
    add(state, events(0))
    state.merge(State("encoding", SIZE))
    assert state.to_bytes()[0] == version


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "reward", "weight"])
def test_what_is_not_finite_is_refused_and_leaves_no_trace(bad: float, where: str) -> None:
    state, some = learned(events()), events(5, seed=2)
    version, _ = state.to_bytes()
    parts = {"x": some.x.copy(), "reward": some.rewards.copy(), "weight": np.ones(5)}
    parts[where][2] = bad
    with pytest.raises(SnapshotError):
        state.add(["stranger"] * 5, parts["x"], parts["reward"], parts["weight"])
    assert state.to_bytes()[0] == version
    assert "stranger" not in state.rows


@pytest.mark.parametrize(("fingerprint", "size"), [("another", SIZE), ("encoding", SIZE + 1)])
def test_states_of_other_encodings_are_not_merged(fingerprint: str, size: int) -> None:
    with pytest.raises(SnapshotError):
        learned(events()).merge(State(fingerprint, size))


def test_a_snapshot_reads_back_as_it_was() -> None:
    state = learned(events())
    version, content = state.to_bytes()
    back = State.from_bytes(content)
    assert (back.fingerprint, back.size) == ("encoding", SIZE)
    assert {arm: of_arm.tobytes() for arm, of_arm in sums(back).items()} == {
        arm: of_arm.tobytes() for arm, of_arm in sums(state).items()
    }
    assert back.to_bytes()[0] == version
    assert_same(add(back, events(9, seed=3)), add(state, events(9, seed=3)))


def test_a_snapshot_packed_as_numpy_does_reads_back() -> None:
    """As those before were: only the level of compression is another."""
    state = learned(events())
    version, _ = state.to_bytes()
    assert State.from_bytes(_packed(_parts(state)), version).to_bytes()[0] == version


def test_an_empty_snapshot_reads_back() -> None:
    back = State.from_bytes(State("encoding", SIZE).to_bytes()[1])
    assert back.rows == {}
    assert_same(add(back, events()), learned(events()))


def test_equal_states_have_one_version_and_others_another() -> None:
    some = events()
    version, _ = learned(some).to_bytes()
    assert learned(some).to_bytes()[0] == version
    assert add(learned(some), some[np.array([0])]).to_bytes()[0] != version
    other = State("another", SIZE)
    assert add(other, some).to_bytes()[0] != version
    renamed = Events([arm.upper() for arm in some.arms], some.x, some.rewards)
    assert learned(renamed).to_bytes()[0] != version


def test_the_order_in_which_arms_were_met_does_not_change_the_version() -> None:
    """Rewards and contexts whose sums are exact, so that the sums are the same bits in any order."""
    some = Events(["a", "b", "c"] * 4, np.arange(12 * SIZE).reshape(12, SIZE) * 1.0, np.ones(12))
    forward, backward = learned(some), learned(some[np.arange(12)[::-1]])
    assert list(forward.rows) != list(backward.rows)
    assert forward.to_bytes()[0] == backward.to_bytes()[0]


def _parts(state: State) -> dict[str, Any]:
    with np.load(io.BytesIO(state.to_bytes()[1][32:])) as file:
        return {name: file[name] for name in file.files}


def _packed(parts: dict[str, Any], *, pickles: bool = False) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=pickles, **parts)
    return _signed(file.getvalue())


def _signed(content: bytes) -> bytes:
    """As a writer would that knows the format but has something else to say."""
    return hashlib.sha256(content).digest() + content


def _meta(parts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return parts | {"meta": np.array(json.dumps(json.loads(str(parts["meta"])) | changes))}


_IMPOSSIBLE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "a part missing": lambda p: _packed({name: part for name, part in p.items() if name != "squares"}),
    "no meta": lambda p: _packed({name: part for name, part in p.items() if name != "meta"}),
    "the other byte order": lambda p: _packed(p | {"moment": p["moment"].view(">f8")}),
    "nan": lambda p: _packed(p | {"moment": p["moment"] * np.nan}),
    "infinite": lambda p: _packed(p | {"squares": p["squares"] + np.inf}),
    "another format": lambda p: _packed(_meta(p, format=99)),
    "another size": lambda p: _packed(_meta(p, size=SIZE + 1)),
    "a size that is text": lambda p: _packed(_meta(p, size="4")),
    "a size below 0": lambda p: _packed(_meta(p, size=-1)),
    "a size beyond memory": lambda p: _packed(_meta(p, size=10**12)),
    "arms that are none": lambda p: _packed(_meta(p, arms=None)),
    "arms that are lists": lambda p: _packed(_meta(p, arms=[["a"], ["b"], ["c"]])),
    "too few arms": lambda p: _packed(_meta(p, arms=["renew"])),
    "the same arm twice": lambda p: _packed(_meta(p, arms=["renew", "renew", "survey"])),
    "another shape": lambda p: _packed(p | {"outer": p["outer"].reshape(-1)}),
    "numbers that are text": lambda p: _packed(p | {"count": p["count"].astype("U8")}),
    "meta that is a list": lambda p: _packed(p | {"meta": np.array("[]")}),
    "meta that is no json": lambda p: _packed(p | {"meta": np.array("{")}),
    "pickles": lambda p: _packed(p | {"count": np.array([object], dtype=object)}, pickles=True),
    "one array, no archive": lambda p: _signed(_saved(p["moment"])),
    "a bare pickle": lambda p: _signed(pickle.dumps({"meta": 1})),
    "an empty archive": lambda p: _signed(_archive()),
    "text": lambda p: _signed(b"not a snapshot"),
    "nothing, signed": lambda p: _signed(b""),
    "nothing": lambda p: b"",
}


def _saved(array: Floats) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    return file.getvalue()


@pytest.mark.parametrize("alter", _IMPOSSIBLE)
def test_a_snapshot_that_says_what_cannot_be_is_refused(alter: str) -> None:
    with pytest.raises(SnapshotError):
        State.from_bytes(_IMPOSSIBLE[alter](_parts(learned(events()))))


def test_every_truncation_is_refused() -> None:
    _, content = learned(events()).to_bytes()
    for length in range(len(content)):
        with pytest.raises(SnapshotError):
            State.from_bytes(content[:length])


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(mask: int) -> None:
    _, content = learned(events()).to_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= mask
        with pytest.raises(SnapshotError):
            State.from_bytes(bytes(flipped))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damage_of_any_kind_is_a_snapshot_error(data: st.DataObject) -> None:
    _, content = learned(events(20)).to_bytes()
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = min(start + data.draw(st.integers(0, 8)), len(damaged))
        damaged[start:stop] = data.draw(st.binary(max_size=8))
    assume(damaged != content)
    with pytest.raises(SnapshotError):
        State.from_bytes(bytes(damaged))


DAY = 86_400.0


def faded(half_life: float, landmarks: list[float], weights: Floats, seed: int = 0) -> State:
    """Events over ten days, added in any order while the landmark moves."""
    rng = np.random.default_rng(3)
    x, rewards, at = rng.normal(size=(60, SIZE)), rng.normal(size=60), rng.uniform(0, 10 * DAY, 60)
    arms = [str(arm) for arm in rng.integers(0, 3, 60)]
    order = np.random.default_rng(seed).permutation(60)
    state = State("encoding", SIZE, half_life)
    for part, landmark in zip(np.array_split(order, len(landmarks)), landmarks, strict=True):
        state.forget_until(landmark)
        state.add([arms[i] for i in part], x[part], rewards[part], weights[part], at[part])
    return state


def equal(one: State, other: State) -> None:
    for name in ("outer", "moment", "squares", "count"):
        for arm, row in one.rows.items():
            mine, theirs = getattr(one, name)[row], getattr(other, name)[other.rows[arm]]
            assert mine == pytest.approx(theirs, abs=1e-9)


def test_what_fades_does_not_depend_on_when_it_arrived() -> None:
    ones = np.ones(60)
    wanted = faded(2 * DAY, [11 * DAY], ones)
    equal(faded(2 * DAY, [1 * DAY, 4 * DAY, 11 * DAY], ones, seed=1), wanted)
    equal(faded(2 * DAY, [30 * DAY, 2 * DAY, 11 * DAY], ones, seed=2), wanted)
    assert wanted.count.sum() == pytest.approx(
        sum(0.5 ** ((11 * DAY - t) / (2 * DAY)) for t in _times()), rel=1e-12
    )


def _times() -> list[float]:
    rng = np.random.default_rng(3)
    rng.normal(size=(60, SIZE)), rng.normal(size=60)
    return list(rng.uniform(0, 10 * DAY, 60))


def test_what_is_taken_back_later_leaves_nothing() -> None:
    state = faded(2 * DAY, [1 * DAY, 4 * DAY], np.ones(60), seed=1)
    state.forget_until(20 * DAY)
    state.merge(faded(2 * DAY, [7 * DAY], -np.ones(60), seed=2))
    assert np.abs(np.concatenate([state.outer.ravel(), state.moment.ravel(), state.count])).max() < 1e-12


def test_states_that_forget_are_kept_and_read_back() -> None:
    state = faded(2 * DAY, [4 * DAY], np.ones(60))
    version, content = state.to_bytes()
    back = State.from_bytes(content, version)
    assert (back.half_life, back.landmark) == (2 * DAY, 4 * DAY)
    back.forget_until(9 * DAY)
    equal(back, faded(2 * DAY, [9 * DAY], np.ones(60)))
    with pytest.raises(SnapshotError, match="version"):
        State.from_bytes(content, "another")


def test_a_state_that_forgets_needs_times() -> None:
    with pytest.raises(SnapshotError, match="when"):
        State("encoding", 1, DAY).add(["a"], np.ones((1, 1)), np.ones(1), np.ones(1))

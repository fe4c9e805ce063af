"""Learned state comes back as it was, or is refused with nothing unpickled; every combination, end to end.

Nothing is a statistical comparison: no false alarms.
"""

from __future__ import annotations

import pickle
from typing import Any, NoReturn, get_args

import numpy as np
import pytest

from arbitration.catalog import mabwiser
from arbitration.catalog.learning import Mabwiser
from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser import artifact
from arbitration.policy.mabwiser.artifact import from_bytes, to_bytes
from arbitration.policy.mabwiser.history import Events, History
from arbitration.policy.mabwiser.neighbourhood import believe
from arbitration.policy.mabwiser.training import Trained, train
from arbitration.policy.strategies import selection_probabilities

pytest.importorskip("mabwiser.mab")

KEY = b"a signing key of some length"
SIZE, COUNT = 3, 50
ARMS = ["a", "b", "c", "new"]
LEARNING = [
    each.model_fields["name"].annotation.__args__[0]
    for each in get_args(get_args(mabwiser.LearningPolicy)[0])
]
NEAR = [
    each.model_fields["name"].annotation.__args__[0]
    for each in get_args(get_args(mabwiser.NeighborhoodPolicy)[0])
]
PAIRS = [
    (name, near)
    for near in NEAR
    for name in LEARNING
    if near != "TreeBandit" or name in ("EpsilonGreedy", "ThompsonSampling", "UCB1")
]


def policy(name: str, near: str) -> Mabwiser:
    document = {"id": "p", "library": "mabwiser", "learning_policy": {"name": name}, "floor": 0.1}
    return Mabwiser.model_validate(document | {"neighborhood_policy": {"name": near}})


def history(seed: int | None = None) -> History:
    """The same events, in an order of their own."""
    rng = np.random.default_rng(0)
    x = np.hstack([np.ones((COUNT, 1)), rng.integers(0, 3, (COUNT, SIZE - 1))])
    arms, reward = rng.choice(["a", "b", "c", "gone"], COUNT), rng.integers(0, 2, COUNT).astype(np.float64)
    order = np.arange(COUNT) if seed is None else np.random.default_rng(seed).permutation(COUNT)
    made = History("f", SIZE, 40)
    made.add(arms[order].tolist(), x[order], reward[order], np.ones(COUNT), order // 3.0)
    return made


def test_there_are_nine_and_five() -> None:
    assert (len(LEARNING), len(NEAR), len(PAIRS)) == (9, 5, 4 * 9 + 3)


@pytest.mark.parametrize(("name", "near"), PAIRS)
def test_end_to_end(name: str, near: str) -> None:
    made = policy(name, near)
    trained = train(made, history())
    version, content = to_bytes(trained, KEY)
    assert (version, content) == to_bytes(train(made, history(7)), KEY)
    belief = believe(made, from_bytes(content, KEY, "f"), ARMS, SIZE)
    before = believe(made, trained, ARMS, SIZE)
    assert (b"sklearn" in content) == (near in ("Clusters", "TreeBandit"))
    for x in ([1.0, 0.0, 2.0], [1.0, 1.0, 1.0], [1.0, 9.0, -9.0]):
        mean, sd = belief.score(np.array(x), 0, 4)
        expected = before.score(np.array(x), 0, 4)
        assert np.array_equal(mean, expected[0])
        assert np.array_equal(sd, expected[1])
        assert np.array_equal(belief.score(np.array(x), 2, 4)[0], mean[2:])
        for eligible in ([0, 1, 2, 3], [3, 1], [3]):
            chances = selection_probabilities(
                made, mean[eligible], sd[eligible], np.array([1.0, 3, 2, 9])[eligible]
            )
            assert chances.sum() == pytest.approx(1, abs=1e-12)
            assert chances.min() >= 0.1 / len(eligible) - 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_nothing_learned_comes_back_as_nothing(near: str) -> None:
    made = policy("UCB1", near)
    _, content = to_bytes(train(made, History("f", SIZE, 5)), b"")
    mean, sd = believe(made, from_bytes(content, b"", "f"), ARMS, SIZE).score(np.ones(SIZE), 0, 4)
    assert not mean.any()
    assert not sd.any()
    assert believe(made, None, ARMS, SIZE).score(np.ones(SIZE), 0, 4)[0].tolist() == [0.0] * 4


def test_versions_tell_apart() -> None:
    made = policy("UCB1", "KNearest")
    version, content = to_bytes(train(made, history()), b"")
    changed = history()
    changed.add(["a"], np.ones((1, SIZE)), np.ones(1), np.ones(1), np.ones(1) * 99)
    other, _ = to_bytes(train(made, changed), b"")
    assert len(version) == 16
    assert other != version
    assert from_bytes(content, b"", "f", version).fingerprint == "f"
    with pytest.raises(SnapshotError, match="kept as"):
        from_bytes(content, b"", "f", other)


@pytest.fixture
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(artifact.pickle, "loads", refuse)


def content_of(near: str) -> bytes:
    return to_bytes(train(policy("UCB1", near), history()), KEY)[1]


@pytest.mark.usefixtures("_no_pickle")
@pytest.mark.parametrize("near", ["Clusters", "TreeBandit", "KNearest"])
def test_altered_or_truncated_is_refused(near: str) -> None:
    content = content_of(near)
    for place in [*range(60), *range(60, len(content), len(content) // 50), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(SnapshotError):
            from_bytes(bytes(damaged), KEY, "f")
    for length in (0, 7, 8, 39, 40, 47, 48, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(SnapshotError):
            from_bytes(content[:length], KEY, "f")
    with pytest.raises(SnapshotError):
        from_bytes(content + b"x", KEY, "f")


@pytest.mark.usefixtures("_no_pickle")
def test_another_key_is_refused() -> None:
    with pytest.raises(SnapshotError, match="another key"):
        from_bytes(content_of("Clusters"), KEY + b"x", "f")
    for short in (b"", b"short"):
        with pytest.raises(SnapshotError, match="at least 16 bytes"):
            from_bytes(content_of("Clusters"), short, "f")
    with pytest.raises(SnapshotError, match="at least 16 bytes"):
        to_bytes(train(policy("UCB1", "TreeBandit"), history()), b"short")


@pytest.mark.usefixtures("_no_pickle")
def test_what_needs_no_key_cannot_bring_a_pickle() -> None:
    """Signed with the empty key, as whoever can write to the store could: the pickle is not read."""
    content = content_of("Clusters")
    body = content[40:]
    forged = artifact._PLAIN + artifact._code(artifact._PLAIN, b"", body) + body
    assert from_bytes(forged, KEY, "f").mab is None


@pytest.mark.usefixtures("_no_pickle")
@pytest.mark.parametrize("near", ["Clusters", "KNearest"])
def test_another_fingerprint_is_refused(near: str) -> None:
    with pytest.raises(SnapshotError, match="another policy"):
        from_bytes(content_of(near), KEY, "g")


@pytest.mark.usefixtures("_no_pickle")
@pytest.mark.parametrize("library", ["mabwiser", "numpy", "scikit-learn"])
def test_another_version_of_a_library_is_refused(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signed, plain = content_of("TreeBandit"), content_of("Radius")
    other = artifact._libraries() | {library: "0.1"}
    monkeypatch.setattr(artifact, "_libraries", lambda: other)
    with pytest.raises(SnapshotError, match=f"here is .*{library} 0.1"):
        from_bytes(signed, KEY, "f")
    assert from_bytes(plain, KEY, "f").mab is None  # it holds nothing of theirs


@pytest.mark.parametrize("format_", [b"mabsign2", b"mabrows0", b"PK\x03\x04...."])
def test_another_format_is_refused(format_: bytes) -> None:
    with pytest.raises(SnapshotError, match="no MABWiser snapshot of a format"):
        from_bytes(format_ + content_of("Radius")[8:], KEY, "f")


_EVENTS = Events(("a",), np.zeros(2, np.intp), np.ones((2, SIZE)), np.ones(2))


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (Events(("a",), _EVENTS.arm, _EVENTS.x, np.array([1.0, np.nan])), "not finite"),
        (Events(("a",), _EVENTS.arm, _EVENTS.x * np.inf, _EVENTS.reward), "not finite"),
        (Events((), _EVENTS.arm, _EVENTS.x, _EVENTS.reward), "shape"),
        (Events(("a",), _EVENTS.arm - 1, _EVENTS.x, _EVENTS.reward), "shape"),
        (Events(("a",), _EVENTS.arm, _EVENTS.x[:1], _EVENTS.reward), "shape"),
        (Events(("a",), _EVENTS.arm, _EVENTS.reward, _EVENTS.reward), "shape"),
        (Events(("a",), _EVENTS.arm, _EVENTS.x, np.ones(3)), "shape"),
        (Events(("a",), _EVENTS.arm, np.array([["1"] * SIZE] * 2), _EVENTS.reward), "type"),
    ],
)
def test_well_sealed_nonsense_is_refused(events: Any, why: str) -> None:
    _, content = to_bytes(Trained("f", events), b"")
    with pytest.raises(SnapshotError, match=why):
        from_bytes(content, b"", "f")


def test_an_object_that_is_not_there_any_more_is_refused() -> None:
    """Signed by us, but by a release whose classes are gone."""
    _, content = to_bytes(Trained("f", _EVENTS, pickle.PickleBuffer), KEY)
    body = content[40:].replace(b"PickleBuffer", b"PickleButter")
    signed = artifact._SIGNED + artifact._code(artifact._SIGNED, KEY, body) + body
    with pytest.raises(SnapshotError, match="cannot be read"):
        from_bytes(signed, KEY, "f")

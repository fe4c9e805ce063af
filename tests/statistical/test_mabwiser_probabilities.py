"""Selection probabilities of MABWiser's policies are exact, and are what happens.

Against 200,000 simulated draws of Betas each arm's count is Binomial, compared with 6.5 standard deviations
(and the rounding of rare counts): 1e-10 an arm. Over 1,000 whole decisions of the real engine for each of
seven policies each arm's count is compared with its logged probability in the same way; there the belief and
the strategy are asked once, as their questions are equal (`-m long`: 4,000, and asked each time). About 120
comparisons in all: false-alarm rate below 2e-8 for the file; seeds and decision ids are fixed, so it cannot
flake. Closed forms and a fine mesh are compared numerically and have no false alarms.
"""

from __future__ import annotations

import importlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import betainc, betaln

from arbitration import Inputs, Snapshot, compile_document, decide
from arbitration.catalog.learning import Mabwiser
from arbitration.policy import thompson
from arbitration.policy.mabwiser.belief import belief_of
from arbitration.policy.mabwiser.history import History
from arbitration.policy.mabwiser.neighbourhood import believe
from arbitration.policy.mabwiser.training import train
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities
from arbitration.policy.thompson import best_of_betas

Floats = npt.NDArray[np.float64]

DRAWS = 200_000
STEPS = 101_000
ERROR = 1e-6  # what `best_of_betas` promises


def best(a: Floats, b: Floats, weight: Floats) -> Floats:
    """`best_of_betas`, by the parameters, and what always holds of it."""
    mean = a / (a + b)
    chances = best_of_betas(mean, np.sqrt(mean * (1 - mean) / (a + b + 1)), weight)
    assert (chances >= 0).all()
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    return chances


def allowed(chances: Floats, draws: int) -> Floats:
    return 6.5 * np.sqrt(chances * (1 - chances) / draws) + 12 / draws


def arms(*rows: tuple[float, float, float]) -> tuple[Floats, ...]:
    return tuple(np.array(part, dtype=np.float64) for part in zip(*rows, strict=True))


_R = np.random.default_rng(4)
_TRIED = 10 ** _R.uniform(0, 5, 20)
CASES = {
    "new": arms((1, 1, 5), (1, 1, 7), (1, 1, 7), (1, 1, 1)),
    "rare": arms((21, 981, 1), (31, 971, 1), (3, 99, 1), (1, 11, 1)),
    "one new among many tried": arms((2001, 98_001, 40), (1901, 98_101, 41), (1, 1, 20)),
    "parts of successes": arms((1.3, 4.7, 2), (2.25, 7.5, 2), (9.9, 30.1, 2.2)),
    "nearly sure": arms((500, 1, 1), (300, 2, 1), (50, 1, 1.01)),
    "20 arms": (1 + 0.1 * _TRIED, 1 + 0.9 * _TRIED, _R.uniform(10, 12, 20)),
}


@pytest.mark.parametrize("case", CASES)
def test_betas_agree_with_brute_force(case: str) -> None:
    a, b, weight = CASES[case]
    chances = best(a, b, weight)
    rng, wins = np.random.default_rng(1), np.zeros(len(a))
    for _ in range(4):
        drawn = (rng.beta(a, b, (DRAWS // 4, len(a))) * weight).argmax(axis=1)
        wins += np.bincount(drawn, minlength=len(a))
    assert (np.abs(wins / DRAWS - chances) <= allowed(chances, DRAWS)).all()


def on_a_fine_mesh(a: Floats, b: Floats, weight: Floats) -> Floats:
    """∫ f_i ∏ F_j by the midpoint rule on equal steps that end where a density does: slow, not adaptive."""
    x = (np.arange(STEPS) + 0.5) / STEPS * weight.max()
    share = np.minimum(x / weight[:, None], 1 - 1e-16)
    a, b, scale = a[:, None], b[:, None], weight[:, None]
    cdf = betainc(a, b, np.minimum(x / scale, 1))
    density = np.exp((a - 1) * np.log(share) + (b - 1) * np.log1p(-share) - betaln(a, b)) / scale
    density[x >= scale] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.where(cdf > 0, cdf.prod(axis=0) / cdf, 0)
    return (density * others).sum(axis=1) * weight.max() / STEPS


@pytest.mark.parametrize("case", ["rare", "parts of successes", "nearly sure"])
def test_betas_agree_with_a_fine_mesh(case: str) -> None:
    assert best(*CASES[case]) == pytest.approx(on_a_fine_mesh(*CASES[case]), abs=ERROR)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 40.0, 1e6])
def test_two_uniforms_have_a_closed_form(ratio: float) -> None:
    found = best(*arms((1, 1, ratio), (1, 1, 1)))
    assert found[0] == pytest.approx(1 - 1 / (2 * ratio), abs=ERROR)


@pytest.mark.parametrize("successes", [0, 3, 200])
@pytest.mark.parametrize("failures", [0, 5, 70_000])
def test_one_beta_against_a_uniform_has_a_closed_form(successes: int, failures: int) -> None:
    """P(U > X) = 1 - E[X]."""
    a, b = 1.0 + successes, 1.0 + failures
    assert best(*arms((1, 1, 1), (a, b, 1)))[0] == pytest.approx(1 - a / (a + b), abs=ERROR)


@pytest.mark.parametrize("count", [1, 2, 10, 300])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 400), (2e6, 3e6)])
def test_equal_betas_share_alike(count: int, a: float, b: float) -> None:
    alike = best(np.full(count, float(a)), np.full(count, float(b)), np.full(count, 7.0))
    assert alike == pytest.approx(np.full(count, 1 / count), abs=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_money_of_any_size(scale: float) -> None:
    a, b, weight = CASES["20 arms"]
    assert best(a, b, weight * scale) == pytest.approx(best(a, b, weight), abs=1e-9)


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever mean and deviation it is given, possible for a Beta or not."""
    rng, hazards, nodes = np.random.default_rng(0), thompson._Betas.hazards, [0]

    def counting(family: Any, x: Floats) -> Any:
        nodes[0] += len(x)
        return hazards(family, x)

    monkeypatch.setattr(thompson._Betas, "hazards", counting)
    for _ in range(100):
        count = int(rng.integers(2, 10))
        mean, sd = rng.uniform(-0.2, 1.2, count), 10 ** rng.uniform(-12, 0.3, count)
        mean[: rng.integers(1, count)] = mean[0]
        nodes[0] = 0
        chances = best_of_betas(mean, sd, 10 ** rng.uniform(-1, 1, count))
        assert chances.sum() == pytest.approx(1)
        assert nodes[0] <= 8_000
    nodes[0] = 0
    best(np.ones(100), np.ones(100), rng.uniform(10, 100, 100))  # each ends at once, elsewhere
    assert nodes[0] <= 2_000


NAMES = [f"t{number}" for number in range(6)]
POLICIES: dict[str, dict[str, Any]] = {
    "ThompsonSampling": {"learning_policy": {"name": "ThompsonSampling"}},
    "Softmax": {"learning_policy": {"name": "Softmax", "tau": 0.3}},
    "LinTS": {"learning_policy": {"name": "LinTS", "alpha": 0.5}},
    "KNearest": {
        "learning_policy": {"name": "ThompsonSampling"},
        "neighborhood_policy": {"name": "KNearest", "k": 60},
    },
    "Radius": {
        "learning_policy": {"name": "LinTS", "alpha": 0.5, "l2_lambda": 2.0},
        "neighborhood_policy": {"name": "Radius", "radius": 0.2},
    },
    "nobody near": {
        "learning_policy": {"name": "UCB1"},
        "neighborhood_policy": {
            "name": "Radius",
            "radius": 1e-6,
            "no_nhood_prob_of_arm": {"t1": 0.2, "t2": 0.7, "gone": 0.1},
        },
    },
    "TreeBandit": {
        "learning_policy": {"name": "EpsilonGreedy", "epsilon": 0.3},
        "neighborhood_policy": {"name": "TreeBandit", "tree_parameters": {"max_depth": 3}},
    },
}


def catalog(policy: dict[str, Any]) -> Any:
    treatments = [
        {"id": name, "channel": "web", "placement": "hero", "content": {"title": name}} for name in NAMES
    ]
    return compile_document(
        {
            "attributes": [{"id": "nps", "type": "int"}],
            "groups": [{"id": "g"}],
            "channels": [
                {"id": "web", "direction": "inbound", "rewards": {"click": 1.0}, "response_window": "1d"}
            ],
            "placements": [{"id": "hero", "channel": "web", "content": [{"id": "title"}]}],
            "features": [{"id": "nps", "kind": "numeric", "source": "customer.nps", "scale": 10}],
            "policies": [{"id": "p", "library": "mabwiser", "floor": 0.1, **policy}],
            "actions": [
                {"id": f"a{number}", "group": "g", "value": 10.0 + number, "treatments": [treatment]}
                for number, treatment in enumerate(treatments)
            ],
        }
    )


def snapshot(compiled: Any) -> Snapshot:
    """Learned from 600 events: the later the arm, the rarer; the last is not among them."""
    rng = np.random.default_rng(2)
    size, policy = compiled.encoders["p"].size, compiled.policies["p"]
    assert isinstance(policy, Mabwiser)
    chosen = rng.choice(NAMES[:-1], 600).tolist()
    x = np.ones((600, size))
    if size > 1:
        x[:, 1], x[:, 2:] = rng.integers(0, 11, 600) / 10, 0
    reward = (rng.random(600) < 0.3 - 0.02 * np.array([int(name[1]) for name in chosen])).astype(np.float64)
    if policy.neighborhood_policy is None:
        state = State("f", size)
        state.add(chosen, x, reward, np.ones(600))
        return Snapshot("v", belief_of(policy, compiled.arm_ids, size, state))
    history = History("f", size, policy.history)
    history.add(chosen, x, reward, np.ones(600), np.arange(600.0))
    return Snapshot("v", believe(policy, train(policy, history), compiled.arm_ids, size))


def remember(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[object, Any] = {}

    def score(x: Floats, *range_: int) -> Any:
        key = (x.tobytes(), range_)
        if key not in asked:
            asked[key] = belief_score(x, *range_)
        return asked[key]

    def choose(policy: Any, *arrays: Floats) -> Floats:
        key = tuple(array.tobytes() for array in arrays)
        if key not in asked:
            asked[key] = selection_probabilities(policy, *arrays)
        return asked[key].copy()  # type: ignore[no-any-return]

    belief_score = snapshot.posterior.score
    monkeypatch.setattr(snapshot.posterior, "score", score)
    monkeypatch.setattr(importlib.import_module("arbitration.decide"), "selection_probabilities", choose)


@pytest.mark.parametrize("case", POLICIES)
@pytest.mark.parametrize("draws", [1_000, pytest.param(4_000, marks=pytest.mark.long)])
def test_what_is_logged_is_what_happens(case: str, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if "neighborhood_policy" in POLICIES[case]:
        pytest.importorskip("mabwiser.mab")
    compiled = catalog(POLICIES[case])
    snapshots = {"p": snapshot(compiled)}
    if draws < 2_000:
        remember(snapshots["p"], monkeypatch)
    shown: Counter[str] = Counter()
    logged: dict[str, set[float]] = {name: set() for name in NAMES}
    now, facts = datetime(2026, 3, 1, tzinfo=UTC), {"customer.nps": 4}
    for number in range(draws):
        inputs = Inputs(f"{case} {number}", now, "c-1", ("web",), (("hero", 1),), facts=facts)
        (slate,) = decide(inputs, compiled, snapshots).slates
        (item,) = slate.items
        shown[item.arm.treatment.id] += 1
        logged[item.arm.treatment.id].add(item.selection_probability)
        slot = slate.slots[0]
    chances = np.zeros(len(NAMES))
    chances[slot.pool] = slot.probabilities
    for name, chance in zip(NAMES, chances, strict=True):
        assert logged[name] <= {round(chance, 12)}
    assert chances.min() >= 0.1 / len(NAMES) - 1e-12
    assert chances.max() < 0.95
    found = np.array([shown[name] for name in NAMES]) / draws
    assert (np.abs(found - chances) <= allowed(chances, draws)).all()

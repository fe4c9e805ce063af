"""Each strategy's formula on cases worked out by hand, and what holds of every one of them.

Nothing here is random but hypothesis' examples, which are fixed: no false alarms.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from arbitration.catalog.learning import (
    UCB,
    EpsilonGreedy,
    Mabwiser,
    Policy,
    Softmax,
    SquareCB,
    Thompson,
)
from arbitration.policy.strategies import propensity, selection_probabilities

Floats = npt.NDArray[np.float64]


LIBRARY = ("EpsilonGreedy", "Popularity", "Softmax", "ThompsonSampling", "UCB1")
LIBRARY += ("LinGreedy", "LinTS", "LinUCB")  # and Random, which heeds nothing


def all_policies(floor: float) -> list[Policy]:
    return [
        Thompson(id="p", strategy="thompson", floor=floor),
        EpsilonGreedy(id="p", strategy="epsilon_greedy", floor=floor),
        Softmax(id="p", strategy="softmax", floor=floor),
        SquareCB(id="p", strategy="squarecb", floor=floor),
        UCB(id="p", strategy="ucb", floor=floor),
        *(library(name, floor) for name in LIBRARY),
    ]


def library(name: str, floor: float = 0.0, **parameters: float) -> Mabwiser:
    learning = {"name": name, **parameters}
    return Mabwiser.model_validate(
        {"id": "p", "library": "mabwiser", "learning_policy": learning, "floor": floor}
    )


def named(policy: Policy) -> str:
    return policy.learning_policy.name if isinstance(policy, Mabwiser) else policy.strategy


NAMES = [named(policy) for policy in all_policies(0.0)]


def chances(
    policy: Policy, mean: list[float], sd: list[float] | None = None, weight: list[float] | None = None
) -> list[float]:
    ones = [1.0] * len(mean)
    arrays = (np.array(part, dtype=np.float64) for part in (mean, sd or [0.1] * len(mean), weight or ones))
    return selection_probabilities(policy, *arrays).tolist()


def test_a_propensity_is_a_probability() -> None:
    assert propensity(np.array([-0.2, 0.0, 0.3, 1.0, 1.7])).tolist() == [0.0, 0.0, 0.3, 1.0, 1.0]


def test_thompson_is_the_probability_of_being_best() -> None:
    policy = Thompson(id="p", strategy="thompson", floor=0.0, alpha=2.0)
    expected = float(ndtr((0.3 * 2 - 0.1 * 5) / math.hypot(2 * 0.1 * 2, 2 * 0.05 * 5)))
    found = chances(policy, [0.3, 0.1], [0.1, 0.05], [2.0, 5.0])
    assert found == pytest.approx([expected, 1 - expected], abs=1e-9)


def test_epsilon_greedy_by_hand() -> None:
    policy = EpsilonGreedy(id="p", strategy="epsilon_greedy", epsilon=0.2, floor=0.0)
    assert chances(policy, [0.1, 0.3, 0.2, 0.2]) == pytest.approx([0.05, 0.85, 0.05, 0.05])
    # The weight decides: .1 × 7 is more than .3 × 2.
    assert chances(policy, [0.1, 0.3], weight=[7.0, 2.0]) == pytest.approx([0.9, 0.1])


def test_softmax_by_hand() -> None:
    policy = Softmax(id="p", strategy="softmax", temperature=0.5, floor=0.0)
    raised = [1.0, math.exp(-1.0), math.exp(-2.0)]  # priorities 4, 2 and 0
    expected = [part / sum(raised) for part in raised]
    assert chances(policy, [0.4, 0.1, -0.3], weight=[10.0, 20.0, 30.0]) == pytest.approx(expected)


def test_inverse_gap_weighting_by_hand() -> None:
    policy = SquareCB(id="p", strategy="squarecb", gamma=10.0, floor=0.0)
    # Relative gaps 1/2 and 1 of three arms: 1 / (3 + 5), 1 / (3 + 10), and the rest.
    expected = [1 - 1 / 8 - 1 / 13, 1 / 8, 1 / 13]
    assert chances(policy, [0.4, 0.2, 0.0]) == pytest.approx(expected)
    assert chances(policy, [0.4, 0.4, 0.0]) == pytest.approx([6 / 13, 6 / 13, 1 / 13])
    uniform = SquareCB(id="p", strategy="squarecb", gamma=0.0, floor=0.0)
    assert chances(uniform, [0.4, 0.2, 0.0]) == pytest.approx([1 / 3] * 3)


def test_ucb_by_hand() -> None:
    policy = UCB(id="p", strategy="ucb", alpha=2.0, floor=0.0)
    assert chances(policy, [0.3, 0.1], [0.01, 0.2]) == [0.0, 1.0]  # .32 and .5
    assert chances(policy, [0.3, 0.1], [0.01, 0.2], [2.0, 1.0]) == [1.0, 0.0]  # .64 and .5
    greedy = UCB(id="p", strategy="ucb", alpha=0.0, floor=0.0)
    assert chances(greedy, [0.3, 0.1], [0.01, 0.2]) == [1.0, 0.0]


def test_the_librarys_by_hand() -> None:
    mean, sd, weight = [0.4, 0.1, -0.3], [0.1, 0.3, 0.1], [10.0, 20.0, 30.0]
    for name in ("EpsilonGreedy", "LinGreedy"):
        found = chances(library(name, epsilon=0.3), mean, sd, weight)
        assert found == pytest.approx([0.8, 0.1, 0.1])
    assert chances(library("Popularity"), mean, sd, weight) == pytest.approx([4 / 6, 2 / 6, 0])
    assert chances(library("Random"), mean, sd, weight) == pytest.approx([1 / 3] * 3)
    raised = np.exp(np.array([4.0, 2.0, 0.0]) / 30 / 0.1)  # priorities, in units of the greatest weight
    found = chances(library("Softmax", tau=0.1), mean, sd, weight)
    assert found == pytest.approx((raised / raised.sum()).tolist())
    for name in ("UCB1", "LinUCB"):  # 4 and 2, then 5 and 8, then (2 - .3) × 30
        assert chances(library(name, alpha=0.0), mean, sd, weight) == [1, 0, 0]
        assert chances(library(name, alpha=1.0), mean, sd, weight) == [0, 1, 0]
        assert chances(library(name, alpha=20.0), mean, sd, weight) == [0, 1, 0]
    expected = float(ndtr((0.3 * 2 - 0.1 * 5) / math.hypot(2 * 0.1 * 2, 2 * 0.05 * 5)))
    found = chances(library("LinTS", alpha=2.0), [0.3, 0.1], [0.1, 0.05], [2.0, 5.0])
    assert found == pytest.approx([expected, 1 - expected], abs=1e-9)
    # 2 X of X uniform on 0..1 against Y of Beta(2, 1): P(2 X > Y) = 1 - E[Y] / 2.
    found = chances(library("ThompsonSampling"), [1 / 2, 2 / 3], [12**-0.5, 18**-0.5], [2.0, 1.0])
    assert found == pytest.approx([2 / 3, 1 / 3], abs=1e-9)


@pytest.mark.parametrize("name", [*LIBRARY, "Random"])
def test_the_authors_probabilities_of_an_empty_neighbourhood(name: str) -> None:
    found = chances(library(name, floor=0.3), [0.0] * 3, [-0.5, 0.0, -0.25], [1.0, 2.0, 9.0])
    assert found == pytest.approx([0.7 * 2 / 3 + 0.1, 0.1, 0.7 / 3 + 0.1])
    alike = chances(library(name), [0.0] * 3, [0.0] * 3, [1.0, 2.0, 9.0])
    assert alike == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("policy", all_policies(0.0), ids=NAMES)
def test_a_negative_mean_does_not_make_worth_a_fault(policy: Policy) -> None:
    # Of two arms that nobody takes, the dearer one is not the worse one; and nothing beats worth something.
    dear, cheap = chances(policy, [-0.01, -0.01], [1e-6, 1e-6], [1000.0, 1.0])
    assert dear >= cheap - 1e-9
    some, none = chances(policy, [-0.01, -0.01], [1e-6, 1e-6], [100.0, 0.0])
    assert some >= none - 1e-9


@pytest.mark.parametrize("policy", all_policies(0.3), ids=NAMES)
def test_the_floor_is_spread_evenly(policy: Policy) -> None:
    without = policy.model_copy(update={"floor": 0.0})
    mean, sd = [0.9, 0.1, 0.3], [0.05, 0.01, 0.1]
    expected = [0.7 * chance + 0.1 for chance in chances(without, mean, sd)]
    assert chances(policy, mean, sd) == pytest.approx(expected)


@pytest.mark.parametrize("policy", all_policies(1.0), ids=NAMES)
def test_a_floor_of_one_is_the_uniform_policy(policy: Policy) -> None:
    assert chances(policy, [0.9, 0.1, 0.3]) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("policy", all_policies(0.02), ids=NAMES)
def test_equal_arms_share_alike(policy: Policy) -> None:
    assert chances(policy, [0.2] * 4) == pytest.approx([0.25] * 4)
    best = chances(policy, [0.2, 0.2, 0.1], [0.01] * 3)
    assert best[0] == pytest.approx(best[1])
    assert best[0] > best[2]


@pytest.mark.parametrize("policy", all_policies(0.02), ids=NAMES)
def test_one_arm_is_certain(policy: Policy) -> None:
    for mean, weight in ((0.2, 1.0), (0.0, 1.0), (-0.1, 3.0), (0.2, 0.0)):
        assert chances(policy, [mean], [0.1], [weight]) == [1.0]


@pytest.mark.parametrize("policy", all_policies(0.02), ids=NAMES)
def test_where_nothing_is_worth_anything_all_are_alike(policy: Policy) -> None:
    assert chances(policy, [0.5, 0.1, 0.3], [0.2, 0.1, 0.0], [0.0] * 3) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("policy", all_policies(0.0), ids=NAMES)
def test_an_arm_of_no_weight_is_the_least_likely(policy: Policy) -> None:
    found = chances(policy, [0.9, 0.5, 0.4], [0.05] * 3, [0.0, 1.0, 1.0])
    assert found[0] == min(found)
    if named(policy) in ("thompson", "ucb", "LinTS", "UCB1", "LinUCB"):
        assert found[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("policy", all_policies(0.02), ids=NAMES)
@pytest.mark.parametrize("currency", [1e-6, 100.0, 1e6])
def test_the_currency_does_not_matter(policy: Policy, currency: float) -> None:
    mean, sd, weight = [0.3, 0.25, 0.1], [0.05, 0.1, 0.1], [1.0, 1.2, 2.0]
    in_another = [part * currency for part in weight]
    assert chances(policy, mean, sd, in_another) == pytest.approx(chances(policy, mean, sd, weight), abs=1e-8)


_numbers = st.tuples(st.floats(-2, 2), st.floats(0, 2), st.one_of(st.just(0.0), st.floats(1e-3, 1e6)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(NAMES), st.floats(0, 1), st.lists(_numbers, min_size=1, max_size=12), st.randoms())
def test_what_holds_of_every_strategy(
    name: str, floor: float, arms: list[tuple[float, float, float]], random: object
) -> None:
    policy = next(policy for policy in all_policies(floor) if named(policy) == name)
    mean, sd, weight = (list(part) for part in zip(*arms, strict=True))
    found = chances(policy, mean, sd, weight)
    assert sum(found) == pytest.approx(1, abs=1e-12)
    assert min(found) >= floor / len(arms) - 1e-12
    order = random.sample(range(len(arms)), len(arms))  # type: ignore[attr-defined]
    mixed = chances(policy, *([part[arm] for arm in order] for part in (mean, sd, weight)))
    assert mixed == pytest.approx([found[arm] for arm in order], abs=1e-9)

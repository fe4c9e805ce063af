"""Control groups have their share, are independent, and random propensities win as often as stated.

Membership of 1,000,000 customers in three groups: each count lies within its binomial interval of level
1e-5, and the tables of two and of all three pass the chi-square test of independence, with the shares given,
at level 1e-6. Of `random_propensity`, each arm's wins in 1,000,000 simulated draws are compared at 6.5
standard deviations (1e-10 an arm). Were customers and seeds drawn anew, the false-alarm rate of the file
would be below 1e-4; they are fixed, so it cannot flake.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter
from scipy.stats import binom, chi2

from arbitration.catalog.learning import Policy
from arbitration.catalog.limits import ControlGroup
from arbitration.control import membership, redistributed, sample_ratio
from arbitration.randomness import uniform

Flags = npt.NDArray[np.bool_]

CUSTOMERS = 1_000_000
DRAWS = 1_000_000
GROUPS: dict[str, tuple[float, str | None]] = {  # id: share and salt
    "holdout": (0.01, None),
    "levers": (0.1, "levers/2026"),
    "ranking": (0.5, "1"),
}


@cache
def members(group: str) -> Flags:
    """Whether each customer is in, bool (CUSTOMERS,). Ids follow one another, as they do in practice."""
    share, salt = GROUPS[group]
    control = ControlGroup(id=group, share=share, behaviour="no_action", salt=salt)
    found = (membership(control, f"c-{number}") for number in range(CUSTOMERS))
    return np.fromiter(found, dtype=bool, count=CUSTOMERS)


def dependence(*sides: tuple[Flags, float]) -> float:
    """P-value of the chi-square test that flags with these shares are independent: 2^k cells, all known."""
    count = len(sides[0][0])
    cell = np.zeros(count, dtype=np.intp)
    for bit, (flags, _) in enumerate(sides):
        cell += flags.astype(np.intp) << bit
    observed = np.bincount(cell, minlength=2 ** len(sides))
    expected = np.full(len(observed), float(count))
    for bit, (_, share) in enumerate(sides):
        inside = np.arange(len(observed)) >> bit & 1 == 1
        expected *= np.where(inside, share, 1 - share)
    assert expected.min() > 40
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(observed) - 1))


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_has_its_share(group: str) -> None:
    share, _ = GROUPS[group]
    low, high = binom.ppf(np.array([5e-6, 1 - 5e-6]), CUSTOMERS, share)
    count = int(members(group).sum())
    assert low <= count <= high
    assert sample_ratio(CUSTOMERS, count, CUSTOMERS * share, CUSTOMERS * share * (1 - share)) > 1e-5


@pytest.mark.parametrize("groups", [*combinations(GROUPS, 2), tuple(GROUPS)])
def test_groups_are_independent(groups: tuple[str, ...]) -> None:
    assert dependence(*((members(group), GROUPS[group][0]) for group in groups)) > 1e-6


def test_membership_and_the_draw_are_independent() -> None:
    """Where a decision id happens to be the customer's, members must not draw other numbers than the rest."""
    count = 100_000
    low = np.array([uniform(f"c-{number}", 0) < 0.5 for number in range(count)])
    for group, (share, _) in GROUPS.items():
        assert dependence((members(group)[:count], share), (low, 0.5)) > 1e-6


def test_neighbouring_customers_are_independent() -> None:
    for group, (share, _) in GROUPS.items():
        pairs = members(group).reshape(-1, 2)
        assert dependence((pairs[:, 0], share), (pairs[:, 1], share)) > 1e-6


def test_a_raised_share_only_adds() -> None:
    """Every member stays, and of the others as many come as should."""
    count = 100_000
    share, salt = GROUPS["levers"]
    raised = ControlGroup(id="other", share=0.25, behaviour="no_levers", salt=salt)
    before = members("levers")[:count]
    after = np.array([membership(raised, f"c-{number}") for number in range(count)])
    assert after[before].all()
    low, high = binom.ppf(np.array([5e-6, 1 - 5e-6]), int((~before).sum()), (0.25 - share) / (1 - share))
    assert low <= after[~before].sum() <= high


@pytest.mark.parametrize(
    "weights",
    [
        (1.0, 1.0),
        (1.0, 3.0),
        (0.0, 2.0, 2.0, 5.0),
        (10.0, 40.0, 8.0, 90.0, 33.0, 33.0, 1e-3),
        tuple(np.random.default_rng(4).lognormal(3, 1, 12).tolist()),
    ],
)
def test_random_propensities_win_as_often_as_stated(weights: tuple[float, ...]) -> None:
    weight, none = np.array(weights), np.zeros(len(weights))
    policy = TypeAdapter[Policy](Policy).validate_python({"id": "p", "strategy": "softmax"})
    every = np.ones(len(weights), dtype=bool)
    chances = redistributed(policy, none, none, weight, [("random_propensity", every)])
    drawn = np.random.default_rng(20250101).random((DRAWS, len(weights))) * weight
    wins = np.bincount(drawn.argmax(axis=1), minlength=len(weights)) / DRAWS
    allowed = 6.5 * np.sqrt(chances * (1 - chances) / DRAWS) + 12 / DRAWS * (chances > 0)
    assert (np.abs(wins - chances) <= allowed).all()

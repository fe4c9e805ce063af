"""The probability of being the greatest of several Normals is exact: closed forms, brute force, symmetries.

Against 4,000,000 simulated draws each arm's count is Binomial, so its deviation is compared with 6.5
standard deviations (and the rounding of rare counts): false-alarm rate below 1e-9 an arm, below 1e-6 for
the file; seeds are fixed, so it cannot flake. Against closed forms and a quadrature built the other way
round (every arm's own fine mesh, no adaptivity) the comparison is numerical and has no false alarms.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, ndtr

from arbitration.policy import thompson
from arbitration.policy.thompson import best_of_normals

Floats = npt.NDArray[np.float64]

DRAWS = 4_000_000
ERROR = 1e-6  # what `best_of_normals` promises
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def best(mean: Floats, sd: Floats) -> Floats:
    """`best_of_normals`, and what always holds of it."""
    chances = best_of_normals(mean, sd)
    assert chances.shape == mean.shape
    assert (chances >= 0).all()
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    return chances


def on_a_fine_mesh(mean: Floats, sd: Floats) -> Floats:
    """The integral on half-deviation panels of every arm, out to 9 deviations: slow, and not adaptive."""
    edges = np.unique(mean[:, None] + sd[:, None] * np.arange(-9, 9.5, 0.5))
    edges = edges[edges >= (mean - 9 * sd).max()]
    total = np.zeros(len(mean))
    for start in range(0, len(edges) - 1, 512):
        part = edges[start : start + 513]
        half = np.diff(part) / 2
        x = ((part[:-1] + half)[:, None] + half[:, None] * _NODES).ravel()
        z = (x - mean[:, None]) / sd[:, None]
        log_cdf = log_ndtr(z)
        log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - np.log(sd)[:, None]
        total += np.exp(log_density + log_cdf.sum(axis=0) - log_cdf) @ (half[:, None] * _WEIGHTS).ravel()
    return total


def by_brute_force(mean: Floats, sd: Floats) -> Floats:
    """Shares of DRAWS simulated draws in which each arm was the greatest."""
    rng = np.random.default_rng(20250101)
    chunk = 4_000_000 // (10 * len(mean)) or 1
    wins = np.zeros(len(mean))
    done = 0
    while done < DRAWS:
        size = min(chunk, DRAWS - done)
        drawn = rng.standard_normal((size, len(mean))) * sd + mean
        wins += np.bincount(drawn.argmax(axis=1), minlength=len(mean))
        done += size
    return wins / DRAWS


_SPREAD = np.random.default_rng(5)
CASES = {
    "narrow": (floats(0.1, 0.1001, 0.10005, 0.0999), np.full(4, 1e-4)),
    "wide": (floats(0.1, 0.5, -0.3, 0.2, 0.0), floats(1.0, 2.0, 3.0, 0.5, 1.5)),
    "narrow and wide": (floats(0.1, 0.12, 0.1, 0.09, 0.0), floats(1e-4, 1e-5, 0.2, 0.05, 1.0)),
    "one certain number": (floats(0.1, 0.0, 0.2), floats(0.0, 0.3, 0.1)),
    "20 learned arms": (_SPREAD.normal(0.1, 0.03, 20), _SPREAD.uniform(0.005, 0.03, 20)),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_brute_force(case: str) -> None:
    mean, sd = CASES[case]
    chances, shares = best(mean, sd), by_brute_force(mean, sd)
    allowed = 6.5 * np.sqrt(chances * (1 - chances) / DRAWS) + 12 / DRAWS
    assert (np.abs(chances - shares) <= allowed).all()


@pytest.mark.parametrize("gap", [0.0, 1e-3, 0.3, 2.0, 5.0])
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (1e-4, 1.0), (0.3, 1e-7), (2.0, 0.5), (0.0, 0.4)])
def test_two_arms_have_a_closed_form(gap: float, first: float, second: float) -> None:
    chances = best(floats(gap, 0.0), floats(first, second))
    assert chances[0] == pytest.approx(ndtr(gap / math.hypot(first, second)), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.5), (0.1, 1e-4), (-3.0, 2.0), (0.25, 0.0), (0.0, 0.0)])
def test_identical_arms_share_alike(count: int, mean: float, sd: float) -> None:
    assert best(np.full(count, mean), np.full(count, sd)) == pytest.approx(
        np.full(count, 1 / count), abs=1e-9
    )


@pytest.mark.parametrize("count", [100, 300, pytest.param(1000, marks=pytest.mark.long)])
def test_many_arms(count: int) -> None:
    rng = np.random.default_rng(count)
    mean, sd = rng.normal(0.1, 0.05, count), 10 ** rng.uniform(-4, -0.5, count)
    assert best(mean, sd) == pytest.approx(on_a_fine_mesh(mean, sd), abs=ERROR)


def _generated(kind: str, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    mean = rng.normal(size=count) * 10 ** rng.uniform(-4, 2)
    match kind:
        case "any widths":
            return mean, 10 ** rng.uniform(-6, 1, count)
        case "needles in hay":
            return mean, np.where(rng.random(count) < 0.5, 1e-5, 1.0)
        case "tied means":
            return np.round(mean, 1), 10 ** rng.uniform(-2, 0, count)
        case "one mean, nested widths":
            one = 10 ** rng.uniform(-3, 3)
            return np.full(count, one), one * 10 ** rng.uniform(-6, 0, count)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["any widths", "needles in hay", "tied means", "one mean, nested widths"])
def test_hard_mixtures(kind: str) -> None:
    """Where the grid has to adapt: widths over seven orders of magnitude, at any scale."""
    rng = np.random.default_rng(11)
    for count in (2, 3, 5, 10, 30, 100) * 6:
        mean, sd = _generated(kind, count, rng)
        scale = 10 ** rng.uniform(-10, 6)
        expected = on_a_fine_mesh(mean * scale, sd * scale)
        assert best(mean * scale, sd * scale) == pytest.approx(expected, abs=ERROR)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e3, 1e6, 1e12])
def test_money_of_any_size(scale: float) -> None:
    mean, sd = CASES["20 learned arms"]
    assert best(mean * scale, sd * scale) == pytest.approx(best(mean, sd), abs=1e-9)


@pytest.mark.parametrize("shift", [-1e4, -1.0, 0.3, 1e4])
def test_only_differences_count(shift: float) -> None:
    mean, sd = CASES["20 learned arms"]
    assert best(mean + shift, sd) == pytest.approx(best(mean, sd), abs=1e-8)


def test_exact_ties_are_shared_and_the_rest_has_none() -> None:
    assert best(floats(3, 1, 3, 2, 3), np.zeros(5)) == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3], abs=1e-12)
    assert best(floats(0, 0, -1), np.zeros(3)) == pytest.approx([0.5, 0.5, 0], abs=1e-12)


@pytest.mark.parametrize("hopeless", [-1.0, -1e3, -1e9, -1e150])
def test_a_hopeless_arm_gets_nothing_and_takes_nothing(hopeless: float) -> None:
    """However far below it is: it must not set the scale by which the others count as tied."""
    mean, sd = floats(0.1, 0.1 + 1e-6, 0.1), floats(1e-6, 1e-6, 2e-6)
    with_it = best(np.append(mean, hopeless), np.append(sd, 1e-3))
    assert with_it[3] == 0
    assert with_it[:3] == pytest.approx(best(mean, sd), abs=1e-9)


@pytest.mark.parametrize("case", [*CASES, "all but certain"])
def test_the_work_is_bounded(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the doubt is of the size of rounding, no amount of splitting helps, and none is tried."""
    mean, sd = CASES.get(case, (np.full(1000, 0.25), np.zeros(1000)))
    nodes, hazards = [0], thompson._hazards

    def counting(x: Floats, mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
        nodes[0] += len(x)
        return hazards(x, mean, sd)

    monkeypatch.setattr(thompson, "_hazards", counting)
    best(mean, sd)
    assert nodes[0] <= 2_000


def test_nothing_at_all_is_a_tie() -> None:
    assert best(floats(1e-310, 2e-310), floats(1e-310, 0)) == pytest.approx([0.5, 0.5])


_arms = st.lists(
    st.tuples(st.floats(-2, 2), st.one_of(st.just(0.0), st.floats(-7, 1).map(lambda power: 10**power))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_arms, st.randoms(use_true_random=False), st.floats(0, 3))
def test_properties(arms: list[tuple[float, float]], random: object, raised: float) -> None:
    mean, sd = (np.array(part) for part in zip(*arms, strict=True))
    chances = best(mean, sd)
    order = np.array(random.sample(range(len(arms)), len(arms)))  # type: ignore[attr-defined]
    assert best(mean[order], sd[order]) == pytest.approx(chances[order], abs=1e-9)
    higher = mean.copy()
    higher[0] += raised
    assert best(higher, sd)[0] >= chances[0] - ERROR
    if (sd > 0).all():
        assert chances == pytest.approx(on_a_fine_mesh(mean, sd), abs=ERROR)

"""The intervals of rate ratios hold the truth as often as they say, and looking at many raises few alarms.

Two groups of customers are simulated, each customer with a rate of its own (beta, around the group's, with
intraclass correlation ρ) and a number of chances (1, always m, or 1 + negative binomial around m). An
interval of 95% may miss the true ratio of the mean rates in 5% of runs. Short form: 1,000 runs of 5
scenarios, at most 75 misses each; were the runs drawn anew and misses as frequent as allowed, it would fail
with probability 2.9e-4 a scenario. And of a report of 20 ratios without any difference, at most 5% may have
one that stands out: 250 reports, at most 26 (chance 1.6e-4). Seeds are fixed, so it cannot flake.

The long version (`pytest -m long tests/statistical/test_rate_ratios.py`): 5,000 runs of each scenario, and
writes `benchmarks/results/rate_ratios.md`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from test_estimators_coverage import machine

from arbitration.evaluation.ratios import Rate, Ratio, rate_ratios

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "rate_ratios.md"
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Scenario:
    """`customers` of the group, and of the reference; each with about `chances`, `alike` by ρ. `rate`: of the
    reference; `ratio`: times as much for the group."""

    customers: int
    reference: int
    chances: int
    spread: bool
    alike: float
    rate: float
    ratio: float

    def __str__(self) -> str:
        chances = f"1 + NB({self.chances})" if self.spread else f"{self.chances}"
        sizes = f"{self.customers:,} / {self.reference:,}"
        return f"{sizes} | {chances} | {self.alike:g} | {self.rate:.0%} | {self.ratio:g}"


SHORT = [
    Scenario(30, 300, 1, False, 0.0, 0.2, 1.0),
    Scenario(30, 300, 5, False, 0.3, 0.2, 0.8),
    Scenario(50, 50, 4, True, 0.1, 0.1, 1.0),
    Scenario(100, 400, 3, True, 0.5, 0.05, 0.8),
    Scenario(200, 200, 8, False, 1.0, 0.5, 1.25),
]
LONG = [
    Scenario(customers, reference, chances, spread, alike, rate, ratio)
    for customers, reference in ((30, 30), (30, 1000), (100, 400), (1000, 1000))
    for chances, spread, alike in ((1, False, 0.0), (5, False, 0.1), (5, False, 0.5), (4, True, 0.0),
                                   (4, True, 0.3))
    for rate, ratio in ((0.02, 1.0), (0.1, 0.8), (0.5, 1.0), (0.5, 0.8), (0.8, 1.2))
]  # fmt: skip


def drawn(generator: np.random.Generator, runs: int, customers: int, rate: float, of: Scenario) -> list[Rate]:
    """One rate a run."""
    shape = (runs, customers)
    n: npt.NDArray[np.int64] = np.full(shape, of.chances)
    if of.spread:
        n = 1 + generator.negative_binomial(2, 2 / (2 + of.chances), size=shape)
    own: npt.NDArray[np.float64] = np.full(shape, rate)
    if of.alike == 1:
        own = (generator.random(shape) < rate).astype(np.float64)
    elif of.alike:
        scale = (1 - of.alike) / of.alike
        own = generator.beta(rate * scale, (1 - rate) * scale, size=shape)
    s = generator.binomial(n, own)
    sums = [each.sum(axis=1).tolist() for each in (n, s, n * n, n * s, s * s)]
    return [Rate(customers, *map(float, row)) for row in zip(*sums, strict=True)]


def found(of: Scenario, seed: int, runs: int, confidence: float = CONFIDENCE) -> list[Ratio]:
    generator = np.random.default_rng([20260107, seed])
    rates = drawn(generator, runs, of.customers, of.rate * of.ratio, of)
    references = drawn(generator, runs, of.reference, of.rate, of)
    return rate_ratios(rates, references, confidence)


def holds(ratio: Ratio, truth: float) -> bool:
    return ratio.low <= truth and (ratio.high is None or truth <= ratio.high)


@pytest.mark.parametrize("seed", range(len(SHORT)))
def test_intervals_hold_the_truth(seed: int) -> None:
    of = SHORT[seed]
    misses = sum(not holds(each, of.ratio) for each in found(of, seed, 1_000))
    assert binom.sf(75, 1_000, 0.05) < 3e-4
    assert misses <= 75, of


def test_many_ratios_raise_few_alarms() -> None:
    """Every level of every line against its reference, each at 1 - 5% / 20 (Bonferroni)."""
    of, ratios = Scenario(40, 200, 3, True, 0.2, 0.2, 1.0), 20
    confidence = 1 - (1 - CONFIDENCE) / ratios
    each = found(of, 99, 250 * ratios, confidence)
    reports = [each[start : start + ratios] for start in range(0, len(each), ratios)]
    alarms = sum(any(not holds(ratio, 1.0) for ratio in report) for report in reports)
    assert alarms <= 26


@pytest.mark.long
def test_coverage_in_all_scenarios() -> None:
    began, runs = time.monotonic(), 5_000
    rows = list(_rows(runs))
    worst = min(covered for _, covered, _, _ in rows)
    RESULT.write_text(_page(rows, runs, time.monotonic() - began), encoding="utf-8")
    assert worst >= 0.94


def _rows(runs: int) -> Iterator[tuple[Scenario, float, float, float]]:
    for seed, of in enumerate(LONG):
        each = [part for block in range(5) for part in found(of, 1_000 + 100 * seed + block, runs // 5)]
        below = sum(of.ratio < ratio.low for ratio in each) / runs
        above = sum(ratio.high is not None and ratio.high < of.ratio for ratio in each) / runs
        yield of, 1 - below - above, below, above


def _page(rows: list[tuple[Scenario, float, float, float]], runs: int, seconds: float) -> str:
    covered = sorted(share for _, share, _, _ in rows)
    lines = [
        "# Rate ratios: how often their intervals hold the truth",
        "",
        f"{runs:,} simulated pairs of groups a scenario, nominal coverage {CONFIDENCE:.0%}."
        f" {seconds:.0f} s. Made by `pytest -m long tests/statistical/test_rate_ratios.py`.",
        "",
        machine(),
        "",
        f"Least {covered[0]:.1%}, median {covered[len(covered) // 2]:.1%}, most {covered[-1]:.1%}."
        " Below and above: how often the interval lies beside the truth, on which side.",
        "",
        "| customers | chances each | ρ | rate | ratio | covered | truth below | truth above |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {of} | {share:.1%} | {low:.1%} | {high:.1%} |" for of, share, low, high in rows]
    return "\n".join(lines) + "\n"

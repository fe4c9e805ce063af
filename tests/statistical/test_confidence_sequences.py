"""Lift may be looked at every day: looking often raises no false alarms, and effects are still found.

Treated and control customers are simulated in blocks of 100, with a look after each. Without an effect, a run
in which any look excludes 0 is a false alarm; at most 5% of runs may be one. Short form: 200 runs of 50,000
customers in three scenarios, at most 22 alarms each; were the runs drawn anew and alarms as frequent as
allowed, it would fail with probability 1.9e-4 a scenario. Seeds are fixed, so it cannot flake.

The long version (`pytest -m long tests/statistical/test_confidence_sequences.py`): 1,000 runs of 100,000
customers, 16 scenarios, fewer than 50 alarms each; and with an effect, at most 14 misses of 100 runs. It
writes `benchmarks/results/confidence_sequences.md`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import lambertw
from scipy.stats import norm
from test_estimators_coverage import machine

from arbitration.evaluation import Lift, Sample, difference_in_means

Floats = npt.NDArray[np.float64]

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "confidence_sequences.md"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`share` of customers are control; `rate` of them have an outcome: 1, or lognormal with log-deviation
    `spread`. Treated customers have outcomes `lift` more often."""

    share: float
    rate: float
    spread: float = 0.0
    lift: float = 0.0

    @property
    def difference(self) -> float:
        return self.rate * self.lift * math.exp(self.spread**2 / 2)

    def __str__(self) -> str:
        return f"{self.share:.0%} | {self.rate:.1%}" + (f", lognormal {self.spread:g}" if self.spread else "")


BINARY = [Scenario(share, rate) for rate in (0.005, 0.05, 0.3) for share in (0.05, 0.1, 0.5)]
SKEWED = [Scenario(s, r, d) for r, d in ((0.02, 1.0), (0.1, 1.5)) for s in (0.05, 0.1, 0.5)]
ALL = [*BINARY, *SKEWED, Scenario(0.02, 0.05)]


def sums(of: Scenario, seed: int, looks: int, block: int) -> Floats:
    """count, total, squares of the treated and then of the control, at each look: float64 (looks, 6)."""
    generator = np.random.default_rng([20260103, seed])
    control = generator.binomial(block, of.share, size=looks)
    columns: list[Floats] = []
    for count, rate in ((block - control, of.rate * (1 + of.lift)), (control, of.rate)):
        found = generator.binomial(count, rate)
        values = generator.lognormal(0.0, of.spread, size=int(found.sum()))  # 1 where there is no spread
        upto = np.cumsum(found)
        total, squares = (np.concatenate([[0.0], np.cumsum(part)])[upto] for part in (values, values**2))
        columns += [np.cumsum(count).astype(np.float64), total, squares]
    return np.stack(columns, axis=1)


def intervals(at: Floats, *, own: bool = False) -> tuple[Floats, Floats]:
    """`difference_in_means` at all looks at once, (looks, 6) -> low, high, (looks,), NaN where it gives none.

    `own`: each side's variance as it is, instead of the greater of it and everybody's.
    """
    n, total, squares, m, base, base_squares = at.T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread, base_spread = (squares - total**2 / n) / (n - 1), (base_squares - base**2 / m) / (m - 1)
        everybody = (squares + base_squares - (total + base) ** 2 / (n + m)) / (n + m - 1)
        if not own:
            spread, base_spread = np.maximum(spread, everybody), np.maximum(base_spread, everybody)
        half = boundary(4 * n * m / (n + m)) * np.sqrt(spread / n + base_spread / m)
        outcomes = np.minimum(total**2 / squares, base**2 / base_squares)
        difference = total / n - base / m
    known = (np.minimum(n, m) >= 100) & (outcomes >= 20)
    return np.where(known, difference - half, np.nan), np.where(known, difference + half, np.nan)


def boundary(size: Floats, tuned_for: float = 20_000.0, alpha: float = 0.05) -> Floats:
    """How many standard errors the interval reaches at each size."""
    x = size / tuned_for * (-float(lambertw(-(alpha**2) / math.e, -1).real) - 1)
    return np.asarray(np.sqrt((1 + 1 / x) * np.log((1 + x) / alpha**2)))


def alarms(of: Scenario, runs: int, looks: int, *, own: bool = False) -> int:
    """In how many runs some look's interval does not hold the true difference."""
    count = 0
    for seed in range(runs):
        low, high = intervals(sums(of, seed, looks, 100), own=own)
        count += bool(((low > of.difference) | (high < of.difference)).any())
    return count


def found_after(of: Scenario, seed: int, looks: int, block: int) -> float:
    """Customers until the interval excludes 0 on the right side; ∞ if it never does."""
    found = intervals(sums(of, seed, looks, block))[0] > 0
    return float((found.argmax() + 1) * block) if found.any() else math.inf


def looked(of: Scenario, seed: int, looks: int) -> Iterator[Lift]:
    for n, total, squares, m, base, base_squares in sums(of, seed, looks, 100).tolist():
        yield difference_in_means(Sample(int(n), total, squares), Sample(int(m), base, base_squares))


NULL = [Scenario(0.5, 0.3), Scenario(0.1, 0.05), Scenario(0.1, 0.1, 1.5)]


@pytest.mark.parametrize("of", [*NULL, Scenario(0.5, 0.005, lift=0.5)], ids=str)
def test_what_is_simulated_is_what_is_shipped(of: Scenario) -> None:
    """The same ends, and none where there are none, at each of 300 looks."""
    shipped = list(looked(of, 7, 300))
    for ends, name in zip(intervals(sums(of, 7, 300, 100)), ("low", "high"), strict=True):
        expected = [math.nan if (end := getattr(one, name)) is None else end for one in shipped]
        np.testing.assert_allclose(ends, expected, rtol=1e-9, atol=1e-12)
        assert np.isfinite(ends).any()
        assert np.isnan(ends).any()


@pytest.mark.parametrize("of", NULL, ids=str)
def test_looking_often_raises_no_false_alarms(of: Scenario) -> None:
    assert alarms(of, runs=200, looks=500) <= 22


def test_an_ordinary_interval_would_not_do() -> None:
    """Or the test above could not fail: 95% for one look is no 95% for 200 looks."""
    missed = 0
    for seed in range(100):
        n, total, squares, m, base, base_squares = sums(Scenario(0.5, 0.3), seed, 200, 100)[4:].T
        error = np.sqrt((squares / n - (total / n) ** 2) / n + (base_squares / m - (base / m) ** 2) / m)
        missed += bool((np.abs(total / n - base / m) > 1.96 * error).any())
    assert missed > 25


def test_an_effect_is_found() -> None:
    """30% against 36%: 20,000 customers, half of them control, are enough in every run."""
    for seed in range(20):
        assert found_after(Scenario(0.5, 0.3, lift=0.2), seed, looks=20, block=1_000) <= 20_000


@pytest.mark.long
def test_every_scenario_for_100_000_customers() -> None:
    """Writes the committed result."""
    started = time.process_time()
    table, failed = [], []
    for of in ALL:
        count, own = (alarms(of, runs=1_000, looks=1_000, own=own) for own in (False, True))
        table.append(f"| {of} | {count / 1_000:.1%} | {own / 1_000:.1%} | {first_figure(of):,.0f} |")
        failed += [str(of)] if count >= 50 else []
    effects = []
    for of in (
        Scenario(0.1, 0.05, lift=0.2),
        Scenario(0.5, 0.05, lift=0.2),
        Scenario(0.1, 0.1, 1.5, lift=0.2),
    ):
        difference, ratio = misses(of)
        effects.append(f"| {of} | {difference:.1%} | {ratio:.1%} |")
        failed += [f"effect {of}"] if max(difference, ratio) > 0.14 else []
    power = [detection(Scenario(share, rate, lift=0.2)) for rate in (0.05, 0.3) for share in (0.05, 0.1, 0.5)]
    RESULT.write_text(_report(table, effects, power, time.process_time() - started), encoding="utf-8")
    assert failed == []


def first_figure(of: Scenario) -> float:
    """Median of customers until there is an interval at all; ∞ beyond 100,000."""
    first = []
    for seed in range(100):
        known = ~np.isnan(intervals(sums(of, seed, 1_000, 100))[0])
        first.append(100 * (known.argmax() + 1) if known.any() else math.inf)
    return float(np.quantile(first, 0.5, method="higher"))


def misses(of: Scenario) -> tuple[float, float]:
    """The share of 100 runs of 100,000 customers in which any look misses the true difference, and ratio."""
    counts = [0, 0]
    for seed in range(100):
        missed = [False, False]
        for one in looked(of, seed, 1_000):
            if one.low is None or one.high is None or one.ratio_low is None:
                continue
            upper = math.inf if one.ratio_high is None else one.ratio_high
            missed[0] |= not one.low <= of.difference <= one.high
            missed[1] |= not one.ratio_low <= of.lift <= upper
        counts = [count + one for count, one in zip(counts, missed, strict=True)]
    return counts[0] / 100, counts[1] / 100


def detection(of: Scenario) -> str:
    """A line on how many customers an effect takes to be found, against a test that looks once."""
    found = np.array([found_after(of, seed, 500, 1_000) for seed in range(200)])
    treated, control = of.rate * (1 + of.lift), of.rate
    variance = treated * (1 - treated) / (1 - of.share) + control * (1 - control) / of.share
    once = (norm.ppf(0.975) + norm.ppf(0.8)) ** 2 * variance / of.difference**2
    half, most = np.quantile(found, [0.5, 0.8], method="higher")
    return f"| {of} | {of.lift:+.0%} | {half:,.0f} | {most:,.0f} | {once:,.0f} | {most / once:.2f} |"


def _report(table: list[str], effects: list[str], power: list[str], took: float) -> str:
    lines = "\n".join
    sizes = np.array([200.0, 2_000, 20_000, 200_000, 2_000_000])
    widths = [
        f"| {size:,.0f} | {bound:.2f} | {bound / 1.96:.2f} |"
        for size, bound in zip(sizes, boundary(sizes), strict=True)
    ]
    return f"""# Lift that may be looked at every day

`arbitration.evaluation.difference_in_means`, 95%, with its default settings. A look after every 100 customers
up to 100,000: 1,000 looks a run, 1,000 runs a scenario. Allowed: fewer than 5% of runs.

## Without an effect

A false alarm is a run in which any look excludes 0. "Own variances": what it would be if each side's variance
were taken as it is, instead of the greater of it and that of all customers together. A figure is given once
both sides have 100 customers and 20 outcomes ((Σ y)² / Σ y²); "first figure" is the median of when.

| control | outcomes | false alarms | with own variances | first figure, customers |
|---|---|---|---|---|
{lines(table)}

## With an effect of +20%

Runs of 100 in which any look misses the truth.

| control | outcomes | misses the difference | misses the ratio |
|---|---|---|---|
{lines(effects)}

## How long an effect takes to be found

200 runs, a look after every 1,000 customers: when half and when 80% of the runs have found it; and the
customers of a test that looks only once, with 80% power.

| control | outcomes | effect | half, customers | 80%, customers | looking once | ratio |
|---|---|---|---|---|---|---|
{lines(power)}

## Width

Against an ordinary 95% interval at the same size. Size: 4 n m / (n + m) of n treated and m control, all
customers where the sides are equal.

| size | standard errors | relative to one look |
|---|---|---|
{lines(widths)}

{machine()}
- one process, {took:.0f} s of processor time

Repeat: `pytest -m long tests/statistical/test_confidence_sequences.py`.
"""

"""Intervals of off-policy estimates hold the truth as often as they say, and thin support is refused.

The simulator: 40 kinds of customers, 6 arms, known mean rewards, so that the target policy's value is an
exact sum. 1,000 seeded logs are drawn, and the 95% intervals of ips, snips and dr must hold the truth in 93
to 97% of them. Were the logs drawn anew, intervals of exactly 95% would fail with probability 0.004 an
estimator; seeds are fixed, so it cannot flake. A good log is refused with a probability of some 1e-4 (by
`mean_weight`): more than 3 of 1,000 are a failure, false-alarm rate 4e-6. A thin one is refused always.

The long version (`pytest -m long tests/statistical/test_estimators_coverage.py`) writes
`benchmarks/results/estimator_coverage.md`.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy

from arbitration.evaluation import Estimate, Estimator, Interval, estimate
from arbitration.evaluation.intervals import INTERVALS
from arbitration.evaluation.terms import ESTIMATORS, SELF_NORMALISED

Floats = npt.NDArray[np.float64]

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "estimator_coverage.md"
KINDS, ARMS = 40, 6
REPETITIONS = 1_000
HELD: tuple[Estimator, ...] = ("ips", "snips", "dr")


@dataclass(frozen=True, slots=True)
class World:
    """Of each kind of customer (row) and arm (column): how likely it is logged, how likely the target shows
    it, P(reward), and what a model that is wrong by some 30% says of it. `skewed`: a reward is not 1 but
    lognormal of mean 1 and log-deviation 1."""

    logging: Floats
    target: Floats
    chance: Floats
    model: Floats
    skewed: bool = False

    @property
    def truth(self) -> float:
        return float((self.target * self.chance).sum(axis=1).mean())


@dataclass(frozen=True, slots=True)
class Log:
    reward: Floats
    logging: Floats
    target: Floats
    predicted: Floats
    predicted_target: Floats
    customer: npt.NDArray[np.intp]

    def estimate(
        self, estimator: Estimator, *, clustered: bool = False, interval: Interval = "skew_corrected"
    ) -> Estimate:
        return estimate(
            self.reward,
            self.logging,
            self.target,
            estimator=estimator,
            predicted_reward=self.predicted,
            predicted_reward_target=self.predicted_target,
            clusters=self.customer if clustered else None,
            interval=interval,
        )


def softmax(score: Floats) -> Floats:
    raised = np.exp(score)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def world(rate: float = 0.1, *, skewed: bool = False, sharpness: float = 0.5, floor: float = 0.1) -> World:
    """Rewards near `rate`; the target knows what is good, the log only mixes; `sharpness` parts the two."""
    generator = np.random.default_rng(20260101)
    good, other = generator.normal(size=(2, KINDS, ARMS))
    logging = (1 - floor) * softmax(sharpness * other) + floor / ARMS
    chance = np.minimum(rate * np.exp(0.5 * good - 0.125), 0.5)
    model = chance * np.exp(generator.normal(0, 0.3, size=chance.shape))
    return World(logging, softmax((0.5 + sharpness) * good), chance, model, skewed)


def log(of: World, n: int, seed: int, *, decisions: int = 1) -> Log:
    """n customers, each with 1 to 2·`decisions` - 1 rows; rows of one customer share kind and a taste.

    The taste multiplies the chance by 0.2 or 1.8, evenly, so customers with several rows are clusters.
    """
    generator = np.random.default_rng([20260102, seed])
    rows = generator.integers(1, 2 * decisions, size=n)
    customer = np.repeat(np.arange(n), rows)
    kind = generator.integers(KINDS, size=n)[customer]
    taste = generator.choice([0.2, 1.8], size=n)[customer] if decisions > 1 else np.ones(n)
    below = np.cumsum(of.logging, axis=1)[kind]
    arm = np.minimum((generator.random(len(kind))[:, None] > below).sum(axis=1), ARMS - 1)
    reward = (generator.random(len(kind)) < of.chance[kind, arm] * taste).astype(np.float64)
    if of.skewed:
        reward *= generator.lognormal(-0.5, 1.0, size=len(kind))
    under_target = (of.target * of.model).sum(axis=1)[kind]
    return Log(
        reward, of.logging[kind, arm], of.target[kind, arm], of.model[kind, arm], under_target, customer
    )


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    of = world()
    logs = [log(of, 500, seed) for seed in range(REPETITIONS)]
    for estimator in HELD:
        held, refused = tally([drawn.estimate(estimator) for drawn in logs], of.truth)
        assert 930 <= held <= 970, estimator
        assert refused <= 3


def test_rows_of_one_customer_are_not_taken_for_independent() -> None:
    """The same 93 to 97% with clusters; without them far fewer, or the test could not tell."""
    of = world(rate=0.2)
    logs = [log(of, 300, seed, decisions=4) for seed in range(REPETITIONS)]
    clustered, refused = tally([drawn.estimate("dr", clustered=True) for drawn in logs], of.truth)
    alone, _ = tally([drawn.estimate("dr") for drawn in logs], of.truth)
    assert 930 <= clustered <= 970
    assert refused <= 3
    assert alone < 900


def tally(found: list[Estimate], truth: float) -> tuple[int, int]:
    """How many intervals hold the truth, refused or not, and how many were refused."""
    intervals = [ends(one) for one in found]
    return sum(low <= truth <= high for low, high, _ in intervals), sum(not said for *_, said in intervals)


def near_deterministic(seed: int) -> Estimate:
    """The log shows one arm 99 times in 100, the target another."""
    of = world()
    logging, target = np.full((2, KINDS, ARMS), 0.002)
    logging[:, 0] = target[:, 1] = 0.99
    return log(replace(of, logging=logging, target=target), 2_000, seed).estimate("dr")


def never_logged(seed: int) -> Estimate:
    """Two arms that the log can never show have a fifth of the target's probability."""
    of = world()
    logging, target = of.logging.copy(), of.target.copy()
    logging[:, 4:] = 0
    target[:, 4:] = 0.1
    target[:, :4] *= 0.8 / target[:, :4].sum(axis=1, keepdims=True)
    logging /= logging.sum(axis=1, keepdims=True)
    return log(replace(of, logging=logging, target=target), 2_000, seed).estimate("ips")


def never_logged_known(seed: int) -> Estimate:
    """The same, 2% only, but the caller says so."""
    drawn = log(world(), 2_000, seed)
    return estimate(drawn.reward, drawn.logging, drawn.target, estimator="ips", unsupported=0.02)


def giant_weight(seed: int) -> Estimate:
    """One row of good 2,000 was logged with probability 0.0005 and is what the target always does."""
    drawn = log(world(), 2_000, seed)
    drawn.logging[0], drawn.target[0] = 0.0005, 1.0
    return drawn.estimate("snips")


def tiny(seed: int) -> Estimate:
    return log(world(), 40, seed).estimate("snips")


def hardly_an_outcome(seed: int) -> Estimate:
    return log(world(rate=0.0005), 2_000, seed).estimate("ips")


def wrong_probabilities(seed: int) -> Estimate:
    """Half of what was logged is logged with twice its probability."""
    drawn = log(world(), 2_000, seed)
    drawn.logging[:1_000] = np.minimum(2 * drawn.logging[:1_000], 1)
    return drawn.estimate("snips")


THIN: dict[str, Callable[[int], Estimate]] = {
    "effective_sample_size": near_deterministic,
    "mean_weight": never_logged,
    "unsupported": never_logged_known,
    "largest_weight": giant_weight,
    "effective_sample_size, tiny log": tiny,
    "outcomes": hardly_an_outcome,
    "mean_weight, wrong log": wrong_probabilities,
}


@pytest.mark.parametrize("code", THIN)
def test_thin_support_is_always_refused(code: str) -> None:
    for seed in range(20):
        found = THIN[code](seed)
        assert (found.value, found.low, found.high) == (None, None, None)
        assert code.split(",")[0] in {warning.code for warning in found.warnings}
        assert found.unquotable is not None


@pytest.mark.long
def test_all_estimators_at_many_sizes() -> None:
    """Writes the committed result. Held to: the same 93 to 97% for ips, snips and dr where rewards are 0 or 1
    and the log has 500 customers or more."""
    started = time.process_time()
    cases = [
        ("0 or 1, rate 0.1", world(), n, 1) for n in (200, 500, 2_000, 10_000)
    ] + [
        ("0 or 1, rate 0.02", world(0.02), 2_000, 1),
        ("0 or 1, rate 0.1, customers of 1 to 7 rows", world(), 1_000, 4),
        ("lognormal, rate 0.1", world(skewed=True), 1_000, 1),
        ("lognormal, rate 0.1", world(skewed=True), 5_000, 1),
        ("lognormal, rate 0.1", world(skewed=True), 20_000, 1),
        ("lognormal, rate 0.1, customers of 1 to 7 rows", world(skewed=True), 2_000, 4),
    ]  # fmt: skip
    table, short = [], []
    for name, of, n, decisions in cases:
        cells, size, _ = covered(of, n, decisions, ESTIMATORS, "skew_corrected")
        table.append(
            f"| {name} | {n:,} | {size:,.0f} | " + " | ".join(f"{cells[e]:.1%}" for e in ESTIMATORS) + " |"
        )
        if name.startswith("0 or 1") and n >= 500:
            short += [(name, n, e, cells[e]) for e in HELD if not 0.93 <= cells[e] <= 0.97]
    kinds = []
    for name, of, n in [
        ("0 or 1, rate 0.1", world(), 500),
        ("lognormal, rate 0.1", world(skewed=True), 1_000),
    ]:
        for interval in INTERVALS:
            some = tuple(e for e in ("ips", "dr") if e not in SELF_NORMALISED)
            cells, _, width = covered(
                of, n, 1, some, interval, REPETITIONS if interval != "bootstrap" else 300
            )
            kinds.append(
                f"| {name} | {n:,} | {interval} | "
                + " | ".join(f"{cells[e]:.1%} | {width[e]:.3f}" for e in some)
                + " |"
            )
    overlap = []
    for sharpness, floor in ((0.5, 0.1), (1.0, 0.1), (1.5, 0.05), (2.0, 0.02), (2.5, 0.02), (3.0, 0.02)):
        overlap.append(thinning(world(sharpness=sharpness, floor=floor)))
    fired = [f"| {scenario.__name__} | {_codes(scenario)} |" for scenario in THIN.values()]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(_report(table, kinds, overlap, fired, time.process_time() - started), encoding="utf-8")
    assert short == []


def covered(
    of: World,
    n: int,
    decisions: int,
    which: tuple[Estimator, ...],
    interval: Interval,
    count: int = REPETITIONS,
) -> tuple[dict[Estimator, float], float, dict[Estimator, float]]:
    """Of each estimator the share of intervals that hold the truth, refused or not; the mean effective
    sample size; the mean width of the intervals."""
    held, width, size = dict.fromkeys(which, 0.0), dict.fromkeys(which, 0.0), 0.0
    for seed in range(count):
        drawn = log(of, n, 10_000 + seed, decisions=decisions)
        for name in which:
            found = drawn.estimate(name, clustered=decisions > 1, interval=interval)
            low, high, _ = ends(found)
            held[name] += (low <= of.truth <= high) / count
            width[name] += (high - low) / count
        size += found.effective_sample_size / count
    return held, size, width


def ends(found: Estimate) -> tuple[float, float, bool]:
    """The interval, quotable or not."""
    if found.unquotable is not None:
        return found.unquotable.low, found.unquotable.high, False
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high, True


def thinning(of: World, n: int = 2_000, count: int = 500) -> str:
    """A line on how intervals and refusals behave as the overlap goes: of all logs, and of those quoted."""
    found: dict[Estimator, list[tuple[bool, bool]]] = {name: [] for name in (*HELD, "dros")}
    sizes = []
    for seed in range(count):
        drawn = log(of, n, 20_000 + seed)
        for name in found:
            made = drawn.estimate(name)
            low, high, quoted = ends(made)
            found[name].append((low <= of.truth <= high, quoted))
        sizes.append(made.effective_sample_size)
    quoted = sum(said for _, said in found["dr"]) / count
    cells = []
    for results in found.values():
        of_quoted = [held for held, said in results if said]
        some = f"{np.mean(of_quoted):.1%}" if len(of_quoted) >= 25 else "-"
        cells.append(f"{np.mean([held for held, _ in results]):.1%} / {some}")
    return f"| {np.median(sizes):.0f} | {quoted:.1%} | " + " | ".join(cells) + " |"


def _codes(scenario: Callable[[int], Estimate]) -> str:
    counts = Counter(warning.code for seed in range(200) for warning in scenario(seed).warnings)
    return ", ".join(f"{code} {count / 200:.0%}" for code, count in counts.most_common())


def machine() -> str:
    """What a result was measured on."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return (
        f"- {processor}, {os.cpu_count()} cores, {platform.system()}\n"
        f"- Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    )


def _report(table: list[str], kinds: list[str], overlap: list[str], fired: list[str], took: float) -> str:
    lines = "\n".join
    return f"""# Intervals of off-policy estimates hold the truth as often as they say

A simulator with known truth: {KINDS} kinds of customers, {ARMS} arms, a model of the rewards that is wrong
by some 30% on every arm. Each cell: in how many of {REPETITIONS:,} seeded logs the 95% interval holds the
target policy's true value. All logs count, also those that would be refused. 95% ± 1.4% is what chance allows
(two standard errors).

## Every estimator, default interval (skew_corrected)

| rewards | customers | effective sample size | {" | ".join(ESTIMATORS)} |
|---|---|---|{"---|" * len(ESTIMATORS)}
{lines(table)}

`dm` is as wrong as its model: its interval speaks of the sampling of contexts only. `switch_dr`
and `dros` trade bias for variance.

## Kinds of intervals

Coverage and mean width.

| rewards | customers | interval | ips covers | width | dr covers | width |
|---|---|---|---|---|---|---|
{lines(kinds)}

(`bootstrap`: 300 logs. `empirical_bernstein`: the range of a row is the observed range of the rewards × the
largest weight that the logged probabilities allow.)

## As the overlap goes

2,000 customers, rewards 0 or 1, rate 0.1; 500 logs a line. Coverage of all logs / of those that are
quoted ("-": fewer than 25 of these).

| median effective sample size | quoted | {" | ".join((*HELD, "dros"))} |
|---|---|---|---|---|---|
{lines(overlap)}

## Refusals

Share of 200 logs of each scenario built to need it in which a warning fires (they are in the test's source).

| scenario | warnings |
|---|---|
{lines(fired)}

{machine()}
- one process, {took:.0f} s of processor time

Repeat: `pytest -m long tests/statistical/test_estimators_coverage.py`.
"""

"""Off-policy estimates on real logs come out as published: Open Bandit Dataset, men's campaign.

10,000 impressions of a fashion shop under a uniform policy are used to estimate the clicks per impression of
Bernoulli Thompson sampling (BTS), which served the same shop in the same days: there it was 69 of 10,000. The
target's probabilities are drawn as in the data set's own quick start (Saito, Aihara, Matsutani & Narita 2020,
"Open Bandit Dataset and Pipeline"). Nothing here is random but by fixed seeds: no false alarms.

Skipped where the data are absent. The long version (`pytest -m long tests/statistical/test_open_bandit.py`)
writes `benchmarks/results/open_bandit.md`.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from numpy.random import RandomState
from test_estimators_coverage import ends, machine

from arbitration.evaluation import Estimate, Estimator, Interval, estimate
from arbitration.evaluation.intervals import INTERVALS
from arbitration.evaluation.terms import ESTIMATORS, SELF_NORMALISED

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "open_bandit_men"
RESULT = ROOT / "benchmarks" / "results" / "open_bandit.md"
ITEMS, POSITIONS = 34, 3
TRUTH = 0.0069

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no data at ../{DATA.relative_to(ROOT.parent)}")


@cache
def impressions(policy: str) -> tuple[Floats, Indices, Indices, Floats]:
    """Of each logged impression: click, item, position (from 0), logging probability."""
    with gzip.open(DATA / policy / "men.csv.gz", "rt", encoding="utf-8") as file:
        head = file.readline().rstrip().split(",")
        wanted = [head.index(name) for name in ("click", "item_id", "position", "propensity_score")]
        click, item, position, probability = np.loadtxt(file, delimiter=",", usecols=wanted, unpack=True)
    return click, item.astype(np.intp), position.astype(np.intp) - 1, probability


@cache
def target() -> Floats:
    """How often BTS puts each item (row) on each position (column), of 100,000 draws."""
    prior = json.loads((DATA / "bts_prior_men.json").read_text(encoding="utf-8"))
    state, shown = RandomState(12345), np.zeros((ITEMS, POSITIONS))
    for _ in range(100):
        drawn = state.beta(prior["alpha"], prior["beta"], size=(1_000, ITEMS))
        ranked = np.argsort(-drawn, axis=1)
        for position in range(POSITIONS):
            shown[:, position] += np.bincount(ranked[:, position], minlength=ITEMS)
    return shown / 100_000


@cache
def models() -> tuple[Floats, Floats]:
    """Predicted clicks of the shown item and under BTS, each row by a model of the other half of the log.

    Of an item the clicks per impression, drawn towards the overall rate as if by 100 impressions of it.
    """
    click, item, position, _ = impressions("random")
    predicted, under_target = np.zeros((2, len(click)))
    for half in (0, 1):
        mine = np.arange(len(click)) % 2 == half
        clicks, shown = (np.bincount(item[~mine], weights=w, minlength=ITEMS) for w in (click[~mine], None))
        rate = (clicks + 100 * click[~mine].mean()) / (shown + 100)
        predicted[mine] = rate[item[mine]]
        under_target[mine] = (rate @ target())[position[mine]]
    return predicted, under_target


def bts(estimator: Estimator, interval: Interval = "skew_corrected") -> Estimate:
    click, item, position, probability = impressions("random")
    predicted, under_target = models()
    return estimate(
        click,
        probability,
        target()[item, position],
        estimator=estimator,
        interval=interval,
        predicted_reward=predicted,
        predicted_reward_target=under_target,
    )


def test_the_data_are_read_as_the_published_figures_say() -> None:
    clicks = {policy: impressions(policy)[0] for policy in ("random", "bts")}
    assert {policy: (len(found), found.sum()) for policy, found in clicks.items()} == {
        "random": (10_000, 46),
        "bts": (10_000, 69),
    }
    assert impressions("random")[3] == pytest.approx(1 / ITEMS)
    assert target().sum(axis=0) == pytest.approx(1)


@pytest.mark.parametrize(("estimator", "expected"), [("ips", 0.004534), ("snips", 0.004604)])
def test_random_to_bts_to_the_printed_digits(estimator: Estimator, expected: float) -> None:
    found = bts(estimator)
    assert found.warnings == ()
    assert found.value is not None
    assert round(found.value, 6) == expected
    assert found.n == 10_000
    assert found.effective_sample_size == pytest.approx(2467.4, abs=0.1)


@pytest.mark.long
def test_every_estimator() -> None:
    """Writes the committed result."""
    lines, missed = [], []
    for estimator in ESTIMATORS:
        found = bts(estimator)
        cells = [f"{_value(found):.6f}"]
        for interval in INTERVALS:
            if interval == "empirical_bernstein" and estimator in SELF_NORMALISED:
                cells.append("-")
                continue
            low, high, _ = ends(bts(estimator, interval))
            cells.append(f"{low:.5f} to {high:.5f}")
            missed += [] if low <= TRUTH <= high else [f"{estimator} ({interval})"]
        parameter = "" if found.parameter is None else f"{found.parameter:.3g}"
        lines.append(f"| {estimator} | {' | '.join(cells)} | {parameter} |")
    click = impressions("bts")[0]
    on_policy = estimate(click, np.ones(len(click)), np.ones(len(click)), estimator="ips")
    RESULT.write_text(_report(lines, missed, on_policy, bts("ips")), encoding="utf-8")
    low, high, _ = ends(bts("ips"))
    assert low <= TRUTH <= high


def _value(found: Estimate) -> float:
    assert found.value is not None
    return found.value


def _report(lines: list[str], missed: list[str], on_policy: Estimate, ips: Estimate) -> str:
    low, high, _ = ends(on_policy)
    table = "\n".join(lines)
    return f"""# Off-policy estimates on the Open Bandit Dataset

Men's campaign, small sample: 10,000 impressions of a fashion shop under a uniform policy (46 clicks), used to
estimate the clicks per impression of Bernoulli Thompson sampling. That policy was run too: 69 clicks of
10,000 impressions, {_value(on_policy):.4f} with a 95% interval of {low:.5f} to {high:.5f}.

Published for this recipe: IPS .004534, SNIPS .004604. Effective sample size
{ips.effective_sample_size:,.0f} of {ips.n:,}; no warning fires. 95% intervals:

| estimator | value | {" | ".join(INTERVALS)} | threshold or λ |
|---|---|{"---|" * len(INTERVALS)}---|
{table}

The {TRUTH} of the policy really run lies outside of: {", ".join(missed)}; and in all the others.

The model behind dm and the doubly robust ones: clicks per impression of each item, smoothed, learned on the
other half of the log. "-": no such interval, see `docs/evaluation.md`. The upper ends of `skew_corrected` and
`bootstrap` are farther off than the lower ones, because 46 clicks at very unequal weights leave much room
above. `empirical_bernstein` holds at any sample size and pays with a width that says nothing here.

{machine()}

Repeat: `pytest -m long tests/statistical/test_open_bandit.py`. Data: Saito et al. 2020, Apache-2.0; they are
not part of this repository; without them the tests are skipped and say where they looked.
"""

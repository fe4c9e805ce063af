"""Estimates and differences as a whole: the pinned call, refusals, clusters, pairing, arguments."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arbitration.evaluation import Estimate, EvaluationError, Figure, difference, estimate
from arbitration.evaluation.intervals import INTERVALS
from arbitration.evaluation.terms import ESTIMATORS, SELF_NORMALISED

Floats = npt.NDArray[np.float64]

N = 600
_generator = np.random.default_rng(12)
REWARD: Floats = (_generator.random(N) < 0.3).astype(np.float64)
LOGGING: Floats = _generator.uniform(0.3, 0.7, N)
TARGET: Floats = LOGGING * np.where(np.arange(N) % 2, 1.4, 0.6)
PREDICTED: Floats = 0.3 + 0.1 * _generator.random(N)
UNDER_TARGET: Floats = 0.3 + 0.1 * _generator.random(N)
MODELS: dict[str, Any] = {"predicted_reward": PREDICTED, "predicted_reward_target": UNDER_TARGET}


def of(estimator: Any = "ips", **changes: Any) -> Estimate:
    return estimate(REWARD, LOGGING, TARGET, **({"estimator": estimator} | MODELS | changes))


def figure(found: Estimate) -> Figure:
    assert found.warnings == ()
    assert found.unquotable is None
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return Figure(found.value, found.low, found.high)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_value_within_its_interval(estimator: Any) -> None:
    found = of(estimator)
    assert figure(found).low < figure(found).value < figure(found).high
    assert found.n == N
    weight = TARGET / LOGGING
    assert found.effective_sample_size == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    with pytest.raises(FrozenInstanceError):
        found.value = 1.0  # type: ignore[misc]


def test_lists_are_as_good_as_arrays() -> None:
    lists = estimate(REWARD.tolist(), LOGGING.tolist(), TARGET.tolist(), estimator="ips")
    assert lists == estimate(REWARD, LOGGING, TARGET, estimator="ips")


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_with_every_interval(estimator: Any, interval: Any) -> None:
    if interval == "empirical_bernstein" and estimator in SELF_NORMALISED:
        with pytest.raises(EvaluationError, match="interval: empirical_bernstein bounds means"):
            of(estimator, interval=interval)
        return
    narrow, wide = (
        figure(of(estimator, interval=interval, confidence=0.8)),
        figure(of(estimator, interval=interval)),
    )
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_unit_of_the_reward_does_not_matter(estimator: Any) -> None:
    scaled = estimate(
        100 * REWARD,
        LOGGING,
        TARGET,
        estimator=estimator,
        predicted_reward=100 * PREDICTED,
        predicted_reward_target=100 * UNDER_TARGET,
    )
    one, other = figure(of(estimator)), figure(scaled)
    assert [other.value, other.low, other.high] == pytest.approx(
        [100 * one.value, 100 * one.low, 100 * one.high]
    )


def test_the_bootstrap_depends_on_its_seed_only() -> None:
    assert of(interval="bootstrap", seed=3) == of(interval="bootstrap", seed=3)
    assert of(interval="bootstrap", seed=3) != of(interval="bootstrap", seed=4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("interval", ["skew_corrected", "student"])
def test_copies_of_rows_in_their_clusters_tell_nothing_new(estimator: Any, interval: Any) -> None:
    """Every row four times: as clusters, the same in all respects but n; as rows alone, half as wide."""
    pick = np.repeat(np.arange(N), 4)
    data = [column[pick] for column in (REWARD, LOGGING, TARGET)]
    models = {name: column[pick] for name, column in MODELS.items()}
    cut = {"threshold": 2.0, "shrinkage": 5.0}  # or the threshold would depend on the clusters
    once = of(estimator, interval=interval, **cut)
    shuffled = np.random.default_rng(1).permutation(N)[pick]
    copies = estimate(*data, estimator=estimator, interval=interval, clusters=shuffled, **models, **cut)  # type: ignore[arg-type]
    assert copies.n == 4 * N
    assert copies.effective_sample_size == pytest.approx(once.effective_sample_size)
    assert [figure(copies).low, figure(copies).high] == pytest.approx([figure(once).low, figure(once).high])
    alone = estimate(*data, estimator=estimator, interval=interval, **models, **cut)  # type: ignore[arg-type]
    width = figure(once).high - figure(once).low
    spread = figure(once).value
    bias = 0.0
    if estimator in ("switch_dr", "dros"):
        bias = abs(figure(of("dr")).value - spread)
    assert figure(alone).high - figure(alone).low - bias == pytest.approx((width - bias) / 2, rel=0.08)


def test_the_range_behind_empirical_bernstein() -> None:
    """Largest possible weight × range of the reward: 1 / the least logging probability here, or the clip."""
    observed = figure(of(interval="empirical_bernstein"))
    wider = figure(of(interval="empirical_bernstein", reward_range=(0, 2)))
    log, least = np.log(4 / 0.05), LOGGING.min()
    assert wider.high - observed.high == pytest.approx(7 * log / least / (3 * (N - 1)))
    centred = TARGET / LOGGING * REWARD
    expected = np.sqrt(2 * centred.var(ddof=1) * log / N) + 7 * log / least / (3 * (N - 1))
    assert observed.high - observed.value == pytest.approx(expected)
    clipped = figure(of(interval="empirical_bernstein", clip=1.4))
    assert clipped.value == pytest.approx(observed.value)
    assert clipped.high - clipped.value == pytest.approx(
        expected - 7 * log * (1 / least - 1.4) / (3 * (N - 1))
    )


def test_the_range_of_a_cluster_is_that_of_all_its_rows() -> None:
    """Every row four times as clusters: a quarter as many terms, each reaching four times as far."""
    pick = np.repeat(np.arange(N), 4)
    data = [column[pick] for column in (REWARD, LOGGING, TARGET)]
    found = estimate(*data, estimator="ips", interval="empirical_bernstein", clusters=pick)
    once = figure(of(interval="empirical_bernstein"))
    assert [figure(found).low, figure(found).high] == pytest.approx([once.low, once.high])


def test_the_interval_of_cut_weights_reaches_around_the_uncut_value() -> None:
    plain, clipped = figure(of("ips")), figure(of("ips", clip=1.0))
    assert clipped.value < plain.value < clipped.high
    assert clipped.high - plain.value == pytest.approx(plain.high - plain.value, rel=0.4)
    assert figure(of("switch_dr", threshold=1.0)).value != figure(of("dr")).value
    assert of("switch_dr", threshold=1.0).parameter == 1.0
    assert of("dros", shrinkage=2.0).parameter == 2.0


def test_rows_that_the_target_would_never_show() -> None:
    target = np.where(np.arange(N) % 2, LOGGING * 1.4, 0.0)
    found = estimate(REWARD, LOGGING / 1.43, target, estimator="snips")
    rewards = REWARD[1::2]
    assert figure(found).value == pytest.approx(rewards.mean())


def test_a_refusal_says_why_and_keeps_the_numbers_apart() -> None:
    found = estimate(REWARD[:60], LOGGING[:60], TARGET[:60], estimator="ips")
    assert (found.value, found.low, found.high) == (None, None, None)
    assert [warning.code for warning in found.warnings] == ["effective_sample_size"]
    assert found.warnings[0].measured == found.effective_sample_size < found.warnings[0].bound == 100
    assert found.unquotable is not None
    assert found.unquotable.value == pytest.approx((TARGET * REWARD / LOGGING)[:60].mean())
    assert found.unquotable.low < found.unquotable.value < found.unquotable.high


def test_one_row_is_refused_and_its_interval_endless() -> None:
    found = estimate([1.0], [0.5], [0.5], estimator="ips")
    assert found.value is None
    assert found.unquotable == Figure(1.0, -np.inf, np.inf)


def test_the_difference_is_that_of_the_values_and_narrower_than_apart() -> None:
    for estimator in ESTIMATORS:
        baseline = TARGET * 0.95 + LOGGING * 0.05
        paired = difference(
            REWARD,
            LOGGING,
            TARGET,
            baseline,
            estimator=estimator,
            predicted_reward=PREDICTED,
            predicted_reward_target=UNDER_TARGET,
            predicted_reward_baseline=UNDER_TARGET * 0.99,
        )
        other = estimate(
            REWARD,
            LOGGING,
            baseline,
            estimator=estimator,
            predicted_reward=PREDICTED,
            predicted_reward_target=UNDER_TARGET * 0.99,
        )
        assert figure(paired).value == pytest.approx(figure(of(estimator)).value - figure(other).value)
        assert figure(paired).high - figure(paired).low < figure(other).high - figure(other).low


def test_against_todays_policy_ips_is_a_mean_of_weighted_rewards() -> None:
    found = difference(REWARD, LOGGING, TARGET, LOGGING, estimator="ips", interval="student")
    each = (TARGET / LOGGING - 1) * REWARD
    assert figure(found).value == pytest.approx(each.mean())
    half = (figure(found).high - figure(found).low) / 2
    assert half == pytest.approx(1.9639 * each.std(ddof=1) / np.sqrt(N), rel=1e-4)


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "dros"])
def test_no_change_is_exactly_no_difference(estimator: Any) -> None:
    found = difference(
        REWARD,
        LOGGING,
        TARGET,
        TARGET,
        estimator=estimator,
        **MODELS,
        predicted_reward_baseline=UNDER_TARGET,
    )
    assert figure(found) == Figure(0.0, 0.0, 0.0)


def test_a_change_on_few_rows_is_not_quoted() -> None:
    baseline = TARGET.copy()
    baseline[:10] = LOGGING[:10]
    found = difference(REWARD, LOGGING, TARGET, baseline, estimator="ips")
    assert [(warning.code, warning.measured) for warning in found.warnings] == [
        ("outcomes", REWARD[:10].sum())
    ]
    assert found.value is None


def test_a_difference_says_which_policy_lacks_support() -> None:
    thin = np.where(np.arange(N) < 30, LOGGING, 0.0)
    found = difference(REWARD, LOGGING, TARGET, thin, estimator="ips", unsupported=0.5)
    of_policies = {(warning.code, warning.of) for warning in found.warnings}
    assert {("effective_sample_size", "baseline"), ("unsupported", "target")} <= of_policies
    assert ("unsupported", "baseline") not in of_policies
    assert found.effective_sample_size == pytest.approx(30)


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("target_probability", {"target_probability": TARGET[:-1]}),
        ("target_probability", {"target_probability": TARGET + 1}),
        ("predicted_reward", {"estimator": "dr", "predicted_reward": None}),
        ("predicted_reward_target", {"estimator": "dr", "predicted_reward_target": None}),
        ("predicted_reward_target", {"estimator": "dm", "predicted_reward_target": None}),
        ("predicted_reward_target", {"estimator": "dm", "predicted_reward_target": PREDICTED[:5]}),
        ("estimator", {"estimator": "best"}),
        ("interval", {"interval": "wald"}),
        ("confidence", {"confidence": 1.0}),
        ("confidence", {"confidence": 95}),
        ("clip", {"clip": 0.0}),
        ("clip", {"clip": float("nan")}),
        ("threshold", {"threshold": -1.0}),
        ("shrinkage", {"shrinkage": -1.0}),
        ("unsupported", {"unsupported": 1.5}),
        ("reward_range", {"reward_range": (0.5, 1.0)}),
        ("reward_range", {"reward_range": (0.0, float("inf"))}),
        ("clusters", {"clusters": [1, 2]}),
    ],
)
def test_a_faulty_argument_is_named(argument: str, changes: dict[str, Any]) -> None:
    arguments = {"reward": REWARD, "logging_probability": LOGGING, "target_probability": TARGET}
    with pytest.raises(EvaluationError) as caught:
        estimate(**(arguments | {"estimator": "ips"} | MODELS | changes))
    assert caught.value.argument == argument


def test_a_faulty_baseline_is_named() -> None:
    with pytest.raises(EvaluationError, match="baseline_probability: must be from 0 to 1"):
        difference(REWARD, LOGGING, TARGET, TARGET + 1, estimator="ips")
    with pytest.raises(EvaluationError, match="predicted_reward_baseline: is needed"):
        difference(REWARD, LOGGING, TARGET, TARGET, estimator="dr", **MODELS)


def test_predictions_that_an_estimator_does_not_use_are_not_looked_at() -> None:
    assert of("ips", predicted_reward=None, predicted_reward_target="nonsense").value == of("ips").value
    assert of("dm", predicted_reward=None).value == of("dm").value

"""What another policy would have earned, from a log of this one: a value with an interval, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arbitration.evaluation import intervals, support
from arbitration.evaluation.errors import EvaluationError
from arbitration.evaluation.intervals import INTERVALS, Interval
from arbitration.evaluation.rows import Floats, Rows, rows
from arbitration.evaluation.support import Of, SupportWarning
from arbitration.evaluation.terms import ESTIMATORS, SELF_NORMALISED, Estimator, Terms, terms


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and the ends of its interval, in units of the reward, per logged row."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate that may be quoted, or the reasons why not.

    With any of the `warnings`, `value`, `low` and `high` are None, and what was computed is in `unquotable`,
    to be looked at and not to be shown. `effective_sample_size`: Kish's, of the weights of the n rows (summed
    over clusters, where these are given). `parameter`: the threshold or shrinkage used, ∞ for plain `dr`.
    """

    value: float | None
    low: float | None
    high: float | None
    effective_sample_size: float
    n: int
    warnings: tuple[SupportWarning, ...]
    unquotable: Figure | None
    parameter: float | None


def estimate(
    reward: npt.ArrayLike,
    logging_probability: npt.ArrayLike,
    target_probability: npt.ArrayLike,
    *,
    estimator: Estimator,
    predicted_reward: npt.ArrayLike | None = None,
    predicted_reward_target: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    interval: Interval = "skew_corrected",
    clip: float | None = None,
    threshold: float | None = None,
    shrinkage: float | None = None,
    clusters: npt.ArrayLike | None = None,
    unsupported: float = 0.0,
    reward_range: tuple[float, float] | None = None,
    seed: int = 0,
) -> Estimate:
    """The target policy's mean reward per logged slot.

    All arrays (n,), one row per logged slot, n ≥ 1: `reward`, finite; `logging_probability`, in (0, 1], and
    `target_probability`, in [0, 1], of the logged arm; `predicted_reward`, a model's value of the logged arm,
    and `predicted_reward_target`, its mean over the target's arms (`dm` needs the latter, `dr`, `sndr`,
    `switch_dr` and `dros` both). The model must not have seen these rows' rewards.

    `clip`: weights above it count as it. `threshold` (switch_dr, > 0): by default √n, or √clusters.
    `shrinkage` (dros, ≥ 0): by default chosen from the rows. Where weights are cut in any of these ways, the
    interval reaches as far around the uncut value too, so that it does not hide the bias. `clusters`,
    integers (n,): rows of one cluster (a decision, or a customer) may depend on one another, clusters may
    not. `unsupported`: the share of its probability that the target gives to arms which the log could never
    show. `reward_range`: the least and greatest reward there can be, for `empirical_bernstein`; by default as
    observed. `seed`: of `bootstrap`.

    EvaluationError names the argument at fault. Estimators and intervals with their sources: `terms`,
    `intervals`; bounds of the warnings: `support`.
    """
    log = rows(reward, logging_probability, clusters)
    _check(estimator, interval, confidence, clip, threshold, shrinkage, unsupported)
    weight = log.weight("target_probability", target_probability)
    names = {"predicted_reward": predicted_reward, "predicted_reward_target": predicted_reward_target}
    predicted, predicted_target = _models(log, estimator, names)
    parts = terms(log, estimator, weight, predicted, predicted_target, clip, threshold, shrinkage)
    warnings = support.of_weights(log, weight, unsupported)
    return _quoted(
        log, [parts], [weight], warnings, interval, confidence, _range(log, reward_range), seed, False
    )


def difference(
    reward: npt.ArrayLike,
    logging_probability: npt.ArrayLike,
    target_probability: npt.ArrayLike,
    baseline_probability: npt.ArrayLike,
    *,
    estimator: Estimator,
    predicted_reward: npt.ArrayLike | None = None,
    predicted_reward_target: npt.ArrayLike | None = None,
    predicted_reward_baseline: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    interval: Interval = "skew_corrected",
    clip: float | None = None,
    threshold: float | None = None,
    shrinkage: float | None = None,
    clusters: npt.ArrayLike | None = None,
    unsupported: float = 0.0,
    reward_range: tuple[float, float] | None = None,
    seed: int = 0,
) -> Estimate:
    """How much more the target policy would have earned than a baseline policy, on the same logged slots.

    As `estimate`, for the target's value minus the baseline's. What both have in common cancels row by row,
    so the interval is narrower than those of two estimates suggest. Against today's policy,
    `baseline_probability` is `logging_probability`. `effective_sample_size` is the lesser of the two;
    `parameter` is the target's. Where both policies are alike on every row, the difference is exactly 0.
    """
    log = rows(reward, logging_probability, clusters)
    _check(estimator, interval, confidence, clip, threshold, shrinkage, unsupported)
    given: list[tuple[Of, npt.ArrayLike, npt.ArrayLike | None]] = [
        ("target", target_probability, predicted_reward_target),
        ("baseline", baseline_probability, predicted_reward_baseline),
    ]
    parts, weights, warnings = [], [], []
    for of, probability, prediction in given:
        weight = log.weight(f"{of}_probability", probability)
        names = {"predicted_reward": predicted_reward, f"predicted_reward_{of}": prediction}
        predicted, predicted_policy = _models(log, estimator, names)
        parts.append(terms(log, estimator, weight, predicted, predicted_policy, clip, threshold, shrinkage))
        weights.append(weight)
        warnings += support.of_weights(log, weight, unsupported if of == "target" else 0.0, of)
    alike = np.array_equal(weights[0], weights[1]) and np.array_equal(parts[0].base, parts[1].base)
    return _quoted(
        log, parts, weights, warnings, interval, confidence, _range(log, reward_range), seed, alike
    )


def _quoted(
    log: Rows,
    parts: list[Terms],
    weights: list[Floats],
    warnings: list[SupportWarning],
    interval: Interval,
    confidence: float,
    reward_range: tuple[float, float],
    seed: int,
    exact: bool,
) -> Estimate:
    """The estimate of one policy, or of the first less the second."""
    signed = [parts[0].influence, *(-part.influence for part in parts[1:])]
    unit = log.by_unit(sum(signed[1:], signed[0]))
    value = parts[0].value - sum(part.value for part in parts[1:])
    bias = parts[0].bias - sum(part.bias for part in parts[1:])
    if not exact:
        relevant = weights[0] > 0 if len(weights) == 1 else weights[0] != weights[1]
        warnings = [*warnings, *support.of_outcomes(log, relevant)]
    low, high = _offsets(log, unit, parts, interval, confidence, reward_range, seed)
    figure = Figure(value, value + min(bias, 0.0) + low, value + max(bias, 0.0) + high)
    sizes = [support.kish(log.by_unit(weight)) for weight in weights]
    said = None if warnings else figure
    return Estimate(
        value=None if said is None else said.value,
        low=None if said is None else said.low,
        high=None if said is None else said.high,
        effective_sample_size=min(sizes),
        n=log.n,
        warnings=tuple(warnings),
        unquotable=figure if warnings else None,
        parameter=parts[0].parameter,
    )


def _offsets(
    log: Rows,
    unit: Floats,
    parts: list[Terms],
    interval: Interval,
    confidence: float,
    reward_range: tuple[float, float],
    seed: int,
) -> tuple[float, float]:
    if log.units < 2:  # no unit can be compared with another
        return -math.inf, math.inf
    match interval:
        case "skew_corrected":
            return intervals.skew_corrected(unit, log.n, confidence)
        case "student":
            return intervals.student(unit, log.n, confidence)
        case "bootstrap":
            return intervals.bootstrap(unit, log.n, confidence, seed)
        case "empirical_bernstein":
            spread = sum(_spread(log, part, reward_range) for part in parts)
            return intervals.empirical_bernstein(unit, log.n, confidence, spread * log.largest_unit())


def _spread(log: Rows, part: Terms, reward_range: tuple[float, float]) -> float:
    """How far apart what a row adds can be: by the largest weight the log allows, and the residuals."""
    least, most = reward_range
    predicted = log.reward - part.residual if part.cap else np.zeros(1)
    lowest = min(0.0, part.cap * (least - float(predicted.max())))
    highest = max(0.0, part.cap * (most - float(predicted.min())))
    return float(np.ptp(part.base)) + highest - lowest


def _range(log: Rows, given: tuple[float, float] | None) -> tuple[float, float]:
    least, most = float(log.reward.min()), float(log.reward.max())
    if given is None:
        return least, most
    if not (math.isfinite(given[0]) and math.isfinite(given[1]) and given[0] <= least and most <= given[1]):
        raise EvaluationError("reward_range", f"must be finite and hold every reward, {least:g} to {most:g}")
    return given


def _models(
    log: Rows, estimator: Estimator, given: dict[str, npt.ArrayLike | None]
) -> tuple[Floats | None, Floats | None]:
    """(predicted, predicted under the policy), those of both that the estimator uses."""
    if estimator in ("ips", "snips"):
        return None, None
    if estimator == "dm":
        name, values = list(given.items())[1]
        return None, log.predictions({name: values})[0]
    predicted, under_policy = log.predictions(given)
    return predicted, under_policy


def _check(
    estimator: Estimator,
    interval: Interval,
    confidence: float,
    clip: float | None,
    threshold: float | None,
    shrinkage: float | None,
    unsupported: float,
) -> None:
    if estimator not in ESTIMATORS:
        raise EvaluationError("estimator", f"must be one of {', '.join(ESTIMATORS)}")
    if interval not in INTERVALS:
        raise EvaluationError("interval", f"must be one of {', '.join(INTERVALS)}")
    if interval == "empirical_bernstein" and estimator in SELF_NORMALISED:
        raise EvaluationError(
            "interval", f"empirical_bernstein bounds means, and {estimator} is a ratio of two"
        )
    if not 0 < confidence < 1:
        raise EvaluationError("confidence", "must be between 0 and 1")
    for argument, number in (("clip", clip), ("threshold", threshold)):
        if number is not None and not number > 0:
            raise EvaluationError(argument, "must be above 0")
    if shrinkage is not None and not shrinkage >= 0:
        raise EvaluationError("shrinkage", "must be 0 or above")
    if not 0 <= unsupported <= 1:
        raise EvaluationError("unsupported", "must be a share, from 0 to 1")

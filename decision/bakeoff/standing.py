"""How the policies stand: mean and cumulative reward with intervals over runs and over customers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from decision.bakeoff.log import Floats, Ints, Log

CONFIDENCE = 0.95
_Z = 1.959963984540054
_POINTS = 60


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% intervals: over the runs (None of a single one) and over the customers."""

    value: float
    runs: tuple[float, float] | None
    customers: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Cumulative reward after each of `events`, the mean of the runs, with its interval over customers."""

    events: tuple[int, ...]
    reward: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy. `reward`: per counted event; `gain`: that less the first policy's in the same run;
    `shares` of the arms, in the log's order."""

    policy: str
    reward: Estimate
    gain: Estimate
    shares: tuple[float, ...]
    curve: Curve


@dataclass(frozen=True, slots=True)
class References:
    """What needs no learning: a uniformly random arm, and the best single arm in hindsight."""

    uniform: Estimate
    best_arm: str
    best: Estimate


def standings(log: Log, counted: Mapping[str, Sequence[Ints]]) -> tuple[int, list[Standing]]:
    """(horizon, standings) from the rows that counted, by policy and run.

    All are compared over the same number of events, the least that any policy had in any run.
    """
    horizon = min(len(rows) for runs in counted.values() for rows in runs)
    cut = {policy: [rows[:horizon] for rows in runs] for policy, runs in counted.items()}
    first = next(iter(cut.values()))
    found = []
    for policy, runs in cut.items():
        met = np.bincount(log.arm[np.concatenate(runs)], minlength=len(log.arms))
        found.append(
            Standing(
                policy,
                _mean(log, runs),
                _mean(log, runs, first),
                tuple((met / met.sum()).tolist()),
                _curve(log, runs, horizon),
            )
        )
    return horizon, found


def references(log: Log) -> References:
    """The values of the policies that learn nothing, by self-normalised importance weighting per arm."""
    weight = 1 / log.probability
    values, influences = [], []
    for arm in range(len(log.arms)):
        here = np.where(log.arm == arm, weight, 0.0)
        value = float(here @ log.reward / here.sum())
        values.append(value)
        influences.append(here * (log.reward - value) / here.sum())
    best = int(np.argmax(values))
    uniform = _of_customers(float(np.mean(values)), np.mean(influences, axis=0))
    return References(uniform, log.arms[best], _of_customers(values[best], influences[best]))


def _of_customers(value: float, influence: Floats) -> Estimate:
    half = _Z * math.sqrt(float(influence @ influence))
    return Estimate(value, None, (value - half, value + half))


def _mean(log: Log, runs: Sequence[Ints], than: Sequence[Ints] | None = None) -> Estimate:
    """Mean reward, or its difference from that of other rows, run by run."""
    means = np.array([log.reward[rows].mean() for rows in runs])
    influence = _influence(log, runs)
    if than is not None:
        means = means - np.array([log.reward[rows].mean() for rows in than])
        influence = influence - _influence(log, than)
    value = float(means.mean())
    if len(means) < 2:
        return _of_customers(value, influence)
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    half = error * float(student.ppf((1 + CONFIDENCE) / 2, len(means) - 1))
    return Estimate(value, (value - half, value + half), _of_customers(value, influence).customers)


def _influence(log: Log, runs: Sequence[Ints]) -> Floats:
    """How far each customer moves the mean over runs: a customer counts once, in however many runs they are
    (the linearised, cluster-robust variance of a ratio)."""
    rows = np.concatenate(runs)
    reward = log.reward[rows]
    return np.bincount(rows, reward - reward.mean(), len(log)) / len(rows)


def _curve(log: Log, runs: Sequence[Ints], horizon: int) -> Curve:
    events = np.unique(np.linspace(0, horizon, _POINTS + 1).round().astype(int))[1:]
    total, half = [], []
    for count in events.tolist():
        so_far = [rows[:count] for rows in runs]
        influence = count * _influence(log, so_far)
        total.append(float(log.reward[np.concatenate(so_far)].sum() / len(runs)))
        half.append(_Z * math.sqrt(float(influence @ influence)))
    low, high = (tuple((np.array(total) + sign * np.array(half)).tolist()) for sign in (-1, 1))
    return Curve(tuple(events.tolist()), tuple(total), low, high)

"""What the policies meet: three simulated worlds with a known truth, and a shuffled real log.

Outcomes are 0 or 1 and rare (about 5 to 9% under random arms). Every context has a bias column first.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from arbitration.catalog.learning import CategoricalFeature, NumericFeature
from arbitration.features import Encoder

HILLSTROM = Path(__file__).resolve().parents[3] / "shared" / "data" / "hillstrom" / "hillstrom.csv.gz"
_SEGMENTS = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")


@dataclass(frozen=True, slots=True)
class Episode:
    """T events: contexts x (T, d), P(outcome) of each arm (T, K), who is eligible (T, K) bool, and the luck
    of each event (T,), the same whichever arm is chosen: the outcome is positive where luck < truth."""

    x: np.ndarray
    truth: np.ndarray
    eligible: np.ndarray
    luck: np.ndarray


@dataclass(frozen=True, slots=True)
class Log:
    """A shuffled log of arms chosen uniformly at random: contexts (n, d), arms (n,), rewards (n,)."""

    x: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    arms: int


def linear(seed: int, events: int) -> Episode:
    """10 arms, 12 binary features, each arm's P(outcome) linear in them."""
    rng = np.random.default_rng([1, seed])
    x = _with_bias((rng.random((events, 12)) < 0.3).astype(float))
    effect = np.where(rng.random((10, 12)) < 0.3, 0.04, 0.0)
    return _episode(rng, x, 0.01 + x[:, 1:] @ effect.T)


def nonlinear(seed: int, events: int) -> Episode:
    """20 arms, 10 continuous features, logistic with 8 interactions per arm: no linear model is right."""
    rng = np.random.default_rng([2, seed])
    plain = rng.normal(size=(events, 10)).clip(-3, 3)
    main = rng.normal(scale=0.25, size=(20, 10))
    pairs = rng.integers(10, size=(20, 8, 2))
    strength = rng.normal(scale=0.15, size=(20, 8))
    crossed = plain[:, pairs[..., 0]] * plain[:, pairs[..., 1]]
    logit = rng.normal(-3.1, 0.3, size=20) + plain @ main.T + (crossed * strength).sum(axis=2)
    return _episode(rng, _with_bias(plain), 1 / (1 + np.exp(-logit)))


def changing(seed: int, events: int) -> Episode:
    """50 arms of which a random half is eligible each time; 3 categorical features of 5 values, of whose 15
    columns only 2 matter to an arm."""
    rng = np.random.default_rng([3, seed])
    x = np.eye(5)[rng.integers(5, size=(events, 3))].reshape(events, 15)
    effect = np.zeros((50, 15))
    np.put_along_axis(effect, rng.permuted(np.tile(np.arange(15), (50, 1)), axis=1)[:, :2], 0.1, axis=1)
    truth = rng.beta(1.5, 60, size=50) + x @ effect.T
    rank = rng.random(truth.shape).argsort(axis=1)
    return _episode(rng, _with_bias(x), truth, rank < 25)


WORLDS: dict[str, Callable[[int, int], Episode]] = {
    "linear": linear,
    "nonlinear": nonlinear,
    "changing arms": changing,
}


def hillstrom(seed: int, rows: int) -> Log:
    """So many of the 64,000 rows of Hillstrom's experiment, in an order of their own; reward: `visit`."""
    whole = _hillstrom()
    order = np.random.default_rng([4, seed]).permutation(len(whole.arm))[:rows]
    return Log(whole.x[order], whole.arm[order], whole.reward[order], whole.arms)


@cache
def _hillstrom() -> Log:
    numbers = {
        "recency": (6.0, 3.5),
        "history": (240.0, 250.0),
        "mens": (0, 1),
        "womens": (0, 1),
        "newbie": (0, 1),
    }
    words = {"zip_code": ("Rural", "Surburban", "Urban"), "channel": ("Phone", "Web", "Multichannel")}
    numeric = [
        NumericFeature(kind="numeric", id=name, source=f"customer.{name}", center=center, scale=scale)
        for name, (center, scale) in numbers.items()
    ]
    categorical = [
        CategoricalFeature(kind="categorical", id=name, source=f"customer.{name}", values=values)
        for name, values in words.items()
    ]
    encoder, now = Encoder([*numeric, *categorical], None), datetime(2008, 3, 20, tzinfo=UTC)
    with gzip.open(HILLSTROM, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    x = [
        encoder.encode(
            {f"customer.{name}": float(row[name]) for name in numbers}
            | {f"customer.{name}": row[name] for name in words},
            now,
        )
        for row in rows
    ]
    arm = np.array([_SEGMENTS.index(row["segment"]) for row in rows])
    return Log(np.array(x), arm, np.array([float(row["visit"]) for row in rows]), len(_SEGMENTS))


def _with_bias(x: np.ndarray) -> np.ndarray:
    return np.hstack([np.ones((len(x), 1)), x])


def _episode(
    rng: np.random.Generator, x: np.ndarray, truth: np.ndarray, eligible: np.ndarray | None = None
) -> Episode:
    eligible = np.ones(truth.shape, dtype=bool) if eligible is None else eligible
    return Episode(x, truth, eligible, rng.random(len(x)))

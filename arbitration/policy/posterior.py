"""The posterior of every arm, stacked in arrays and ready to score a context without a loop.

Bayesian linear regression per arm with prior Normal(0, σ²/λ·I): A = λI + Σ x xᵀ, b = Σ r x; the score
at x is Normal with mean xᵀA⁻¹b and variance σ̂² xᵀA⁻¹x (Bishop, "Pattern Recognition and Machine
Learning", 3.3; with unit σ it is the ridge model of LinUCB, Li et al. 2010).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from arbitration.catalog.learning import Bayesian
    from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Kin = tuple[Hashable, ...]
"""The families of an arm, the nearest first."""

# The residual variance starts as one pseudo-observation of 1/4: no reward within 0..1 varies more
# (Popoviciu), so an arm is never believed before its own events speak.
_PRIOR_VARIANCE = 0.25
_PRIOR_WEIGHT = 1.0
# Arms inverted at once: their matrices stay in the cache.
_BLOCK = 32


class Posterior:
    """Posteriors of N arms over contexts of d columns: A⁻¹b (N, d), A⁻¹ (N, d(d+1)/2), of which the upper
    triangle is given, row by row, and σ̂ (N,)."""

    def __init__(self, coefficients: Floats, inverse: Floats, noise: Floats) -> None:
        self.noise = noise
        size = coefficients.shape[1]
        # Where in the triangle the entry (a, b) is: at `_rows[a] + b`.
        self._rows = np.array([a * size - a * (a + 1) // 2 for a in range(size)], dtype=np.intp)
        # Of each entry the numbers of all arms lie side by side: most of a context is 0 (one-hot columns),
        # and only what meets the rest is read. What is off the diagonal counts twice.
        self._coefficients = np.ascontiguousarray(coefficients.T)
        self._inverse = np.ascontiguousarray(inverse.T)
        self._inverse *= 2.0
        self._inverse[self._rows + np.arange(size)] /= 2.0

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the reward at x (d,) of arms first..stop: two float64 arrays."""
        columns = x.nonzero()[0]
        known = x.take(columns)
        upper_a, upper_b = _upper(len(columns))
        entries = self._rows.take(columns.take(upper_a))
        entries += columns.take(upper_b)
        products = known.take(upper_a)
        products *= known.take(upper_b)
        if stop - first == self.noise.size:
            mean = known @ self._coefficients.take(columns, axis=0)
            variance = products @ self._inverse.take(entries, axis=0)
        else:
            mean = known @ self._coefficients[columns, first:stop]
            variance = products @ self._inverse[entries, first:stop]
        np.maximum(variance, 0.0, out=variance)
        sd = np.sqrt(variance, out=variance)
        sd *= self.noise[first:stop]
        return mean, sd


@cache
def _upper(size: int) -> tuple[Indices, Indices]:
    return np.triu_indices(size)


def posterior_of(
    policy: Bayesian, arms: Sequence[str], size: int, state: State | None, kin: Sequence[Kin] = ()
) -> Posterior:
    """The posterior of `arms`, in this order, over `size` columns.

    An arm without events has its prior, but that what its kin have learned counts like `policy.warm_start`
    events of its own (fewer where they have fewer). How much rewards vary is taken from its own events alone,
    so a new arm is as uncertain as one can be. `kin`: the families of each arm, the nearest first; the first
    of them in which others have learned is its kin. Where it is empty, no arm has any.
    """
    upper = np.triu_indices(size)
    prior_noise = math.sqrt(_PRIOR_VARIANCE) if policy.noise_sd is None else policy.noise_sd
    coefficients: Floats = np.zeros((len(arms), size))
    inverse = np.tile((np.eye(size) / policy.ridge)[upper], (len(arms), 1))
    noise: Floats = np.full(len(arms), prior_noise)
    if state is not None:
        own = sums_of(state, arms)
        outer, moment, brought = _warmed(own, kin, policy.warm_start)
        known = np.flatnonzero(own[3] + brought)
        for here in np.split(known, range(_BLOCK, len(known), _BLOCK)):
            full = _posterior_inverse(outer[here], size, policy.ridge)
            coefficients[here] = np.einsum("nij,nj->ni", full, moment[here])
            inverse[here] = full[:, upper[0], upper[1]]
        if policy.noise_sd is None:
            noise[known] = _noise(coefficients[known], moment[known], own[2][known], own[3][known])
            warm = np.flatnonzero(brought)
            noise[warm] = _noise_of_warm(coefficients[warm], [part[warm] for part in own], policy.ridge)
    return Posterior(coefficients, inverse, noise)


def sums_of(state: State, arms: Sequence[str]) -> tuple[Floats, Floats, Floats, Floats]:
    """`outer`, `moment`, `squares` and `count` of `state`, with a row per arm; zeros where there are no
    events."""
    known = [(position, state.rows[arm]) for position, arm in enumerate(arms) if arm in state.rows]
    here, rows = np.array(known, dtype=np.intp).reshape(-1, 2).T

    def of(part: Floats) -> Floats:
        spread = np.zeros((len(arms), *part.shape[1:]))
        spread[here] = part[rows]
        return spread

    return of(state.outer), of(state.moment), of(state.squares), of(state.count)


def _warmed(
    sums: tuple[Floats, Floats, Floats, Floats], kin: Sequence[Kin], warm_start: float
) -> tuple[Floats, Floats, Floats]:
    """`outer` and `moment`, with what the kin of each arm bring added: the average event of theirs, so many
    times; and how many times.

    A pooled posterior with its certainty taken back (a power prior, Ibrahim & Chen 2000, with the power
    chosen so that it is worth `warm_start` events). As one's own events add up, it matters less and less.
    """
    outer, moment, _, count = sums
    warmed, brought = (outer.copy(), moment.copy()), np.zeros(len(count))
    if not kin or warm_start == 0:
        return *warmed, brought
    left: npt.NDArray[np.bool_] = np.ones(len(count), dtype=np.bool_)
    for near in zip(*kin, strict=True):
        _, family = np.unique([repr(name) for name in near], return_inverse=True)
        others = _totals(count, family)[family] - count
        # What was taken back again leaves rounding behind, not events.
        brings = np.flatnonzero(left & (others > 1e-6))
        if not len(brings):
            continue
        brought[brings] = np.minimum(warm_start, others[brings])
        share = (brought[brings] / others[brings])[:, None]
        for part, own in zip(warmed, (outer, moment), strict=True):
            theirs = _totals(own, family)[family[brings]]
            theirs -= own[brings]
            theirs *= share
            part[brings] += theirs
        left[brings] = False
    return *warmed, brought


def _totals(part: Floats, family: Indices) -> Floats:
    """Per family, the sum over its arms; each family has some. (`np.add.at` takes several times as long.)"""
    order = np.argsort(family, kind="stable")
    begins = np.searchsorted(family[order], np.arange(int(family.max(initial=-1)) + 1))
    totals: Floats = np.add.reduceat(part[order], begins) if len(begins) else part[:0]
    return totals


def _posterior_inverse(outer: Floats, size: int, ridge: float) -> Floats:
    place = np.zeros((size, size), dtype=np.intp)  # of each entry, in the upper triangle
    place[np.triu_indices(size)] = np.arange(outer.shape[1])
    full = outer[:, np.maximum(place, place.T)]
    full[:, np.arange(size), np.arange(size)] += ridge
    return np.linalg.inv(full).astype(np.float64, copy=False)


def _noise(coefficients: Floats, moment: Floats, squares: Floats, count: Floats) -> Floats:
    """σ̂ from sums alone: the residual Σ r² - bᵀA⁻¹b of the conjugate update (Murphy 2007, §"NIG")."""
    residual = np.maximum(squares - np.einsum("ni,ni->n", coefficients, moment), 0.0)
    variance = (_PRIOR_WEIGHT * _PRIOR_VARIANCE + residual) / (_PRIOR_WEIGHT + np.maximum(count, 0.0))
    noise: Floats = np.sqrt(variance)
    return noise


def _noise_of_warm(coefficients: Floats, own: Sequence[Floats], ridge: float) -> Floats:
    """The same where the coefficients are not of the arm's own events alone: how far these lie from them."""
    outer, moment, squares, count = own
    size = coefficients.shape[1]
    upper_a, upper_b = np.triu_indices(size)
    doubled = np.where(upper_a == upper_b, 1.0, 2.0)
    fitted = (outer * doubled * coefficients[:, upper_a] * coefficients[:, upper_b]).sum(axis=1)
    # As where there is no kin; without events there is no residual.
    fitted += np.where(count > 0, ridge, 0.0) * (coefficients * coefficients).sum(axis=1)
    residual = squares - 2 * (coefficients * moment).sum(axis=1) + fitted
    variance = (_PRIOR_WEIGHT * _PRIOR_VARIANCE + np.maximum(residual, 0.0)) / (
        _PRIOR_WEIGHT + np.maximum(count, 0.0)
    )
    noise: Floats = np.sqrt(variance)
    return noise

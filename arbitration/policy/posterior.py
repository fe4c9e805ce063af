"""The posterior of every arm, stacked in arrays and ready to score a context without a loop.

Bayesian linear regression per arm with prior Normal(0, σ²/λ·I): A = λI + Σ x xᵀ, b = Σ r x; the score
at x is Normal with mean xᵀA⁻¹b and variance σ̂² xᵀA⁻¹x (Bishop, "Pattern Recognition and Machine
Learning", 3.3; with unit σ it is the ridge model of LinUCB, Li et al. 2010).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from arbitration.catalog.learning import Bayesian
    from arbitration.policy.state import State

Floats = npt.NDArray[np.float64]
Kin = tuple[Hashable, ...]
"""The families of an arm, the nearest first."""

# The residual variance starts as one pseudo-observation of 1/4: no reward within 0..1 varies more
# (Popoviciu), so an arm is never believed before its own events speak.
_PRIOR_VARIANCE = 0.25
_PRIOR_WEIGHT = 1.0


class Posterior:
    """Posteriors of N arms over contexts of d columns.

    `coefficients` A⁻¹b (N, d); `inverse` A⁻¹ (N, d(d+1)/2), the upper triangle with everything off the
    diagonal doubled, so that xᵀA⁻¹x is one product with the upper triangle of x xᵀ; `noise` σ̂ (N,).
    """

    def __init__(self, coefficients: Floats, inverse: Floats, noise: Floats) -> None:
        self.coefficients = coefficients
        self.inverse = inverse
        self.noise = noise
        self._upper = np.triu_indices(coefficients.shape[1])

    def score(self, x: Floats, first: int, stop: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the reward at x (d,) of arms first..stop: two float64 arrays."""
        mean: Floats = self.coefficients[first:stop] @ x
        upper_a, upper_b = self._upper
        leverage = self.inverse[first:stop] @ (x[upper_a] * x[upper_b])
        return mean, self.noise[first:stop] * np.sqrt(np.maximum(leverage, 0.0))


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
    doubled = np.where(upper[0] == upper[1], 1.0, 2.0)
    prior_noise = math.sqrt(_PRIOR_VARIANCE) if policy.noise_sd is None else policy.noise_sd
    coefficients: Floats = np.zeros((len(arms), size))
    inverse = np.tile((np.eye(size) / policy.ridge)[upper], (len(arms), 1))
    noise: Floats = np.full(len(arms), prior_noise)
    if state is not None:
        own = sums_of(state, arms)
        outer, moment, brought = _warmed(own, kin, policy.warm_start)
        here = np.flatnonzero(own[3] + brought)
        full = _posterior_inverse(outer[here], size, policy.ridge)
        coefficients[here] = np.einsum("nij,nj->ni", full, moment[here])
        inverse[here] = full[:, upper[0], upper[1]]
        if policy.noise_sd is None:
            noise[here] = _noise(coefficients[here], moment[here], own[2][here], own[3][here])
            warm = np.flatnonzero(brought)
            noise[warm] = _noise_of_warm(coefficients[warm], [part[warm] for part in own], policy.ridge)
    return Posterior(coefficients, inverse * doubled, noise)


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
        brings = left & (others > 1e-6)
        brought[brings] = np.minimum(warm_start, others[brings])
        share = (brought[brings] / others[brings])[:, None]
        for part, own in zip(warmed, (outer, moment), strict=True):
            part[brings] += (_totals(own, family)[family] - own)[brings] * share
        left &= ~brings
    return *warmed, brought


def _totals(part: Floats, family: npt.NDArray[np.intp]) -> Floats:
    totals = np.zeros((int(family.max(initial=-1)) + 1, *part.shape[1:]))
    np.add.at(totals, family, part)
    return totals


def _posterior_inverse(outer: Floats, size: int, ridge: float) -> Floats:
    upper = np.triu_indices(size)
    full = np.zeros((len(outer), size, size))
    full[:, upper[0], upper[1]] = outer
    full[:, upper[1], upper[0]] = outer
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

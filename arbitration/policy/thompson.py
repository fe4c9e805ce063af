"""The exact probability that each of several independent random numbers is the greatest.

Thompson sampling shows an arm with the probability that it is the best one. Instead of sampling, that
probability is computed: p_i = ∫ f_i(x) ∏_{j≠i} F_j(x) dx, a one-dimensional integral (Jeunen,
RecSys 2025, arXiv 2504.08773, eq. for independent Gaussian posteriors; it holds of any densities f).

The integrands of all arms add up to F' with F = ∏ F_j, and F is known exactly, so every panel of the
quadrature can be checked against F(b) - F(a), and against that of F². A panel that misses a narrow arm shows
by that and is split, however narrow the arm.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincinv, betaln, ndtr

Floats = npt.NDArray[np.float64]

_Z = 6.5  # beyond ±6.5 deviations lies 8e-11 of a Normal
_NEGLIGIBLE = 1e-10
_NARROWEST = 1e-9
_TOLERANCE = 1e-9
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_ROOT_TAU = math.sqrt(2 * math.pi)
# The first panel is small: an arm left of its first node, where F is still next to nothing, would be
# the only one to escape the check.
_PANELS = np.array([0, 1 / 32, 1 / 3, 2 / 3, 1])
_PARTS = 4
_ROUNDS = 20
_MOST_EVENTS = 1e7  # of a Beta: beyond, its density has not the digits that the check asks for
_LEAST = 4e-11  # of a Beta, below and above what is looked at
_SMOOTH = 3.0  # a Beta whose density meets its end with this power of the distance has no edge there


class _Family(Protocol):
    """n independent distributions."""

    def cdf(self, x: Floats) -> Floats:
        """F_i(x), shape (n, len(x))."""

    def hazards(self, x: Floats) -> tuple[Floats, Floats]:
        """f_i(x) / F_i(x), shape (n, len(x)), and F(x). Times F, the first is the integrand."""


def best_of_normals(mean: Floats, sd: Floats) -> Floats:
    """P(arm i is the greatest) for independent Normal(mean_i, sd_i²).

    mean, sd: float64, shape (n,), n ≥ 1, finite, sd ≥ 0. Returns float64 (n,), summing to 1. Absolute
    error below 1e-6; arms that cannot win (under about 1e-10) get 0. Means that differ by less than
    about 1e-9 of their size are as good as tied.
    """
    if len(mean) == 1:
        return np.ones(1)
    near = mean + _Z * sd >= (mean - _Z * sd).max()
    # An exact number is a very narrow Normal, so that exact ties are shared.
    sd = np.maximum(sd, _NARROWEST * max(float(np.abs(mean[near]).max()), float(sd[near].max()), 1e-290))
    mean = mean - mean[near].max()  # near 0 there are more digits to tell neighbouring numbers apart
    reach = mean + _Z * sd
    contenders = np.flatnonzero(reach >= (mean - _Z * sd).max())
    family = _Normals(mean[contenders], sd[contenders])
    low, high = _range(family, float((mean - _Z * sd).max()), float(reach.max()))
    left = reach[contenders] >= low
    contenders = contenders[left]
    result = np.zeros(len(mean))
    if len(contenders) == 1:
        result[contenders] = 1.0
        return result
    family = _Normals(family.mean[left], family.sd[left])
    shares = _integrate(family, low + (high - low) * _PANELS)
    result[contenders] = shares / shares.sum()
    return result


def best_of_betas(mean: Floats, sd: Floats, weight: Floats) -> Floats:
    """P(weight_i X_i is the greatest) for independent X_i, Beta with this mean and standard deviation.

    mean, sd, weight: float64, shape (n,), n ≥ 1, finite, weight ≥ 0. A Beta that is no Beta(a, b) with
    a, b ≥ 1 is taken as the nearest that is, and one of more than ten million events as one of so many.
    Returns float64 (n,), summing to 1. Absolute error below 1e-6. Where no arm has weight all are alike;
    where no sd is above 0 the best share alike.
    """
    able = np.flatnonzero(weight > 0)
    if len(able) < 2 or not sd.any():
        best = weight > 0 if len(able) == 1 else mean * weight == (mean * weight).max()
        shares: Floats = best / best.sum()
        return shares
    scale = weight[able] / weight.max()
    family = _Betas(*_shape(mean[able], sd[able]), scale)
    least, most = (scale * betaincinv(family.a, family.b, level) for level in (_LEAST, 1 - _LEAST))
    low, high = _range(family, float(least.max()), float(most.max()))
    left = most >= low
    result = np.zeros(len(mean))
    family = _Betas(family.a[left], family.b[left], scale[left])
    # Where a density ends at once, F has an edge: there a panel ends too.
    ends = np.unique(family.scale[family.b < _SMOOTH])
    edges = np.concatenate([low + (high - low) * _PANELS, ends[(ends > low) & (ends < high)]])
    shares = _integrate(family, np.unique(edges)) if left.sum() > 1 else np.ones(1)
    result[able[left]] = shares / shares.sum()
    return result


def _shape(mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """a and b of the Betas with this mean and deviation, each at least 1."""
    mean, spread = np.clip(mean, 0.0, 1.0), sd * sd
    events = np.full(len(mean), _MOST_EVENTS)
    np.divide(mean * (1 - mean), spread, out=events, where=spread * _MOST_EVENTS > mean * (1 - mean))
    events -= 1
    return np.maximum(mean * events, 1.0), np.maximum((1 - mean) * events, 1.0)


def _range(family: _Family, low: float, high: float) -> tuple[float, float]:
    """Where, between the two, the greatest of them lies, but for a negligible probability on either side."""
    grid = np.linspace(low, high, 25)
    cdf = family.cdf(grid).prod(axis=0)
    first = int(np.searchsorted(cdf, _NEGLIGIBLE))
    last = int(np.searchsorted(cdf, 1 - _NEGLIGIBLE))
    return float(grid[max(first - 1, 0)]), float(grid[min(last, len(grid) - 1)])


def _integrate(family: _Family, edges: Floats) -> Floats:
    """∫ f_i(x) ∏_{j≠i} F_j(x) dx from the first to the last of the ascending edges, shape (n,)."""
    cdf = family.cdf(edges).prod(axis=0)
    left, right, cdf_left, cdf_right = edges[:-1], edges[1:], cdf[:-1], cdf[1:]
    total: Floats | float = 0.0
    for rounds_left in reversed(range(_ROUNDS)):
        half = (right - left) / 2
        nodes = (left + right)[:, None] / 2 + half[:, None] * _NODES
        hazard, cdf = family.hazards(nodes.ravel())
        cdf = cdf.reshape(nodes.shape)
        measure = cdf * (half[:, None] * _WEIGHTS)
        rate = hazard.sum(axis=0).reshape(nodes.shape) * measure
        off = np.abs(rate.sum(axis=1) - (cdf_right - cdf_left)) > _TOLERANCE
        # Errors of several arms may cancel in the sum of all, but hardly in ∫ F F' as well.
        off |= np.abs(2 * (rate * cdf).sum(axis=1) - (cdf_right**2 - cdf_left**2)) > _TOLERANCE
        # Panels of no more width than rounding allows are as good as they get.
        off &= (half > 4 * np.spacing(np.maximum(np.abs(left), np.abs(right)))) & (rounds_left > 0)
        total += hazard @ np.where(off[:, None], 0.0, measure).ravel()
        if not off.any():
            break
        steps = np.linspace(left[off], right[off], _PARTS + 1)
        inner = family.cdf(steps[1:-1].ravel()).prod(axis=0).reshape(_PARTS - 1, -1)
        cdfs = np.vstack([cdf_left[off], inner, cdf_right[off]])
        left, right = steps[:-1].ravel(), steps[1:].ravel()
        cdf_left, cdf_right = cdfs[:-1].ravel(), cdfs[1:].ravel()
    assert isinstance(total, np.ndarray)
    return total


class _Normals:
    def __init__(self, mean: Floats, sd: Floats) -> None:
        self.mean = mean
        self.sd = sd

    def cdf(self, x: Floats) -> Floats:
        cdf: Floats = ndtr((x - self.mean[:, None]) / self.sd[:, None])
        return cdf

    def hazards(self, x: Floats) -> tuple[Floats, Floats]:
        return _hazards(x, self.mean, self.sd)


def _hazards(x: Floats, mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """φ_i(x) / Φ_i(x), shape (n, len(x)), and F(x). No Φ_i is 0: x is nowhere lower than `_Z` deviations
    below a mean."""
    z = (x - mean[:, None]) / sd[:, None]
    cdf = ndtr(z)
    hazard: Floats = np.exp(-0.5 * z * z) / cdf / (_ROOT_TAU * sd)[:, None]
    return hazard, cdf.prod(axis=0)


class _Betas:
    """scale_i times Beta(a_i, b_i), a_i and b_i ≥ 1."""

    def __init__(self, a: Floats, b: Floats, scale: Floats) -> None:
        self.a = a
        self.b = b
        self.scale = scale

    def cdf(self, x: Floats) -> Floats:
        share = np.minimum(x / self.scale[:, None], 1.0)
        return np.asarray(betainc(self.a[:, None], self.b[:, None], share), dtype=np.float64)

    def hazards(self, x: Floats) -> tuple[Floats, Floats]:
        """No F_i is 0: x is nowhere lower than where each has `_LEAST` below it."""
        a, b, scale = self.a[:, None], self.b[:, None], self.scale[:, None]
        share = x / scale
        within = np.clip(share, 1e-300, 1 - 2**-53)
        log_density = (a - 1) * np.log(within) + (b - 1) * np.log1p(-within) - betaln(a, b)
        cdf = self.cdf(x)
        hazard: Floats = np.exp(log_density) / (cdf * scale)
        hazard[share >= 1] = 0.0
        return hazard, cdf.prod(axis=0)

"""The exact probability that each of several independent Normals is the greatest.

Thompson sampling shows an arm with the probability that it is the best one. Instead of sampling, that
probability is computed: p_i = ∫ φ_i(x) ∏_{j≠i} Φ_j(x) dx, a one-dimensional integral (Jeunen,
RecSys 2025, arXiv 2504.08773, eq. for independent Gaussian posteriors).

The integrands of all arms add up to F' with F = ∏ Φ_j, and F is known exactly, so every panel of the
quadrature can be checked against F(b) - F(a). A panel that misses a narrow arm shows by that and is
split; nothing can be overlooked, however narrow.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]

_Z = 6.5  # beyond ±6.5 deviations lies 8e-11 of a Normal
_NEGLIGIBLE = 1e-10
_NARROWEST = 1e-9
_TOLERANCE = 1e-9
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_WEIGHTS /= math.sqrt(2 * math.pi)
# The first panel is small: an arm left of its first node, where F is still next to nothing, would be
# the only one to escape the check.
_PANELS = np.array([0, 1 / 32, 1 / 3, 2 / 3, 1])
_PARTS = 4
_ROUNDS = 20


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
    low, high = _range(mean[contenders], sd[contenders])
    contenders = contenders[reach[contenders] >= low]
    result = np.zeros(len(mean))
    if len(contenders) == 1:
        result[contenders] = 1.0
        return result
    shares = _integrate(mean[contenders], sd[contenders], low, high)
    result[contenders] = shares / shares.sum()
    return result


def _max_cdf(x: Floats, mean: Floats, sd: Floats) -> Floats:
    """F(x) = ∏ Φ_j(x)."""
    product: Floats = ndtr((x - mean[:, None]) / sd[:, None]).prod(axis=0)
    return product


def _range(mean: Floats, sd: Floats) -> tuple[float, float]:
    """Where the greatest of them lies, but for a negligible probability on either side."""
    grid = np.linspace((mean - _Z * sd).max(), (mean + _Z * sd).max(), 25)
    cdf = _max_cdf(grid, mean, sd)
    first = int(np.searchsorted(cdf, _NEGLIGIBLE))
    last = int(np.searchsorted(cdf, 1 - _NEGLIGIBLE))
    return float(grid[max(first - 1, 0)]), float(grid[min(last, len(grid) - 1)])


def _integrate(mean: Floats, sd: Floats, low: float, high: float) -> Floats:
    edges = low + (high - low) * _PANELS
    cdf = _max_cdf(edges, mean, sd)
    left, right, cdf_left, cdf_right = edges[:-1], edges[1:], cdf[:-1], cdf[1:]
    total: Floats = np.zeros(len(mean))
    for rounds_left in reversed(range(_ROUNDS)):
        half = (right - left) / 2
        nodes = (left + right)[:, None] / 2 + half[:, None] * _NODES
        hazard, cdf = _hazards(nodes.ravel(), mean, sd)
        measure = cdf.reshape(nodes.shape) * (half[:, None] * _WEIGHTS)
        found = (hazard.sum(axis=0).reshape(nodes.shape) * measure).sum(axis=1)
        off = np.abs(found - (cdf_right - cdf_left)) > _TOLERANCE
        # Panels of no more width than rounding allows are as good as they get.
        off &= (half > 4 * np.spacing(np.maximum(np.abs(left), np.abs(right)))) & (rounds_left > 0)
        total += hazard @ np.where(off[:, None], 0.0, measure).ravel()
        if not off.any():
            break
        steps = np.linspace(left[off], right[off], _PARTS + 1)
        inner = _max_cdf(steps[1:-1].ravel(), mean, sd).reshape(_PARTS - 1, -1)
        cdfs = np.vstack([cdf_left[off], inner, cdf_right[off]])
        left, right = steps[:-1].ravel(), steps[1:].ravel()
        cdf_left, cdf_right = cdfs[:-1].ravel(), cdfs[1:].ravel()
    return total


def _hazards(x: Floats, mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """√2π φ_i(x) / Φ_i(x), shape (n, len(x)), and F(x).

    Times F, the first is the integrand. No Φ_i is 0: x is nowhere lower than `_Z` deviations below a mean.
    """
    z = (x - mean[:, None]) / sd[:, None]
    cdf = ndtr(z)
    hazard: Floats = np.exp(-0.5 * z * z) / cdf / sd[:, None]
    return hazard, cdf.prod(axis=0)

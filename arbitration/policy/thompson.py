"""The exact probability that each of several independent Normals is the greatest.

Thompson sampling shows an arm with the probability that it is the best one. Instead of sampling, that
probability is computed: p_i = ∫ φ_i(x) ∏_{j≠i} Φ_j(x) dx, a one-dimensional integral (Jeunen,
RecSys 2025, arXiv 2504.08773, eq. for independent Gaussian posteriors).

The integrands of all arms add up to F' with F = ∏ Φ_j, and F is known exactly, so every panel of the
quadrature can be checked against F(b) - F(a). A panel that misses a narrow arm shows by that and is
split; nothing can be overlooked, however narrow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

Floats = npt.NDArray[np.float64]

_Z = 6.5  # beyond ±6.5 deviations lies 8e-11 of a Normal
_NEGLIGIBLE = 1e-10
_TOLERANCE = 1e-8
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_ROUNDS = 20
_LEADERS = 8
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


def best_of_normals(mean: Floats, sd: Floats) -> Floats:
    """P(arm i is the greatest) for independent Normal(mean_i, sd_i²).

    mean, sd: float64, shape (n,), n ≥ 1, finite, sd ≥ 0. Returns float64 (n,), summing to 1. Absolute
    error below 1e-6; arms that cannot win (under about 1e-10) get 0.
    """
    if len(mean) == 1:
        return np.ones(1)
    # An exact number is a very narrow Normal, so that exact ties are shared.
    sd = np.maximum(sd, 1e-9 * max(float(np.abs(mean).max()), float(sd.max()), 1e-290))
    contenders = np.flatnonzero(mean + _Z * sd >= (mean - _Z * sd).max())
    low, high = _range(mean[contenders], sd[contenders])
    contenders = contenders[(mean + _Z * sd)[contenders] >= low]
    result = np.zeros(len(mean))
    if len(contenders) == 1:
        result[contenders] = 1.0
        return result
    shares = _integrate(mean[contenders], sd[contenders], low, high)
    result[contenders] = shares / shares.sum()
    return result


def _log_max_cdf(x: Floats, mean: Floats, sd: Floats) -> Floats:
    total: Floats = log_ndtr((x[None, :] - mean[:, None]) / sd[:, None]).sum(axis=0)
    return total


def _range(mean: Floats, sd: Floats) -> tuple[float, float]:
    """Where the greatest of them lies, but for a negligible probability on either side."""
    grid = np.linspace((mean - _Z * sd).max(), (mean + _Z * sd).max(), 25)
    log_cdf = _log_max_cdf(grid, mean, sd)
    first = int(np.searchsorted(log_cdf, np.log(_NEGLIGIBLE)))
    last = int(np.searchsorted(log_cdf, -_NEGLIGIBLE))
    return float(grid[max(first - 1, 0)]), float(grid[min(last, len(grid) - 1)])


def _integrate(mean: Floats, sd: Floats, low: float, high: float) -> Floats:
    leaders = np.argsort(sd - mean)[:_LEADERS]
    knots = (mean[leaders, None] + sd[leaders, None] * np.array([-4.0, -1.5, 1.5, 4.0])).ravel()
    edges = np.unique(np.concatenate([np.linspace(low, high, 3), knots[(knots > low) & (knots < high)]]))
    left, right = edges[:-1], edges[1:]
    total = np.zeros(len(mean))
    for _ in range(_ROUNDS):
        half = (right - left) / 2
        nodes = (left + right)[:, None] / 2 + half[:, None] * _NODES
        parts = (
            (_densities(nodes.ravel(), mean, sd) * (half[:, None] * _WEIGHTS).ravel())
            .reshape(len(mean), len(left), len(_NODES))
            .sum(axis=2)
        )
        cdf = np.exp(_log_max_cdf(np.concatenate([left, right]), mean, sd))
        off = np.abs(parts.sum(axis=0) - (cdf[len(left) :] - cdf[: len(left)])) > _TOLERANCE
        # Panels of no more width than rounding allows are as good as they get.
        off &= half > 4 * np.spacing(np.maximum(np.abs(left), np.abs(right)))
        total += parts[:, ~off].sum(axis=1)
        if not off.any():
            break
        steps = np.linspace(left[off], right[off], 5)
        left, right = steps[:-1].ravel(), steps[1:].ravel()
    else:
        total += parts[:, off].sum(axis=1)
    return total


def _densities(x: Floats, mean: Floats, sd: Floats) -> Floats:
    """φ_i(x) ∏_{j≠i} Φ_j(x), shape (n, len(x))."""
    z = (x[None, :] - mean[:, None]) / sd[:, None]
    log_cdf = log_ndtr(z)
    log_density = -0.5 * z * z - _LOG_SQRT_2PI - np.log(sd)[:, None]
    density: Floats = np.exp(log_density + (log_cdf.sum(axis=0) - log_cdf))
    return density

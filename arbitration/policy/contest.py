"""Who is the greatest, asked again and again: of the same Normals, each time without those taken before.

The slots of a slate are filled in turn, and each needs the probability of every arm left to be the best of
them (`arbitration.policy.thompson` has the formula). The densities and distributions are the same in each
integral, so they are worked out once, at nodes that do for all slots; a slot then costs one product of
distributions and one matrix product. Whether the nodes do is seen each time: of F, the distribution of the
greatest, ∫ F' has to be 1 and ∫ F F' has to be 1/2. Where they are not, the slot is integrated by itself,
adaptively.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from arbitration.policy.thompson import best_of_normals

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_Z = 6.0  # beyond ±6 deviations lies 1e-9 of a Normal
_OFF = 2e-8  # how far off they may be; one alone is met now and then by errors that cancel
_VERY_FEW, _FEW, _MANY = 12, 48, 256
_LEAST = 1e-300  # of what is divided by
_NARROWEST = 1e-9
_LOOKED_AT = 32
_LOOK = np.linspace(0, 1, 33) ** 2
_PANELS = {
    count: (nodes, weights / math.sqrt(2 * math.pi))
    for count in (10, 12, 20, 32, 40, 64)
    for nodes, weights in [np.polynomial.legendre.leggauss(count)]
}
# Between these levels of its distribution lies the greatest of all, and of those that may be left at the end.
_OF_ALL = np.array([0.5, 0.99, 1 - 1e-9])
_OF_LEFT = np.array([1e-9, 0.02, 0.5])
# An arm is the greatest with less than Σ P(it lies above where F is `_LEVELS[c]`) · `_LEVELS[c + 1]`; each
# term has to be less than 2e-10 for it to be left out. `_REACHES`: so many deviations that is.
_LEVELS = np.array([1e-9, 1e-7, 1e-5, 1e-3, 1e-1])
_REACHES = -ndtri(2e-10 / np.append(_LEVELS[1:], 1.0))[:, None]


class Contest:
    """Independent Normal(mean_i, sd_i²)."""

    def __init__(self, mean: Floats, sd: Floats, removed: int) -> None:
        """mean, sd: float64 (n,), n ≥ 1, finite, sd ≥ 0. `removed`: at most so many will have been taken away
        when it is last asked."""
        self._mean = mean
        self._sd = sd
        self._removed = min(removed, len(mean) - 1)
        self._row: Indices | None = None  # of each arm among those worked out; -1: it cannot win
        self._finer = False
        if len(mean) > 1:
            self._work_out()

    def chances(self, left: Indices) -> Floats:
        """P(arm i is the greatest of those left). left: positions, (k,), k ≥ 1, ascending. Returns float64
        (k,), summing to 1. Absolute error below 1e-6."""
        if len(left) == 1:
            return np.ones(1)
        if len(left) >= len(self._mean) - self._removed:
            shares = self._shares(left)
            if shares is None and not self._finer:
                self._finer = True
                self._work_out()
                shares = self._shares(left)
            if shares is not None:
                return shares
        return best_of_normals(self._mean.take(left), self._sd.take(left))

    def _shares(self, left: Indices) -> Floats | None:
        """What the nodes make of it; None where they do not do."""
        distribution, hazard, among = self._distribution, self._hazard, left
        if self._row is not None:
            among = self._row.take(left)
            inside = among >= 0
            among = among.compress(inside)
        if len(among) < len(distribution):
            distribution, hazard = distribution.take(among, axis=0), hazard.take(among, axis=0)
        greatest = np.multiply.reduce(distribution, axis=0)
        measured = greatest * self._measure
        rate = np.add.reduce(hazard, axis=0)
        rate *= measured
        total, half = float(np.add.reduce(rate)), float(rate @ greatest)
        if abs(total - 1.0) > _OFF or abs(half - 0.5) > _OFF:
            return None
        shares: Floats = hazard @ measured
        shares /= total
        if len(among) == len(left):
            return shares
        spread = np.zeros(len(left))
        spread[inside] = shares
        return spread

    def _work_out(self) -> None:
        mean, removed = self._mean, self._removed
        # An exact number is a very narrow Normal.
        scale = max(float(mean.max()), -float(mean.min()), float(self._sd.max()), 1e-290)
        sd = np.maximum(self._sd, _NARROWEST * scale)
        if len(mean) <= _FEW:
            edges = _edges_of_few(mean, sd, removed)
        else:
            edges, may_win = _edges_of_many(mean, sd, removed)
            self._row = np.full(len(mean), -1)
            self._row[may_win] = np.arange(len(may_win))
            mean, sd = mean.take(may_win), sd.take(may_win)
        of_panel, weights = _panel(len(mean), self._finer)
        half = (edges[1:] - edges[:-1])[:, None] * 0.5
        nodes = (half * of_panel + (edges[:-1, None] + half)).ravel()
        deviation = sd[:, None]
        z = nodes - mean[:, None]
        z /= deviation
        distribution = ndtr(z)
        np.maximum(distribution, _LEAST, out=distribution)
        z *= z
        z *= -0.5
        np.exp(z, out=z)
        z /= distribution
        z /= deviation
        self._distribution = distribution
        self._hazard = z
        self._measure = (half * weights).ravel()


def _panel(count: int, finer: bool) -> tuple[Floats, Floats]:
    """Nodes and weights: the panels of few are laid with less care, and more nodes of very few cost next to
    nothing."""
    if finer:
        return _PANELS[64 if count <= _FEW else 32]
    if count > _FEW:  # the more there are, the smoother is what they have in common
        return _PANELS[12 if count <= _MANY else 10]
    return _PANELS[40 if count <= _VERY_FEW else 20]


def _edges_of_few(mean: Floats, sd: Floats, removed: int) -> Floats:
    """Ends of panels, ascending, that the greatest lies within, whichever are removed."""
    least = mean - _Z * sd
    ordered = np.sort(mean)
    least.partition(len(least) - 1 - removed)
    edges = {
        float(least[len(least) - 1 - removed]),
        float(ordered[len(ordered) - 1 - removed]),
        float(ordered[-1]),
        float((mean + 2 * sd).max()),
        float((mean + _Z * sd).max()),
    }
    return np.array(sorted(edges))


def _edges_of_many(mean: Floats, sd: Floats, removed: int) -> tuple[Floats, Indices]:
    """The same of many, and who of them may be the greatest."""
    count = len(mean)
    margin = _Z * sd
    # Those that may be great tell nearly as well as all where the greatest of all lies.
    best = (mean + 2 * sd).argpartition(count - _LOOKED_AT - removed)[count - _LOOKED_AT - removed :]
    some, spread = mean.take(best), sd.take(best)
    least = some - margin.take(best)
    least.partition(len(least) - 1 - removed)
    low, high = float(least[len(least) - 1 - removed]), float((mean + margin).max())
    x = _LOOK * (high - low)
    x += low
    below = x[:, None] - some
    below /= spread
    below = ndtr(below)
    below.sort(axis=1)  # whichever are taken away, what is left lies no higher
    of_left = np.multiply.reduce(below[:, removed:], axis=1)
    of_all = of_left * np.multiply.reduce(below[:, :removed], axis=1)
    levels = x.take(np.maximum(of_left.searchsorted(_LEVELS) - 1, 0))
    may_win = (mean + _REACHES * sd >= levels[:, None]).any(axis=0).nonzero()[0]
    begins = [max(at - 1, 0) for at in of_left.searchsorted(_OF_LEFT).tolist()]
    ends = [min(at, len(x) - 1) for at in of_all.searchsorted(_OF_ALL).tolist()]
    return x.take(sorted({*begins, *ends})), may_win

"""Training of MABWiser's neighbourhood policies.

MABWiser is asked for neighbourhoods only: its own learning policy inside is a plain greedy one, never asked.
What it draws at random (the planes of LSHNearest, the starts of k-means, the ties of trees) it draws here,
from its one fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.catalog.learning import Mabwiser, Policy
from arbitration.catalog.mabwiser import (
    Clusters,
    KNearest,
    LSHNearest,
    NeighborhoodPolicy,
    Radius,
    TreeBandit,
)
from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser.history import Events, History

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a neighbourhood policy has learned: the events, and MABWiser's own object where its state is more
    than these (Clusters, TreeBandit; None as long as there are too few events)."""

    fingerprint: str
    events: Events
    mab: Any = None


def training(policy: Policy) -> str:
    """What, beside encoding and rewards, the learned content depends on; empty for policies of sums."""
    if not isinstance(policy, Mabwiser) or policy.neighborhood_policy is None:
        return ""
    near = policy.neighborhood_policy
    return f"history {policy.history}" + (f" {near.model_dump_json()}" if _grown(near) else "")


def _grown(near: NeighborhoodPolicy) -> bool:
    """Whether MABWiser's object is more than the events, so that it is trained once and kept."""
    return isinstance(near, Clusters | TreeBandit)


def train(policy: Mabwiser, history: History) -> Trained:
    """Trains a policy that has a neighborhood_policy on the newest events. Equal histories give equal
    results."""
    near = policy.neighborhood_policy
    assert near is not None, policy.id
    events = history.newest()
    return Trained(history.fingerprint, events, fitted(near, events, events.arm) if _grown(near) else None)


def fitted(near: NeighborhoodPolicy, events: Events, decisions: Indices) -> Any:
    """MABWiser's fitted object, or None where there are too few events for one. Raises SnapshotError where
    MABWiser is not installed."""
    try:
        from mabwiser.mab import MAB, LearningPolicy
        from mabwiser.mab import NeighborhoodPolicy as Near
    except ImportError as error:
        message = "a neighborhood_policy needs MABWiser: pip install 'next-best-action[mabwiser]'"
        raise SnapshotError(message) from error

    if not len(events.arm):
        return None
    match near:
        case Clusters(n_clusters=wanted, is_minibatch=is_minibatch):
            clusters = min(wanted, len(np.unique(events.x, axis=0)))
            if clusters < 2:
                return None
            finder = Near.Clusters(clusters, is_minibatch)
        case TreeBandit(tree_parameters=parameters):
            finder = Near.TreeBandit(parameters.model_dump())
        case KNearest(k=k, metric=metric):
            finder = Near.KNearest(min(k, len(events.arm)), metric)
        case Radius(radius=radius, metric=metric):
            finder = Near.Radius(radius, metric)
        case LSHNearest(n_dimensions=n_dimensions, n_tables=n_tables):
            finder = Near.LSHNearest(n_dimensions, n_tables)
    mab = MAB(list(range(len(events.arms))), LearningPolicy.EpsilonGreedy(0), finder)
    mab.fit(decisions, events.reward, events.x)
    return mab

"""The authoring model of MABWiser's policies: names, parameters and defaults are those of MABWiser 2.7.4.

What MABWiser takes but cannot serve is refused here, at publish: `l2_lambda: 0` (it inverts a singular matrix
until an arm has met enough contexts), metrics that its own list has and SciPy has no more or that fail on a
column that never varies, the tree criteria that fail or are deprecated, a `binarizer` (a Python function; the
channel's `rewards` do its work).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arbitration.catalog.scalars import NotNegative, Positive, Share


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EpsilonGreedy(_Part):
    """The best mean reward with probability 1 - `epsilon`, any arm otherwise."""

    name: Literal["EpsilonGreedy"]
    epsilon: Share = 0.1


class Popularity(_Part):
    """Each arm in proportion to its mean reward."""

    name: Literal["Popularity"]


class Random(_Part):
    """Every arm alike."""

    name: Literal["Random"]


class Softmax(_Part):
    """Each arm in proportion to exp(mean reward / `tau`)."""

    name: Literal["Softmax"]
    tau: Positive = 1.0


class ThompsonSampling(_Part):
    """Each arm with the probability that it is the best one, its mean being
    Beta(1 + successes, 1 + failures)."""

    name: Literal["ThompsonSampling"]


class UCB1(_Part):
    """The best mean reward + `alpha` √(2 ln N / n)."""

    name: Literal["UCB1"]
    alpha: NotNegative = 1.0


class LinGreedy(_Part):
    """The best ridge regression with probability 1 - `epsilon`, any arm otherwise."""

    name: Literal["LinGreedy"]
    epsilon: Share = 0.1
    l2_lambda: Positive = 1.0
    scale: bool = False


class LinTS(_Part):
    """Each arm with the probability that it is the best one, its coefficients being
    Normal(A⁻¹b, `alpha`² A⁻¹)."""

    name: Literal["LinTS"]
    alpha: Positive = 1.0
    l2_lambda: Positive = 1.0
    scale: bool = False


class LinUCB(_Part):
    """The best ridge regression + `alpha` √(xᵀA⁻¹x)."""

    name: Literal["LinUCB"]
    alpha: NotNegative = 1.0
    l2_lambda: Positive = 1.0
    scale: bool = False


Linear = LinGreedy | LinTS | LinUCB
LearningPolicy = Annotated[
    EpsilonGreedy | Popularity | Random | Softmax | ThompsonSampling | UCB1 | LinGreedy | LinTS | LinUCB,
    Field(discriminator="name"),
]

Metric = Literal[
    "braycurtis", "canberra", "chebyshev", "cityblock", "correlation", "cosine", "dice", "euclidean",
    "hamming", "jaccard", "matching", "minkowski", "rogerstanimoto", "russellrao", "sokalsneath",
    "sqeuclidean",
]  # fmt: skip
_Some = Annotated[int, Field(ge=1, le=100_000)]
_Few = Annotated[int, Field(ge=1, le=32)]
_Probabilities = Annotated[dict[str, Share], Field(min_length=1)]


class _MayBeAlone(_Part):
    """Of neighbourhoods that may be empty. `no_nhood_prob_of_arm`: the probability of each treatment where
    it is; by name, as the arms of a catalog change (MABWiser has a list). Default: all alike."""

    no_nhood_prob_of_arm: _Probabilities | None = None

    @model_validator(mode="after")
    def _sum_to_one(self) -> _MayBeAlone:
        given = self.no_nhood_prob_of_arm
        if given is not None and not math.isclose(sum(given.values()), 1.0, rel_tol=1e-5, abs_tol=1e-8):
            raise ValueError("no_nhood_prob_of_arm should sum up to 1.0")
        return self


class Clusters(_Part):
    """The events of the cluster (k-means) that the context is in."""

    name: Literal["Clusters"]
    n_clusters: Annotated[int, Field(ge=2, le=1_000)] = 2
    is_minibatch: bool = False


class KNearest(_Part):
    """The `k` nearest events."""

    name: Literal["KNearest"]
    k: _Some = 1
    metric: Metric = "euclidean"


class LSHNearest(_MayBeAlone):
    """The events with the same hash in any of `n_tables` tables of 2^`n_dimensions` hashes."""

    name: Literal["LSHNearest"]
    n_dimensions: _Few = 5
    n_tables: _Few = 3


class Radius(_MayBeAlone):
    """The events within `radius`."""

    name: Literal["Radius"]
    radius: Positive = 0.05
    metric: Metric = "euclidean"


class TreeParameters(_Part):
    """Those of sklearn.tree.DecisionTreeRegressor, with its defaults; MABWiser sets `random_state` itself."""

    criterion: Literal["squared_error", "absolute_error"] = "squared_error"
    splitter: Literal["best", "random"] = "best"
    max_depth: _Some | None = None
    min_samples_split: Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0, le=1)] = 2
    min_samples_leaf: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 1
    min_weight_fraction_leaf: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    max_features: (
        Literal["sqrt", "log2"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None
    ) = None
    max_leaf_nodes: Annotated[int, Field(ge=2)] | None = None
    min_impurity_decrease: NotNegative = 0.0
    ccp_alpha: NotNegative = 0.0


class TreeBandit(_Part):
    """Per arm, its events in the leaf of its own decision tree that the context falls into."""

    name: Literal["TreeBandit"]
    tree_parameters: TreeParameters = TreeParameters()


NeighborhoodPolicy = Annotated[
    Clusters | KNearest | LSHNearest | Radius | TreeBandit, Field(discriminator="name")
]


def refusal(learning: LearningPolicy, neighborhood: NeighborhoodPolicy | None) -> str | None:
    """Why MABWiser does not take the two together, or None."""
    of_leaves = isinstance(learning, EpsilonGreedy | ThompsonSampling | UCB1)
    if isinstance(neighborhood, TreeBandit) and not of_leaves:
        takes = "EpsilonGreedy, ThompsonSampling or UCB1"
        return f"learning_policy: TreeBandit takes {takes}, not {learning.name}"
    return None

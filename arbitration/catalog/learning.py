"""The learning part of the authoring model: features of the context vector, and bandit policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from arbitration.catalog.mabwiser import LearningPolicy, Linear, NeighborhoodPolicy, refusal
from arbitration.catalog.scalars import (
    DurationText,
    Finite,
    Id,
    Name,
    NotNegative,
    Positive,
    Share,
    duration,
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


SourceName = Annotated[str, Field(pattern=r"^(customer|scores|context)\.[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class _Feature(_Part):
    """`allow_sensitive`: it may be worked out from a sensitive attribute; no encoding depends on it."""

    allow_sensitive: bool = False


class NumericFeature(_Feature):
    """`(value - center) / scale`, clipped to ±`clip`, and a column that is 1 where the value is missing.

    A bool counts as 0 or 1; a timestamp as the days from now until then.
    """

    kind: Literal["numeric"]
    id: Name
    source: SourceName
    center: Finite = 0.0
    scale: Positive = 1.0
    clip: Positive = 5.0


class CategoricalFeature(_Feature):
    """One column per listed value, and one more for anything else, a missing value included."""

    kind: Literal["categorical"]
    id: Name
    source: SourceName
    values: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class BucketisedFeature(_Feature):
    """One column per interval between the ascending `edges` (left-closed), and one where it is missing."""

    kind: Literal["bucketised"]
    id: Name
    source: SourceName
    edges: Annotated[tuple[Finite, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _ascending(self) -> BucketisedFeature:
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must ascend")
        return self


class CrossFeature(_Feature):
    """Every product of a column of one feature with a column of another (not itself a cross)."""

    kind: Literal["cross"]
    id: Name
    of: Annotated[tuple[Name, Name], Field(strict=False)]


Feature = Annotated[
    NumericFeature | CategoricalFeature | BucketisedFeature | CrossFeature, Field(discriminator="kind")
]


class Challenger(_Part):
    """A policy that is tried beside the one that names it: it decides for a `share` of the customers, always
    the same ones (a visitor who becomes known may change sides, once), or, as a `shadow`, for nobody: what it
    would have done can be seen and judged."""

    policy: Id
    share: Share | None = None
    shadow: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Challenger:
        if self.shadow == (self.share is not None):
            raise ValueError("a challenger has either a share or shadow: true")
        return self


_SHORTEST_HALF_LIFE = timedelta(hours=1)


def _long_enough(text: str) -> str:
    # Clocks differ: what is some half-lives ahead must still be a number.
    if duration(text) < _SHORTEST_HALF_LIFE:
        raise ValueError("a half-life is at least an hour")
    return text


class _Policy(_Part):
    """What all policies share.

    `features`: which of the catalog's features make up x, in this order (default: all). A bias column
    always comes first, so an empty list is a context-free policy.
    `floor`: the probability mass spread evenly over the eligible arms, so that each keeps support.
    `half_life`: after so long an event counts half (default: events count alike for ever).
    `value_scale`: instead of the rewards of outcomes, learn the values reported with them, as shares of this
    amount; no arm is taken to bring more than it on average.
    `apprentice`: until this many outcomes are learned, choose as the rules alone would, by value, lever and
    context weight.
    `challengers`: the policies tried beside it.
    """

    id: Id
    features: Annotated[tuple[Name, ...], Field(strict=False)] | None = None
    floor: Share = 0.02
    half_life: Annotated[DurationText, AfterValidator(_long_enough)] | None = None
    value_scale: Positive | None = None
    apprentice: NotNegative = 0.0
    challengers: Annotated[tuple[Challenger, ...], Field(strict=False)] = ()


class Bayesian(_Policy):
    """What all our own strategies share.

    `ridge`: λ of the prior A = λI. `noise_sd`: the residual deviation; by default it is estimated.
    `warm_start`: what the other arms of its action have learned (else those of its channel) counts for an arm
    like so many events of its own.
    """

    ridge: Positive = 1.0
    noise_sd: Positive | None = None
    warm_start: NotNegative = 10.0


class Thompson(Bayesian):
    """Each arm with the probability that it is the best one. `alpha` scales the posterior deviation: at 1 it
    is what is honestly not known; less explores less, and loses less (benchmarks/results/regret.md)."""

    strategy: Literal["thompson"]
    alpha: Positive = 0.25


class EpsilonGreedy(Bayesian):
    """The best mean with probability 1 - `epsilon`, any eligible arm otherwise."""

    strategy: Literal["epsilon_greedy"]
    epsilon: Share = 0.1


class Softmax(Bayesian):
    """Probabilities ∝ exp(priority / (`temperature` × the highest priority))."""

    strategy: Literal["softmax"]
    temperature: Positive = 0.1


class SquareCB(Bayesian):
    """Inverse gap weighting; the greater `gamma`, the greedier."""

    strategy: Literal["squarecb"]
    gamma: NotNegative = 100.0


class UCB(Bayesian):
    """The best upper bound, mean + `alpha` × deviation."""

    strategy: Literal["ucb"]
    alpha: NotNegative = 1.0


class Mabwiser(_Policy):
    """A policy of the MABWiser library, by its names and parameters (`arbitration.catalog.mabwiser`).

    A learning policy that takes no context, without a `neighborhood_policy`, uses no features. `history`: how
    many events, the newest, a neighbourhood policy is trained on; this is how it forgets.
    """

    library: Literal["mabwiser"]
    learning_policy: LearningPolicy
    neighborhood_policy: NeighborhoodPolicy | None = None
    history: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000

    @model_validator(mode="after")
    def _one_of_its_own(self) -> Mabwiser:
        if (message := refusal(self.learning_policy, self.neighborhood_policy)) is not None:
            raise ValueError(message)
        if self.neighborhood_policy is None:
            if not isinstance(self.learning_policy, Linear):
                object.__setattr__(self, "features", ())  # the model is frozen, for all others
        elif self.features == ():
            raise ValueError("features: a neighborhood_policy needs features to tell who is near")
        elif self.half_life is not None:
            raise ValueError("half_life: a neighborhood_policy forgets by its history instead")
        return self


Ours = Annotated[Thompson | EpsilonGreedy | Softmax | SquareCB | UCB, Field(discriminator="strategy")]


def _origin(policy: object) -> str:
    named = "library" in policy if isinstance(policy, Mapping) else hasattr(policy, "library")
    return "mabwiser" if named else "ours"


Policy = Annotated[
    Annotated[Ours, Tag("ours")] | Annotated[Mabwiser, Tag("mabwiser")], Discriminator(_origin)
]
"""One of ours, which has a `strategy`, or one of a `library`."""

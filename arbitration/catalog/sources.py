"""The gathering part of the authoring model: the systems that attributes and scores are fetched from.

A catalog says *what* is asked; *where* that is and with which secrets is the service's own setting (its
connections), so nobody who may publish a catalog can send the service, or its credentials, elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from arbitration.catalog.scalars import Id, Name, duration


def _within(shortest: str, longest: str) -> AfterValidator:
    def check(text: str) -> str:
        if not duration(shortest) <= duration(text) <= duration(longest):
            raise ValueError(f"must lie between {shortest} and {longest}")
        return text

    return AfterValidator(check)


InputName = Annotated[
    str,
    Field(
        pattern=r"^(customer_id|identity\.[a-z][a-z0-9_]{0,63}|(customer|scores|context)\.[A-Za-z_][A-Za-z0-9_]{0,63})$"
    ),
]
"""What a source may be asked with: the customer id, an identity of the customer, or a fact."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Cache(_Part):
    """Answers are used again for `ttl`; for `stale` longer they still serve, while a newer one is fetched.

    `size`: the most answers kept; the one not used for longest goes first.
    """

    ttl: Annotated[str, _within("1ms", "365d")]
    stale: Annotated[str, _within("0s", "365d")] = "0s"
    size: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Breaker(_Part):
    """After `failures` calls in a row that failed, the source is not called for `rest`; then one call
    tries whether it is back."""

    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    rest: Annotated[str, _within("10ms", "1d")] = "10s"


class Batch(_Part):
    """Concurrent questions are asked in one call: as soon as there are `size`, or `wait` after the first."""

    size: Annotated[int, Field(ge=2, le=1_000)] = 32
    wait: Annotated[str, _within("0ms", "60s")] = "2ms"


class _Source(_Part):
    """What all kinds share.

    `inputs`: what it is asked with, by the name it is used under. `connection`: where it is (default: the
    connection that has this source's id). `timeout`: how long one call may take; a request with less time
    left does not wait for it.
    """

    id: Id
    connection: Id | None = None
    inputs: Annotated[dict[Name, InputName], Field(min_length=1)] = Field(
        default_factory=lambda: {"customer_id": "customer_id"}
    )
    timeout: Annotated[str, _within("1ms", "60s")] = "500ms"
    cache: Cache | None = None
    breaker: Breaker = Breaker()
    description: str = ""

    @property
    def connected_as(self) -> str:
        """The name of its connection."""
        return self.connection or self.id


class HttpSource(_Source):
    """A JSON service. `{name}` in `path` (below the connection's URL) is an input, percent-encoded.

    `body`: sent as JSON with POST; a string in it that is just `{name}` becomes the input as it is, and
    braces around anything but an input stay what they are.
    A value's `path` is a JMESPath expression on the answer (default: its id).
    """

    kind: Literal["http"]
    method: Literal["GET", "POST"] = "GET"
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s#]*$", max_length=1000)]
    body: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _body_is_posted(self) -> HttpSource:
        if self.body is not None and self.method != "POST":
            raise ValueError("a body is sent with POST only")
        return self


class FeastSource(_Source):
    """A Feast feature server. `inputs` are the entity's join keys.

    A value's `path` is `view:feature`.
    """

    kind: Literal["feast"]
    batch: Batch | None = None


class OpenInferenceSource(_Source):
    """A model behind the Open Inference Protocol, version 2.

    Each input is a tensor of its own, shape (n, 1); with `tensor`, all are the columns of one tensor of
    that name, shape (n, inputs), of type `datatype`. A value's `path` is the name of an output, with a
    column where it has several: `predict_proba[1]`.
    """

    kind: Literal["open_inference"]
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$")]
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")] | None = None
    tensor: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    datatype: Literal["FP32", "FP64", "INT64"] = "FP64"
    batch: Batch | None = None


class SqlSource(_Source):
    """A database. `query` is one SELECT that finds at most one row; `:name` in it is an input.

    A value's `path` is a column (default: its id).
    """

    kind: Literal["sql"]
    query: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


Source = Annotated[HttpSource | FeastSource | OpenInferenceSource | SqlSource, Field(discriminator="kind")]

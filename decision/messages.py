"""The messages of the HTTP contract: what is asked, and what is answered. In one file, since it is read,
and kept, as one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
)
from pydantic import model_validator as validator

from arbitration.catalog.limits import Behaviour, Outcome


class Message(BaseModel):
    """Base of what callers send: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(frozen=True)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset: 2026-01-31T08:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time lies between the years 1 and 9999") from error


def _time(raw: object) -> object:
    if isinstance(raw, str):
        return datetime.fromisoformat(raw)
    if isinstance(raw, datetime):
        return raw
    raise ValueError("a time is an RFC 3339 string")


def _nameable(text: str) -> str:
    if text in (".", ".."):
        raise ValueError("stands for another place in a path")
    return text


Key = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
CustomerKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f/]+$"),
    AfterValidator(_nameable),
]
"""The id of a customer, which has to have a place in a path: who cannot be named there cannot be erased."""
Time = Annotated[datetime, BeforeValidator(_time), AfterValidator(_utc)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Facts = Annotated[dict[Annotated[str, StringConstraints(max_length=64)], Any], Field(max_length=256)]


class IdentityMessage(Message):
    """A name under which a customer is known elsewhere."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    value: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]


class PlacementRequest(Message):
    """A placement to fill, with at most `limit` items (default: all its slots)."""

    id: Key
    limit: Annotated[int, Field(ge=1, le=50)] | None = None


class DecisionRequest(Message):
    """What is asked: for whom, where, in which situation."""

    request_id: Annotated[Key | None, Field(description="Repeating it repeats the reply.")] = None
    customer_id: CustomerKey | None = None
    identity: IdentityMessage | None = None
    channel: Key | None = None
    channels: Annotated[
        list[Key] | None,
        Field(min_length=1, max_length=20, description="Instead of `channel`: one of these is chosen."),
    ] = None
    placements: Annotated[
        list[PlacementRequest] | None,
        Field(min_length=1, max_length=20, description="Default: all of the channel, or channels."),
    ] = None
    context: Facts = Field(default_factory=dict)
    profile: Annotated[Facts, Field(description="Attributes that override the stored ones.")] = Field(
        default_factory=dict
    )
    mode: Annotated[
        Literal["live", "dry_run"], Field(description="`dry_run`: nothing counted, nothing learned.")
    ] = "live"
    activation: Annotated[
        Literal["immediate", "deferred"],
        Field(
            description="`deferred`: contact and budget are reserved until a response confirms that it was"
            " seen, and released after the channel's response window."
        ),
    ] = "immediate"
    timeout_ms: Annotated[
        int | None,
        Field(ge=1, le=60_000, description="For gathering what is known; default: the service's setting."),
    ] = None
    explain: bool = False

    @validator(mode="after")
    def _one_customer(self) -> Self:
        if (self.customer_id is None) == (self.identity is None):
            raise ValueError("give either customer_id or identity")
        if (self.channel is None) == (self.channels is None):
            raise ValueError("give either channel or channels")
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("channels: each channel once")
        names = [placement.id for placement in self.placements or ()]
        if len(set(names)) < len(names):
            raise ValueError("placements: each placement once")
        return self


class BatchRequest(Message):
    """Up to 1,000 requests; each is answered on its own."""

    requests: Annotated[list[Any], Field(min_length=1, max_length=1000)]


class ResponseMessage(Message):
    """Something that came back for one item of a decision, or of the customer after it."""

    response_id: Annotated[Key, Field(description="Counts once, however often it is sent.")]
    decision_id: Key
    treatment: Annotated[
        Key | None,
        Field(
            description="The item it answers. Without one: what the customer did after the decision, "
            "whatever was shown; it counts in reports of control groups, nothing is learned from it."
        ),
    ] = None
    outcome: Outcome
    value: Annotated[Number | None, Field(description="What it brought, in the catalog's currency.")] = None
    occurred_at: Time | None = None
    corrects: Annotated[
        Key | None,
        Field(
            description="The response_id of an earlier response to the same decision that was wrong: it no "
            "longer counts. The two may come in any order."
        ),
    ] = None


class ConsentMessage(Message):
    """A consent. `at`: when it was given or withdrawn (default: now; at most a day ahead); `source`: by which
    way, such as a form or a shop."""

    status: Literal["given", "withdrawn"]
    at: Time | None = None
    source: Annotated[
        str | None, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
    ] = None


def _consent(raw: object) -> str | ConsentMessage:
    # Not left to the union: it would name its branches in the path of a fault. Which answers there are is
    # checked with the catalog.
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, dict):
        raise ValueError("must be given or withdrawn, or an object with this as its status")
    return ConsentMessage.model_validate(raw)


Consent = Annotated[
    str | ConsentMessage, PlainValidator(_consent, json_schema_input_type=str | ConsentMessage)
]


Restricted = Annotated[
    bool | None,
    Field(
        description="Whether nothing that is stored or fetched of the customer is to be used (GDPR Art. 18). "
        "What is not said stays as it is."
    ),
]


class CustomerMessage(Message):
    """A customer's profile, as a whole."""

    attributes: Facts = Field(default_factory=dict)
    scores: Facts = Field(default_factory=dict)
    consents: Annotated[dict[str, Consent], Field(max_length=256)] = Field(default_factory=dict)
    identities: Annotated[list[IdentityMessage], Field(max_length=64)] = Field(default_factory=list)
    restricted: Restricted = None


class CustomerPatch(Message):
    """A change of a profile: what is given is set, null removes (RFC 7396), identities are added."""

    attributes: Facts = Field(default_factory=dict)
    scores: Facts = Field(default_factory=dict)
    consents: Annotated[dict[str, Consent | None], Field(max_length=256)] = Field(default_factory=dict)
    identities: Annotated[list[IdentityMessage], Field(max_length=64)] = Field(default_factory=list)
    restricted: Restricted = None


class ImportLine(CustomerMessage):
    """One line of an import."""

    customer_id: CustomerKey


class PushLine(CustomerPatch):
    """One line of a push."""

    customer_id: CustomerKey


class IdentitiesRequest(Message):
    """Identities that proved to be one customer's."""

    identities: Annotated[list[IdentityMessage], Field(min_length=1, max_length=64)]


class RollbackRequest(Message):
    """The version to go back to."""

    version: Key


class ItemReply(Reply):
    """One pick. For a fallback, action, group, treatment and the numbers are null."""

    action: str | None
    group: str | None
    treatment: str | None
    rank: int
    content: dict[str, str]
    propensity: float | None
    priority: float | None
    selection_probability: float
    is_fallback: bool
    reasons: list[str]


class PlacementReply(Reply):
    """The slate of one placement; `no_action_reason` where it is empty."""

    id: str
    items: list[ItemReply]
    no_action_reason: str | None


class FunnelStep(Reply):
    """How many arms were left after a stage."""

    stage: str
    remaining: int


class RemovedArm(Reply):
    """An arm that was removed: where, why, by which rule, and what the rule saw."""

    treatment: str
    action: str
    stage: str
    reason: str
    rule: str | None
    values: dict[str, Any]


class RankedArm(Reply):
    """An arm that was left: every factor of its priority (the estimates are null for who objects to
    profiling; of a policy that learns values, there is an `expected_value` in the place of the propensity);
    its probability in the first slot, or why it was held back there; and the limits it passed only because it
    is exempt from them."""

    treatment: str
    action: str
    tier: int
    propensity: float | None
    expected_value: float | None = None
    posterior_mean: float | None
    posterior_sd: float | None
    context_weight: float
    value: float
    lever: float
    priority: float | None
    selection_probability: float
    held_back: Literal["shown_already", "lower_tier"] | None
    exempt: list[str]


class SlotReply(Reply):
    """How one slot was filled: the uniform number drawn and each arm's probability."""

    rank: int
    treatment: str
    draw: float
    probabilities: dict[str, float]


class PlacementExplanation(Reply):
    """Why a placement shows what it shows. `policy`: the one that decided; `apprentice`: it had not learned
    enough and did as the rules say."""

    id: str
    policy: str
    apprentice: bool = False
    funnel: list[FunnelStep]
    removed: list[RemovedArm]
    ranked: list[RankedArm]
    slots: list[SlotReply]
    no_action_reason: str | None


class ShadowReply(Reply):
    """What a shadow of the policy that decided would have done in a placement, or why that cannot be told any
    more."""

    policy: str
    snapshot: str
    placement: str | None
    ranked: list[RankedArm]
    unavailable: str | None = None


class KnownFact(Reply):
    """Something that was known when the decision was made. `source`: one of the catalog's, `store`,
    `derived`, or `request`; `age_seconds`: how long before a source had said so."""

    name: str
    value: Any
    source: str
    age_seconds: float | None


class ControlGroupReply(Reply):
    """A control group that was in force, and whether the customer is in it."""

    id: str
    behaviour: Behaviour
    member: bool


class ExplanationReply(Reply):
    """Why a decision came out as it did: what was known, what was missing, and what followed."""

    decision_id: str
    channel: str | None
    not_before: str | None
    objects_to_profiling: bool
    control_groups: list[ControlGroupReply]
    facts: list[KnownFact]
    degraded: list[str]
    placements: list[PlacementExplanation]
    shadows: list[ShadowReply] = Field(default_factory=list)


class DecisionReply(Reply):
    """The decision. `channel`: the one it is for; null where none of several can be used. `not_before`: where
    only quiet hours kept everything back, when to ask again. `reserved_until`: of a deferred decision.
    `explanation` is there when it was asked for."""

    decision_id: str
    request_id: str | None
    customer_id: str | None
    decided_at: str
    catalog_version: str
    channel: str | None
    not_before: str | None
    reserved_until: str | None
    placements: list[PlacementReply]
    control_group: str | None
    degraded: list[str]
    explanation: ExplanationReply | None = None


class FieldProblem(Reply):
    """One thing wrong: the field, a code, a sentence; for catalogs also where it was written."""

    field: str
    code: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    excerpt: str | None = None


class Problem(Reply):
    """An error in the one shape all errors have (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] = Field(default_factory=list)


class BatchResult(Reply):
    """The outcome of one request of a batch: a decision, or a problem."""

    status: int
    decision: DecisionReply | None = None
    problem: Problem | None = None


class BatchReply(Reply):
    """Results in the order of the requests."""

    results: list[BatchResult]


class ReplayReply(Reply):
    """Whether deciding again gave the same bytes, and the decision as it came out now."""

    identical: bool
    decision: DecisionReply


class RecordedReply(Reply):
    """How many responses were new, and how many were known already."""

    recorded: int
    duplicates: int


class ConsentReply(Reply):
    """A consent as stored. `at`: when it was given or withdrawn, which is `told_at` where we were not told;
    null: before this was kept."""

    status: str
    at: str | None
    source: str | None
    told_at: str | None


class CustomerReply(Reply):
    """A profile as stored."""

    customer_id: str
    attributes: dict[str, Any]
    scores: dict[str, Any]
    consents: dict[str, str]
    consent_records: dict[str, ConsentReply]
    identities: list[IdentityMessage]
    restricted: bool


class NamesReply(Reply):
    """What a customer is known by; `merged`: all ids ever merged into it."""

    customer_id: str
    merged: list[str]
    identities: list[IdentityMessage]


class HistoryResponse(Reply):
    """A response, in a history."""

    response_id: str
    treatment: str | None
    outcome: str
    value: float | None
    occurred_at: str
    corrects: str | None


class ReservationReply(Reply):
    """What an item of a deferred decision reserved; `settled_at`: since when it is firm or released."""

    treatment: str
    state: Literal["reserved", "firm", "released"]
    due_at: str
    settled_at: str | None


class HistoryDecision(Reply):
    """A decision, in a history, with what came back for it."""

    decision_id: str
    decided_at: str
    channel: str
    mode: str
    activation: str
    reservations: list[ReservationReply]
    treatments: list[str]
    responses: list[HistoryResponse]


class FactReply(Reply):
    """A value that is known of a customer, or that could be. `as_of`: when it was told or fetched;
    `freshness`: `stale` is older than its source's ttl; `cause`: why it is missing, where anything failed."""

    name: str
    value: Any
    source: str
    as_of: str | None
    age_seconds: float | None
    freshness: Literal["fresh", "stale", "missing"]
    cause: str | None


class StopReply(Reply):
    """An action or group that rests for a customer; for good where `until` is null."""

    scope: str
    target: str
    until: str | None


class HeldBackReply(Reply):
    """A contact policy that holds back now; `target`: what it counted by (empty: all contacts together)."""

    contact_policy: str
    target: str
    until: str


class OverviewReply(CustomerReply):
    """A profile as stored; then every value of the catalog, wherever it comes from; what limits the customer
    now; and what happened lately, newest first. `control_groups`: in which the customer was found to be."""

    merged: list[str]
    facts: list[FactReply]
    degraded: list[str]
    stops: list[StopReply]
    held_back: list[HeldBackReply]
    control_groups: dict[str, bool]
    decisions: list[HistoryDecision]


class HistoryReply(Reply):
    """The newest decisions of a customer, newest first."""

    customer_id: str
    decisions: list[HistoryDecision]


class ImportError_(Reply):
    """A line that was not imported or pushed."""

    line: int
    errors: list[FieldProblem]


class ImportReply(Reply):
    """What an import or a push did. `errors` holds the first hundred rejected lines."""

    imported: int
    rejected: int
    errors: list[ImportError_]


class CatalogReply(Reply):
    """The live catalog: its version and the whole model."""

    version: str
    catalog: dict[str, Any]


class ValidationReply(Reply):
    """Whether a catalog could be published, and everything that is wrong with it."""

    valid: bool
    version: str | None
    problems: list[FieldProblem]


class PublicationReply(Reply):
    """A published version; who published it and why, where that is known."""

    version: str
    published_at: str
    live: bool
    published_by: str | None = None
    why: str | None = None
    title: str | None = None
    change: str | None = None


class VersionsReply(Reply):
    """Publications, newest first."""

    versions: list[PublicationReply]


class PolicyReply(Reply):
    """What a policy decides with. `newest`: what it would be if none were pinned; `refused`: a version that
    should be served but cannot be used; `learned`: how many outcomes the snapshot rests on."""

    policy: str
    snapshot: str
    newest: str
    pinned: str | None
    refused: str | None
    learned: float


class SnapshotsReply(Reply):
    """The policies of the live catalog."""

    policies: list[PolicyReply]


class SnapshotReply(Reply):
    """A learned state of a policy."""

    version: str
    created_at: str


class PolicySnapshotsReply(Reply):
    """The snapshots of a policy, the newest first."""

    snapshots: list[SnapshotReply]


class PinRequest(Message):
    """The snapshot to serve."""

    version: Key


class ArmComparison(Reply):
    """What two snapshots know of a treatment: how many outcomes, and the mean of their rewards."""

    treatment: str
    count_before: float
    count_after: float
    mean_before: float | None
    mean_after: float | None


class ComparisonReply(Reply):
    """Two snapshots of a policy, by treatment."""

    treatments: list[ArmComparison]


class ControlGroupSide(Reply):
    """Customers by whether they are in a control group; `outcomes`: how many of them reported each since
    their first exposure."""

    customers: int
    outcomes: dict[str, int]


class ControlGroupReport(Reply):
    """A control group in one of its windows. `p_value`: how likely a `share` at least so far from
    `expected_share` is by chance; `sample_ratio_mismatch`: so unlikely that the groups should not be
    compared before it is known why. `behaviour` is null where the live catalog has no such group."""

    id: str
    since: str | None
    behaviour: Behaviour | None
    members: ControlGroupSide
    others: ControlGroupSide
    expected_share: float
    share: float
    p_value: float
    sample_ratio_mismatch: bool


class ControlGroupsReply(Reply):
    """All control groups that anybody was found to be in, or not to be in."""

    control_groups: list[ControlGroupReport]


class LiftCohort(Reply):
    """Customers by their first exposure. `mature`: those whose days are over: only they count. `untreated`:
    how many of these had an outcome that was reported without a treatment."""

    customers: int
    mature: int
    untreated: int


class LiftSide(Reply):
    """What became of mature customers. `value`: the sum of what was reported with the outcomes that count."""

    customers: int
    with_outcome: int
    rate: float | None
    value: float
    value_per_customer: float | None


class LiftFigure(Reply):
    """Treated minus control, per customer, and `relative`: treated / control - 1. The intervals hold at all
    looks together, each for itself. `relative_high` is null where it has no bound. `reason`: why there is no
    figure; where the data are too few yet, `measured` is what there is, and `bound` what it takes."""

    difference: float | None
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    reason: (
        Literal[
            "too_few_customers",
            "too_few_outcomes",
            "value_out_of_range",
            "held_out_of_control",
            "nothing_untreated_reported",
        ]
        | None
    )
    measured: float | None
    bound: float | None


class LiftLine(Reply):
    """All outcomes (`overall`, `name` is null), or those of one group, channel or action."""

    by: Literal["overall", "group", "channel", "action"]
    name: str | None
    treated: LiftSide
    control: LiftSide
    rate: LiftFigure
    value: LiftFigure


class LiftComparison(Reply):
    """A control group in one of its windows, with one `share`, against those who came meanwhile and are not
    in it. `p_value`, `sample_ratio_mismatch`: as for control groups, of all customers of both."""

    control_group: str
    since: str | None
    behaviour: Behaviour | None
    share: float
    treated: LiftCohort
    control: LiftCohort
    p_value: float
    sample_ratio_mismatch: bool
    lines: list[LiftLine]


class LiftReply(Reply):
    """Lift over control groups. `outcomes`: what counts; null: what each channel rewards highest."""

    as_of: str
    days: int
    outcomes: list[str] | None
    confidence: float
    currency: str
    comparisons: list[LiftComparison]


class BudgetReport(Reply):
    """A budget in one period, in `times` or in the catalog's currency. `reserved` is part of `used`. `total`
    and `left` are null where the live catalog has no such budget."""

    action: str
    unit: str
    each: str | None
    begins: str | None
    total: float | None
    used: float
    reserved: float
    left: float | None


class BudgetsReply(Reply):
    """All budgets of which anything was taken."""

    budgets: list[BudgetReport]


class HealthReply(Reply):
    """Whether the process is well."""

    status: str

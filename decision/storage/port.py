"""The storage port: what the service and the learner need of a database, and nothing more. In one file with
its records, since a backend is written, and read, against the whole of it.

Every backend passes `tests/contracts/test_store_*.py`. A method that writes returns after the write is
durable. All times are timezone-aware UTC. Every method may raise `StoreUnavailable`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from arbitration.contact import Contact, Key, Limits

if TYPE_CHECKING:
    from arbitration.evaluation.ratios import Rate
    from decision.storage.fairness import Counting, Measured

NO_LIMITS = Limits()

MOST_RESPONSES = 1_000
"""To one decision: to count them again and again must not become endless."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A name under which a customer is known elsewhere: an e-mail hash, a cookie, a phone number."""

    type: str
    value: str


PSEUDONYM = "\x1f"
"""What every pseudonym begins with, and no customer id."""


ERASED = "\x1e"
"""What every key begins with that stands for an erased customer, and no customer id."""

Mark = Callable[[str], str]
"""What stands for a customer id where the id itself must not be kept (`decision.auditing.mark_of`)."""


def pseudonym(identity: Identity) -> str:
    """What stands for a customer id where an identity leads to nobody; it does not give the identity away.

    Stores keep it: it is never to change.
    """
    return PSEUDONYM + hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ConsentDetail:
    """When a consent was given or withdrawn (None: when it was told to us), and by which way it was."""

    at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Customer:
    """A stored profile. Attribute and score values are JSON as given; they are typed when gathered.

    `consent_details`: of those `consents` of which more is known than the answer. `restricted`: True where
    what is stored is not to be used; where a profile is told, False lifts that and None leaves it as it is.
    """

    customer_id: str
    attributes: Mapping[str, Json] = field(default_factory=dict)
    scores: Mapping[str, Json] = field(default_factory=dict)
    consents: Mapping[str, str] = field(default_factory=dict)
    identities: tuple[Identity, ...] = ()
    consent_details: Mapping[str, ConsentDetail] = field(default_factory=dict)
    restricted: bool | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a stored profile: keys given in `customer` are set, its identities added; `remove` lists
    (section, key) to drop, section being `attributes`, `scores` or `consents`."""

    customer: Customer
    remove: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """What a customer is known by: `customer_id`, the ids ever merged into it, the pseudonyms it was recorded
    under while it was a stranger, its identities; all sorted.

    A customer id that was merged names its survivor ever after, which is the `customer_id` here. So does the
    `pseudonym` of an identity, from when it first became a customer's: that one keeps what was recorded under
    it for good, also where the identity goes to another customer later, who has no part in it. Ledger and
    stops are kept under the key they were recorded for, so they are read by all of them.
    """

    customer_id: str
    merged: tuple[str, ...] = ()
    pseudonyms: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What the ledger knows the customer by, its own id first."""
        return (self.customer_id, *self.merged, *self.pseudonyms)


@dataclass(frozen=True, slots=True)
class Stop:
    """Until `until` (None: for good) the action or group `target` rests for a customer."""

    scope: str
    target: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class BudgetPeriod:
    """The budget of an action in one of its calendar periods; `begins` is None where it has none."""

    budget: str
    begins: datetime | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether a customer is in a control group, as found at the first exposure. `since`: the begin of the
    group's validity as it is written in the catalog. `share`: the one the group had then."""

    control_group: str
    since: str
    member: bool
    share: float


@dataclass(frozen=True, slots=True)
class ControlGroupSize:
    """Those who are in a control group in one of its windows, or those who are not.

    `expected`, `variance`: Σ s and Σ s·(1 - s) over the shares s recorded with them: of how many are in.
    `outcomes`: how many of them reported each outcome from their first exposure on. A customer counts once,
    by whatever names, as found at the very first.
    """

    control_group: str
    since: str
    member: bool
    customers: int
    expected: float
    variance: float
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OutcomeSums:
    """How many customers had an outcome that counts, and the sums over them of the value each reported in all
    and of its square."""

    customers: int
    value: float
    squares: float


@dataclass(frozen=True, slots=True)
class Cohort:
    """The customers in, or not in, a control group, of those who came while it had one share in one window.

    `assigned`: all, each once, by whatever names, as found at the very first exposure. `mature`: those of
    whom all is known, their days being over. `outcomes`: what these did within them, by (dimension, name):
    `("overall", "")`, `("channel", …)`, `("group", …)`, `("action", …)`, and `("untreated", "")` for what
    was reported without a treatment, which is of no group or action. Left out where nobody did.
    """

    control_group: str
    since: str
    share: float
    member: bool
    assigned: int
    mature: int
    outcomes: Mapping[tuple[str, str], OutcomeSums]


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What is taken of a budget in one of its periods, in times or ticks of money, and how much of that is
    only reserved."""

    period: BudgetPeriod
    used: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What limits a customer at a moment: `stops` in force; `holds`, by (policy, target), until when a
    contact policy holds back; `used`: what is taken of the budgets asked for, in times or ticks of money;
    `memberships`: the earliest of each control group and window. `read`: what its store knows it again by.
    `life`: another number once the customer was erased (0: nothing is recorded)."""

    stops: tuple[Stop, ...] = ()
    holds: Mapping[Key, datetime] = field(default_factory=dict)
    used: Mapping[BudgetPeriod, int] = field(default_factory=dict)
    memberships: tuple[Membership, ...] = ()
    read: object = field(default=None, compare=False, repr=False)
    life: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a live decision rests on, and what it takes. It is committed only while the first is still so.

    `keys`: all names of the customer. `standing`: as it was read; None where the decision kept every limit
    there could be. `ranges`: within which bounds (inclusive) what is used of each budget leaves the decision
    as it is. `contact`: what it shows. `takes`: (treatment, budget, amount). `due_at`: when what is reserved
    is released; None where nothing is. `joins`: memberships to record.
    """

    keys: tuple[str, ...]
    limits: Limits
    standing: Standing | None
    ranges: Mapping[BudgetPeriod, tuple[int, int]]
    contact: Contact
    takes: tuple[tuple[str, BudgetPeriod, int], ...] = ()
    due_at: datetime | None = None
    joins: tuple[Membership, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One answered request, with all that is needed to answer it again.

    `customer_id` is the `pseudonym` of the identity where the request named nobody we know. `request_hash` is
    the hash of the request's content, to tell a retry from another request under the same `request_id`.
    `snapshots` maps policy to snapshot version. `inputs` and `reply` are JSON bytes; `reply` is byte for byte
    what was sent. `claim` is not recorded as such: it is made good when the record is committed. Neither is
    `life`: that of the customer (`Standing.life`) when what is known of them was read, 0 where nothing was.
    It is never committed under another.

    Of an erased customer's decision only what names nobody is left: `customer_id` is a random key that begins
    with `ERASED`, `reply` says which arms were shown, and no more, and `inputs` are empty as soon as nothing
    is to be unlearned with them.
    """

    decision_id: str
    customer_id: str
    request_id: str | None
    request_hash: str
    decided_at: datetime
    channel: str
    mode: str
    catalog_version: str
    snapshots: Mapping[str, str]
    inputs: bytes
    reply: bytes
    activation: str = "immediate"
    claim: Claim | None = field(default=None, compare=False)
    life: int = field(default=0, compare=False)

    @property
    def erased(self) -> bool:
        """Whether its customer was erased."""
        return self.customer_id.startswith(ERASED)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a store has for a decision about somebody, read at once.

    `names`: of the customer; of a `stranger`, which an identity that leads to nobody is: of the customer that
    it once led to, else its pseudonym alone. `profile`: None for strangers and where nothing is stored.
    `standing`: of all these names. `earlier`: the decision that answered the request before.
    """

    names: Names
    stranger: bool
    profile: Customer | None
    standing: Standing
    earlier: DecisionRecord | None


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """One thing that came back. `treatment`: the item it answers, or empty for what the customer did after
    the decision, whatever was shown. `corrects`: the response that it takes the place of. `stops`: what rests
    from now on because of it."""

    response_id: str
    decision_id: str
    customer_id: str
    treatment: str
    outcome: str
    value: float | None
    occurred_at: datetime
    received_at: datetime
    stops: tuple[Stop, ...] = ()
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an item of a deferred decision reserved. `state`: `reserved`, `firm` or `released`; `settled_at`:
    when it became one of the latter."""

    decision_id: str
    treatment: str
    state: str
    due_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Publication:
    """A catalog version made current at a moment. The newest publication is the live one."""

    version: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the learner has read: positions in the order of commits, exclusive.

    `rounds` counts its commits, so that every commit moves the cursor, also one that only learned from
    silence.
    """

    decisions: int = 0
    responses: int = 0
    rounds: int = 0


Outcomes = tuple[tuple[str, float | None], ...]
"""All that came of one item, in the order in which it occurred: outcomes, each with the value reported."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one shown item.

    `outcomes` is None while only the contact is known; then `due_at` is when silence becomes `no_response`.
    Once an outcome is there, `due_at` is None.
    """

    decision_id: str
    treatment: str
    outcomes: Outcomes | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """An immutable learned state. `version` is its content hash.

    `lineage` names what it is a state of: a policy under one encoding and one set of rewards. Snapshots
    of a lineage replace one another.
    """

    version: str
    lineage: str
    created_at: datetime
    content: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is kept in the audit trail, for good: so it never holds personal data.

    `kind`: what was done, `catalog.publish`; `actor`: by whom, `key:…`; `subject`: to what, `catalog:…`, a
    customer by its mark only (`decision.auditing`). `state`: what is in force follows from it, as of keys.
    """

    kind: str
    actor: str
    subject: str = ""
    detail: Mapping[str, Json] = field(default_factory=dict)
    state: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in the audit trail; `seq` counts from 1, `hash` chains it to all before it."""

    seq: int
    at: datetime
    event: Event
    hash: str


class Profiles(Protocol):
    """Customers and their names elsewhere.

    Wherever a customer id is given, one that was merged stands for its survivor; ids in what is returned
    are survivors'. By whatever method an identity becomes a
    customer's, its pseudonym does too, unless it is one's already.
    """

    async def customer(self, customer_id: str) -> Customer | None:
        """The stored profile, or None for a customer nobody told us of."""

    async def as_of(self, customer_id: str) -> Mapping[str, datetime]:
        """When each stored value was last told to us, by name: `attributes.nps`, `consents.marketing`.

        Told again unchanged counts. A value stored before times were kept is left out.
        """

    async def names(self, customer_id: str) -> Names:
        """What the customer is known by; also for an id nobody told us of, which has no other names."""

    async def resolve(self, identity: Identity) -> str | None:
        """The customer id known under `identity`, or None."""

    async def put_customers(self, customers: Sequence[Customer], at: datetime) -> None:
        """Replaces (or creates) each profile whole, all or none; `at`: when its values were told.

        The last one wins where a customer is given twice. But a consent that is older than the recorded one
        leaves that as it is (see `patch_customers`). And a profile that others were merged into is never
        replaced, under whichever of its ids it is given: each of its systems tells only what it knows. Values
        given are set, none is removed, identities are added, and a consent that is `withdrawn` stays so,
        until `patch_customers` says otherwise. Raises Conflict (field `identities`) where an identity belongs
        to another customer.
        """

    async def patch_customers(self, changes: Sequence[Change], at: datetime) -> list[Customer]:
        """Merges each change into the stored profile (created if absent), in order, all or none.

        Returns each profile as it was after its change. `at`: when the values given were told. Raises
        Conflict as above.

        A consent given with a time of its own that is earlier than the recorded one's (its own, else when it
        was told) is left out; at the same time `withdrawn` is not undone. One without is of now, and always
        taken. Nothing is of later than now: an own time after `at` is recorded as `at`, as clocks differ.
        """

    async def merge(self, customer_id: str, identities: Sequence[Identity], at: datetime) -> Names:
        """Takes `identities` as proof of who a customer is (created if absent); returns its names.

        The customer gets each identity. Where one belongs to another customer, that one is merged into this
        one, for good, and is no customer any more: all its identities move; its profile joins, where the
        value told later wins (one without a time is the earlier; on a tie this customer's); of two consents
        `withdrawn` wins, else the later by its own time, where it has one, and its details go with it; the
        ids once merged into it now name this customer. What is merged already stays as it is.
        """

    async def delete_customer(
        self, customer_id: str, mark: Mark, at: datetime, before: datetime | None = None
    ) -> datetime | None:
        """Erases a customer, by whatever id: profile, identities, stops, counters, and what other ids and
        pseudonyms it had. All that the ledger has under any of them is kept under one random key from then
        on, without its request ids, response ids and replies: reports, budgets and what is reserved stay as
        they are. So do the inputs of live decisions, until the learner has taken back what it learned from
        them (see `Learning.erasures`). Every id is then one that nobody told us of.

        Of each id its `mark` stays, with the time. Returns when the customer was erased: `at`, or, where
        there was nothing left to erase, the time of before; None where there never was anything. With
        `before`, nothing is done, and None returned, unless the customer is idle, as `idle_customers` has it,
        in the same transaction.
        """

    async def erased_at(self, mark: str) -> datetime | None:
        """When the customer with this mark was last erased."""

    async def idle_customers(self, before: datetime, limit: int) -> list[str]:
        """Up to `limit` customers with a profile of whom nothing was told, who got no new name, for whom
        nothing was decided, and from whom nothing was received since `before`; none who is `restricted`.
        Takes its time."""

    async def half_erased(self, limit: int) -> list[str]:
        """Up to `limit` customers without a profile who were erased by a release that left the ledger under
        their ids, or what was merged into them. Takes its time."""


class Ledger(Protocol):
    """The durable record of decisions and responses, and what follows from it: what limits a customer.

    `Contact policies` are counted by `arbitration.contact`, always as the ledger has it under all of a
    customer's names.
    """

    async def standing(
        self,
        keys: tuple[str, ...],
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
    ) -> Standing:
        """What limits the customer known by `keys` (taken as they are; its own id first) at `now`.

        Stops in force (until > now, or for good) are ordered by scope and target, each once: of several ends
        the later one, and for good over all. The cost does not grow with the customer's history, but for the
        first time under other `limits` or another number of names, when it is counted anew.
        """

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        """Commits each record, or finds the one committed earlier with its customer and `request_id`.

        None, and nothing is committed, where a record's claim no longer holds: what limits the customer has
        changed, the customer was merged, or what is used of a budget has left its range. So it is with any
        record, also one without a claim, whose `life` is over: the customer was erased.

        It is looked for under all names of that customer, as a merge may have come between: under the
        record's own first, else the earliest. Returns, per record, the one that is in the ledger (the first
        wins; also within one call, where those of one customer are committed in their order). What fails may
        leave other customers' records committed. Raises Conflict (field `decision_id`) where an id was used
        before for another decision.
        """

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        """The record of one decision."""

    async def decisions(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """The records of many, by id; the unknown are left out."""

    async def decision_of_request(self, keys: tuple[str, ...], request_id: str) -> DecisionRecord | None:
        """The record committed for this request under one of `keys`; of several, that of the first key."""

    async def commit_responses(
        self, records: Sequence[ResponseRecord], limits: Limits = NO_LIMITS
    ) -> list[bool]:
        """Commits records and their stops: all of a customer or none. Per record: True if new, else False.

        Where one is refused nothing is committed; where the store fails between two customers, the records of
        the first are: they are known when they are sent again. Of an erased customer nothing is recorded any
        more, and nothing is new; but what an item has reserved becomes firm all the same.

        What an item has reserved becomes firm with any new response to it but `no_response`.

        A `response_id` is unique per customer. Raises Conflict (field `[i].response_id`) where it was
        used before with another decision, treatment, outcome, value or correction; and (field
        `[i].decision_id`) where the decision has MOST_RESPONSES already.
        """

    async def history(
        self, keys: tuple[str, ...], limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord]]:
        """The newest decisions recorded under any of `keys`, and every response to these.

        Each newest first, by the order of commits. The `stops` of a response are not restored.
        """

    async def recorded(self, keys: tuple[str, ...]) -> list[str]:
        """The ids of all decisions recorded under any of `keys`, in the order of commits."""

    async def release(self, now: datetime, limits: Limits, limit: int) -> int:
        """Releases what is reserved and due at `now`, at most `limit` items; returns how many.

        For good: what is heard of such an item later counts as what it is, but takes no budget again.
        """

    async def reservations(self, decision_ids: Sequence[str]) -> list[Reservation]:
        """What these decisions reserved, by decision and treatment."""

    async def prune(self, before: datetime) -> int:
        """Forgets the decisions of the months (UTC) that were over at `before`, and all that belongs to them:
        responses, labels, reservations, requests; and the snapshots of these months that no decision left was
        made with, but for the live ones. How many decisions that were.

        What was learned stays learned, and stops, budgets and memberships stay. Raises Conflict (field
        `before`), and forgets no more, where the learner has not read all of them, or not unlearned those of
        erased customers.
        """

    async def prune_snapshots(self, before: datetime) -> int:
        """Forgets the snapshots made before, but for the live ones and the pinned; how many. Decisions that
        were made with one of them cannot be made again."""

    async def scrub(self) -> None:
        """Has the files of the database hold nothing any more of what is not in it: rewrites them. Takes its
        time, needs as much room again, and others may have to wait for it."""


class Reports(Protocol):
    """What is counted over all customers. Takes its time, but nobody else's."""

    async def control_groups(self) -> list[ControlGroupSize]:
        """How many are in and out of each control group and window, by group, window and `member`."""

    async def cohorts(
        self,
        now: datetime,
        days: int,
        outcomes: Collection[str] | None = None,
        control_group: str | None = None,
    ) -> list[Cohort]:
        """What came of customers in the first `days` after their exposure, where these are over at `now`;
        by group, window, share and `member`; of one control group, or all.

        What counts are responses with one of `outcomes`; by default, with that which the decision's own
        catalog gives the highest reward on its channel, if that is above 0. Never one that was corrected.
        Nothing comes back before its decision, or later than it was received, whatever a caller's clock says.
        """

    async def budgets(self) -> list[BudgetUse]:
        """What is taken of each budget in each of its periods, by budget, the newest period first."""

    async def fairness(self, counting: Counting) -> dict[Measured, Rate]:
        """How often what was shown, and accepted, by levels of sensitive attributes as they were recorded
        with each decision: sums over customers, each once in a level, by whatever names.

        Exposure: of decisions (n), those with any item of the line (s). Acceptance: of items shown whose
        label has an outcome (n), those with one that counts (s).
        """


class Catalogs(Protocol):
    """Published catalogs. A version's document never changes."""

    async def publish_catalog(
        self,
        version: str,
        document: bytes,
        at: datetime,
        events: Sequence[Event] = (),
        expected: int | None = None,
    ) -> None:
        """Keeps the document under its version (if new) and makes it the live one; in the same transaction
        `events` come into the audit trail. Raises Conflict, and does nothing, as `Audit.append` does."""

    async def keep_catalog(self, version: str, document: bytes) -> None:
        """Keeps the document under its version (if new), and publishes nothing."""

    async def live_catalog(self) -> Publication | None:
        """The newest publication."""

    async def catalog(self, version: str) -> bytes | None:
        """The document of a version."""

    async def publications(self, limit: int = 100) -> list[Publication]:
        """Newest first."""

    async def news(self, seconds: float) -> None:
        """Returns when there may be another catalog, snapshot or pin to serve, at the latest after `seconds`.

        Never fails: where nothing can be heard of the database, it waits.
        """


class Learning(Protocol):
    """What the learner reads and writes. One transaction moves labels, snapshots and cursor together."""

    async def lead(self) -> bool:
        """Whether this store is the one that may learn: of all that ask, one at a time is. It stays so until
        it is closed, its process ends or it loses the database; then the next that asks is."""

    async def live_snapshots(self) -> dict[str, str]:
        """The snapshot version to serve of each lineage: the pinned one, or else the newest, whether it is
        still learned or not."""

    async def newest_snapshots(self) -> dict[str, str]:
        """The newest of each lineage, pinned or not."""

    async def current_snapshots(self) -> dict[str, str]:
        """Those of them that hold everything up to the learner's cursor."""

    async def snapshot(self, version: str) -> SnapshotRecord | None:
        """One snapshot."""

    async def snapshots(self, lineage: str, limit: int) -> list[tuple[str, datetime]]:
        """The versions there are of a lineage and when each was first made, the one that was last the newest
        first."""

    async def pins(self) -> dict[str, str]:
        """The pinned version of each lineage that has one."""

    async def pin(self, lineage: str, version: str | None, at: datetime) -> None:
        """Has a version of a lineage served until another is pinned; None: the newest again."""

    async def cursor(self) -> Cursor:
        """Where the learner stands; zeros at first."""

    async def unread(
        self, cursor: Cursor, limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord], Cursor]:
        """Up to `limit` decisions and `limit` responses after `cursor`, in commit order; where that leads.

        A response may come before its decision: each list has its own limit.
        """

    async def responses(self, decision_ids: Sequence[str]) -> list[ResponseRecord]:
        """All responses to these decisions, in commit order. The `stops` are not restored."""

    async def labels(self, decision_ids: Sequence[str]) -> dict[tuple[str, str], Label]:
        """The labels there are for these decisions, by (decision_id, treatment)."""

    async def erasures(self, limit: int) -> list[str]:
        """Up to `limit` decisions of erased customers that may still be learned from."""

    async def erased(self, decision_ids: Sequence[str]) -> set[str]:
        """Those of these decisions that must not be learned from."""

    async def due_labels(self, now: datetime, limit: int) -> list[Label]:
        """Labels whose `due_at` is at or before `now`, oldest first."""

    def learned(self) -> AsyncGenerator[tuple[DecisionRecord, Label], None]:
        """Every label that has an outcome, with its decision: what a state is a sum over."""

    def decided(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[tuple[DecisionRecord, tuple[Label, ...]], None]:
        """Every live decision with since ≤ decided_at < until that may be learned from, in commit order, with
        the labels of its items. An item without a label had no contact yet, or the learner has not come to
        it."""

    async def commit_learning(
        self,
        labels: Sequence[Label],
        snapshots: Sequence[SnapshotRecord],
        cursor: Cursor,
        *,
        expected: Cursor,
        lineages: Collection[str],
        unlearned: Collection[str] = (),
    ) -> Cursor:
        """Writes (upserts) labels, new snapshots and the cursor in one transaction; returns the cursor,
        one round on. The labels and the inputs of the decisions `unlearned` are removed, and they count as
        erased.

        A snapshot stored before becomes its lineage's newest again, and its content is written anew. The
        newest of each of `lineages` holds everything up to the new cursor; that of any other is not
        current from now on. Raises Conflict (field `cursor`) where
        the cursor is not at `expected`: another learner has moved it; and (field `snapshots`) where a
        version names a snapshot of another lineage.
        """


class Audit(Protocol):
    """The audit trail: events in one order, chained by hashes, never changed. The database refuses to."""

    async def append(self, events: Sequence[Event], at: datetime, expected: int | None = None) -> list[Entry]:
        """Adds events at the end, all or none. Raises Conflict (field `expected`) where `expected`, if given,
        is not the newest entry with `state` (0: there is none): somebody was faster."""

    async def entries(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        state: bool = False,
        subjects: Collection[str] | None = None,
    ) -> list[Entry]:
        """Those after a position, in their order; only those with `state`, only those about some subjects,
        or all."""

    async def broken(self, since: int = 1, noted: tuple[int, str] | None = None) -> str | None:
        """Walks the chain from entry `since` on: what is wrong first, or None. `noted`: an entry and its hash
        that were written down elsewhere, to be found again."""

    async def head(self) -> tuple[int, str]:
        """The newest entry and its hash; (0, zeros) at first."""

    async def secret(self) -> bytes:
        """32 random bytes that were made with the database and never change."""


class Store(Profiles, Ledger, Reports, Catalogs, Learning, Audit, Protocol):
    """All of it, with a life cycle."""

    async def situation(
        self,
        who: str | Identity,
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
        request_id: str | None = None,
    ) -> Situation:
        """What there is of a customer, by id or identity, for a decision at `now`: see `resolve`, `names`,
        `customer`, `standing`, and `decision_of_request`, which looks under the name asked for first (an
        identity's is its pseudonym)."""

    async def open(self) -> None:
        """Connects and brings the schema up to date."""

    async def close(self) -> None:
        """Waits for what is being written, then disconnects."""

    async def ping(self) -> None:
        """Returns if the store can be read; raises StoreUnavailable if not."""

    def waiting(self) -> int:
        """How many writes wait for their turn, in this process."""

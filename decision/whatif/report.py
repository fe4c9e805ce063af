"""What a what-if, or an evaluation, has to say: plain data, from which the screen and the page are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from arbitration.catalog.compile import CompiledCatalog
from arbitration.evaluation import Estimate, Estimator
from decision.fairness.bounds import BoundVerdict
from decision.whatif.evidence import Compared
from decision.whatif.judging import Example, Judgement

_NOTHING = 1e-9
_ARMS = 20
_LEAST_SHARE = 0.001  # of all items, for an arm's missing support to be mentioned


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure per decision with its interval; all None where it must not be quoted, for the reasons in
    `warnings` (see `arbitration.evaluation.SupportWarning`)."""

    value: float | None
    low: float | None
    high: float | None
    effective_sample_size: float
    warnings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: `reward`, `value` (reward × the action's value) or `money` (as reported). `of`: `all`, or
    the channel or group that `name` names."""

    metric: str
    of: str
    name: str
    decisions: int
    today: Bounds
    target: Bounds
    difference: Bounds


@dataclass(frozen=True, slots=True)
class Change:
    """Of all decisions (`channel` empty) or of a channel's: how many, the share that differs in any draw, and
    the mean probability that the first pick is another one."""

    channel: str
    decisions: int
    changed: float
    other_pick: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Expected items a decision (of a group, an arm), or contacts a customer (on a channel, by a policy),
    today and for the target. `unsupported`: of the latter, what the log could not have shown. `note`: `comes`
    or `goes`, of an arm that only one of both shows."""

    name: str
    today: float
    target: float
    unsupported: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What a contact policy holds back: (today, for the target)."""

    policy: str
    decisions: tuple[int, int]
    arms: tuple[int, int]
    counted: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one target. `states`: by policy, how often each origin of a snapshot was used."""

    name: str
    description: str
    decisions: int
    customers: int
    figures: tuple[Figure, ...]
    changes: tuple[Change, ...]
    groups: tuple[Moved, ...]
    arms: tuple[Moved, ...]
    contacts: tuple[Moved, ...]
    held: tuple[Held, ...]
    examples: tuple[Example, ...]

    @property
    def moving(self) -> list[Moved]:
        """The arms to be looked at: first those with a note, then those that move most."""
        moving = (each for each in self.arms if each.note or abs(each.target - each.today) > _NOTHING)
        return sorted(moving, key=lambda each: (not each.note, -abs(each.target - each.today)))[:_ARMS]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `read`, `judged`: decisions; `left_out`: why the others were not judged; `catalogs`: how
    many each version made; `missing`: facts the candidate wants, and of how many decisions the log lacks
    them; `lacking`: placements of the log that it does not have; `notes`: in words, what is to be known;
    `bounds`: what is found of fairness bounds."""

    kind: str
    candidate: str
    estimator: Estimator
    confidence: float
    since: str | None
    until: str | None
    read: int
    judged: int
    left_out: Mapping[str, int]
    catalogs: Mapping[str, int]
    seconds: float
    states: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, int]
    lacking: Mapping[str, int]
    notes: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = field(default=())
    bounds: tuple[BoundVerdict, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; the fields are those of the classes of this module."""
        return asdict(self)


def verdict(
    name: str,
    description: str,
    judgement: Judgement,
    catalog: CompiledCatalog,
    estimator: Estimator,
    confidence: float,
    *,
    money: bool,
) -> Verdict:
    """What is found out about one target, in figures. `catalog`: the target's; `money`: some was reported."""
    evidence = judgement.evidence
    decisions, customers = max(evidence.decisions, 1), max(evidence.customers, 1)
    counted = judgement.counted(catalog)
    load = judgement.load
    return Verdict(
        name,
        description,
        evidence.decisions,
        evidence.customers,
        tuple(_figures(judgement, estimator, confidence, money=money)),
        tuple(_changes(judgement)),
        tuple(
            Moved(group, each.today / decisions, each.target / decisions, each.unsupported / decisions)
            for group, each in sorted(judgement.groups.items())
        ),
        tuple(_arms(judgement, decisions)),
        tuple(
            Moved(channel, each.today / customers, each.target / customers)
            for channel, each in sorted(judgement.contacts.items())
        ),
        tuple(
            Held(
                policy,
                (load[policy].decisions[0], load[policy].decisions[1]),
                (load[policy].arms[0], load[policy].arms[1]),
                (
                    counted[policy].today / customers if policy in counted else 0.0,
                    counted[policy].target / customers if policy in counted else 0.0,
                ),
            )
            for policy in sorted({*load, *counted})
        ),
        tuple(judgement.examples()),
    )


def _figures(
    judgement: Judgement, estimator: Estimator, confidence: float, *, money: bool
) -> Iterator[Figure]:
    evidence = judgement.evidence
    if not evidence.decisions:
        return
    for metric in ("reward", "value", "money") if money else ("reward", "value"):
        found = evidence.compared(metric, estimator, confidence)
        yield _figure(metric, "all", "", evidence.decisions, found)
        for channel in evidence.classes if len(evidence.classes) > 1 else ():
            found = evidence.compared(metric, estimator, confidence, kind=channel)
            yield _figure(metric, "channel", channel, judgement.channels[channel].decisions, found)
        for group in evidence.groups:
            found = evidence.compared(metric, estimator, confidence, group=group)
            yield _figure(metric, "group", group, evidence.decisions, found)


def _figure(metric: str, of: str, name: str, decisions: int, found: Compared) -> Figure:
    return Figure(
        metric,
        of,
        name,
        decisions,
        *(_bounds(each, found.scale) for each in (found.today, found.target, found.difference)),
    )


def _bounds(found: Estimate, scale: float) -> Bounds:
    def scaled(number: float | None) -> float | None:
        return None if number is None else number * scale

    return Bounds(
        scaled(found.value),
        scaled(found.low),
        scaled(found.high),
        found.effective_sample_size,
        tuple(asdict(warning) for warning in found.warnings),
    )


def _changes(judgement: Judgement) -> Iterator[Change]:
    shares = judgement.channels
    total = max(sum(each.decisions for each in shares.values()), 1)
    yield Change(
        "",
        sum(each.decisions for each in shares.values()),
        sum(each.changed for each in shares.values()) / total,
        sum(each.other_pick for each in shares.values()) / total,
    )
    for channel, each in sorted(shares.items()):
        yield Change(channel, each.decisions, each.changed / each.decisions, each.other_pick / each.decisions)


def _arms(judgement: Judgement, decisions: int) -> Iterator[Moved]:
    """Those that come or go, those the log says too little of, and how all the others move."""
    for (_, treatment), each in sorted(judgement.arms.items()):
        note = ""
        if each.today <= _NOTHING < each.target:
            note = "comes"
        elif each.target <= _NOTHING < each.today:
            note = "goes"
        elif each.unsupported / decisions > _LEAST_SHARE:
            note = "thin support"
        yield Moved(
            treatment,
            each.today / decisions,
            each.target / decisions,
            each.unsupported / decisions,
            note,
        )

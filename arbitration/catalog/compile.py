"""Compiles a checked catalog, once, into the immutable, indexed form that decisions are made from.

Arms (treatments) are numbered so that those of one placement are neighbours: what is known of them is
then a slice of one array, and the candidates of a request are an index, not a scan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.catalog.arrays import (
    Bools,
    Floats,
    Ints,
    Positions,
    floats,
    frozen,
    ints,
    mask,
    positions,
    rectangle,
)  # fmt: skip
from arbitration.catalog.learning import Policy, Thompson
from arbitration.catalog.limits import QUIET_HOURS, Budget, ControlGroup, Level
from arbitration.catalog.model import Action, Catalog, Channel, Group, Placement, Rule, Treatment
from arbitration.catalog.problems import Source
from arbitration.catalog.programs import Programs
from arbitration.catalog.provenance import Call, calls
from arbitration.catalog.scalars import moment, ticks
from arbitration.catalog.validate import check
from arbitration.contact import Limits, limits_of, selected
from arbitration.derived import Derivations, derivations
from arbitration.errors import CatalogError
from arbitration.facts import Declared, declarations
from arbitration.features import Encoder
from arbitration.index import Index
from arbitration.rules import Program, Rules, language_of
from arbitration.worth import Worth, worth_of

Longs = npt.NDArray[np.int64]

STAGES = ("eligibility", "applicability", "suitability")
DEFAULT_POLICY = Thompson(id="default", strategy="thompson")


@dataclass(frozen=True, slots=True)
class Arm:
    """A treatment, or one of its incentives, with the action and group it belongs to. `reasons`: the action's
    rules in words."""

    treatment: Treatment
    action: Action
    group: Group
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """The arms a contact policy may hold back. `target`: what it counts all of a placement's arms under; None
    where each is counted under its group, action or treatment. `covered` bool (K,); `exempt` bool (K,): would
    be covered, but is left alone. `under`: the positions of the covered arms, by what they are counted
    under."""

    level: Level
    target: str | None
    covered: Bools
    exempt: Bools
    under: Mapping[str, Positions]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The arms of one placement, as arrays of length K (one entry per arm, in arm order).

    `first`: number of the first arm. `clauses`: per stage an int32 array (K, most clauses), indices
    into the catalog's rules, padded with the index of the always-true entry. `needed`: the distinct
    clauses of all of them. `valid_from`, `valid_to`: epoch seconds, ±inf where open. `value`: the
    constant value, or nan where `value_programs`, (program, arms (K,)) pairs, give it per customer.
    `tier`, `group` and `action` are int32 (K,); `group_numbers` and `action_numbers` map ids to them,
    `treatment_numbers` to positions.
    `weights` float64 (W, K): the context weight of each arm (1 where it is not meant) while clause
    `weight_clauses` (W,) holds. `purposes`: (purpose, bool (K,)) for each consent some arm needs.
    `cost` float64 (K,): what showing the arm costs. `takes` int64 (K,): what it takes from its action's
    budget, in times or ticks of money; 0 without one. `budgets`: those of the actions here; each with what
    its arms here may take of it, ascending. `held`: by contact policy. `disturbs` bool (K,): it pays no heed
    to quiet hours. `controls`: (control group, bool (K,) of the arms it covers), in the catalog's order.
    `index`: the clauses of each arm, then those of each context weight. `worth`: the values less the costs.
    `all_valid`: from when until when all arms are. `under`: the positions of the arms of each (scope, id),
    scope `action` or `group`. `neutral` float64 (K,): ones. `tiered`: there is more than one tier.
    `together`: the most arms that cannot be shown any more once one arm is.
    """

    placement: Placement
    channel: Channel
    policy: Policy
    first: int
    arms: tuple[Arm, ...]
    clauses: tuple[Ints, ...]
    needed: tuple[int, ...]
    valid_from: Floats
    valid_to: Floats
    tier: Ints
    group: Ints
    action: Ints
    lever: Floats
    value: Floats
    value_programs: tuple[tuple[int, Bools], ...]
    group_numbers: Mapping[str, int]
    action_numbers: Mapping[str, int]
    treatment_numbers: Mapping[str, int]
    weight_clauses: Ints
    weights: Floats
    purposes: tuple[tuple[str, Bools], ...]
    cost: Floats
    takes: Longs
    budgets: Mapping[str, tuple[Budget, tuple[int, ...]]]
    held: Mapping[str, Held]
    disturbs: Bools
    controls: tuple[tuple[ControlGroup, Bools], ...]
    index: Index
    worth: Worth
    all_valid: tuple[float, float]
    under: Mapping[tuple[str, str], Positions]
    neutral: Floats
    tiered: bool
    together: int

    def __len__(self) -> int:
        return len(self.arms)


@dataclass(frozen=True)
class CompiledCatalog:
    """A catalog ready to decide with. Immutable; shared by all decisions of a version."""

    version: str
    model: Catalog
    declared: Mapping[str, Declared]
    rules: Rules
    values: tuple[Program, ...]
    channels: Mapping[str, Channel]
    candidates: Mapping[str, Candidates]
    policies: Mapping[str, Policy]
    encoders: Mapping[str, Encoder]
    arms: tuple[Arm, ...]
    calls: tuple[Call, ...]
    derivations: Derivations
    limits: Limits

    @cached_property
    def arm_ids(self) -> tuple[str, ...]:
        """Treatment ids in arm order."""
        return tuple(arm.treatment.id for arm in self.arms)

    @cached_property
    def objectionable(self) -> tuple[str, ...]:
        """The purposes whose withdrawal is an objection to profiling."""
        return tuple(purpose.id for purpose in self.model.purposes if purpose.profiling)

    @cached_property
    def arm_of(self) -> Mapping[str, Arm]:
        """Arm by treatment id."""
        return {arm.treatment.id: arm for arm in self.arms}


def canonical(catalog: Catalog) -> bytes:
    """The catalog as canonical JSON: sorted keys, defaults written out. Equal catalogs, equal bytes.

    With its defaults written out a stored version means the same when a later release changes a default.
    """
    if not catalog.policies:
        catalog = catalog.model_copy(update={"policies": (DEFAULT_POLICY,)})
    document = catalog.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def version(catalog: Catalog) -> str:
    """The version of a catalog: the first 16 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical(catalog)).hexdigest()[:16]


def compile_document(document: Mapping[str, object], published_as: str | None = None) -> CompiledCatalog:
    """Checks and compiles a document. Raises CatalogError with every problem found.

    `published_as`: the version under which it was published, where it was.
    """
    result = check(Source(document))
    if result.catalog is None:
        raise CatalogError(result.problems)
    return compile_catalog(result.catalog, published_as)


def compile_catalog(catalog: Catalog, published_as: str | None = None) -> CompiledCatalog:
    """Compiles a catalog that `arbitration.catalog.validate.check` has passed."""
    declared = declarations(catalog)
    programs = Programs(language_of(declared))
    policies = {policy.id: policy for policy in catalog.policies or (DEFAULT_POLICY,)}
    groups = {group.id: group for group in catalog.groups}
    channels = {channel.id: channel for channel in catalog.channels}
    candidates: dict[str, Candidates] = {}
    arms: list[Arm] = []
    for placement in catalog.placements:
        here = [
            Arm(variant, action, groups[action.group], _reasons(action))
            for action in catalog.actions
            for treatment in action.treatments
            if treatment.placement == placement.id
            for variant in treatment.variants
        ]
        policy = policies[placement.policy] if placement.policy else next(iter(policies.values()))
        candidates[placement.id] = _index(
            catalog, programs, placement, channels[placement.channel], policy, here, len(arms)
        )
        arms += here
    return CompiledCatalog(
        version=published_as or version(catalog),
        model=catalog,
        declared=declared,
        rules=Rules(programs.language, tuple(programs.clauses.values())),
        values=tuple(programs.values.values()),
        channels=channels,
        candidates=candidates,
        policies=policies,
        encoders={name: Encoder(catalog.features, policy.features) for name, policy in policies.items()},
        arms=tuple(arms),
        calls=calls(catalog),
        derivations=derivations(catalog, declared, programs.language),
        limits=limits_of(catalog),
    )


def _index(
    catalog: Catalog,
    programs: Programs,
    placement: Placement,
    channel: Channel,
    policy: Policy,
    arms: list[Arm],
    first: int,
) -> Candidates:
    rows = [[_clauses(programs, arm.action, stage) for arm in arms] for stage in STAGES]
    weightings = [
        (programs.clause(item.when), np.where(covered, item.weight, 1.0))
        for item in catalog.context_weights
        if (covered := _covered(item, arms)).any()
    ]
    lists = [{clause for stage in rows for clause in stage[arm]} for arm in range(len(arms))]
    lists += [{clause} for clause, _ in weightings]
    value = floats([np.nan if isinstance(v := arm.action.value, str) else v for arm in arms])
    cost = floats([arm.treatment.cost for arm in arms])
    value_programs = tuple(
        (programs.value(text), np.array([arm.action.value == text for arm in arms], dtype=np.bool_))
        for text in dict.fromkeys(arm.action.value for arm in arms)
        if isinstance(text, str)
    )
    compiled = tuple(programs.values.values())
    valid_from = floats([_epoch(arm.action.valid.from_, -np.inf) for arm in arms])
    valid_to = floats([_epoch(arm.action.valid.to, np.inf, end=True) for arm in arms])
    groups = {group.id: number for number, group in enumerate(catalog.groups)}
    actions = {action.id: number for number, action in enumerate(catalog.actions)}
    tiers = [arm.group.tier if arm.action.tier is None else arm.action.tier for arm in arms]
    by_action = positions([("action", arm.action.id) for arm in arms])
    by_group = positions([("group", arm.group.id) for arm in arms])
    alike = by_action if placement.max_per_group is None else by_group
    purposes = sorted({p for arm in arms for p in (arm.group.consent, channel.consent) if p is not None})
    return Candidates(
        placement=placement,
        channel=channel,
        policy=policy,
        first=first,
        arms=tuple(arms),
        clauses=tuple(rectangle(stage) for stage in rows),
        needed=tuple(sorted(set().union(*lists))),
        valid_from=valid_from,
        valid_to=valid_to,
        tier=ints(tiers),
        group=ints([groups[arm.group.id] for arm in arms]),
        action=ints([actions[arm.action.id] for arm in arms]),
        lever=floats([arm.action.lever for arm in arms]),
        value=value,
        value_programs=value_programs,
        group_numbers=groups,
        action_numbers=actions,
        treatment_numbers={arm.treatment.id: number for number, arm in enumerate(arms)},
        weight_clauses=ints([clause for clause, _ in weightings]),
        weights=frozen(np.array([row for _, row in weightings]).reshape(len(weightings), len(arms))),
        purposes=tuple(
            (p, np.array([p in (arm.group.consent, channel.consent) for arm in arms], dtype=np.bool_))
            for p in purposes
        ),
        cost=cost,
        takes=frozen(np.array([taken(arm) for arm in arms], dtype=np.int64)),
        budgets={
            arm.action.id: (
                arm.action.budget,
                tuple(sorted({taken(other) for other in arms if other.action is arm.action})),
            )
            for arm in arms
            if arm.action.budget is not None
        },
        held=_held(catalog, channel, arms),
        disturbs=mask(QUIET_HOURS in arm.action.exempt for arm in arms),
        controls=tuple(
            (control, covered)
            for control in catalog.control_groups
            if (covered := mask(_controlled(control, arm) for arm in arms)).any()
        ),
        index=programs.index(lists),
        worth=worth_of(
            value,
            cost,
            [(compiled[number], covered) for number, covered in value_programs],
            programs.language.types,
        ),
        all_valid=(max(valid_from, default=-np.inf), min(valid_to, default=np.inf)),
        under=by_action | by_group,
        neutral=floats([1.0] * len(arms)),
        tiered=len(set(tiers)) > 1,
        together=max(map(len, alike.values()), default=0),
    )


def taken(arm: Arm) -> int:
    """What showing an arm takes from its action's budget: once, or its cost in ticks of money."""
    if arm.action.budget is None:
        return 0
    return 1 if arm.action.budget.money is None else ticks(arm.treatment.cost)


def _held(catalog: Catalog, channel: Channel, arms: list[Arm]) -> dict[str, Held]:
    found = {}
    for policy in catalog.contact_policies:
        chosen = policy.holds or policy.of
        direction = channel.direction
        covered = mask(selected(chosen, direction, channel.id, arm.group.id, arm.action.id) for arm in arms)
        exempt = covered & mask(policy.id in arm.action.exempt for arm in arms)
        target = {"customer": "", "direction": direction, "channel": channel.id}.get(policy.per)
        if covered.any():
            held = covered & ~exempt
            counted = [getattr(arm, policy.per).id if target is None else target for arm in arms]
            found[policy.id] = Held(policy.per, target, held, exempt, positions(counted, held))
    return found


def _controlled(control: ControlGroup, arm: Arm) -> bool:
    return (
        (control.groups is None or arm.group.id in control.groups)
        and (control.actions is None or arm.action.id in control.actions)
        and control.id not in arm.action.exempt
    )


def _clauses(programs: Programs, action: Action, stage: str) -> list[int]:
    clauses = getattr(action, stage)
    return [programs.clause(clause.rule if isinstance(clause, Rule) else clause) for clause in clauses]


def _reasons(action: Action) -> tuple[str, ...]:
    clauses = (clause for stage in STAGES for clause in getattr(action, stage))
    return tuple(clause.why for clause in clauses if isinstance(clause, Rule))


def _covered(item: Any, arms: list[Arm]) -> Bools:
    return np.array(
        [item.action in (None, arm.action.id) and item.group in (None, arm.group.id) for arm in arms],
        dtype=np.bool_,
    )


def _epoch(text: str | None, open_end: float, *, end: bool = False) -> float:
    return open_end if text is None else moment(text, end_of_day=end).timestamp()

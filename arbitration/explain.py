"""Why a decision came out as it did: read from the decision itself, after the fact.

Plain JSON in the shape of the API's explanation: what was known and from where; per placement the funnel,
every removed arm with its stage, reason, rule and the values the rule saw, and every remaining arm with each
factor of its priority.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.catalog.limits import QUIET_HOURS
from arbitration.catalog.scalars import DECIMALS
from arbitration.contact import ALL
from arbitration.decide import Decision, Floats, Indices, Slate, decide, requested
from arbitration.errors import SnapshotError
from arbitration.facts import REQUEST, personal, rfc3339, to_json
from arbitration.inputs import Inputs
from arbitration.policy.strategies import propensity
from arbitration.rules import Truth
from arbitration.screening import STAGES, Stage, counted, halted, stopped
from arbitration.snapshot import Snapshots

_RULE_REASONS = {Truth.FALSE: "rule_false", Truth.MISSING: "rule_missing_value", Truth.ERROR: "rule_error"}
_RULE_STAGES = (Stage.ELIGIBILITY, Stage.APPLICABILITY, Stage.SUITABILITY)

REASONS = (
    "halted",
    *_RULE_REASONS.values(),
    "profiling",
    "not_yet_valid",
    "expired",
    "stopped",
    "contact:<policy>",
    "quiet_hours",
    "consent:<purpose>",
    "budget",
    "control:<control group>",
    "no_value",
)
"""The closed list of reasons for removing an arm; in angle brackets stands the id of what is meant."""


def explain(decision: Decision, catalog: CompiledCatalog) -> dict[str, Any]:
    """The explanation of `decision`, which `catalog` made."""
    shown: set[str] = set()
    placements = []
    for slate in decision.slates:
        placements.append(_placement(slate, decision, catalog, frozenset(shown)))
        shown |= {item.arm.action.id for item in slate.items}
    inputs = decision.inputs
    return {
        "decision_id": decision.inputs.decision_id,
        "channel": decision.channel,
        "not_before": decision.not_before,
        "objects_to_profiling": inputs.objects,
        "control_groups": [
            {"id": control.id, "behaviour": control.behaviour, "member": inputs.controls[control.id]}
            for control in catalog.model.control_groups
            if control.id in inputs.controls
        ],
        "facts": list(_facts(decision.inputs, catalog)),
        "degraded": list(decision.inputs.degraded),
        "placements": placements,
    }


def shadows(inputs: Inputs, catalog: CompiledCatalog, snapshots: Snapshots) -> list[dict[str, Any]]:
    """What each shadow of the champions that decided would have done with the same inputs: for each placement
    what it ranked, in the shape of `explain`; or why its snapshot cannot be used any more (`unavailable`)."""
    if inputs.objects:
        return []
    asked = {candidates.policy.id: candidates.policy for candidates, _ in requested(inputs, catalog)}
    found: list[dict[str, Any]] = []
    for champion in asked.values():
        for each in (challenger.policy for challenger in champion.challengers if challenger.shadow):
            assigned = {**inputs.assigned, champion.id: each}
            try:
                decision = decide(replace(inputs, assigned=assigned), catalog, snapshots)
            except SnapshotError as error:
                lost = {"policy": each, "snapshot": snapshots[each].version, "unavailable": str(error)}
                found.append({**lost, "placement": None, "ranked": []})
                continue
            explained = explain(decision, catalog)["placements"]
            found += [
                {
                    "policy": each,
                    "snapshot": snapshots[each].version,
                    "placement": placement["id"],
                    "ranked": placement["ranked"],
                }
                for placement, slate in zip(explained, decision.slates, strict=True)
                if slate.candidates.policy is champion
            ]
    return found


def _facts(inputs: Inputs, catalog: CompiledCatalog) -> Iterator[dict[str, Any]]:
    """All that was known, each with where it came from and how old it was, where a source was asked."""
    consents = {f"consents.{purpose.id}": purpose for purpose in catalog.model.purposes}
    origins = {name: declared.origin for name, declared in catalog.declared.items()}
    origins |= {name: purpose.source for name, purpose in consents.items()}
    known = {*inputs.facts, *(f"consents.{purpose}" for purpose in inputs.consents)}
    for name in (name for name in origins if name in known):
        source = REQUEST if name in inputs.given else origins[name]
        yield {
            "name": name,
            "value": inputs.consents[consents[name].id] if name in consents else _seen(inputs, catalog, name),
            "source": source,
            "age_seconds": inputs.fetched.get(source),
        }


def _placement(
    slate: Slate, decision: Decision, catalog: CompiledCatalog, shown: frozenset[str]
) -> dict[str, Any]:
    inputs = decision.inputs
    passes = slate.screening.passes
    remaining = np.logical_and.accumulate(passes, axis=0).sum(axis=1)
    funnel = [{"stage": "candidates", "remaining": len(slate.candidates)}]
    funnel += [
        {"stage": str(stage), "remaining": int(n)}
        for stage, n in zip(STAGES, remaining, strict=True)
        # What was explained before there were halts is still explained in the same bytes.
        if stage is not Stage.HALT or inputs.halts
    ]
    removed = [
        _removed(slate, int(arm), STAGES[int(np.argmin(passes[:, arm]))], inputs, catalog)
        for arm in np.flatnonzero(~slate.screening.alive)
    ]
    return {
        "id": slate.candidates.placement.id,
        "policy": slate.policy.id,
        # What was explained before there were apprentices is still explained in the same bytes.
        **({"apprentice": True} if slate.apprentice else {}),
        "funnel": funnel,
        "removed": removed,
        "ranked": _ranked(slate, decision, shown),
        "slots": [
            {
                "rank": rank,
                "treatment": slate.items[rank - 1].arm.treatment.id,
                "draw": slot.draw,
                "probabilities": {
                    catalog.candidates[placement].arms[arm].treatment.id: float(chance)
                    for placement, pool, chances in (
                        (slate.candidates.placement.id, slot.pool, slot.probabilities),
                        *slot.rivals,
                    )
                    for arm, chance in zip(pool, chances, strict=True)
                },
            }
            for rank, slot in enumerate(slate.slots, start=1)
        ],
        "no_action_reason": slate.no_action,
    }


def _removed(
    slate: Slate, arm: int, stage: Stage, inputs: Inputs, catalog: CompiledCatalog
) -> dict[str, Any]:
    reason, rule, values = _why(slate, arm, stage, inputs, catalog)
    return {
        "treatment": slate.candidates.arms[arm].treatment.id,
        "action": slate.candidates.arms[arm].action.id,
        "stage": str(stage),
        "reason": reason,
        "rule": rule,
        "values": values,
    }


def _why(
    slate: Slate, arm: int, stage: Stage, inputs: Inputs, catalog: CompiledCatalog
) -> tuple[str, str | None, dict[str, Any]]:
    """The reason for a removal, the rule it follows from, and what that rule saw."""
    candidates = slate.candidates
    action = candidates.arms[arm].action
    match stage:
        case Stage.HALT:
            halt = next(each for each in inputs.halts if halted(candidates, [each])[arm])
            return "halted", ":".join(halt), {}
        case Stage.ELIGIBILITY | Stage.APPLICABILITY | Stage.SUITABILITY:
            clauses = candidates.clauses[_RULE_STAGES.index(stage)][arm]
            clause = int(clauses[np.argmax(slate.screening.status[clauses] != Truth.TRUE)])
            program = catalog.rules.programs[clause]
            if inputs.objects and any(personal(name) for name in program.names if name != "now"):
                return "profiling", program.text, {}
            seen = {name: _seen(inputs, catalog, name) for name in program.names}
            return _RULE_REASONS[Truth(int(slate.screening.status[clause]))], program.text, seen
        case Stage.VALIDITY:
            begun = candidates.valid_from[arm] <= inputs.now.timestamp()
            reason = "expired" if begun else "not_yet_valid"
            return reason, _validity(candidates, arm), {"now": rfc3339(inputs.now)}
        case Stage.STOP:
            stops = (s for s in inputs.stops if stopped(candidates, *s)[arm])
            return "stopped", ":".join(next(stops)), {}
        case Stage.CONTACT:
            policy = next(iter(_held_back(candidates, arm, inputs, exempt=False)))
            return f"contact:{policy}", *_contact(policy, candidates, arm, inputs, catalog)
        case Stage.QUIET_HOURS:
            until = inputs.quiet[candidates.channel.id]
            return "quiet_hours", f"quiet hours of {candidates.channel.id}", {"until": until}
        case Stage.CONSENT:
            purpose = next(
                purpose
                for purpose, needed in candidates.purposes
                if needed[arm] and inputs.consents.get(purpose) != "given"
            )
            return f"consent:{purpose}", inputs.consents.get(purpose, "unknown"), {}
        case Stage.BUDGET:
            assert action.budget is not None
            spelled = action.budget.model_dump_json(exclude_none=True)
            left = None if inputs.budgets is None else inputs.budgets.get(action.id)
            if left is not None and action.budget.money is not None:
                return "budget", spelled, {"left": left / 10**DECIMALS, "cost": float(candidates.cost[arm])}
            return "budget", spelled, {"left": left}
        case Stage.CONTROL:
            control = next(
                control
                for control, covered in candidates.controls
                if covered[arm] and control.behaviour == "no_action" and inputs.controls.get(control.id)
            )
            return f"control:{control.id}", f"{control.share:g} of customers: {control.behaviour}", {}
        case Stage.VALUE:
            value = action.value
            names: tuple[str, ...] = ()
            if isinstance(value, str):
                number = next(number for number, rows in candidates.value_programs if rows[arm])
                names = catalog.values[number].names
            cost = candidates.cost[arm]
            rule = str(value).strip() + (f" - {cost:g}" if cost else "")
            return "no_value", rule, {name: _seen(inputs, catalog, name) for name in names}


def _held_back(candidates: Candidates, arm: int, inputs: Inputs, *, exempt: bool) -> Iterator[str]:
    """The contact policies that hold an arm back, or would if it were not exempt."""
    for policy, targets in inputs.holds.items():
        held = candidates.held.get(policy)
        if held is None or not (held.exempt if exempt else held.covered)[arm]:
            continue
        if counted(candidates, policy, targets)[arm]:
            yield policy


def _contact(
    name: str, candidates: Candidates, arm: int, inputs: Inputs, catalog: CompiledCatalog
) -> tuple[str, dict[str, Any]]:
    policy = catalog.limits.limits[name].policy
    where = candidates.arms[arm]
    target = {
        "group": where.group.id,
        "action": where.action.id,
        "treatment": where.treatment.id,
    }.get(policy.per, candidates.held[name].target or "")
    targets = inputs.holds[name]
    rule = policy.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True, exclude={"id"})
    return rule, {"counted": target or "customer", "until": targets.get(target, targets.get(ALL))}


def _validity(candidates: Candidates, arm: int) -> str:
    valid = candidates.arms[arm].action.valid
    return f"from {valid.from_ or '…'} to {valid.to or '…'}"


def _seen(inputs: Inputs, catalog: CompiledCatalog, name: str) -> object:
    if name == "now":
        return rfc3339(inputs.now)
    if name not in inputs.facts:
        return None
    if catalog.declared[name].pii:
        return "(pii)"
    value = to_json(inputs.facts[name])
    return value["timestamp"] if isinstance(value, dict) else value


def _ranked(slate: Slate, decision: Decision, shown: frozenset[str]) -> list[dict[str, Any]]:
    """Remaining arms, the likeliest for the first draw first: that of the first slot, or, where the channel
    was chosen, the one it was chosen by. Probabilities are those of that draw.

    `held_back`: why an arm could not be picked there: `shown_already` (its action, in a placement before), or
    `lower_tier`. `exempt`: the limits it would not have passed if it were not exempt from them. `shown`: the
    actions of the placements before.
    """
    candidates, screening = slate.candidates, slate.screening
    chance, could = np.zeros(len(candidates)), np.zeros(len(candidates), dtype=np.bool_)
    for placement, pool, chances in _first_draw(slate, decision):
        if placement == candidates.placement.id:
            chance[pool], could[pool] = chances, True
    alive = np.flatnonzero(screening.alive)
    order = alive[np.lexsort((alive, -slate.priority[alive], -chance[alive]))]
    belief = propensity(slate.mean)
    scale = slate.policy.value_scale

    def held_back(arm: int) -> str | None:
        if could[arm]:
            return None
        return "shown_already" if candidates.arms[arm].action.id in shown else "lower_tier"

    return [
        {
            "treatment": candidates.arms[arm].treatment.id,
            "action": candidates.arms[arm].action.id,
            "tier": int(candidates.tier[arm]),
            "propensity": None if scale is not None else _estimate(belief[arm]),
            **({} if scale is None else {"expected_value": _estimate(belief[arm] * scale)}),
            "posterior_mean": _estimate(slate.mean[arm]),
            # An empty neighbourhood of MABWiser's has none.
            "posterior_sd": None if slate.sd[arm] < 0 else _estimate(slate.sd[arm]),
            "context_weight": float(screening.context_weight[arm]),
            "value": float(screening.value[arm]),
            "lever": float(slate.lever[arm]),
            "priority": _estimate(slate.priority[arm]),
            "selection_probability": float(chance[arm]),
            "held_back": held_back(int(arm)),
            "exempt": _exempt(candidates, int(arm), decision.inputs),
        }
        for arm in order
    ]


def _first_draw(slate: Slate, decision: Decision) -> tuple[tuple[str, Indices, Floats], ...]:
    """The draw that an arm of this placement could first have won: (placement, arms, probabilities)."""
    slates = [slate] if len(decision.inputs.channels) == 1 else decision.slates
    first = [
        (each, slot) for each in slates for slot in each.slots[:1] if slot.chose_channel or each is slate
    ]
    for each, slot in sorted(first, key=lambda found: not found[1].chose_channel):
        return (each.candidates.placement.id, slot.pool, slot.probabilities), *slot.rivals
    return ()


def _exempt(candidates: Candidates, arm: int, inputs: Inputs) -> list[str]:
    found = list(_held_back(candidates, arm, inputs, exempt=True))
    if candidates.channel.id in inputs.quiet and candidates.disturbs[arm]:
        found.append(QUIET_HOURS)
    action = candidates.arms[arm].action
    return [*found, *(name for name in action.exempt if inputs.controls.get(name))]


def _estimate(number: float) -> float | None:
    return None if np.isnan(number) else float(number)

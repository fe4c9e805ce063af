"""Why a decision came out as it did: read from the decision itself, after the fact.

Plain JSON in the shape of the API's explanation: what was known and from where; per placement the funnel,
every removed arm with its stage, reason, rule and the values the rule saw, and every remaining arm with each
factor of its priority.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from arbitration.catalog.compile import Candidates, CompiledCatalog
from arbitration.decide import Decision, Slate
from arbitration.facts import REQUEST, rfc3339, to_json
from arbitration.inputs import Inputs
from arbitration.policy.strategies import propensity
from arbitration.rules import Truth
from arbitration.screening import STAGES, Stage, stopped

_RULE_REASONS = {Truth.FALSE: "rule_false", Truth.MISSING: "rule_missing_value", Truth.ERROR: "rule_error"}
_RULE_STAGES = (Stage.ELIGIBILITY, Stage.APPLICABILITY, Stage.SUITABILITY)

REASONS = (*_RULE_REASONS.values(), "not_yet_valid", "expired", "stopped", "consent:<purpose>", "no_value")
"""The closed list of reasons for removing an arm; `<purpose>` is the id of the purpose."""


def explain(decision: Decision, catalog: CompiledCatalog) -> dict[str, Any]:
    """The explanation of `decision`, which `catalog` made."""
    shown: set[str] = set()
    placements = []
    for slate in decision.slates:
        placements.append(_placement(slate, decision.inputs, catalog, frozenset(shown)))
        shown |= {item.arm.action.id for item in slate.items}
    return {
        "decision_id": decision.inputs.decision_id,
        "facts": list(_facts(decision.inputs, catalog)),
        "degraded": list(decision.inputs.degraded),
        "placements": placements,
    }


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
    slate: Slate, inputs: Inputs, catalog: CompiledCatalog, shown: frozenset[str]
) -> dict[str, Any]:
    passes = slate.screening.passes
    remaining = np.logical_and.accumulate(passes, axis=0).sum(axis=1)
    funnel = [{"stage": "candidates", "remaining": len(slate.candidates)}]
    funnel += [{"stage": str(stage), "remaining": int(n)} for stage, n in zip(STAGES, remaining, strict=True)]
    removed = [
        _removed(slate, int(arm), STAGES[int(np.argmin(passes[:, arm]))], inputs, catalog)
        for arm in np.flatnonzero(~slate.screening.alive)
    ]
    return {
        "id": slate.candidates.placement.id,
        "policy": slate.candidates.policy.id,
        "funnel": funnel,
        "removed": removed,
        "ranked": _ranked(slate, shown),
        "slots": [
            {
                "rank": rank,
                "treatment": slate.items[rank - 1].arm.treatment.id,
                "draw": slot.draw,
                "probabilities": {
                    slate.candidates.arms[arm].treatment.id: float(chance)
                    for arm, chance in zip(slot.pool, slot.probabilities, strict=True)
                },
            }
            for rank, slot in enumerate(slate.slots, start=1)
        ],
        "no_action_reason": slate.no_action,
    }


def _removed(
    slate: Slate, arm: int, stage: Stage, inputs: Inputs, catalog: CompiledCatalog
) -> dict[str, Any]:
    candidates = slate.candidates
    rule: str | None = None
    names: tuple[str, ...] = ()
    if stage in _RULE_STAGES:
        clauses = candidates.clauses[_RULE_STAGES.index(stage)][arm]
        clause = int(clauses[np.argmax(slate.screening.status[clauses] != Truth.TRUE)])
        program = catalog.rules.programs[clause]
        reason = _RULE_REASONS[Truth(int(slate.screening.status[clause]))]
        rule, names = program.text, program.names
    elif stage is Stage.VALIDITY:
        begun = candidates.valid_from[arm] <= inputs.now.timestamp()
        reason, names = "expired" if begun else "not_yet_valid", ("now",)
        rule = _validity(candidates, arm)
    elif stage is Stage.STOP:
        reason = "stopped"
        rule = next(
            f"{scope}:{name}" for scope, name in inputs.stops if stopped(candidates, scope, name)[arm]
        )
    elif stage is Stage.CONSENT:
        purpose = next(
            purpose
            for purpose, needed in candidates.purposes
            if needed[arm] and inputs.consents.get(purpose) != "given"
        )
        reason = f"consent:{purpose}"
        rule = inputs.consents.get(purpose, "unknown")
    else:
        number = next(number for number, rows in candidates.value_programs if rows[arm])
        program = catalog.values[number]
        reason, rule, names = "no_value", program.text, program.names
    return {
        "treatment": candidates.arms[arm].treatment.id,
        "action": candidates.arms[arm].action.id,
        "stage": str(stage),
        "reason": reason,
        "rule": rule,
        "values": {name: _seen(inputs, catalog, name) for name in names},
    }


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


def _ranked(slate: Slate, shown: frozenset[str]) -> list[dict[str, Any]]:
    """Remaining arms, the likeliest for the first slot first. Probabilities are those of that slot.

    `held_back`: why an arm could not be picked there: `shown_already` (its action, in a placement before)
    or `lower_tier`. `shown`: the actions of the placements before.
    """
    candidates, screening = slate.candidates, slate.screening
    chance = np.zeros(len(candidates))
    if slate.slots:
        chance[slate.slots[0].pool] = slate.slots[0].probabilities
    alive = np.flatnonzero(screening.alive)
    order = alive[np.lexsort((alive, -slate.priority[alive], -chance[alive]))]
    belief = propensity(slate.mean)

    def held_back(arm: int) -> str | None:
        if candidates.arms[arm].action.id in shown:
            return "shown_already"
        return "lower_tier" if slate.slots and arm not in slate.slots[0].pool else None

    return [
        {
            "treatment": candidates.arms[arm].treatment.id,
            "action": candidates.arms[arm].action.id,
            "tier": int(candidates.tier[arm]),
            "propensity": float(belief[arm]),
            "posterior_mean": float(slate.mean[arm]),
            "posterior_sd": float(slate.sd[arm]),
            "context_weight": float(screening.context_weight[arm]),
            "value": float(screening.value[arm]),
            "lever": float(candidates.lever[arm]),
            "priority": float(slate.priority[arm]),
            "selection_probability": float(chance[arm]),
            "held_back": held_back(int(arm)),
        }
        for arm in order
    ]

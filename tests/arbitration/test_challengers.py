"""Policies beside the champion: challengers with a share, shadows, apprentices, and what learns values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import NOW, catalog_document

from arbitration import CompiledCatalog, Decision, Inputs, compile_document, decide, serve
from arbitration.catalog.problems import Source
from arbitration.catalog.validate import check
from arbitration.control import challenger
from arbitration.explain import explain, shadows
from arbitration.policy.strategies import selection_probabilities
from arbitration.snapshot import Snapshots, empty_state

ARMS = ["renew_12_agent", "renew_24_agent", "upgrade_agent", "check_agent"]
RATES = [0.2, 0.9, 0.5, 0.4]


def document(*policies: dict[str, Any], **champion: Any) -> dict[str, Any]:
    """Four arms for everybody, and beside the champion `default` the policies given."""
    made = catalog_document()
    for action, value in zip(made["actions"], (40.0, 10.0, 30.0, 20.0), strict=True):
        action |= {"eligibility": [], "applicability": [], "value": value, "lever": 1.0}
    made["policies"] = [
        {"id": "default", "strategy": "thompson", "features": [], **champion},
        made["policies"][1],
        *policies,
    ]
    return made


def compiled(*policies: dict[str, Any], **champion: Any) -> CompiledCatalog:
    return compile_document(document(*policies, **champion))


def learned(catalog: CompiledCatalog, events: int = 400) -> Snapshots:
    """Every policy has seen each arm so often, with its rate (of its value, where it learns values)."""
    found = {}
    for policy in catalog.policies:
        state = empty_state(catalog, policy)
        for arm, rate in zip(ARMS, RATES, strict=True):
            rewards = np.repeat([1.0, 0.0], [round(events * rate), events - round(events * rate)])
            x = np.zeros((events, state.size))
            x[:, 0] = 1.0
            state.add([arm] * events, x, rewards, np.ones(events), np.full(events, NOW.timestamp()))
        found[policy] = serve(catalog, policy, state, f"{policy} after {events}")
    return found


def asked(number: int = 0, **more: Any) -> Inputs:
    return Inputs(f"d-{number}", NOW, "c", ("agent",), (("panel", 1),), **more)


def chances(decision: Decision) -> dict[str, float]:
    (slate,) = decision.slates
    slot = slate.slots[0]
    return {
        slate.candidates.arms[arm].treatment.id: float(p)
        for arm, p in zip(slot.pool, slot.probabilities, strict=True)
    }


GREEDY = {"id": "greedy", "strategy": "epsilon_greedy", "epsilon": 0.0, "floor": 0.04, "features": []}


def test_a_challenger_decides_where_it_is_assigned_and_nowhere_else() -> None:
    catalog = compiled(GREEDY, challengers=[{"policy": "greedy", "share": 0.5}])
    snapshots = learned(catalog)
    champion = decide(asked(), catalog, snapshots)
    given = replace(asked(), assigned={"default": "greedy"})
    tried = decide(given, catalog, snapshots)
    assert (champion.slates[0].policy.id, champion.snapshots) == ("default", {"default": "default after 400"})
    assert (tried.slates[0].policy.id, tried.snapshots) == ("greedy", {"greedy": "greedy after 400"})
    # 0.5 × 30 is the best priority; what is logged is the challenger's own probability
    assert chances(tried) == pytest.approx({arm: 0.97 if arm == "upgrade_agent" else 0.01 for arm in ARMS})
    assert chances(champion) != chances(tried)
    assert Inputs.from_json(given.to_json()) == given
    assert explain(tried, catalog)["placements"][0]["policy"] == "greedy"


def test_shares_are_as_declared_sticky_and_only_grow() -> None:
    def policy(*shares: float) -> Any:
        named = [{"policy": f"p{number}", "share": share} for number, share in enumerate(shares)]
        others = [{**GREEDY, "id": f"p{number}"} for number in range(len(shares))]
        return compiled(*others, challengers=named).policies["default"]

    one, two = policy(0.1), policy(0.2, 0.3)
    keys = [f"c-{number}" for number in range(40_000)]
    assigned = [challenger(two, key) for key in keys]
    assert assigned == [challenger(two, key) for key in keys]
    # ±5σ of a binomial share: passed by chance once in 1.7 million
    for name, share in (("p0", 0.2), ("p1", 0.3), (None, 0.5)):
        assert abs(assigned.count(name) / 40_000 - share) < 5 * np.sqrt(share * (1 - share) / 40_000)
    small = {key for key in keys if challenger(one, key) == "p0"}
    assert small < {key for key, name in zip(keys, assigned, strict=True) if name == "p0"}


def test_a_shadow_decides_nothing_and_is_kept_track_of() -> None:
    alone = compiled(GREEDY)
    catalog = compiled(GREEDY, challengers=[{"policy": "greedy", "shadow": True}])
    snapshots = learned(catalog)
    plain, shadowed = decide(asked(), alone, learned(alone)), decide(asked(), catalog, snapshots)
    assert chances(plain) == chances(shadowed)
    assert plain.slates[0].items == shadowed.slates[0].items
    assert shadowed.snapshots == {"default": "default after 400", "greedy": "greedy after 400"}
    assert challenger(catalog.policies["default"], "c") is None
    (shadow,) = shadows(asked(), catalog, snapshots)
    assert (shadow["policy"], shadow["snapshot"], shadow["placement"]) == (
        "greedy",
        "greedy after 400",
        "panel",
    )
    assert {arm["treatment"]: arm["selection_probability"] for arm in shadow["ranked"]} == pytest.approx(
        {arm: 0.97 if arm == "upgrade_agent" else 0.01 for arm in ARMS}
    )
    assert shadows(replace(asked(), objects=True), catalog, snapshots) == []


@pytest.mark.parametrize(
    ("challengers", "code", "path"),
    [
        ([{"policy": "none", "share": 0.1}], "unknown_policy", "policies[0].challengers[0].policy"),
        ([{"policy": "default", "share": 0.1}], "own_challenger", "policies[0].challengers[0].policy"),
        ([{"policy": "greedy", "share": 0.1}, {"policy": "greedy", "shadow": True}], "duplicate_id",
         "policies[0].challengers[1].policy"),
        ([{"policy": "greedy", "share": 0.6}, {"policy": "plain", "share": 0.5}], "shares",
         "policies[0].challengers"),
        ([{"policy": "greedy"}], "value_error", "policies[0].challengers[0]"),
        ([{"policy": "greedy", "share": 0.1, "shadow": True}], "value_error", "policies[0].challengers[0]"),
    ],
)  # fmt: skip
def test_challengers_that_cannot_be_are_refused(challengers: Any, code: str, path: str) -> None:
    found = check(Source(document(GREEDY, challengers=challengers))).problems
    assert [problem.path for problem in found] == [path], found
    assert found[0].code == code


def test_no_half_life_is_no_time() -> None:
    (problem,) = check(Source(document(half_life="0s"))).problems
    assert problem.path == "policies[0].half_life"


def test_an_apprentice_does_as_the_rules_say_until_it_has_learned_enough() -> None:
    catalog = compiled(apprentice=1600)
    rules = {arm: 0.985 if arm == "renew_12_agent" else 0.005 for arm in ARMS}  # value 40 is the highest
    for events, imitates in ((1, True), (399, True), (400, False)):
        decision = decide(asked(), catalog, learned(catalog, events))
        assert decision.slates[0].apprentice is imitates
        explained = explain(decision, catalog)["placements"][0]
        assert explained.get("apprentice", False) is imitates
        assert (chances(decision) == pytest.approx(rules)) is imitates
        # what is believed is told all the same
        assert {arm["treatment"]: round(arm["propensity"], 1) for arm in explained["ranked"]} != {}
    item = decide(asked(), catalog, learned(catalog, 399)).slates[0].items[0]
    assert item.arm.treatment.id == "renew_12_agent"
    assert item.propensity == pytest.approx(0.2, abs=0.01)


def test_a_policy_that_learns_values_ranks_by_what_is_expected() -> None:
    catalog = compiled(value_scale=100.0)
    decision = decide(asked(), catalog, learned(catalog))
    (slate,) = decision.slates
    # expected value = mean × 100, whatever the action's own value says
    assert slate.priority == pytest.approx(np.clip(slate.mean, 0, 1) * 100)
    expected = selection_probabilities(catalog.policies["default"], slate.mean, slate.sd, np.full(4, 100.0))
    assert list(chances(decision).values()) == pytest.approx(list(expected))
    assert [item.propensity for item in slate.items] == [None]
    assert slate.items[0].priority == pytest.approx(90, abs=2)
    top = explain(decision, catalog)["placements"][0]["ranked"][0]
    assert (top["treatment"], top["propensity"]) == ("renew_24_agent", None)
    assert top["expected_value"] == pytest.approx(90, abs=2)

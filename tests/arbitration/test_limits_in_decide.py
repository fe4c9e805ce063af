"""What limits do in a decision: what they keep back and why, what they leave alone; control groups."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
import pytest
from support import CHANNEL_OF, NOW, catalog_document

from arbitration import PRIOR, CompiledCatalog, Decision, Inputs, compile_document, decide, explain, serve
from arbitration.control import redistributed
from arbitration.facts import Value

UNTIL = "2026-03-02T07:00:00Z"
POLICIES: list[dict[str, Any]] = [
    {"id": "all", "gap": "1d"},
    {"id": "by_channel", "gap": "1d", "per": "channel"},
    {"id": "by_direction", "gap": "1d", "per": "direction"},
    {"id": "by_group", "gap": "1d", "per": "group"},
    {"id": "by_action", "gap": "1d", "per": "action", "of": {"actions": ["upgrade", "check"]}},
    {"id": "by_treatment", "gap": "1d", "per": "treatment"},
    {"id": "sales_rest", "gap": "1d", "of": {"channels": ["mail"]}, "holds": {"groups": ["sales"]}},
    {"id": "mails", "gap": "1d", "of": {"channels": ["mail"]}},
]
EVERYTHING = {"renew_12", "renew_24", "upgrade", "check"}


def document(*controls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The small catalog with limits and everything open to everybody; `fields`: of actions, by id."""
    found = catalog_document()
    del found["channels"][2]["consent"]
    found["contact_policies"] = POLICIES
    found["control_groups"] = [{"share": 0.1, **control} for control in controls]
    for action in found["actions"]:
        action |= {"eligibility": [], "applicability": [], "value": 5.0, **fields.get(action["id"], {})}
    return found


def made(catalog: CompiledCatalog, placement: str = "panel", id: str = "d", **more: Any) -> Decision:
    inputs = Inputs(id, NOW, "c", (CHANNEL_OF[placement],), ((placement, 1),), **more)
    snapshots = {name: serve(catalog, name, None, PRIOR) for name in catalog.policies}
    decision = decide(inputs, catalog, snapshots)
    # What is recorded makes the same decision again, whatever limits were in it.
    again = decide(Inputs.from_json(json.loads(json.dumps(inputs.to_json()))), catalog, snapshots)
    assert repr(explain(again, catalog)) == repr(explain(decision, catalog))
    return decision


def left(decision: Decision) -> set[str]:
    (slate,) = decision.slates
    return {slate.candidates.arms[arm].action.id for arm in np.flatnonzero(slate.screening.alive)}


def explained(catalog: CompiledCatalog, **more: Any) -> dict[str, Any]:
    (found,) = explain(made(catalog, **more), catalog)["placements"]
    return dict(found)


CATALOG = compile_document(document())
HOLDS: list[tuple[str, str, str, set[str]]] = [
    # policy, target, placement, which of the placement's actions it holds back
    ("all", "", "panel", EVERYTHING),
    ("all", "*", "panel", EVERYTHING),
    ("all", "agent", "panel", set()),
    ("by_channel", "agent", "panel", EVERYTHING),
    ("by_channel", "web", "panel", set()),
    ("by_channel", "*", "panel", EVERYTHING),
    ("by_direction", "inbound", "side", {"renew_24", "upgrade", "check"}),
    ("by_direction", "inbound", "block", set()),
    ("by_group", "retention", "panel", {"renew_12", "renew_24"}),
    ("by_group", "zork", "panel", set()),
    ("by_action", "check", "panel", {"check"}),
    ("by_action", "renew_12", "panel", set()),  # of a time when it was covered
    ("by_action", "*", "panel", {"upgrade", "check"}),
    ("by_treatment", "check_side", "side", {"check"}),
    ("by_treatment", "check_side", "panel", set()),
    ("sales_rest", "", "panel", {"upgrade"}),
    ("mails", "", "panel", set()),
    ("mails", "", "block", {"renew_12", "check"}),
    ("removed_from_the_catalog", "", "panel", set()),
]


@pytest.mark.parametrize(("policy", "target", "placement", "held"), HOLDS)
def test_a_contact_policy_holds_back_what_it_covers(
    policy: str, target: str, placement: str, held: set[str]
) -> None:
    until = None if target == "*" else UNTIL
    decision = made(CATALOG, placement, holds={policy: {target: until}})
    everything = left(made(CATALOG, placement))
    assert left(decision) == everything - held
    (told,) = explain(decision, CATALOG)["placements"]
    for arm in told["removed"]:
        assert (arm["stage"], arm["reason"]) == ("contact", f"contact:{policy}")
        assert arm["values"]["until"] == until
        if target != "*":
            assert arm["values"]["counted"] == (target or "customer")
    assert (decision.slates[0].no_action == "contact_limit") == (held >= everything)


def test_two_holds_hold_each_for_itself() -> None:
    found = explained(CATALOG, holds={"by_action": {"check": UNTIL}, "by_group": {"retention": UNTIL}})
    assert {arm["action"]: arm["reason"] for arm in found["removed"]} == {
        "renew_12": "contact:by_group", "renew_24": "contact:by_group", "check": "contact:by_action",
    }  # fmt: skip
    (rule,) = {arm["rule"] for arm in found["removed"] if arm["action"] == "check"}
    shown = {"per": "action", "of": {"actions": ["upgrade", "check"]}, "gap": "1d"}
    assert json.loads(rule) == shown


NOTHING_LEFT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # no-action reason, fields of every action, inputs
    ("contact_limit", {}, {"holds": {"all": {"": UNTIL}}}),
    ("quiet_hours", {}, {"quiet": {"agent": UNTIL}}),
    ("budget_spent", {"budget": {"total": 3}}, {"budgets": dict.fromkeys(EVERYTHING, 0)}),
    ("budget_spent", {"budget": {"total": 3}}, {"budgets": None}),  # one that could not be read may be spent
    ("control_group", {}, {"controls": {"off": True}}),
    # the stage that took the last one gives the reason
    ("quiet_hours", {}, {"quiet": {"agent": UNTIL}, "holds": {"by_action": {"check": UNTIL}}}),
    ("contact_limit", {}, {"quiet": {"agent": UNTIL}, "holds": {"all": {"": UNTIL}}}),
    ("none_eligible", {"eligibility": ["customer.nps < 9"]}, {"objects": True, "facts": {"customer.nps": 3}}),
    ("none_eligible", {"eligibility": ['now < timestamp("2026-01-01T00:00:00Z")']}, {"objects": True}),
]


@pytest.mark.parametrize(("reason", "fields", "given"), NOTHING_LEFT)
def test_every_reason_for_no_action(reason: str, fields: dict[str, Any], given: dict[str, Any]) -> None:
    off = {"id": "off", "behaviour": "no_action"}
    catalog = compile_document(document(off, **dict.fromkeys(EVERYTHING, fields)))
    decision = made(catalog, **given)
    (slate,) = decision.slates
    assert (slate.items, slate.no_action) == ((), reason)
    only_quiet = reason == "quiet_hours"
    assert decision.not_before == (UNTIL if only_quiet else None)


def test_what_is_exempt_is_shown_and_says_from_what() -> None:
    off = {"id": "off", "behaviour": "no_action"}
    fields = {"check": {"exempt": ["all", "quiet_hours", "off"]}, "upgrade": {"exempt": ["all", "off"]}}
    catalog = compile_document(document(off, **fields))
    limits: dict[str, Any] = {
        "holds": {"all": {"": UNTIL}},
        "quiet": {"agent": UNTIL},
        "controls": {"off": True},
    }
    found = explained(catalog, **limits)
    assert [(arm["action"], arm["exempt"]) for arm in found["ranked"]] == [
        ("check", ["all", "quiet_hours", "off"])
    ]
    assert {arm["action"]: arm["reason"] for arm in found["removed"]} == {
        "renew_12": "contact:all", "renew_24": "contact:all", "upgrade": "quiet_hours",
    }  # fmt: skip
    assert made(catalog, **limits).not_before is None  # something is shown
    free = explained(catalog, holds={"by_action": {"renew_12": UNTIL}}, controls={"off": False})
    assert {tuple(arm["exempt"]) for arm in free["ranked"]} == {()}
    held = explained(catalog, holds={"by_group": {"service": UNTIL}})
    assert [arm["action"] for arm in held["removed"]] == ["check"], "exempt from the policies it names alone"


INCENTIVES = {
    "check": {
        "budget": {"money": 10},
        "value": "5.0",  # as a rule: a number would be seen through at publish
        "treatments": [
            {"id": "t", "channel": "agent", "placement": "panel", "content": {"headline": "x"}, "cost": 0.1,
             "incentives": [
                 {"id": "small", "cost": 0.2},
                 {"id": "large", "cost": 4.9, "content": {"headline": "y"}},
                 {"id": "huge", "cost": 4.9001}]},
        ],
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("ticks", "affordable"),
    [
        (2_999, set()),
        (3_000, {"t:small"}),  # 0.1 + 0.2, exactly
        (49_999, {"t:small"}),
        (50_000, {"t:small", "t:large"}),
        (10**12, {"t:small", "t:large"}),
        (-1, set()),
    ],
)
def test_an_incentive_is_an_arm_with_its_own_cost(ticks: int, affordable: set[str]) -> None:
    """It lowers the value by its cost, down to nothing, and is kept back where the budget is less."""
    catalog = compile_document(document(**INCENTIVES))
    stops = tuple(("action", name) for name in EVERYTHING - {"check"})
    found = explained(catalog, budgets={"check": ticks}, stops=stops)
    values = {"t:small": 4.7, "t:large": 0.0}
    ranked = {arm["treatment"]: arm["value"] for arm in found["ranked"]}
    assert ranked == pytest.approx({arm: values[arm] for arm in affordable})
    told = {arm["treatment"]: arm for arm in found["removed"] if arm["action"] == "check"}
    assert told.keys() == {"t:small", "t:large", "t:huge"} - affordable
    if "t:large" in told:
        assert (told["t:large"]["stage"], told["t:large"]["reason"]) == ("budget", "budget")
        assert told["t:large"]["rule"] == '{"money":10.0}'
        assert told["t:large"]["values"] == {"left": ticks / 10_000, "cost": 5.0}
    if ticks >= 50_001:
        assert (told["t:huge"]["reason"], told["t:huge"]["rule"]) == ("no_value", "5.0 - 5.0001")


def test_an_incentive_says_what_it_says_otherwise() -> None:
    catalog = compile_document(document(**INCENTIVES))
    said = {arm.treatment.id: (arm.treatment.content, arm.treatment.incentives) for arm in catalog.arms}
    assert said["t:small"] == ({"headline": "x"}, ())
    assert said["t:large"] == ({"headline": "y"}, ())
    assert "t" not in said


def test_an_action_is_shown_once_whichever_of_its_incentives() -> None:
    catalog = compile_document(document(**INCENTIVES))
    for number in range(30):
        inputs = Inputs(f"d-{number}", NOW, "c", ("agent",), (("panel", 3),), budgets={"check": 10**6})
        decision = decide(inputs, catalog, {n: serve(catalog, n, None, PRIOR) for n in catalog.policies})
        shown = [item.arm.action.id for item in decision.slates[0].items]
        assert len(set(shown)) == len(shown) == 3


FACTS: dict[str, Value] = {
    "customer.nps": 3, "customer.plan": "Basic", "scores.clv": 480.0, "context.intent": "cancel",
    "customer.contract_end": datetime(2026, 4, 1, tzinfo=UTC), "scores.churn": 0.5,
}  # fmt: skip


class TestWhoObjectsToProfiling:
    """Is decided for by what the situation alone allows."""

    rules: ClassVar[dict[str, Any]] = {
        "renew_12": {"eligibility": ["true", "customer.nps <= 6"], "lever": 9.0},
        "renew_24": {"suitability": ['context.intent == "cancel"'], "lever": 3.0},
        "upgrade": {"applicability": ["scores.clv > 1.0 && now > timestamp('2026-01-01T00:00:00Z')"]},
        "check": {"eligibility": ["now > timestamp('2026-01-01T00:00:00Z')"], "value": "scores.clv - 900.0"},
    }

    def test_rules_over_personal_facts_remove_and_the_rest_is_alike(self) -> None:
        catalog = compile_document(document(**self.rules))
        decision = made(catalog, objects=True, facts=FACTS)
        assert decision.snapshots == {}
        (item,) = decision.slates[0].items
        assert (item.propensity, item.priority, item.selection_probability) == (None, None, 0.5)
        (found,) = explain(decision, catalog)["placements"]
        assert [(arm["action"], arm["stage"], arm["reason"], arm["rule"]) for arm in found["removed"]] == [
            ("renew_12", "eligibility", "profiling", "customer.nps <= 6"),
            ("upgrade", "applicability", "profiling", self.rules["upgrade"]["applicability"][0]),
        ]
        assert {str(arm["values"]) for arm in found["removed"]} == {"{}"}
        numbers = ("propensity", "posterior_mean", "posterior_sd", "priority", "lever", "context_weight")
        assert {tuple(arm[name] for name in numbers) for arm in found["ranked"]} == {
            (None, None, None, None, 1.0, 1.0)
        }
        assert {arm["selection_probability"] for arm in found["ranked"]} == {0.5}
        assert explain(decision, catalog)["objects_to_profiling"]

    @pytest.mark.parametrize(
        "rule",
        ["!has(customer.nps)", 'context.intent == "cancel" || customer.nps < 3', "scores.clv > 0.0 || true"],
    )
    def test_a_rule_that_names_a_personal_fact_removes_whatever_it_comes_to(self, rule: str) -> None:
        """Without the facts it would come to true, also where it is false of this customer."""
        catalog = compile_document(document(check={"eligibility": [rule]}))
        found = explained(catalog, objects=True, facts=FACTS)
        assert [(arm["action"], arm["reason"]) for arm in found["removed"]] == [("check", "profiling")]

    def test_nothing_personal_moves_the_decision(self) -> None:
        catalog = compile_document(document(**self.rules))
        other: dict[str, Value] = {"context.intent": "cancel", "customer.nps": 10, "scores.clv": 0.0}
        for number in range(20):
            one, two = (
                made(catalog, id=f"d-{number}", objects=True, facts=facts) for facts in (FACTS, other)
            )
            assert [s.items for s in one.slates] == [s.items for s in two.slates]

    @pytest.mark.parametrize(
        "given",
        [
            {"stops": (("action", "check"),)},
            {"holds": {"by_action": {"check": UNTIL}}},
            {"budgets": {"check": 0}},
            {"consents": {"marketing": "withdrawn"}},
            {"controls": {"off": True}},
        ],
    )
    def test_limits_hold_all_the_same(self, given: dict[str, Any]) -> None:
        off = {"id": "off", "behaviour": "no_action", "actions": ["check"]}
        changed = document(off, check={"budget": {"total": 1}})
        changed["groups"][2]["consent"] = "marketing"
        catalog = compile_document(changed)
        free: dict[str, Any] = {"budgets": {"check": 1}, "consents": {"marketing": "given"}}
        assert left(made(catalog, objects=True, **free)) == EVERYTHING
        assert left(made(catalog, objects=True, **free | given)) == EVERYTHING - {"check"}

    def test_the_lowest_tier_still_goes_first(self) -> None:
        catalog = compile_document(document(check={"tier": 0}))
        assert [i.arm.action.id for i in made(catalog, objects=True).slates[0].items] == ["check"]


CONTROLS: list[dict[str, Any]] = [
    {"id": "off", "behaviour": "no_action", "actions": ["upgrade"]},
    {"id": "flat", "behaviour": "no_levers", "groups": ["retention"]},
    {"id": "even", "behaviour": "random_eligible", "actions": ["renew_12", "check"]},
    {"id": "random", "behaviour": "random_propensity", "groups": ["retention", "sales"]},
    {"id": "believed", "behaviour": "propensity_only"},
]
LEVERS = {"renew_12": {"lever": 9.0}, "renew_24": {"lever": 2.0}, "check": {"lever": 3.0}}


class TestControlGroups:
    catalog = compile_document(document(*CONTROLS, **LEVERS))

    def slots(self, *members: str, catalog: CompiledCatalog | None = None) -> list[dict[str, float]]:
        catalog = catalog or self.catalog
        controls = {control["id"]: control["id"] in members for control in CONTROLS}
        inputs = Inputs("d-7", NOW, "c", ("agent",), (("panel", 3),), controls=controls)
        decision = decide(inputs, catalog, {n: serve(catalog, n, None, PRIOR) for n in catalog.policies})
        assert decision.control_group == next((c["id"] for c in CONTROLS if c["id"] in members), None)
        told = explain(decision, catalog)
        assert [(c["id"], c["member"]) for c in told["control_groups"]] == list(controls.items())
        return [
            {name.removesuffix("_agent"): p for name, p in slot["probabilities"].items()}
            for slot in told["placements"][0]["slots"]
        ]

    def test_no_action_removes_what_it_covers(self) -> None:
        found = explained(self.catalog, controls={"off": True})
        (arm,) = found["removed"]
        assert (arm["action"], arm["stage"], arm["reason"]) == ("upgrade", "control", "control:off")
        assert arm["rule"] == "0.1 of customers: no_action"
        assert "upgrade" not in self.slots("off")[0]

    def test_without_levers_those_covered_count_as_one(self) -> None:
        found = explained(self.catalog, controls={"flat": True})
        levers = {arm["action"]: arm["lever"] for arm in found["ranked"]}
        assert levers == {"renew_12": 1.0, "renew_24": 1.0, "upgrade": 1.0, "check": 3.0}
        (item,) = made(self.catalog, controls={"flat": True}).slates[0].items
        assert item.priority == pytest.approx((item.propensity or 0) * 5 * levers[item.arm.action.id])
        assert self.slots("flat")[0]["renew_12"] < self.slots()[0]["renew_12"]

    @pytest.mark.parametrize(
        "members",
        [("even",), ("random",), ("believed",), ("even", "random"), ("random", "believed"),
         ("off", "flat", "even"), ("off", "flat", "even", "random", "believed")],
    )  # fmt: skip
    def test_each_slot_is_shared_out_anew_by_each_group_in_turn(self, members: tuple[str, ...]) -> None:
        """As `redistributed` does it for the arms that are left for the slot, in the catalog's order."""
        controls = dict.fromkeys(members, True)
        inputs = Inputs("d-7", NOW, "c", ("agent",), (("panel", 3),), controls=controls)
        catalog = self.catalog
        decision = decide(inputs, catalog, {n: serve(catalog, n, None, PRIOR) for n in catalog.policies})
        (slate,) = decision.slates
        names = [arm.action.id for arm in slate.candidates.arms]
        covers = {
            "even": np.array([name in ("renew_12", "check") for name in names]),
            "random": np.array([name != "check" for name in names]),
            "believed": np.array([True] * 4),
        }
        assert len(slate.slots) == 3
        for slot in slate.slots:
            pool = slot.pool
            behaviours = {c["id"]: c["behaviour"] for c in CONTROLS}
            expected = redistributed(
                slate.candidates.policy,
                slate.mean[pool],
                slate.sd[pool],
                slate.weight[pool],
                [(behaviours[m], covers[m][pool]) for m in ("even", "random", "believed") if m in members],
            )
            assert slot.probabilities == pytest.approx(expected)

    def test_what_is_not_covered_keeps_what_it_had(self) -> None:
        outside, inside = self.slots()[0], self.slots("even")[0]
        assert inside["renew_12"] == pytest.approx(inside["check"])
        assert inside["renew_12"] * 2 == pytest.approx(outside["renew_12"] + outside["check"])
        for name in ("renew_24", "upgrade"):
            assert inside[name] == pytest.approx(outside[name])

    def test_of_all_alike_each_is_as_likely(self) -> None:
        alone = compile_document(document({"id": "even", "behaviour": "random_eligible"}, **LEVERS))
        assert explained(alone, controls={"even": True})["slots"][0]["probabilities"] == pytest.approx(
            {f"{name}_agent": 0.25 for name in EVERYTHING}
        )

    def test_an_exempt_action_is_not_covered(self) -> None:
        fields = {**LEVERS, "check": {"lever": 3.0, "exempt": ["even", "off"]}}
        catalog = compile_document(document(*CONTROLS, **fields))
        outside, inside = self.slots(catalog=catalog)[0], self.slots("even", catalog=catalog)[0]
        assert inside == pytest.approx(outside)  # one arm alone has what it has

    def test_the_first_of_the_catalog_is_told(self) -> None:
        decision = made(self.catalog, controls={"believed": True, "even": True, "off": False})
        assert decision.control_group == "even"
        assert made(self.catalog, controls={"off": False}).control_group is None
        assert made(self.catalog, controls={"of_before": True}).control_group is None

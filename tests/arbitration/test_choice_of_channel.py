"""Of several channels, the first draw chooses one: among the arms of all, each as likely as it should be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import CHANNEL_OF, NOW, catalog_document

from arbitration import PRIOR, CompiledCatalog, Decision, Inputs, compile_document, decide, explain, serve
from arbitration.errors import InputsError
from arbitration.policy.strategies import selection_probabilities

ALL = ("hero", "side", "block", "panel")


def document(**fields: Any) -> dict[str, Any]:
    """The small catalog with one policy, everything open to everybody; `fields`: of actions, by id."""
    found = catalog_document()
    del found["placements"][2]["policy"], found["channels"][2]["consent"]
    for action in found["actions"]:
        action |= {"eligibility": [], "applicability": [], "value": 5.0, **fields.get(action["id"], {})}
    extra = {"channel": "web", "placement": "hero", "content": {"title": "x"}}
    for action in found["actions"][1:]:
        action["treatments"].append({"id": f"{action['id']}_hero", **extra})
    return found


CATALOG = compile_document(document())


def asked(id: str, *placements: str, **more: Any) -> Inputs:
    chosen = placements or ALL
    channels = tuple(dict.fromkeys(CHANNEL_OF[placement] for placement in chosen))
    slots = {"panel": 3, "side": 2}
    return Inputs(id, NOW, "c", channels, tuple((p, slots.get(p, 1)) for p in chosen), **more)


def made(inputs: Inputs, catalog: CompiledCatalog = CATALOG) -> Decision:
    return decide(inputs, catalog, {name: serve(catalog, name, None, PRIOR) for name in catalog.policies})


def many(*placements: str, catalog: CompiledCatalog = CATALOG, **more: Any) -> list[Decision]:
    return [made(asked(f"d-{number}", *placements, **more), catalog) for number in range(40)]


def first(decision: Decision) -> tuple[str, Any]:
    """The placement that the first draw fell on, and the slot."""
    found = [
        (slate.candidates.placement.id, slot)
        for slate in decision.slates
        for slot in slate.slots[:1]
        if slot.rivals
    ]
    assert len(found) == 1
    return found[0]


def test_the_first_draw_is_among_the_arms_of_all_and_chooses_the_channel() -> None:
    """Its probabilities are those of one slot that holds all these arms."""
    channels: Counter[str] = Counter()
    for decision in many():
        placement, slot = first(decision)
        assert decision.channel == CHANNEL_OF[placement]
        channels[decision.channel or ""] += 1
        fields = {slate.candidates.placement.id: slate for slate in decision.slates}
        pools = {placement: (slot.pool, slot.probabilities)} | {p: (a, c) for p, a, c in slot.rivals}
        together = [fields[p] for p in ALL]
        expected = selection_probabilities(
            together[0].candidates.policy,
            *(
                np.concatenate([getattr(slate, name) for slate in together])
                for name in ("mean", "sd", "weight")
            ),
        )
        assert np.concatenate([pools[p][1] for p in ALL]) == pytest.approx(expected)
        assert all(len(pools[p][0]) == len(fields[p].candidates) for p in ALL)
        (item,) = [i for i in fields[placement].items if i.rank == 1]
        assert item.selection_probability == pytest.approx(slot.probabilities[slot.picked])
    assert set(channels) == {"agent", "web", "mail"}


def test_only_the_chosen_channel_shows_something_and_no_action_twice() -> None:
    for decision in many():
        shown = []
        for slate in decision.slates:
            here = slate.candidates.channel.id == decision.channel
            assert (slate.no_action == "other_channel") == (not here)
            assert bool(slate.items) == here
            shown += [item.arm.action.id for item in slate.items]
        assert len(set(shown)) == len(shown)
        draws = [slot.draw for slate in decision.slates for slot in slate.slots]
        assert len(set(draws)) == len(draws), "each slot has a number of its own"


def test_the_explanation_tells_of_the_draw_that_chose() -> None:
    for decision in many("hero", "side", "block"):
        placement, _ = first(decision)
        told = {each["id"]: each for each in explain(decision, CATALOG)["placements"]}
        slot = told[placement]["slots"][0]
        assert sum(slot["probabilities"].values()) == pytest.approx(1)
        assert len(slot["probabilities"]) == sum(len(each["ranked"]) for each in told.values())
        for each in told.values():
            for arm in each["ranked"]:
                # What could be picked in the first draw says how likely, wherever it is listed.
                assert arm["selection_probability"] == pytest.approx(slot["probabilities"][arm["treatment"]])
                assert arm["held_back"] in (
                    [None] if CHANNEL_OF[each["id"]] == decision.channel else [None, "other_channel"]
                )


def test_arms_of_other_channels_were_in_the_draw() -> None:
    for decision in many("panel", "block"):
        (other,) = [p for p in explain(decision, CATALOG)["placements"] if not p["slots"]]
        assert {arm["held_back"] for arm in other["ranked"]} == {None}
        assert all(arm["selection_probability"] > 0 for arm in other["ranked"])


@pytest.mark.parametrize(
    ("fields", "channel"),
    [({"renew_12": {"tier": 0}}, {"agent", "web", "mail"}), ({"renew_24": {"tier": 0}}, {"agent", "web"})],
)
def test_the_lowest_tier_of_all_chooses(fields: dict[str, Any], channel: set[str]) -> None:
    (action,) = fields
    for decision in many(catalog=compile_document(document(**fields))):
        placement, slot = first(decision)
        (slate,) = [s for s in decision.slates if s.candidates.placement.id == placement]
        assert slate.candidates.arms[slot.pool[slot.picked]].action.id == action
        assert decision.channel in channel


def test_a_tier_on_one_channel_alone_goes_first() -> None:
    changed = document()
    changed["groups"][2]["tier"] = 0
    changed["actions"][3]["treatments"] = changed["actions"][3]["treatments"][2:3]
    catalog = compile_document(changed)
    for decision in many("hero", "side", "block", catalog=catalog):
        assert decision.channel == "mail"
        assert [len(slate.items) for slate in decision.slates] == [0, 0, 1]
        hero, _, block = explain(decision, catalog)["placements"]
        assert block["slots"][0]["probabilities"] == {"check_mail": 1.0}
        assert {arm["selection_probability"] for arm in hero["ranked"]} == {0.0}


def test_one_of_a_list_is_that_channel() -> None:
    """And what was recorded before there were lists is read as it was meant."""
    inputs = asked("d-1", "panel")
    old = inputs.to_json() | {"channel": "agent"}
    later = ("channels", "objects", "holds", "quiet", "budgets", "controls", "fetched", "given")
    for name in later:
        del old[name]
    assert Inputs.from_json(json.loads(json.dumps(old))) == inputs
    assert made(inputs).channel == "agent"
    assert not any(slot.rivals for slate in made(inputs).slates for slot in slate.slots)


QUIET = {"agent": "2026-03-02T07:00:00Z", "web": "2026-03-02T07:30:00+02:00", "mail": "2026-03-02T06:00:00Z"}
STOPPED = tuple(("group", group) for group in ("retention", "sales", "service"))


@pytest.mark.parametrize(
    ("given", "channel", "reasons", "not_before"),
    [
        ({"quiet": {"web": QUIET["web"]}}, {"mail", "agent"}, {"quiet_hours", "other_channel", None}, None),
        # the earliest end, whatever the offset it is written with
        ({"quiet": QUIET}, {None}, {"quiet_hours"}, QUIET["web"]),
        ({"quiet": {**QUIET, "web": "2026-03-02T09:00:00Z"}}, {None}, {"quiet_hours"}, QUIET["mail"]),
        ({"stops": STOPPED}, {None}, {"all_stopped"}, None),
        ({"stops": STOPPED, "quiet": QUIET}, {None}, {"all_stopped"}, None),
        # something else too keeps back whatever is on the channel that would be free first
        ({"stops": (("action", "renew_12"), ("action", "check")), "quiet": QUIET}, {None},
         {"quiet_hours", "all_stopped"}, QUIET["web"]),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_not_chosen(
    given: dict[str, Any], channel: set[str | None], reasons: set[str | None], not_before: str | None
) -> None:
    for decision in many(**given)[:20]:
        assert decision.channel in channel
        assert {slate.no_action and str(slate.no_action) for slate in decision.slates} == reasons
        assert decision.not_before == not_before
        assert replace(decision, slates=()) == replace(made(decision.inputs), slates=())


def test_who_objects_gets_each_arm_of_all_channels_alike() -> None:
    decision = made(asked("d-1", "hero", "block", objects=True))
    _, slot = first(decision)
    chances = np.concatenate([slot.probabilities, *(c for _, _, c in slot.rivals)])
    assert chances == pytest.approx(np.full(6, 1 / 6))
    assert decision.snapshots == {}


def test_a_control_group_shares_out_across_channels() -> None:
    """What its arms have together, on all channels, stays theirs; what is not covered stays as it was."""
    changed = document(renew_12={"lever": 9.0}, check={"value": 1.0})
    changed["control_groups"] = [
        {"id": "even", "share": 0.5, "behaviour": "random_eligible", "actions": ["renew_12", "check"]}
    ]
    catalog = compile_document(changed)

    def chances(member: bool) -> dict[str, float]:
        decision = made(asked("d-1", "hero", "block", controls={"even": member}), catalog)
        placement, _ = first(decision)
        told = {each["id"]: each for each in explain(decision, catalog)["placements"]}
        found: dict[str, float] = told[placement]["slots"][0]["probabilities"]
        return found

    outside, inside = chances(member=False), chances(member=True)
    covered = {"renew_12_hero", "renew_12_mail", "check_hero", "check_mail"}
    whole = sum(outside[arm] for arm in covered)
    assert {arm: inside[arm] for arm in covered} == pytest.approx(dict.fromkeys(covered, whole / 4))
    for arm in outside.keys() - covered:
        assert inside[arm] == pytest.approx(outside[arm])
    assert outside["renew_12_hero"] > 1.5 * outside["check_hero"]


@pytest.mark.parametrize(
    ("channels", "placement", "field"),
    [
        (("agent", "fax"), "panel", "channel"),
        (("web", "mail"), "panel", "placements[0].id"),
        (("web", "mail"), "x", "placements[0].id"),
    ],
)
def test_unknown_names_are_told(channels: tuple[str, ...], placement: str, field: str) -> None:
    with pytest.raises(InputsError) as caught:
        made(Inputs("d", NOW, "c", channels, ((placement, 1),)))
    assert caught.value.field == field

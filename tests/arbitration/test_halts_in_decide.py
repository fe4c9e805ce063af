"""What is halted is shown to nobody, whatever else is so; and what was recorded before still replays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CHANNEL_OF, NOW, catalog_document

from arbitration import PRIOR, Decision, Inputs, compile_document, decide, explain, serve
from arbitration.screening import NoAction


def open_to_all() -> dict[str, Any]:
    """The small catalog with everything open to everybody, and exempt from all there is."""
    found = catalog_document()
    del found["channels"][2]["consent"]
    found["contact_policies"] = [{"id": "weekly", "gap": "7d"}]
    for action in found["actions"]:
        action |= {"eligibility": [], "applicability": [], "value": 5.0, "exempt": ["weekly", "quiet_hours"]}
    return found


CATALOG = compile_document(open_to_all())
SNAPSHOTS = {name: serve(CATALOG, name, None, PRIOR) for name in CATALOG.policies}
PLACES = {channel: [p for p, c in CHANNEL_OF.items() if c == channel] for channel in CHANNEL_OF.values()}


def made(*halts: tuple[str, str], channels: tuple[str, ...] = ("agent",), id: str = "d") -> Decision:
    placements = tuple((name, 3) for channel in channels for name in PLACES[channel])
    inputs = Inputs(id, NOW, "c", channels, placements, halts=halts)
    decision = decide(inputs, CATALOG, SNAPSHOTS)
    again = decide(Inputs.from_json(json.loads(json.dumps(inputs.to_json()))), CATALOG, SNAPSHOTS)
    assert repr(explain(again, CATALOG)) == repr(explain(decision, CATALOG))
    return decision


def left(decision: Decision) -> set[str]:
    (slate,) = decision.slates
    return {slate.candidates.arms[arm].action.id for arm in np.flatnonzero(slate.screening.alive)}


@pytest.mark.parametrize(
    ("halts", "stays"),
    [
        ([], {"renew_12", "renew_24", "upgrade", "check"}),
        ([("action", "renew_12")], {"renew_24", "upgrade", "check"}),
        ([("group", "retention")], {"upgrade", "check"}),
        ([("group", "retention"), ("action", "check")], {"upgrade"}),
        ([("channel", "agent")], set()),
        ([("channel", "web")], {"renew_12", "renew_24", "upgrade", "check"}),
        ([("action", "gone"), ("group", "check")], {"renew_12", "renew_24", "upgrade", "check"}),
    ],
)
def test_a_halt_removes_what_it_names(halts: list[tuple[str, str]], stays: set[str]) -> None:
    decision = made(*halts)
    assert left(decision) == stays
    (placement,) = explain(decision, CATALOG)["placements"]
    removed = {arm["action"]: (arm["stage"], arm["reason"]) for arm in placement["removed"]}
    assert removed == dict.fromkeys({"renew_12", "renew_24", "upgrade", "check"} - stays, ("halt", "halted"))
    assert placement["no_action_reason"] == (None if stays else NoAction.HALTED)


def test_the_funnel_has_the_stage_only_where_there_is_a_halt() -> None:
    stages = [[step["stage"] for step in explain(made(*halts), CATALOG)["placements"][0]["funnel"]]
              for halts in ([], [("action", "check")])]  # fmt: skip
    assert stages[1] == ["candidates", "halt", *stages[0][1:]]
    assert "halt" not in stages[0]


def test_inputs_without_a_halt_are_recorded_as_before() -> None:
    plain = made().inputs.to_json()
    assert "halts" not in plain
    assert Inputs.from_json(plain).halts == ()
    assert made(("group", "sales")).inputs.to_json()["halts"] == [["group", "sales"]]


def test_of_several_channels_a_halted_one_is_not_chosen() -> None:
    for number in range(20):
        decision = made(("channel", "web"), channels=("web", "mail"), id=f"d{number}")
        assert decision.channel == "mail"
        reasons = {slate.candidates.placement.id: slate.no_action for slate in decision.slates}
        assert reasons == {"hero": NoAction.HALTED, "side": NoAction.HALTED, "block": None}


def test_what_is_halted_does_not_wait_for_the_end_of_quiet_hours() -> None:
    document = open_to_all()
    for action in document["actions"]:
        action["exempt"] = []
    catalog = compile_document(document)
    quiet = {"agent": "2026-03-02T07:00:00Z"}
    everything = (("channel", "agent"),)
    for halts, expected in (((), quiet["agent"]), (everything, None)):
        inputs = Inputs("d", NOW, "c", ("agent",), (("panel", 1),), quiet=quiet, halts=halts)
        assert (
            decide(inputs, catalog, {n: serve(catalog, n, None, PRIOR) for n in catalog.policies}).not_before
            == expected
        )


HALTS = st.lists(
    st.sampled_from(
        [("action", each.id) for each in CATALOG.model.actions]
        + [("group", each.id) for each in CATALOG.model.groups]
        + [("channel", each.id) for each in CATALOG.model.channels]
        + [("action", "unknown"), ("group", "unknown"), ("channel", "unknown")]
    ),
    max_size=5,
)
CHANNELS = st.lists(st.sampled_from(sorted(PLACES)), min_size=1, max_size=3, unique=True)


@settings(max_examples=60, deadline=None)
@given(HALTS, CHANNELS, st.integers(0, 10_000), st.booleans())
def test_no_halted_arm_is_ever_shown(
    halts: list[tuple[str, str]], channels: list[str], id: int, objects: bool
) -> None:
    placements = tuple((name, 3) for channel in channels for name in PLACES[channel])
    inputs = Inputs(str(id), NOW, "c", tuple(channels), placements, objects=objects, halts=tuple(halts))
    open_inputs = Inputs(str(id), NOW, "c", tuple(channels), placements, objects=objects)
    decision = decide(inputs, CATALOG, SNAPSHOTS)

    def named(slate: Any, arm: Any) -> set[tuple[str, str]]:
        channel = slate.candidates.channel.id
        return {("action", arm.action.id), ("group", arm.group.id), ("channel", channel)}

    for slate, unhalted in zip(decision.slates, decide(open_inputs, CATALOG, SNAPSHOTS).slates, strict=True):
        assert not any(named(slate, item.arm) & set(halts) for item in slate.items)
        # and nothing else is kept back by it
        expected = [
            bool(alive and not named(slate, arm) & set(halts))
            for alive, arm in zip(unhalted.screening.alive, slate.candidates.arms, strict=True)
        ]
        assert slate.screening.alive.tolist() == expected


def test_a_halted_channel_says_so_also_where_there_was_nothing_to_show() -> None:
    document = open_to_all()
    document["placements"].append({"id": "empty", "channel": "agent", "content": [{"id": "headline"}]})
    catalog = compile_document(document)
    snapshots = {name: serve(catalog, name, None, PRIOR) for name in catalog.policies}
    for halts, reason in (((), NoAction.NO_CANDIDATES), ((("channel", "agent"),), NoAction.HALTED)):
        inputs = Inputs("d", NOW, "c", ("agent",), (("empty", 1),), halts=halts)
        assert [slate.no_action for slate in decide(inputs, catalog, snapshots).slates] == [reason]

"""What a learned state belongs to, and that a state of anything else is not served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import catalog_document

from arbitration import PRIOR, CompiledCatalog, Snapshot, compile_document, serve
from arbitration.errors import SnapshotError
from arbitration.policy.state import State
from arbitration.snapshot import fingerprint, lineage

Change = Callable[[dict[str, Any]], object]

POLICIES = ("default", "plain")
CATALOG = compile_document(catalog_document())


def changed(change: Change) -> CompiledCatalog:
    document = catalog_document()
    change(document)
    return compile_document(document)


def fingerprints(catalog: CompiledCatalog) -> dict[str, str]:
    return {policy: fingerprint(catalog, policy) for policy in POLICIES}


def scores(snapshot: Snapshot, catalog: CompiledCatalog) -> tuple[list[float], list[float]]:
    """(mean, deviation) of every arm in the context that has only the bias."""
    x = np.zeros(catalog.encoders["default"].size)
    x[0] = 1.0
    mean, sd = snapshot.posterior.score(x, 0, len(catalog.arm_ids))
    return mean.tolist(), sd.tolist()


def learned(catalog: CompiledCatalog, **more: Any) -> State:
    """A state of the policy `default`, by which `check_agent` was always answered."""
    size = catalog.encoders["default"].size
    state = State(more.get("fingerprint", fingerprint(catalog, "default")), more.get("size", size))
    x = np.zeros((50, state.size))
    x[:, 0] = 1.0
    state.add(["check_agent"] * 50, x, np.ones(50), np.ones(50))
    return state


REWARDS = [
    (number, outcome)
    for number, channel in enumerate(catalog_document()["channels"])
    for outcome in channel["rewards"]
]


@pytest.mark.parametrize(("channel", "outcome"), REWARDS)
def test_changing_one_reward_changes_every_fingerprint(channel: int, outcome: str) -> None:
    before = fingerprints(CATALOG)
    after = fingerprints(
        changed(lambda document: document["channels"][channel]["rewards"].update({outcome: 0.55}))
    )
    assert all(after[policy] != before[policy] for policy in POLICIES)


def test_a_reward_that_comes_or_goes_changes_every_fingerprint() -> None:
    before = fingerprints(CATALOG)
    for change in (
        lambda document: document["channels"][0]["rewards"].update(click=0.5),
        lambda document: document["channels"][0]["rewards"].pop("rejected"),
    ):
        after = fingerprints(changed(change))
        assert all(after[policy] != before[policy] for policy in POLICIES)


def _reorder(document: dict[str, Any]) -> None:
    document["channels"].reverse()
    document["actions"].reverse()
    document["placements"].reverse()
    document["policies"].reverse()
    for channel in document["channels"]:
        channel["rewards"] = dict(reversed(channel["rewards"].items()))


def test_reordering_changes_no_fingerprint() -> None:
    assert fingerprints(changed(_reorder)) == fingerprints(CATALOG)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["features"][0].update(scale=0.4),
        lambda document: document["features"][2].update(edges=[7, 8]),
        lambda document: document["features"].pop(),
        lambda document: document["features"].insert(0, document["features"].pop(1)),
        lambda document: document["policies"][0].update(features=["churn", "plan"]),
    ],
    ids=["scale", "edges", "fewer", "order", "chosen"],
)
def test_features_change_the_fingerprint_of_the_policies_that_use_them(change: Change) -> None:
    before, after = fingerprints(CATALOG), fingerprints(changed(change))
    assert after["default"] != before["default"]
    assert after["plain"] == before["plain"]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["actions"].pop(),
        lambda document: document["actions"][0].update(value=3.0),
        lambda document: document["policies"][0].update(strategy="ucb"),
        lambda document: document.update(name="other"),
    ],
    ids=["actions", "value", "strategy", "name"],
)
def test_what_learned_sums_do_not_depend_on_changes_no_fingerprint(change: Change) -> None:
    assert fingerprints(changed(change)) == fingerprints(CATALOG)


def test_a_lineage_is_a_policy_and_what_its_sums_depend_on() -> None:
    document = catalog_document()
    document["policies"][1].update(features=None)
    alike = compile_document(document)
    assert fingerprint(alike, "plain") == fingerprint(alike, "default")
    assert lineage(alike, "plain") != lineage(alike, "default") == lineage(CATALOG, "default")
    assert lineage(alike, "plain") != lineage(CATALOG, "plain") == lineage(changed(_reorder), "plain")


def test_policies_of_other_features_have_other_fingerprints() -> None:
    assert len(set(fingerprints(CATALOG).values())) == 2


def test_a_state_of_this_catalog_is_served() -> None:
    snapshot = serve(CATALOG, "default", learned(CATALOG), "v-1")
    assert snapshot.version == "v-1"
    arm = CATALOG.arm_ids.index("check_agent")
    mean, _ = scores(snapshot, CATALOG)
    prior, _ = scores(serve(CATALOG, "default", None, PRIOR), CATALOG)
    assert mean[arm] > 0.9
    # Its action's other arms know of it, and those of its channel; nobody else does.
    known = CATALOG.arms[arm]
    others = [
        number
        for number, other in enumerate(CATALOG.arms)
        if other.action is not known.action and other.treatment.channel != known.treatment.channel
    ]
    assert len(others) > 2
    assert [mean[number] for number in others] == [prior[number] for number in others]
    assert min(mean[number] for number in range(len(mean)) if number not in others) > 0.5


@pytest.mark.parametrize(
    "state",
    [
        learned(CATALOG, fingerprint="another"),
        learned(CATALOG, fingerprint=fingerprint(CATALOG, "plain")),
        learned(CATALOG, size=CATALOG.encoders["default"].size + 1),
        learned(changed(lambda document: document["channels"][0]["rewards"].update(accepted=0.9))),
    ],
    ids=["another", "of another policy", "another size", "other rewards"],
)
def test_a_state_of_anything_else_is_refused(state: State) -> None:
    with pytest.raises(SnapshotError, match="v-1"):
        serve(CATALOG, "default", state, "v-1")


def test_a_state_learned_before_the_rewards_were_reordered_is_served() -> None:
    assert serve(changed(_reorder), "default", learned(CATALOG), "v-1").version == "v-1"

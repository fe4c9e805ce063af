"""MABWiser's policies learn, serve and replay like ours; those kept as pickles only with their key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support import ANNA, Service, catalog_document, running, treatments

from arbitration.snapshot import PRIOR
from decision.learner import Learner
from decision.live import Live

KEY = b"a key of more than sixteen bytes"
POLICIES: list[dict[str, Any]] = [
    {"id": "ucb1", "learning_policy": {"name": "UCB1", "alpha": 1.0}},
    {"id": "beta", "learning_policy": {"name": "ThompsonSampling"}},
    {"id": "lin", "learning_policy": {"name": "LinUCB", "alpha": 1.25}},
    {"id": "near", "learning_policy": {"name": "EpsilonGreedy"},
     "neighborhood_policy": {"name": "KNearest", "k": 4}},
    {"id": "tree", "learning_policy": {"name": "UCB1"}, "neighborhood_policy": {"name": "TreeBandit"}},
    {"id": "sets", "learning_policy": {"name": "LinTS"}, "neighborhood_policy": {"name": "Clusters"}},
]  # fmt: skip
SIGNED = {"tree", "sets"}


def document() -> dict[str, Any]:
    """All of them are shadows of the champion, so that each takes part in every decision."""
    made = catalog_document()
    for action in made["actions"]:
        action |= {"eligibility": [], "applicability": [], "value": 10.0, "stop": None}
    made["policies"] += [{**policy, "library": "mabwiser", "floor": 0.1} for policy in POLICIES]
    made["policies"][0]["challengers"] = [{"policy": policy["id"], "shadow": True} for policy in POLICIES]
    return made


async def lived(service: Service, learner: Learner, seed: int = 0) -> dict[str, Any]:
    """Some decisions with answers, learned from; the last decision, which is after that."""
    for number in range(12):
        profile = {"nps": (number + seed) % 11, "plan": ("Basic", "Max")[number % 2]}
        decision = await service.decide(profile=profile)
        for treatment in treatments(decision):
            outcome = "accepted" if (treatment == "check_agent") == (number % 2 == 0) else "rejected"
            await service.respond(decision, outcome, f"{seed}-{number}-{treatment}", treatment)
    while await learner.step():
        pass
    await service.context.live.refresh()
    return await service.decide()


@pytest.mark.parametrize("key", [KEY, b""])
async def test_they_learn_serve_and_replay(tmp_path: Path, key: bytes) -> None:
    async with running(tmp_path / "a.db", signing_key=key) as service:
        await service.publish(document())
        await service.client.put("/v1/customers/anna", json=ANNA)
        learner = Learner(service.context.store, service.clock, key)
        first = await lived(service, learner)
        served = {name: each.version for name, each in service.context.live.serving.snapshots.items()}
        without = set() if key else SIGNED
        assert {name for name, version in served.items() if version == PRIOR} == without
        explained = (await service.client.get(f"/v1/decisions/{first['decision_id']}/explanation")).json()
        shadows = {shadow["policy"]: shadow for shadow in explained["shadows"]}
        assert shadows.keys() == {policy["id"] for policy in POLICIES}
        for name, shadow in shadows.items():
            assert shadow["snapshot"] == served[name]
            chances = [arm["selection_probability"] for arm in shadow["ranked"]]
            assert sum(chances) == pytest.approx(1)
            assert min(chances) >= 0.1 / len(chances) - 1e-12
        # The same events, met by a learner that starts anew, are the same snapshots.
        again = Learner(service.context.store, service.clock, key)
        await lived(service, again, seed=1)
        relearned = {name: each.version for name, each in service.context.live.serving.snapshots.items()}
        for name in served.keys() - without - {"plain"}:
            assert relearned[name] not in (served[name], PRIOR)
        # and a decision that was made before is replayed with what was known then
        replayed = await service.client.post(f"/v1/decisions/{first['decision_id']}/replay")
        assert replayed.json()["identical"]
        after = (await service.client.get(f"/v1/decisions/{first['decision_id']}/explanation")).json()
        assert after == explained


async def test_a_signed_snapshot_is_refused_under_another_key(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db", signing_key=KEY) as service:
        await service.publish(document())
        await service.client.put("/v1/customers/anna", json=ANNA)
        await lived(service, Learner(service.context.store, service.clock, KEY))
        live = Live(service.context.store, signing_key=b"another key, as long as the first")
        await live.refresh()
        assert set(live.refused) == SIGNED
        assert {name for name, each in live.serving.snapshots.items() if each.version == PRIOR} == SIGNED


async def test_without_mabwiser_the_others_learn_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mabwiser.mab", None)  # as if it were not installed
    async with running(tmp_path / "a.db", signing_key=KEY) as service:
        await service.publish(document())
        await service.client.put("/v1/customers/anna", json=ANNA)
        decision = await lived(service, Learner(service.context.store, service.clock, KEY))
        assert len(treatments(decision)) == 3
        served = {name: each.version for name, each in service.context.live.serving.snapshots.items()}
        assert {name for name, version in served.items() if version == PRIOR} == SIGNED | {"near"}

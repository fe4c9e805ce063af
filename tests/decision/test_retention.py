"""What is forgotten, and what must not be."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support import NOW, Service, catalog_document, treatments

from arbitration.policy.state import State
from decision.errors import Rejected
from decision.learner import Learner
from decision.retention import needed, prune


def events(learner: Learner) -> dict[str, float]:
    """How many events each policy has learned from."""
    assert learner._learned is not None
    states = learner._learned.states
    return {name: state.count.sum() for name, state in states.items() if isinstance(state, State)}


async def test_what_contact_policies_still_count_is_not_forgotten(service: Service) -> None:
    await service.publish(catalog_document() | {"contact_policies": [{"id": "rest", "gap": "90d"}]})
    old = await service.decide()
    await service.learner().step()
    now = NOW + timedelta(days=80)
    with pytest.raises(Rejected) as refused:
        await prune(service.context.store, now, now)
    assert refused.value.errors[0].field == "before"
    assert await service.context.store.decision(old["decision_id"]) is not None
    later = NOW.replace(month=7)
    assert await prune(service.context.store, NOW.replace(month=4), later) == 1
    assert await service.context.store.decision(old["decision_id"]) is None


async def test_what_answers_are_waited_for_is_not_forgotten(service: Service) -> None:
    compiled = service.context.live.serving.published.compiled
    assert needed(compiled) == timedelta(days=7)  # the response window of the channel `mail`


async def test_what_is_left_is_decided_explained_and_learned_as_before(service: Service) -> None:
    old = await service.decide()
    await service.respond(old, "accepted", "r-1", treatments(old)[0])
    learner = service.learner()
    await learner.step()
    service.clock.now = NOW.replace(month=4)
    kept = await service.decide()
    await service.respond(kept, "accepted", "r-2", treatments(kept)[0])
    await learner.step()
    learned = events(learner)
    assert await prune(service.context.store, NOW.replace(month=4), NOW.replace(month=6)) == 1
    replayed = await service.client.post(f"/v1/decisions/{kept['decision_id']}/replay")
    assert replayed.json()["identical"]
    assert (await service.client.get(f"/v1/decisions/{old['decision_id']}")).status_code == 404
    again = await service.decide()
    assert treatments(again)
    await service.respond(kept, "rejected", "r-3", treatments(kept)[0])
    await learner.step()
    assert events(learner) == learned  # also of what is forgotten

"""What is counted anew from the log is what the service would have counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from support import ANNA, DAY, NOW, Clock, Ids, catalog_document, running
from test_running import candidate

from arbitration.catalog.compile import compile_document
from arbitration.contact import Shown, micros
from decision.deciding import read_recorded
from decision.storage.port import BudgetPeriod
from decision.whatif.recount import Answer, Past, Recount
from decision.whatif.running import Options, whatif

EVERY = timedelta(hours=17)
LIMITED = [
    {"id": "calls", "of": {"channels": ["agent"]}, "at_most": 2, "within": "3d"},
    {"id": "no", "per": "action", "on": "rejected", "gap": "2d"},
    {
        "id": "tired",
        "per": "action",
        "on": "impression",
        "at_most": 2,
        "within": "5d",
        "rest": "3d",
        "unless": "click",
    },
]


async def test_it_holds_back_what_a_fresh_run_would_have(tmp_path: Path) -> None:
    """The same contacts are made twice: with the policies in force but no arm held back by them (all actions
    are exempt), and without any; counted anew from the second, they are those recorded in the first."""
    limited = catalog_document()
    limited["contact_policies"] = LIMITED
    limited["actions"][3]["budget"] = {"total": 2}
    fresh = catalog_document()
    fresh["contact_policies"] = LIMITED
    for action in fresh["actions"]:
        action["exempt"] = [policy["id"] for policy in LIMITED]
    recorded = []
    for number, document in enumerate((fresh, catalog_document())):
        clock, ids = Clock(), Ids()
        async with running(tmp_path / f"{number}.db", clock, ids) as service:
            await service.publish(document)
            await service.client.put("/v1/customers/anna", json=ANNA)
            for visit in range(14):
                deferred = {"activation": "deferred"} if visit % 5 == 4 else {}
                decision = await service.decide("anna", ("panel", "side", "block")[visit % 3], **deferred)
                for place, item in enumerate(decision["placements"][0]["items"]):
                    if item["treatment"] is not None and (visit + place) % 2:
                        outcome = "rejected" if visit % 3 == 0 else ("impression", "click")[visit % 4 == 1]
                        if visit % 3 != 2:
                            await service.respond(decision, outcome, f"{visit}/{place}", item["treatment"])
                clock.now += EVERY
                limits = service.context.live.serving.published.compiled.limits
                await service.context.store.release(clock.now, limits, 100)
            found = []
            if number == 0:
                async for record, _ in service.context.store.decided():
                    found.append(dict(read_recorded(record.inputs).inputs.holds))
            else:
                await service.learner().step()
                report = await whatif(
                    service.context.store, candidate(limited), Options(now=clock.now + 30 * DAY)
                )
                assert any("contact policies counted anew" in note for note in report.notes)
                told = await asked(service, limited, None)
                found = [holds for holds, _ in told]
                # What was before is counted, whatever part of the log is judged.
                late = NOW + 8 * EVERY
                assert await asked(service, limited, late) == told[8:]
                assert (told[0][1], told[8][1]) == ({}, {"check": -1})  # as it was taken without that budget
            recorded.append(found)
    assert recorded[0] == recorded[1]
    assert {policy for held in recorded[0] for policy in held} == {"calls", "no", "tired"}


async def asked(
    service: Any, document: dict[str, Any], since: datetime | None
) -> list[tuple[dict[str, Any], Any]]:
    """What the candidate is told of holds and budgets, decision by decision."""
    from decision.whatif import running as module

    found: list[tuple[dict[str, Any], Any]] = []

    class Spy(module.Candidate):
        def rework(self, *arguments: Any) -> Any:
            reworked = super().rework(*arguments)
            held = {policy: dict(of) for policy, of in reworked.inputs.holds.items()}
            found.append((held, reworked.inputs.budgets))
            return reworked

    original, module.Candidate = module.Candidate, Spy  # type: ignore[misc]
    try:
        await whatif(
            service.context.store, candidate(document), Options(now=service.clock.now + 30 * DAY, since=since)
        )
    finally:
        module.Candidate = original  # type: ignore[misc]
    return found


def recount(document: dict[str, Any]) -> Recount:
    return Recount(compile_document(document), ["calls"], ["upgrade"])


def test_what_is_only_reserved_is_released_unseen(document: dict[str, Any]) -> None:
    document["contact_policies"] = [{"id": "calls", "at_most": 1, "within": "7d"}]
    counts = recount(document)
    at = micros(NOW)
    due = micros(NOW + DAY)
    shown = (Shown("upgrade_agent", "upgrade", "sales"),)
    counts.add("unseen", Past(at, "agent", shown, due))
    heard = (Answer("upgrade_agent", "click", at, micros(NOW + 3 * DAY)),)
    counts.add("heard later", Past(at, "agent", shown, due, heard))
    counts.add("seen", Past(at, "agent", shown, due, (Answer("upgrade_agent", "click", due, due),)))
    early, late = NOW + DAY / 2, NOW + 2 * DAY
    assert set(counts.holds("unseen", early)) == {("calls", "")}
    assert counts.holds("unseen", late) == {}
    assert set(counts.holds("seen", late)) == {("calls", "")}
    assert counts.holds("heard later", late) == {}
    assert set(counts.holds("heard later", NOW + 4 * DAY)) == {("calls", "")}
    assert counts.holds("nobody", late) == {}


def test_budgets_count_what_was_shown_in_their_period(document: dict[str, Any]) -> None:
    document["actions"][2]["budget"] = {"total": 5, "each": "day"}
    counts = recount(document)
    shown = (Shown("upgrade_agent", "upgrade", "sales"), Shown("check_agent", "check", "service"))
    for hours in (0, 1, 24):
        counts.add("anna", Past(micros(NOW + timedelta(hours=hours)), "agent", shown))
    counts.add("anna", Past(micros(NOW), "agent", shown, micros(NOW + DAY)))
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    assert dict(counts.used) == {
        BudgetPeriod("upgrade:times:day", midnight): 2,
        BudgetPeriod("upgrade:times:day", midnight + DAY): 1,
    }

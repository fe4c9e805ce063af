"""Limits through HTTP: what is reserved, counted, spent and kept quiet, and that all of it replays."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import (
    ANNA,
    DAY,
    NOW,
    Clock,
    Ids,
    Service,
    SlowStore,
    actions,
    asking,
    catalog_document,
    running,
    treatments,
)

from arbitration.catalog.limits import ControlGroup
from arbitration.control import membership
from decision.storage.port import DecisionRecord
from decision.storage.sqlite.store import SqliteStore

DECIDE, BATCH = "/v1/decisions", "/v1/decisions:batch"
WEEK = timedelta(days=7)
TICK = timedelta(microseconds=1)
GAP = {"id": "gap", "gap": "30d"}
SEEN = {"id": "seen", "on": "impression", "gap": "30d"}
PHONE = {"type": "phone", "value": "555-0100"}


def document(*kept: str, **more: Any) -> dict[str, Any]:
    """The small catalog, open to everybody, with the actions `kept` (default: all). `more`: fields of
    actions and channels, by id, and of the catalog."""
    found = catalog_document()
    del found["placements"][2]["policy"], found["channels"][2]["consent"]
    found["actions"] = [action for action in found["actions"] if not kept or action["id"] in kept]
    for action in found["actions"]:
        action.pop("stop", None)
        action |= {"eligibility": [], "applicability": [], "value": 9.0, **more.pop(action["id"], {})}
    for channel in found["channels"]:
        channel |= more.pop(channel["id"], {})
    return {**found, **more}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service without a catalog; whatever it decides in a test must replay."""
    async with running(tmp_path / "service.db") as started:
        yield started
        await everything_replays(started)


async def everything_replays(service: Service) -> None:
    with closing(sqlite3.connect(service.path)) as connection:
        ids = [id for (id,) in connection.execute("SELECT decision_id FROM decisions")]
    assert ids
    for id in ids:
        replayed = (await service.client.post(f"{DECIDE}/{id}/replay")).json()
        assert replayed["identical"], replayed


async def why(service: Service, customer: str = "anna", placement: str = "block", **more: Any) -> str | None:
    """Why a dry run shows nothing; None where it shows something."""
    decision = await service.decide(customer, placement, mode="dry_run", **more)
    reason: str | None = decision["placements"][0]["no_action_reason"]
    return reason


SPENT, HELD = "budget_spent", "contact_limit"
LIMITED = document(
    "check",
    "upgrade",
    "renew_12",
    check={"budget": {"total": 1}},
    contact_policies=[{**GAP, "of": {"actions": ["upgrade"]}}, {**SEEN, "of": {"actions": ["renew_12"]}}],
)
BUDGET, DECIDED, SEEN_ONE = "check", "upgrade", "renew_12"
COURSES: list[tuple[list[str], set[str], str]] = [
    # what happens to each item of a deferred decision; what is then kept back of one action with a budget,
    # one that rests after a decision, one that rests after an impression; what became of the reservations
    ([], {BUDGET, DECIDED, SEEN_ONE}, "reserved"),
    (["early release"], {BUDGET, DECIDED, SEEN_ONE}, "reserved"),
    (["due"], {BUDGET, DECIDED, SEEN_ONE}, "reserved"),
    (["release"], set(), "released"),
    (["release", "release"], set(), "released"),
    (["impression"], {BUDGET, DECIDED, SEEN_ONE}, "firm"),
    (["impression", "release"], {BUDGET, DECIDED, SEEN_ONE}, "firm"),
    (["rejected", "release"], {BUDGET, DECIDED, SEEN_ONE}, "firm"),
    (["no_response", "release"], set(), "released"),
    (["no_response", "accepted", "release"], {BUDGET, DECIDED, SEEN_ONE}, "firm"),
    (["due", "rejected", "release"], {BUDGET, DECIDED, SEEN_ONE}, "firm"),  # late, but not too late
    (["release", "rejected"], set(), "released"),
    (["release", "impression"], {SEEN_ONE}, "released"),
    (["release", "accepted", "impression"], {SEEN_ONE}, "released"),
]


@pytest.mark.parametrize(("course", "kept", "state"), COURSES)
async def test_a_deferred_decision_reserves_until_it_is_confirmed_or_released(
    service: Service, course: list[str], kept: set[str], state: str
) -> None:
    await service.publish(LIMITED)
    decision = await service.decide(activation="deferred")
    due = datetime.fromisoformat(decision["reserved_until"])
    assert due == NOW + DAY
    released = 0
    for number, step in enumerate(course):
        if step.endswith(("due", "release")):
            service.clock.now = due - TICK if step == "early release" else due
            released += 0 if step == "due" else await service.context.releasing.release()
        else:
            for treatment in treatments(decision):
                reply = await service.respond(decision, step, f"{number}-{treatment}", treatment)
                assert reply.status_code == 200, reply.text
    told = (await service.decide(mode="dry_run", explain=True))["explanation"]["placements"][0]
    reasons = {BUDGET: "budget", DECIDED: "contact:gap", SEEN_ONE: "contact:seen"}
    assert {arm["action"]: arm["reason"] for arm in told["removed"]} == {name: reasons[name] for name in kept}
    found = await service.context.store.reservations([decision["decision_id"]])
    settled = state != "reserved"
    assert [(r.state, r.settled_at is not None) for r in found] == [(state, settled)] * 3
    assert released == (3 if state == "released" else 0)


async def test_a_contact_that_is_confirmed_counts_when_it_was_seen(service: Service) -> None:
    await service.publish(document("check", contact_policies=[{**SEEN, "gap": "3d"}]))
    decision = await service.decide("anna", "block", activation="deferred")
    service.clock.now += 2 * DAY
    await service.respond(decision, "impression", "r", "check_mail")
    service.clock.now = NOW + 5 * DAY - TICK
    assert await why(service) == HELD
    service.clock.now += TICK
    assert await why(service) is None


async def test_each_item_is_reserved_for_itself(service: Service) -> None:
    budgets = {name: {"budget": {"total": 1}} for name in ("check", "upgrade")}
    await service.publish(document("check", "upgrade", **budgets))
    decision = await service.decide(activation="deferred")
    assert set(actions(decision)) == {"check", "upgrade"}
    assert decision["reserved_until"] == "2026-03-02T12:30:15.250000Z"
    await service.respond(decision, "accepted", "r", "check_agent")
    service.clock.now += DAY
    assert await service.context.releasing.release() == 1
    assert actions(await service.decide(mode="dry_run")) == ["upgrade"]
    states = [
        (r.treatment, r.state) for r in await service.context.store.reservations([decision["decision_id"]])
    ]
    assert states == [("check_agent", "firm"), ("upgrade_agent", "released")]


async def test_nothing_is_reserved_where_nothing_is_shown(service: Service) -> None:
    await service.publish(document("check"))
    for more, placement in (({}, "block"), ({"activation": "deferred"}, "hero")):
        decision = await service.decide("anna", placement, **more)
        assert decision["reserved_until"] is None
    assert service.rows()["reservations"] == 0


async def test_a_released_decision_is_no_silence_to_learn_from(service: Service) -> None:
    await service.publish(document("check"))
    learner = service.learner()
    deferred = await service.decide("anna", "block", activation="deferred")
    plain = await service.decide("bert", "block")
    seen = await service.decide("cleo", "block", activation="deferred")
    await service.respond(seen, "impression", "r", "check_mail")
    service.clock.now += 8 * DAY
    await service.context.releasing.release()
    while await learner.step():
        pass
    ids = {decision["decision_id"]: decision for decision in (deferred, plain, seen)}
    labels = await service.context.store.labels(list(ids))
    silence = (("no_response", None),)
    assert {id: label.outcomes for (id, _), label in labels.items()} == {
        plain["decision_id"]: silence, seen["decision_id"]: silence
    }  # fmt: skip
    await service.respond(deferred, "accepted", "late", "check_mail")
    while await learner.step():
        pass
    (late,) = (await service.context.store.labels([deferred["decision_id"]])).values()
    assert late.outcomes == (("accepted", None),)


NIGHT = {"quiet_hours": [{"from": "20:00", "to": "08:00"}]}


async def test_quiet_hours_keep_a_channel_silent_and_say_until_when(service: Service) -> None:
    """By the customer's clock; not even the fallback is shown."""
    quiet = document("check", "upgrade", "renew_12", web=NIGHT, mail=NIGHT, customer_time_zone="zone",
                     time_zone="Europe/Berlin")  # fmt: skip
    quiet["attributes"].append({"id": "zone", "type": "string"})
    await service.publish(quiet)
    await service.client.put("/v1/customers/anna", json={})
    service.clock.now = datetime(2026, 3, 1, 20, tzinfo=UTC)  # 21:00 in Berlin, 15:00 in New York
    for placement in ("hero", "block"):
        decision = await service.decide("anna", placement, explain=True)
        assert decision["placements"][0] == {
            "id": placement, "items": [], "no_action_reason": "quiet_hours"
        }  # fmt: skip
        assert decision["not_before"] == "2026-03-02T07:00:00Z"
        assert decision["explanation"]["not_before"] == decision["not_before"]
    assert (await service.decide())["not_before"] is None
    away = await service.decide("anna", "block", profile={"zone": "America/New_York"})
    assert (treatments(away)[0].split("_")[-1], away["not_before"], away["degraded"]) == ("mail", None, [])
    lost = await service.decide("anna", "block", profile={"zone": "Mars/Base"})
    assert lost["degraded"] == ["customer.zone:bad_value"]
    assert lost["not_before"] == "2026-03-02T07:00:00Z"
    service.clock.now = datetime(2026, 3, 2, 7, tzinfo=UTC)
    assert treatments(await service.decide("anna", "block"))


async def test_not_before_is_told_only_where_nothing_else_holds_back(service: Service) -> None:
    limits = {"contact_policies": [{**GAP, "of": {"channels": ["mail"]}}]}
    await service.publish(document("check", mail=NIGHT, **limits))
    await service.decide("anna", "block")
    service.clock.now = datetime(2026, 3, 1, 21, tzinfo=UTC)
    held = await service.decide("anna", "block")
    assert (held["placements"][0]["no_action_reason"], held["not_before"]) == (HELD, None)
    await service.publish(document("check", mail=NIGHT, check={"exempt": ["gap"]}, **limits))
    assert (await service.decide("anna", "block"))["not_before"] == "2026-03-02T08:00:00Z"
    await service.publish(document("check", mail=NIGHT, check={"exempt": ["gap", "quiet_hours"]}, **limits))
    assert treatments(await service.decide("anna", "block")) == ["check_mail"]


class TestChoiceOfChannel:
    async def test_one_of_several_channels_answers(self, service: Service) -> None:
        await service.publish(document(contact_policies=[{"id": "mails", "gap": "1d", "per": "channel"}]))
        asked = {"customer_id": "anna", "channels": ["web", "mail"], "explain": True}
        chosen = [(await service.client.post(DECIDE, json=asked)).json() for _ in range(3)]
        assert {decision["channel"] for decision in chosen[:2]} == {"web", "mail"}
        for decision in chosen[:2]:
            of = {"hero": "web", "side": "web", "block": "mail"}
            assert [placement["id"] for placement in decision["placements"]] == list(of)
            for placement in decision["placements"]:
                other = of[placement["id"]] != decision["channel"]
                reasons = {"other_channel", HELD} if other else {None}
                assert placement["no_action_reason"] in reasons
                assert bool(placement["items"]) != other
        nothing = chosen[2]
        assert nothing["channel"] is None
        assert {p["no_action_reason"] for p in nothing["placements"]} == {HELD}
        assert not any(p["items"] for p in nothing["placements"]), "no fallback where no channel was chosen"

    async def test_the_channel_chosen_is_the_one_that_is_recorded(self, service: Service) -> None:
        await service.publish(document("check", mail=NIGHT))
        service.clock.now = datetime(2026, 3, 1, 21, tzinfo=UTC)
        asked = {"customer_id": "anna", "channels": ["mail", "agent"], "activation": "deferred"}
        decision = (await service.client.post(DECIDE, json=asked)).json()
        assert (decision["channel"], decision["not_before"]) == ("agent", None)
        assert decision["reserved_until"] == "2026-03-02T21:00:00Z"  # the window of that channel
        assert (await service.respond(decision, "rejected", "r", "check_agent")).status_code == 200
        refused = await service.respond(decision, "click", "s", "check_agent")
        assert refused.json()["errors"][0]["code"] == "unknown_outcome"

    async def test_without_placements_all_of_the_channels_are_meant(self, service: Service) -> None:
        await service.publish(document())
        for asked, placements in (
            ({"channel": "web"}, ["hero", "side"]),
            ({"channels": ["web"]}, ["hero", "side"]),
            ({"channels": ["mail", "agent"]}, ["panel", "block"]),
            ({"channels": ["mail", "web"], "placements": [{"id": "side", "limit": 1}]}, ["side"]),
        ):
            decision = (await service.client.post(DECIDE, json={"customer_id": "anna", **asked})).json()
            assert [placement["id"] for placement in decision["placements"]] == placements

    @pytest.mark.parametrize(
        ("asked", "field", "code"),
        [
            ({"channels": ["web", "fax"]}, "channels[1]", "unknown_channel"),
            ({"channel": "fax"}, "channel", "unknown_channel"),
            ({"channels": ["web", "mail"], "placements": [{"id": "panel"}]}, "placements[0].id",
             "unknown_placement"),
            ({"channels": ["web", "agent"]}, "placements", "several_policies"),
            ({"channels": ["web", "mail"], "placements": [{"id": "side", "limit": 3}]},
             "placements[0].limit", "over_limit"),
            ({"channels": []}, "channels", "too_short"),
            ({}, "", "value_error"),
            ({"channel": "web", "channels": ["mail"]}, "", "value_error"),
            ({"channels": ["web", "web"]}, "", "value_error"),
        ],
    )  # fmt: skip
    async def test_what_does_not_fit_is_refused(
        self, service: Service, asked: dict[str, Any], field: str, code: str
    ) -> None:
        await service.publish(document() | {"placements": catalog_document()["placements"]})
        await service.decide()
        reply = await service.client.post(DECIDE, json={"customer_id": "anna", **asked})
        assert reply.status_code == 422
        found = [(error["field"], error["code"]) for error in reply.json()["errors"]]
        assert found == [(field, code)] or (not field and [c for _, c in found] == [code]), found


class TestObjectionToProfiling:
    document = document(
        purposes=[{"id": "profiling", "profiling": True}, {"id": "marketing"}],
        upgrade={"eligibility": ["customer.nps < 9"]},
        renew_12={"value": "scores.clv"},
        contact_policies=[{**GAP, "per": "action", "of": {"actions": ["check"]}}],
    )

    async def objects(self, decision: dict[str, Any]) -> bool:
        told = decision["explanation"]
        assert all((item["propensity"] is None) == told["objects_to_profiling"]
                   for placement in decision["placements"] for item in placement["items"])  # fmt: skip
        return bool(told["objects_to_profiling"])

    async def test_who_withdraws_it_is_decided_for_without_personal_data(self, service: Service) -> None:
        await service.publish(self.document)
        for consents, objecting in (
            ({}, False),
            ({"profiling": "given"}, False),
            ({"profiling": "withdrawn"}, True),
        ):
            await service.client.put("/v1/customers/anna", json={**ANNA, "consents": consents})
            decision = await service.decide(explain=True, mode="dry_run")
            assert await self.objects(decision) == objecting
        (placement,) = decision["placements"]
        for item in placement["items"]:
            assert (item["propensity"], item["priority"]) == (None, None)
        assert placement["items"][0]["selection_probability"] == pytest.approx(1 / 3)
        (removed,) = decision["explanation"]["placements"][0]["removed"]
        assert (removed["action"], removed["reason"], removed["values"]) == ("upgrade", "profiling", {})
        said = {item["treatment"]: item["content"]["headline"] for item in placement["items"]}
        assert (
            said.get("renew_12_agent", "12 months of Basic") == "12 months of Basic"
        )  # templates still know

    async def test_limits_hold_for_them_too(self, service: Service) -> None:
        await service.publish(self.document)
        await service.client.put("/v1/customers/anna", json={"consents": {"profiling": "withdrawn"}})
        assert "check" in actions(await service.decide())
        assert "check" not in actions(await service.decide())

    async def test_nothing_is_learned_from_them(self, service: Service) -> None:
        await service.publish(self.document)
        learner, store = service.learner(), service.context.store
        for customer, consent, learned in (("bert", "withdrawn", False), ("cleo", "given", True)):
            await service.client.put(f"/v1/customers/{customer}", json={"consents": {"profiling": consent}})
            decision = await service.decide(customer)
            await service.respond(decision, "accepted", "r", treatments(decision)[0])
            service.clock.now += 2 * DAY
            while await learner.step():
                pass
            assert bool(await store.live_snapshots()) == learned

    @pytest.mark.parametrize(
        ("slow", "sourced", "identity", "objecting"),
        [
            ((), False, False, False),
            (("customer",), False, False, True),  # the profile might have said so
            (("standing",), False, False, True),  # its time is spent, too
            ((), True, False, True),  # nor can the source be asked
            (("resolve",), False, True, True),  # who it is cannot be told
        ],
    )
    async def test_what_cannot_be_read_may_have_been_an_objection(
        self, tmp_path: Path, slow: tuple[str, ...], sourced: bool, identity: bool, objecting: bool
    ) -> None:
        store = SlowStore(tmp_path / "slow.db")
        async with running(tmp_path / "slow.db", store=store) as service:
            document = dict(self.document)
            if sourced:
                document["sources"] = [{"id": "crm", "kind": "http", "path": "/{customer_id}"}]
                document["purposes"] = [{"id": "profiling", "profiling": True, "source": "crm"}]
            await service.publish(document)
            await service.client.put("/v1/customers/anna", json={**ANNA, "consents": {}})
            store.slow = frozenset(slow)
            asked = asking(explain=True, timeout_ms=60 if slow else None)
            if identity:
                del asked["customer_id"]
                asked["identity"] = ANNA["identities"][0]
            decision = (await service.client.post(DECIDE, json=asked)).json()
            assert await self.objects(decision) == objecting
            store.slow = frozenset()
            await everything_replays(service)


HOLDOUT = {"id": "holdout", "share": 0.5, "behaviour": "no_action", "actions": ["check"]}


def someone(member: bool, number: int = 0, **fields: Any) -> str:
    """The name of somebody who is in the control group or not."""
    control = ControlGroup.model_validate({**HOLDOUT, **fields})
    names = (f"c-{n}" for n in range(1000))
    return [name for name in names if membership(control, name) == member][number]


class TestControlGroups:
    async def test_whoever_is_in_stays_in(self, tmp_path: Path) -> None:
        """Across catalogs that change the share, restarts, and merges; until another window begins."""
        clock, ids, inside, outside = Clock(), Ids(), someone(member=True), someone(member=False)
        for round, control in enumerate(
            (HOLDOUT, {**HOLDOUT, "share": 0.0}, {**HOLDOUT, "share": 1.0}, {**HOLDOUT, "salt": "other"})
        ):
            async with running(tmp_path / "s.db", clock, ids) as service:
                await service.publish(document("check", control_groups=[control]))
                for customer, member in ((inside, True), (outside, False)):
                    decision = await service.decide(customer)
                    assert decision["control_group"] == ("holdout" if member else None)
                    assert actions(decision) == ([] if member else ["check"])
                    if member:
                        assert decision["placements"][0]["no_action_reason"] == "control_group"
                for name in (someone(True, 1), someone(False, 1)):  # whom this catalog does meet
                    fresh = f"{name}-{round}"
                    expected = membership(ControlGroup.model_validate(control), fresh)
                    assert ((await service.decide(fresh))["control_group"] == "holdout") == expected
                await everything_replays(service)
        async with running(tmp_path / "s.db", clock, ids) as service:
            window = {**HOLDOUT, "share": 0.0, "valid": {"from": "2026-03-01"}}
            await service.publish(document("check", control_groups=[window]))
            assert (await service.decide(inside))["control_group"] is None

    @pytest.mark.parametrize("first", [True, False])
    async def test_of_two_who_are_one_the_earlier_exposure_stands(
        self, service: Service, first: bool
    ) -> None:
        await service.publish(document("check", control_groups=[HOLDOUT]))
        # In the first pair who was seen first survives, in the second who was seen last.
        pairs = [(someone(first), someone(not first)), (someone(not first, 2), someone(first, 2))]
        for seen in (first, not first):
            for name in (name for pair in pairs for name in pair):
                if name in (someone(seen), someone(seen, 2)):
                    assert ((await service.decide(name))["control_group"] == "holdout") == seen
            service.clock.now += DAY
        for survivor, merged in pairs:
            phone = {**PHONE, "value": merged}
            await service.client.put(f"/v1/customers/{merged}", json={"identities": [phone]})
            path = f"/v1/customers/{survivor}/identities"
            names = (await service.client.post(path, json={"identities": [phone]})).json()
            assert names["merged"] == [merged]
            for name in (survivor, merged):
                assert ((await service.decide(name))["control_group"] == "holdout") == first

    async def test_a_stranger_keeps_it_when_they_become_known(self, service: Service) -> None:
        asked = {key: value for key, value in asking().items() if key != "customer_id"}
        for number in range(4):
            phone = {**PHONE, "value": str(number)}
            await service.publish(document("check", control_groups=[HOLDOUT]))
            stranger = (await service.client.post(DECIDE, json={**asked, "identity": phone})).json()
            member = stranger["control_group"] is not None
            opposite = someone(not member, number)
            await service.client.put(f"/v1/customers/{opposite}", json={"identities": [phone]})
            known = (await service.client.post(DECIDE, json={**asked, "identity": phone})).json()
            assert known["customer_id"] == opposite
            assert known["control_group"] == stranger["control_group"]

    async def test_only_a_live_exposure_is_recorded(self, service: Service) -> None:
        inside = someone(member=True)
        await service.publish(document(control_groups=[HOLDOUT]))
        assert (await service.decide(inside, mode="dry_run"))["control_group"] == "holdout"
        assert (await service.decide(inside, "hero"))["control_group"] == "holdout"  # nothing covered there
        assert service.rows()["memberships"] == 0
        await service.publish(document(control_groups=[{**HOLDOUT, "share": 0.0}]))
        assert (await service.decide(inside))["control_group"] is None
        assert service.rows()["memberships"] == 1

    async def test_the_groups_of_one_customer_are_told(self, service: Service) -> None:
        groups = [
            {**HOLDOUT, "share": 1.0},
            {"id": "even", "share": 1.0, "behaviour": "random_eligible"},
            {"id": "none", "share": 0.0, "behaviour": "no_action"},
            {"id": "past", "share": 1.0, "behaviour": "no_action", "valid": {"to": "2026-02-28"}},
        ]
        await service.publish(document(control_groups=groups))
        decision = await service.decide(explain=True)
        assert decision["control_group"] == "holdout"
        assert decision["explanation"]["control_groups"] == [
            {"id": "holdout", "behaviour": "no_action", "member": True},
            {"id": "even", "behaviour": "random_eligible", "member": True},
            {"id": "none", "behaviour": "no_action", "member": False},
        ]
        (placement,) = decision["explanation"]["placements"]
        assert list(placement["slots"][0]["probabilities"].values()) == pytest.approx([1 / 3] * 3)
        assert [arm["reason"] for arm in placement["removed"]] == ["control:holdout"]


async def test_one_action_may_have_several_stops(service: Service) -> None:
    stops = [
        {"on": ["accepted"], "scope": "group"},
        {"on": ["accepted"], "scope": ["check", "renew_12"], "for": "30d"},
        {"on": ["rejected"], "for": "1d"},
    ]
    await service.publish(document(upgrade={"stop": stops}))
    everything = {"renew_12", "renew_24", "upgrade", "check"}
    decision = await service.decide()
    shown = set()
    while "upgrade" not in shown:
        decision = await service.decide()
        shown = set(actions(decision))

    async def free() -> set[str]:
        told = (await service.decide(explain=True, mode="dry_run"))["explanation"]["placements"][0]
        return {arm["action"] for arm in told["ranked"]}

    await service.respond(decision, "rejected", "no", "upgrade_agent")
    assert await free() == everything - {"upgrade"}
    service.clock.now += DAY
    assert await free() == everything
    await service.respond(decision, "accepted", "yes", "upgrade_agent")
    assert await free() == {"renew_24"}
    service.clock.now += 30 * DAY
    assert await free() == everything - {"upgrade"}


async def test_a_retry_counts_once_and_gets_the_same_bytes(service: Service) -> None:
    await service.publish(
        document(
            "check",
            check={"budget": {"total": 2}},
            contact_policies=[{"id": "p", "at_most": 2, "within": "9d"}],
        )
    )
    asked = asking("anna", "block", request_id="r", activation="deferred")
    first = await service.client.post(DECIDE, json=asked)
    assert treatments(first.json()) == ["check_mail"]
    for _ in range(3):
        assert (await service.client.post(DECIDE, json=asked)).content == first.content
    assert service.rows()["reservations"] == 1
    assert await why(service) is None
    other = await service.client.post(DECIDE, json={**asked, "activation": "immediate"})
    assert other.status_code == 409
    service.clock.now += WEEK
    await service.context.releasing.release()
    assert (await service.client.post(DECIDE, json=asked)).content == first.content, (
        "even when it is released"
    )


async def test_a_dry_run_counts_and_takes_nothing(service: Service) -> None:
    limits = {"contact_policies": [GAP], "control_groups": [HOLDOUT | {"share": 0.0}]}
    await service.publish(document("check", check={"budget": {"total": 1}}, **limits))
    for activation in ("immediate", "deferred"):
        decision = await service.decide("anna", "block", mode="dry_run", activation=activation)
        assert treatments(decision) == ["check_mail"]
    rows = service.rows()
    assert [rows[name] for name in ("reservations", "budgets", "memberships")] == [0] * 3
    assert service.context.store._read("SELECT DISTINCT counters FROM standings") in ([], [("[]",)])
    assert treatments(await service.decide("anna", "block")) == ["check_mail"]
    assert await why(service) == HELD
    assert await why(service, "bert") == SPENT


@pytest.mark.parametrize(
    ("limits", "shown", "reason"),
    [
        ({"contact_policies": [{"id": "p", "at_most": 7, "within": "1d"}]}, 7, HELD),
        ({"contact_policies": [GAP]}, 1, HELD),
        ({"check": {"budget": {"total": 7}}}, 7, SPENT),
        ({"check": {"budget": {"money": 1.0, "each": "day"}}}, 3, SPENT),  # of 0.3 each
    ],
)
async def test_a_batch_and_what_comes_at_once_keep_the_limit_exactly(
    service: Service, limits: dict[str, Any], shown: int, reason: str
) -> None:
    treatment = {
        "id": "check_mail", "channel": "mail", "placement": "block", "cost": 0.1,
        "content": {"subject": "x", "body": "y"}, "incentives": [{"id": "plus", "cost": 0.2}],
    }  # fmt: skip
    check = limits.get("check", {}) | {"treatments": [treatment]}
    await service.publish(document("check", **{**limits, "check": check}))
    await service.client.put("/v1/customers/anna", json={})
    one = asking("anna", "block")
    batch = (await service.client.post(BATCH, json={"requests": [one] * 30})).json()["results"]
    decisions = [item["decision"] for item in batch]
    decisions += [
        reply.json()
        for reply in await asyncio.gather(*(service.client.post(DECIDE, json=one) for _ in range(20)))
    ]
    reasons = Counter(decision["placements"][0]["no_action_reason"] for decision in decisions)
    assert reasons == {None: shown, reason: 50 - shown}
    assert all(decision["degraded"] == [] for decision in decisions)
    other = await service.decide("bert", "block")
    assert other["placements"][0]["no_action_reason"] == (None if "contact_policies" in limits else reason)
    if "check" in limits and "money" in limits["check"]["budget"]:
        service.clock.now += DAY
        assert await why(service) is None


async def test_a_budget_is_shared_by_all_and_told(service: Service) -> None:
    treatments = [{"id": f"t{cost}", "channel": "agent", "placement": "panel", "content": {"headline": "x"},
                   "cost": cost} for cost in (1, 3)]  # fmt: skip
    budget = {"money": 4.5, "each": "month", "time_zone": "Asia/Tokyo"}
    await service.publish(document("check", check={"budget": budget, "treatments": treatments, "value": 50}))
    spent, customers = 0, iter(f"c-{number}" for number in range(99))
    while shown := (await service.decide(next(customers)))["placements"][0]["items"]:
        spent += int(shown[0]["treatment"][1:])
    assert spent == 4
    told = (await service.decide(explain=True))["explanation"]["placements"][0]["removed"]
    assert {arm["treatment"]: arm["values"] for arm in told} == {
        "t1": {"left": 0.5, "cost": 1.0}, "t3": {"left": 0.5, "cost": 3.0},
    }  # fmt: skip
    service.clock.now = datetime(2026, 3, 31, 15, tzinfo=UTC)  # April has begun in Tokyo
    assert (await service.decide())["placements"][0]["items"]


async def test_what_limits_one_name_limits_all_names(service: Service) -> None:
    await service.publish(document("check", contact_policies=[GAP]))
    await service.client.put("/v1/customers/bert", json={"identities": [PHONE]})
    await service.decide("bert", "block")
    assert await why(service) is None
    await service.client.post("/v1/customers/anna/identities", json={"identities": [PHONE]})
    assert [await why(service, name) for name in ("anna", "bert")] == [HELD, HELD]


async def test_a_new_policy_counts_what_was_before_it(service: Service) -> None:
    await service.publish(document("check"))
    decision = await service.decide("anna", "block")
    await service.respond(decision, "click", "r", "check_mail")
    for policy, reason in (
        (GAP, HELD),
        ({**GAP, "on": "click"}, HELD),
        ({**GAP, "unless": "click"}, None),
        ({**GAP, "of": {"channels": ["web"]}}, None),
        ({"id": "gap", "at_most": 2, "within": "9d"}, None),
        ({"id": "gap", "at_most": 1, "within": "9d"}, HELD),
    ):
        await service.publish(document("check", contact_policies=[policy]))
        assert await why(service) == reason


async def test_the_explanation_says_which_policy_and_until_when(service: Service) -> None:
    await service.publish(document("check", contact_policies=[{**GAP, "per": "channel"}]))
    await service.decide("anna", "block")
    told = (await service.decide("anna", "block", explain=True))["explanation"]["placements"][0]
    (arm,) = told["removed"]
    assert (arm["stage"], arm["reason"], arm["values"]) == (
        "contact", "contact:gap", {"counted": "mail", "until": "2026-03-31T12:30:15.250000Z"},
    )  # fmt: skip


class Overtaken(SqliteStore):
    """Something always changes before a decision is committed, unless it rests on nothing that could."""

    refused = 0

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        if all(record.claim is not None and record.claim.standing is not None for record in records):
            self.refused += 1
            return [None] * len(records)
        return await super().commit_decisions(records)


async def test_a_decision_that_is_overtaken_again_and_again_keeps_every_limit(tmp_path: Path) -> None:
    store = Overtaken(tmp_path / "service.db")
    async with running(tmp_path / "service.db", store=store) as service:
        limit = {"id": "p", "at_most": 9, "within": "7d", "of": {"actions": ["check"]}}
        budget = {"budget": {"total": 9}}
        stop = {"stop": {"on": ["accepted"]}}
        await service.publish(document(contact_policies=[limit], upgrade=budget, renew_12=stop))
        decision = await service.decide("bob", "panel")
        assert (actions(decision), decision["degraded"][-1]) == (["renew_24"], "limits:contended")
        assert store.refused == 10
        await everything_replays(service)

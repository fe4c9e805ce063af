"""Limits over a long life, told by chance: what is held back must be what a slow model finds by scanning all
that was answered (`limits_model`).

Decisions, answers, releases, merges, changes of the catalog, and a clock that jumps to where calendars are
odd or a window is just over.

    pytest -m long tests/scenarios/test_limits_model.py    the same at length, different each time
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from limits_model import (
    DAY,
    HOUR,
    MINUTE,
    RELEASED,
    TICK,
    Json,
    Made,
    Model,
    arms,
    end,
    quiet_rules,
    quiet_until,
    span,
)
from support import EMPTY, Clock, running

from decision.messages import DecisionRequest, ResponseMessage
from decision.storage.port import Identity, Store
from decision.storage.postgres.store import PostgresStore
from decision.storage.sqlite.store import SqliteStore

OUTCOMES = ("impression", "click", "accepted", "rejected", "no_response")
PLACEMENTS = {"panel": "agent", "hero": "web", "side": "web", "block": "mail"}
# By each start, zones whose calendar is odd soon after.
STARTS = {
    "2024-02-26T22:00Z": ("Europe/Amsterdam", "America/New_York"),  # 29 February, a change of the clock
    "2025-03-26T22:00Z": ("Asia/Beirut", "Europe/Amsterdam"),  # midnight is skipped
    "2025-10-23T22:00Z": ("Asia/Beirut", "America/Scoresbysund"),  # set back to the day before
    "2026-04-03T09:00Z": ("Australia/Lord_Howe", "UTC"),  # half an hour
    "2026-10-01T09:00Z": ("Australia/Lord_Howe", "America/New_York"),
    "2010-10-30T20:00Z": ("America/St_Johns", "America/Havana"),  # midnight comes twice
    "2010-11-06T20:00Z": ("America/St_Johns", "America/New_York"),
    "2011-12-28T09:00Z": ("Pacific/Apia", "UTC"),  # a day, and the year's last week, are cut short
}

id_lists = {
    "directions": ("inbound", "outbound"),
    "channels": ("agent", "web", "mail"),
    "groups": ("retention", "sales", "service"),
    "actions": ("renew", "winback", "upgrade", "extra", "notice"),
}
selections = st.sampled_from(sorted(id_lists)).flatmap(
    lambda kind: st.lists(st.sampled_from(id_lists[kind]), min_size=1, max_size=3, unique=True).map(
        lambda ids: {kind: ids}
    )
)
WINDOWS = ("30m", "2h", "1d", "7d", "31d")


@st.composite
def policies(draw: st.DrawFn, zones: tuple[str, ...], longest: int) -> Json:
    """A contact policy of any kind, with windows up to the `longest` of all."""
    windows = st.sampled_from(WINDOWS[: longest + 1])
    calendar = ["each"] * 3 if WINDOWS[longest] == WINDOWS[-1] else []
    on = draw(st.sampled_from(["decision", "decision", "impression", "click", "rejected"]))
    per = draw(
        st.sampled_from(["customer", "customer", "direction", "channel", "group", "action", "treatment"])
    )
    found: Json = {"on": on, "per": per}
    kind = draw(st.sampled_from([*calendar, "within", "gap", "rest"]))
    if kind == "gap":
        found["gap"] = draw(windows)
    else:
        found["at_most"] = draw(st.integers(1, 3))
    if kind == "each":
        found["each"] = draw(st.sampled_from(["day", "day", "week", "month", "quarter", "year"]))
        found["time_zone"] = draw(st.sampled_from(zones))
    elif kind != "gap":
        found["within"] = draw(windows)
    if kind == "rest":
        found["rest"] = draw(windows)
    if draw(st.booleans()):
        found["of"] = draw(selections)
    # What holds back all there is leaves little else to be seen.
    if per == "customer" and draw(st.integers(0, 3)):
        found["holds"] = draw(selections)
    unless = draw(st.sampled_from([None, None, "accepted", "impression", "rejected"]))
    if unless not in (None, on):
        found["unless"] = unless
    return found


budgets = st.sampled_from(["", "", "day", "week", "month"])


@st.composite
def catalogs(draw: st.DrawFn, zones: tuple[str, ...], like: Json | None = None) -> Json:
    """A catalog; `like`: what another has become, with most of its contact policies."""
    # Where all look back a little only, what is older is forgotten: there must be few of them, then.
    longest = draw(st.sampled_from([4, 4, 4, 1, 2]))
    fresh = st.lists(policies(zones, longest), min_size=1, max_size=1 + longest)
    if like is None:
        limits = [{"id": f"p{number}", **each} for number, each in enumerate(draw(fresh))]
    else:
        # Counted anew, whether they are others or not.
        limits = [{**each, "description": "Again."} for each in like["contact_policies"]]
        for each in limits:
            if "at_most" in each and draw(st.booleans()):
                each["at_most"] = draw(st.integers(1, 3))
        if draw(st.booleans()):
            limits = [*limits[1:], *({"id": f"q{n}", **each} for n, each in enumerate(draw(fresh)))]

    def budget(amounts: list[Json]) -> Json:
        found = dict(draw(st.sampled_from(amounts)))
        if each := draw(budgets):
            found |= {"each": each, "time_zone": draw(st.sampled_from(zones))}
        return found

    times = budget([{"total": 2}, {"total": 4}])
    money = budget([{"money": 7.5}, {"money": 12.3}])
    stops: Any = draw(
        st.sampled_from(
            [
                [{"on": ["accepted"], "scope": "group"}],
                [
                    {"on": ["accepted"], "for": "7d"},
                    {"on": ["rejected"], "scope": ["extra", "upgrade"], "for": "1d"},
                ],
                [{"on": ["rejected"], "for": "2h"}, {"on": ["click"], "scope": "group", "for": "30m"}],
            ]
        )
    )
    shown = {placement: {"text": "x"} for placement in PLACEMENTS}

    def treatments(action: str, *placements: str, **more: Any) -> list[Json]:
        return [
            {
                "id": f"{action}_{each}",
                "channel": PLACEMENTS[each],
                "placement": each,
                "content": shown[each],
                **more,
            }
            for each in placements
        ]

    incentives = [{"id": "small", "cost": 1.25}, {"id": "large", "cost": 2.3}]
    rewards = dict.fromkeys(OUTCOMES[1:], 0.5)
    return {
        "name": "limits",
        "time_zone": zones[0],
        "customer_time_zone": "zone",
        "attributes": [{"id": "zone", "type": "string"}],
        "groups": [{"id": id} for id in id_lists["groups"]],
        "channels": [
            {"id": "agent", "direction": "inbound", "response_window": "2h", "rewards": rewards},
            {"id": "web", "direction": draw(st.sampled_from(id_lists["directions"])), "contact": "impression",
             "response_window": "1d", "rewards": rewards,
             "quiet_hours": [{"days": ["sat", "sun"], "from": "23:30", "to": "02:15"}]},
            {"id": "mail", "direction": "outbound", "response_window": "2d", "rewards": rewards,
             "quiet_hours": [{"from": "20:00", "to": "01:30"}, {"days": ["sun"]}]},
        ],
        "placements": [
            {"id": each, "channel": channel, "slots": 2 if each in ("panel", "side") else 1,
             "content": [{"id": "text"}], **({"fallback": {"text": "y"}} if each == "hero" else {})}
            for each, channel in PLACEMENTS.items()
        ],
        "contact_policies": limits,
        "actions": [
            {"id": "renew", "group": "retention", "value": 10, "stop": stops,
             "treatments": treatments("renew", "panel", "hero", "block")},
            {"id": "winback", "group": "retention", "value": 10, "budget": times,
             "treatments": treatments("winback", "panel", "side", "block")},
            {"id": "upgrade", "group": "sales", "value": 10, "budget": money,
             "treatments": treatments("upgrade", "panel", "side", "block", cost=1.1, incentives=incentives)},
            {"id": "extra", "group": "sales", "value": 10,
             "treatments": treatments("extra", "panel", "side")},
            # What is always said keeps the ledger growing while all else is held back.
            {"id": "notice", "group": "service", "value": 10,
             "exempt": [*(each["id"] for each in limits), "quiet_hours"],
             "stop": [{"on": ["accepted", "click"], "scope": ["extra", "upgrade"], "for": "2h"},
                      {"on": ["rejected"], "scope": ["extra", "renew"], "for": "1d"}],
             "treatments": treatments("notice", *PLACEMENTS)},
        ],
    }  # fmt: skip


# Few, so that much happens to each.
NAMES = ("anna", "bert", "phone:bert", "cookie:k1")
requests = st.fixed_dictionaries(
    {
        "who": st.sampled_from(("anna", *NAMES)),
        "where": st.sampled_from(
            [
                ["panel"],
                ["hero"],
                ["side"],
                ["block"],
                ["hero", "side"],
                ["panel", "block"],
                ["block", "panel"],
            ]
        ),
        "mode": st.sampled_from(["live", "live", "live", "live", "dry_run"]),
        "activation": st.sampled_from(["immediate", "deferred"]),
        "named": st.booleans(),
        "zone": st.sampled_from([None, None, "America/New_York", "Australia/Lord_Howe", "Mars/Base"]),
    }
)
answers = st.fixed_dictionaries(
    {
        "which": st.integers(0, 30),
        "item": st.sampled_from([0, 0, 1]),
        "outcome": st.sampled_from(OUTCOMES),
        "when": st.sampled_from(["now", "now", "ago", "decided", "long ago", "last", "ahead"]),
        "apart": st.sampled_from([timedelta(0), TICK, MINUTE, HOUR, 20 * HOUR]),
    }
)


afterwards = st.lists(st.sampled_from(["release", "other catalog"]), max_size=2, unique=True)


@cache
def clock_changes(began: datetime, zone: str) -> list[datetime]:
    """The minutes of the fourteen months from a start in which the clock of a zone is set."""

    def offset(at: datetime) -> timedelta | None:
        return at.astimezone(ZoneInfo(zone)).utcoffset()

    hours = (began + n * HOUR for n in range(430 * 24))
    minutes = (
        hour + n * MINUTE for hour in hours if offset(hour) != offset(hour + HOUR) for n in range(1, 61)
    )
    return [at for at in minutes if offset(at) != offset(at - MINUTE)]


def stirred(life: Life) -> bool:
    """Whether there was something to look at lately; else most of a life would be waiting."""
    return life.idle < 3


class Life(RuleBasedStateMachine):
    """One service, and the model of it."""

    order = "seq"  # of commits, as the database has it

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        began = data.draw(st.sampled_from(sorted(STARTS)))
        self.zones = STARTS[began]
        self.began = datetime.fromisoformat(began)
        self.clock = Clock(self.began)
        self.model = Model()
        self.idle = 0
        self.owners: dict[str, str] = {}
        self.asked: list[tuple[Json, Json]] = []
        self.answered: list[Json] = []
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        # In memory where that is possible: nothing here is about disks.
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        directory = tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True)
        self.stack.callback(directory.cleanup)
        self.path = Path(directory.name) / "db"
        self.service = self.runner.run(
            self.stack.enter_async_context(running(self.path, self.clock, store=self.store()))
        )
        document = data.draw(catalogs(self.zones))
        self.published = [
            (self.runner.run(self.service.publish(each)), each)
            for each in (document, data.draw(catalogs(self.zones, document)))
        ]
        self.other_catalog()
        for id in ("anna", "bert"):
            self.merge(id, f"phone:{id}")
        self.idle = 0

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        try:
            for _, reply in self.asked:
                replayed = self.runner.run(self.service.context.replaying.replay(reply["decision_id"]))
                assert replayed.identical
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def ask(self, bodies: list[Json]) -> list[Json]:
        asked = [DecisionRequest.model_validate(body) for body in bodies]
        replies = self.runner.run(self.service.context.deciding.decide_all(asked))
        return [json.loads(reply) for reply in replies if isinstance(reply, bytes)]

    def tell(self, messages: list[Json]) -> list[bool]:
        told = [ResponseMessage.model_validate(message) for message in messages]
        return self.runner.run(self.service.context.responding.respond(told, listed=True))

    def store(self) -> Store:
        return SqliteStore(self.path)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as reading:
            return reading.execute(sql).fetchall()

    @rule(asked=requests)
    def decide(self, asked: Json) -> None:
        self.decide_all([asked])

    @rule(asked=st.lists(requests, min_size=2, max_size=3))
    def decide_together(self, asked: list[Json]) -> None:
        self.decide_all(asked)

    @rule(asked=requests, told=st.lists(answers, min_size=1, max_size=2))
    def decide_and_hear(self, asked: Json, told: list[Json]) -> None:
        self.decide_all([{**asked, "mode": "live"}])
        if self.model.made[-1].items:
            self.hear([{**each, "which": 0} for each in told])

    def decide_all(self, asked: list[Json]) -> None:
        """Makes decisions, which are committed together, one after the other, and looks at each."""
        self.idle = 0
        bodies = [self.body(each, len(self.asked) + n) for n, each in enumerate(asked)]
        before = {id for (id,) in self.rows("SELECT decision_id FROM decisions")}
        replies = self.ask(bodies)
        by_id = {reply["decision_id"]: (body, reply) for body, reply in zip(bodies, replies, strict=True)}
        # Nothing is committed for a dry run: it saw what was there before.
        committed = self.rows(
            "SELECT decision_id, inputs FROM decisions ORDER BY mode <> 'dry_run', " + self.order
        )
        for id, inputs in committed:
            if id not in before:
                body, reply = by_id.pop(id)
                self.check(body, reply, json.loads(inputs), alone=len(bodies) == 1)
                self.asked.append((body, reply))
        assert not by_id, "each is in the ledger"
        self.books()

    def body(self, asked: Json, number: int) -> Json:
        kind, _, value = asked["who"].rpartition(":")
        body = {
            "placements": [{"id": each} for each in asked["where"]],
            "channels": list(dict.fromkeys(PLACEMENTS[each] for each in asked["where"])),
            "mode": asked["mode"],
            "activation": asked["activation"],
            "explain": True,
            **({"identity": {"type": kind, "value": value}} if kind else {"customer_id": value}),
        }
        if asked["named"]:
            body["request_id"] = f"q{number}"
        if asked["zone"] is not None:
            body["profile"] = {"zone": asked["zone"]}
        return body

    def name(self, body: Json) -> str:
        """What the ledger calls who is asked for."""
        if "customer_id" in body:
            return str(body["customer_id"])
        identity = ":".join(body["identity"].values())
        return self.owners.get(identity, identity)

    def check(self, body: Json, reply: Json, inputs: Json, *, alone: bool) -> None:
        now, name = self.clock.now, self.name(body)
        asked_zone = body.get("profile", {}).get("zone", "")
        zone = asked_zone if "/" in asked_zone and asked_zone != "Mars/Base" else self.document["time_zone"]
        assert set(reply["degraded"]) == {
            *(["identity:not_found"] if "identity" in body and ":" in name else []),
            *(["customer.zone:bad_value"] if asked_zone == "Mars/Base" else []),
        }
        standing = self.model.standing(self.document, name, now)
        assert {tuple(stop) for stop in inputs["stops"]} == standing.stops
        holds = {
            (policy, target): at for policy, found in inputs["holds"].items() for target, at in found.items()
        }
        assert set(holds) == set(standing.holds)
        policies = {policy["id"]: policy for policy in self.document["contact_policies"]}
        for (policy, target), until in holds.items() if alone else ():
            contacts, over = standing.holds[policy, target], datetime.fromisoformat(until)
            assert self.model.held(self.document, policies[policy], contacts, over - TICK)
            assert not self.model.held(self.document, policies[policy], contacts, over)
        kept = {}
        for placement, why in zip(reply["placements"], reply["explanation"]["placements"], strict=True):
            removed = {each["treatment"]: (each["stage"], each["reason"]) for each in why["removed"]}
            ranked = {each["treatment"]: set(each["exempt"]) for each in why["ranked"]}
            here = [arm for arm in arms(self.document) if arm.placement == placement["id"]]
            assert removed.keys() | ranked.keys() == {arm.id for arm in here}
            for arm in here:
                kept[arm.id] = expected = standing.removed(arm, zone)
                if expected:
                    stage, reasons = next(iter(expected.items()))
                    assert removed[arm.id][0] == stage
                    assert removed[arm.id][1] in reasons
                else:
                    assert ranked[arm.id] == standing.against(arm, zone)
                if "budget" in arm.action and alone:
                    left = standing.left(arm.action)
                    assert inputs["budgets"].get(arm.action["id"], left) == left
            picked = [item["treatment"] for item in placement["items"] if not item["is_fallback"]]
            assert set(picked) <= ranked.keys()
        ends = {each: quiet_until(quiet_rules(self.document, each), now, zone) for each in body["channels"]}
        assert {id: datetime.fromisoformat(at) for id, at in inputs["quiet"].items()} == {
            id: at for id, at in ends.items() if at is not None
        }
        items = [item for each in reply["placements"] for item in each["items"] if not item["is_fallback"]]
        waiting = [
            ends[arm.channel] for arm in arms(self.document) if list(kept.get(arm.id, ())) == ["quiet_hours"]
        ]
        first = min((at for at in waiting if at is not None), default=None)
        told = reply["not_before"]
        assert (None if told is None else datetime.fromisoformat(told)) == (None if items else first)
        assert bool(items) == any(not reasons for reasons in kept.values())
        for placement in reply["placements"]:
            if ends[PLACEMENTS[placement["id"]]] is not None:
                assert not any(item["is_fallback"] for item in placement["items"])
        if body["mode"] == "live":
            deferred = body["activation"] == "deferred"
            channel = reply["channel"] or body["channels"][0]
            made = Made(reply["decision_id"], name, now, self.document, deferred, channel, items)
            self.model.made.append(made)
            due = reply["reserved_until"]
            assert (None if due is None else datetime.fromisoformat(due)) == (
                made.due if deferred and items else None
            )

    def books(self) -> None:
        """What the tables have of budgets and reservations."""
        kept = {
            (name, None if begins == 0 else datetime.fromtimestamp(begins / 10**6, UTC)): (used, reserved)
            for name, begins, used, reserved in self.rows("SELECT * FROM budgets")
        }
        assert kept == self.model.used()
        states = self.rows("SELECT decision_id, treatment, state FROM reservations")
        assert set(states) == {
            (made.id, item["treatment"], made.state(item["treatment"]))
            for made in self.model.made
            if made.deferred
            for item in made.items
        }

    @precondition(lambda self: any(made.items for made in self.model.made))
    @rule(told=st.lists(answers, min_size=1, max_size=3))
    def hear(self, told: list[Json]) -> None:
        """Answers, which are committed together."""
        self.idle = 0
        messages: list[tuple[Made, Json]] = []
        known = [made for made in self.model.made if made.items]
        for each in told:
            made = known[-1 - each["which"] % len(known)]
            item = made.items[each["item"] % len(made.items)]
            messages.append((made, self.message(each, made, item, len(self.answered) + len(messages))))
        assert all(self.tell([message for _, message in messages]))
        for made, message in messages:
            at = datetime.fromisoformat(message["occurred_at"])
            # Nothing comes back before its decision, or from the future.
            made.heard.append(
                (message["treatment"], message["outcome"], min(max(at, made.at), self.clock.now))
            )
            self.answered.append(message)
        self.books()

    def message(self, each: Json, made: Made, item: Json, number: int) -> Json:
        last = [datetime.fromisoformat(message["occurred_at"]) for message in self.answered[-1:]]
        at = {
            "now": self.clock.now,
            "ago": self.clock.now - each["apart"],
            "decided": made.at + each["apart"],
            "long ago": made.at - each["apart"] * 30,
            "last": (last or [made.at])[0] - each["apart"],
            "ahead": self.clock.now + each["apart"],
        }[each["when"]]
        return {
            "response_id": f"r{number}",
            "decision_id": made.id,
            "treatment": item["treatment"],
            "outcome": each["outcome"],
            "occurred_at": min(at, self.clock.now + DAY).isoformat(),
        }

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 30))
    def repeat(self, which: int) -> None:
        """What was told before changes nothing; what has an id and was asked before is answered as it was."""
        named = [each for each in self.asked if "request_id" in each[0]]
        if named:
            body, reply = named[-1 - which % len(named)]
            assert self.ask([body]) == [reply]
        if self.answered:
            message = self.answered[-1 - which % len(self.answered)]
            assert self.tell([message]) == [False]
        self.books()

    @precondition(stirred)
    @rule(
        by=st.sampled_from([TICK, MINUTE, 29 * MINUTE, HOUR, 5 * HOUR, DAY, 3 * DAY, 8 * DAY, 32 * DAY]),
        then=afterwards,
    )
    def wait(self, by: timedelta, then: list[str]) -> None:
        self.go_to(self.clock.now + by, then)

    @precondition(stirred)
    @rule(
        to=st.sampled_from(["window", "window", "due", "stop", "clock", "clock", "period", "period"]),
        which=st.sampled_from([0, 0, 1, 2, 5]),
        off=st.sampled_from([-TICK, timedelta(0), timedelta(0), TICK, -MINUTE, 30 * MINUTE, -90 * MINUTE]),
        then=afterwards,
    )
    def jump(self, to: str, which: int, off: timedelta, then: list[str]) -> None:
        """To just before, at, or just after something ends."""
        made, limits = self.model.made, self.document["contact_policies"]
        times = sorted({at for each in made for at in (each.at, *(at for _, _, at in each.heard))})
        now = self.clock.now
        if to == "window":
            spans = {span(each[key]) for each in limits for key in ("within", "gap", "rest") if key in each}
            found = [at + by for at in times for by in spans]
        elif to == "due":
            found = [each.due for each in made if each.deferred]
        elif to == "stop":
            found = [at + by for at in times for by in (30 * MINUTE, 2 * HOUR, DAY, 7 * DAY)]
        elif to == "period":
            found = [end(each, now, zone) for zone in self.zones for each in ("day", "month")]
            found += [end(each["each"], now, each["time_zone"]) for each in limits if "each" in each]
            found = [at for at in found if at - now < 100 * DAY]
        else:
            found = [at for zone in self.zones for at in clock_changes(self.began, zone)]
        ahead = sorted({at + off for at in found if at + off > now})
        self.go_to(ahead[which % len(ahead)] if ahead else now, then)

    def go_to(self, at: datetime, then: list[str]) -> None:
        self.idle += 1
        self.clock.now = at
        if "other catalog" in then:
            self.other_catalog()
        if "release" in then:
            self.release()

    def release(self) -> None:
        due = [
            (made, item["treatment"])
            for made in self.model.made
            if made.deferred and made.items and made.due <= self.clock.now
            for item in made.items
            if made.state(item["treatment"]) == "reserved"
        ]
        assert self.runner.run(self.service.context.releasing.release()) == len(due)
        for made, treatment in due:
            made.heard.append((treatment, RELEASED, self.clock.now))
        self.books()

    @precondition(stirred)
    @rule(customer=st.sampled_from(["anna", "bert"]), identity=st.sampled_from(["phone:bert", "cookie:k1"]))
    def merge(self, customer: str, identity: str) -> None:
        """An identity proves to be a customer's, as does all that was done under it."""
        self.idle += 1
        proof = Identity(*identity.split(":"))
        self.runner.run(self.service.context.store.merge(customer, [proof], self.clock.now))
        roots = self.model.roots
        one = roots.setdefault(customer, customer)
        other = self.owners.setdefault(identity, one)
        roots.setdefault(identity, one)
        for names in (roots, self.owners):
            names.update({name: one for name, root in names.items() if root == other})

    def other_catalog(self) -> None:
        version, self.document = self.published[0]
        self.published.reverse()
        reply = self.runner.run(self.service.client.post("/v1/catalog/rollback", json={"version": version}))
        assert reply.status_code == 200, reply.text


FAST = settings(
    max_examples=6,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_limits_are_what_a_scan_of_the_ledger_finds() -> None:
    run_state_machine_as_test(Life, settings=FAST)


@pytest.mark.long
def test_limits_are_what_a_scan_of_the_ledger_finds_at_length() -> None:
    at_length = settings(FAST, max_examples=600, stateful_step_count=40, derandomize=False)
    run_state_machine_as_test(Life, settings=at_length)


@pytest.fixture
def life_in_postgres(postgres_url: str) -> type[Life]:
    """The same in PostgreSQL; each life begins with an empty database."""

    class LifeInPostgres(Life):
        order = "recorded_at"

        def decide_all(self, asked: list[Json]) -> None:
            # Several customers are committed beside each other, so in an order that no column tells.
            for each in asked:
                super().decide_all([each])

        def store(self) -> Store:
            self.runner.run(self.ask_database(EMPTY))
            return PostgresStore(postgres_url)

        def rows(self, sql: str) -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = self.runner.run(self.ask_database(sql))
            return found

        async def ask_database(self, sql: str) -> Any:
            connection = await asyncpg.connect(postgres_url)
            try:
                if sql == EMPTY:
                    return await connection.execute(sql)
                return [tuple(row) for row in await connection.fetch(sql)]
            finally:
                await connection.close()

    return LifeInPostgres


def test_limits_in_postgres_are_what_a_scan_of_the_ledger_finds(life_in_postgres: type[Life]) -> None:
    run_state_machine_as_test(life_in_postgres, settings=settings(FAST, max_examples=3))


@pytest.mark.long
def test_limits_in_postgres_are_what_a_scan_of_the_ledger_finds_at_length(
    life_in_postgres: type[Life],
) -> None:
    at_length = settings(FAST, max_examples=200, stateful_step_count=40, derandomize=False)
    run_state_machine_as_test(life_in_postgres, settings=at_length)

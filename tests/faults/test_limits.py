"""Limits under load: several services on one database, many callers, one service killed.

pytest tests/faults/test_limits.py            a few seconds of it
pytest -m long tests/faults/test_limits.py    30 s and 50 callers; writes benchmarks/results/zero_overshoot.md
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
from httpx_aiohttp import HttpxAiohttpClient

from arbitration.catalog.problems import Source
from decision.clock import utc_now
from decision.publishing import check_document
from decision.settings import opened

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "zero_overshoot.md"
SERVICES = 3
SECOND = 1_000_000
ZONE = "Asia/Kolkata"
SEEN = {"impression", "click", "accepted", "rejected"}
# Nobody is contacted more often than this; `of` always names channels, so that it is easily counted here.
# What a notice adds to `noticed` moves to when it was seen: the window has to be longer than it may take.
POLICIES: list[dict[str, Any]] = [
    {"id": "burst", "of": {"channels": ["web", "app"]}, "at_most": 5, "within": "3s"},
    {"id": "web", "per": "channel", "of": {"channels": ["web"]}, "at_most": 3, "within": "2s"},
    {"id": "each", "per": "action", "of": {"channels": ["web", "app"]}, "at_most": 2, "within": "5s"},
    {"id": "family", "per": "group", "of": {"channels": ["web", "app"]}, "at_most": 3, "within": "2500ms"},
    {"id": "pause", "of": {"channels": ["app"]}, "gap": "700ms"},
    {"id": "noticed", "on": "impression", "of": {"channels": ["push"]}, "at_most": 2, "within": "1m"},
    {"id": "daily", "per": "group", "of": {"channels": ["mail"]}, "at_most": 2, "each": "day",
     "time_zone": ZONE},
    {"id": "gifts", "of": {"channels": ["shop"]}, "at_most": 3, "within": "500ms"},
]  # fmt: skip
SPANS = {"3s": 3.0, "2s": 2.0, "5s": 5.0, "2500ms": 2.5, "700ms": 0.7, "1m": 60.0, "500ms": 0.5}  # in seconds
PLACEMENTS = {"hero": "web", "side": "web", "tile": "app", "note": "push", "news": "mail", "gift": "shop",
              "perk": "shop"}  # fmt: skip
COSTS = {"perk_perk:none": 0.5, "perk_perk:small": 0.75, "perk_perk:large": 1.5}
PERK, GIFT = "perk:money:ever", "gift:times:ever"
TICKS = 10_000  # to one unit of money, as accounts are kept


@dataclass(frozen=True)
class Size:
    """How much of it. `seconds`: at least, and longer until both budgets were used up and given out again.
    `gifts`: the one in times; `money`: the other one; `pace`: seconds between two looks at the ledger."""

    callers: int
    customers: int
    seconds: float
    gifts: int
    money: int
    pace: float
    replays: int

    @property
    def names(self) -> list[str]:
        return [f"c-{number}" for number in range(self.customers)]

    @property
    def totals(self) -> dict[str, int]:
        return {GIFT: self.gifts, PERK: self.money * TICKS}


SHORT = Size(callers=24, customers=8, seconds=3, gifts=40, money=30, pace=0.7, replays=10)
LONG = Size(callers=50, customers=20, seconds=30, gifts=500, money=300, pace=3, replays=500)


def catalog(size: Size) -> dict[str, Any]:
    windows = {"web": "1s", "app": "1s", "push": "1s", "mail": "1s", "shop": "1s"}
    rewards = {"click": 0.3, "accepted": 1.0, "rejected": 0.0, "no_response": 0.0}
    stops: dict[int, Any] = {
        0: {"on": ["accepted"], "for": "3s"},
        1: [{"on": ["rejected"], "scope": "group", "for": "1s"}, {"on": ["accepted"], "scope": ["a2"]}],
    }

    def treatment(action: str, placement: str) -> dict[str, Any]:
        where = {"channel": PLACEMENTS[placement], "placement": placement, "content": {"title": "x"}}
        return {"id": f"{action}_{placement}", **where}

    usual: list[dict[str, Any]] = [
        {
            "id": f"a{number}",
            "group": f"g{number % 3}",
            "treatments": [
                treatment(f"a{number}", each) for each in ("hero", "side", "tile", "note", "news")
            ],
            **({"stop": stops[number]} if number in stops else {}),
        }
        for number in range(6)
    ]
    incentives = [{"id": "none"}, {"id": "small", "cost": 0.25}, {"id": "large", "cost": 1}]
    perk = {**treatment("perk", "perk"), "cost": 0.5, "incentives": incentives}
    return {
        "groups": [{"id": id} for id in ("g0", "g1", "g2", "free")],
        "channels": [
            {"id": id, "direction": "inbound", "response_window": window, "rewards": rewards}
            for id, window in windows.items()
        ],
        "placements": [
            {"id": id, "channel": channel, "slots": 2 if id in ("hero", "tile") else 1,
             "content": [{"id": "title"}]}
            for id, channel in PLACEMENTS.items()
        ],
        "policies": [{"id": "default", "strategy": "thompson"}],
        "contact_policies": POLICIES,
        "actions": [
            *usual,
            {"id": "gift", "group": "free", "budget": {"total": size.gifts},
             "treatments": [treatment("gift", "gift")]},
            {"id": "perk", "group": "free", "value": 10, "budget": {"money": size.money},
             "treatments": [perk]},
        ],
    }  # fmt: skip


# ---------------------------------------------------------------------------- counted from the ledger


class Shown(NamedTuple):
    """An item that a live decision showed. `state`: of its reservation, None where it made none."""

    decision_id: str
    customer: str
    at: int
    channel: str
    group: str
    action: str
    treatment: str
    state: str | None
    seen: int | None  # when it was first answered


@dataclass
class Ledger:
    """What the tables say at one moment."""

    replies: dict[str, bytes]  # by decision
    requests: Counter[tuple[str, str]]
    shown: list[Shown]
    responses: dict[str, tuple[str, str]]
    budgets: dict[str, tuple[int, int]]
    spent: Counter[str] = field(default_factory=Counter)  # placements that a spent budget left empty

    def amounts(self, budget: str) -> tuple[int, int, int]:
        """Of what was shown: what is taken of a budget, what of it is only reserved, what was given back."""
        sums: Counter[str] = Counter()
        for item in self.shown:
            if item.action == budget.split(":")[0]:
                amount = 1 if budget == GIFT else round(COSTS[item.treatment] * TICKS)
                sums[item.state or "firm"] += amount
        return sums["firm"] + sums["reserved"], sums["reserved"], sums["released"]


def read(path: Path) -> Ledger:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:

        def table(sql: str) -> list[Any]:
            return connection.execute(sql).fetchall()

        connection.execute("BEGIN")  # all tables at one moment
        states = {
            (id, what): state
            for id, what, state in table("SELECT decision_id, treatment, state FROM reservations")
        }
        answers = table(
            "SELECT response_id, decision_id, treatment, outcome, occurred_at FROM responses ORDER BY seq"
        )
        budgets = {
            id: (used, waits) for id, used, waits in table("SELECT budget, used, reserved FROM budgets")
        }
        decided = table(
            "SELECT decision_id, customer_id, request_id, decided_at, channel, mode, reply FROM decisions"
        )
    seen: dict[tuple[str, str], int] = {}
    for _, id, treatment, outcome, at in answers:
        if outcome in SEEN:
            seen.setdefault((id, treatment), at)
    found = Ledger({}, Counter(), [], {each[0]: (each[1], each[3]) for each in answers}, budgets)
    for id, customer, request, at, channel, mode, reply in decided:
        found.replies[id] = reply
        found.requests[customer, request] += 1
        for placement in orjson.loads(reply)["placements"]:
            found.spent[placement["id"]] += placement["no_action_reason"] == "budget_spent"
            for item in placement["items"] if mode == "live" else []:
                key = (id, item["treatment"])
                names = (item["group"], item["action"], item["treatment"])
                found.shown.append(Shown(id, customer, at, channel, *names, states.get(key), seen.get(key)))
    return found


def peaks(ledger: Ledger) -> dict[str, int]:
    """By contact policy: the most contacts there ever were within what it looks at."""
    found = {}
    for policy in POLICIES:
        contacts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for item in ledger.shown:
            at = item.at
            if item.channel not in policy["of"]["channels"] or item.state == "released":
                continue
            if policy.get("on") == "impression" and item.state == "firm":
                assert item.seen is not None
                at = item.seen
            target = getattr(item, policy["per"]) if "per" in policy else ""
            counted = contacts[item.customer, target]  # a decision counts once
            counted[item.decision_id] = min(at, counted.get(item.decision_id, at))
        found[policy["id"]] = max(
            (peak(policy, sorted(each.values())) for each in contacts.values()), default=0
        )
    return found


def peak(policy: dict[str, Any], times: list[int]) -> int:
    if "each" in policy:
        days = Counter(datetime.fromtimestamp(at / SECOND, ZoneInfo(ZONE)).date() for at in times)
        return max(days.values())
    span = SPANS[policy.get("within") or policy["gap"]] * SECOND
    return max(sum(at - span < other <= at for other in times) for at in times)


def assert_kept(ledger: Ledger, size: Size) -> None:
    """No limit is exceeded, and every account agrees with what was shown. Also what is only reserved counts,
    so this has to hold at any moment."""
    limits = {policy["id"]: policy.get("at_most", 1) for policy in POLICIES}
    assert {id: most for id, most in peaks(ledger).items() if most > limits[id]} == {}
    for budget, total in size.totals.items():
        taken, reserved, _ = ledger.amounts(budget)
        assert ledger.budgets.get(budget, (0, 0)) == (taken, reserved), budget
        assert taken <= total, budget
    assert {key for key, count in ledger.requests.items() if count > 1} == set()


# ------------------------------------------------------------------------------ services and callers


class Service:
    """One `decision serve` on the database; started again on the same port."""

    def __init__(self, path: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = path.with_suffix(f".{port}.log")
        self._command = [
            sys.executable,
            "-m",
            "decision",
            "serve",
            "--no-learner",
            "--store",
            f"sqlite:{path}",
        ]
        self._command += ["--port", str(port), "--timeout-ms", "10000"]
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ready(self, client: httpx.AsyncClient) -> None:
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, "the service does not start"
            try:
                if (await client.get(f"{self.url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not yet
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(path: Path, client: httpx.AsyncClient) -> AsyncIterator[list[Service]]:
    services: list[Service] = []
    try:
        services += [Service(path) for _ in range(SERVICES)]
        await asyncio.gather(*(each.ready(client) for each in services))
        yield services
    finally:
        for each in services:
            each.kill()


@dataclass
class Load:
    """The callers. `answered`: replies by (customer, request); `acknowledged`: (decision, outcome) by
    response; `stopped`: (since when, customer, actions, until when)."""

    client: httpx.AsyncClient
    urls: list[str]
    customers: list[str]
    answered: dict[tuple[str, str], bytes] = field(default_factory=dict)
    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    stopped: list[tuple[float, str, set[str], float]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    on: bool = True

    async def post(self, path: str, body: Any, chance: random.Random) -> bytes:
        """The reply of whichever service gives one; asks another one where one is gone."""
        end = time.monotonic() + 60
        while True:
            try:
                reply = await self.client.post(f"{chance.choice(self.urls)}/v1/{path}", json=body)
            except httpx.TransportError:
                self.tally["the service was gone"] += 1
            else:
                if reply.status_code == 200:
                    return reply.content
                assert reply.status_code == 503, reply.text
                self.tally["503"] += 1
            assert time.monotonic() < end, "no service answers"
            await asyncio.sleep(0.05)

    async def call(self, number: int) -> None:
        chance = random.Random(number)
        count = 0
        while self.on:
            count += 1
            batch = [
                request(f"q-{number}-{count}-{part}", self.customers, chance)
                for part in range(chance.choice([1, 1, 1, 1, 8]))
            ]
            for asked, content in zip(batch, await self.decide(batch, chance), strict=True):
                self.answered[asked["customer_id"], asked["request_id"]] = content
                self.tally["live" if asked["mode"] == "live" else "dry runs"] += 1
                if asked["mode"] == "live":
                    await self.respond(asked, orjson.loads(content), chance)

    async def decide(self, batch: list[dict[str, Any]], chance: random.Random) -> list[bytes]:
        if len(batch) > 1:
            self.tally["batches"] += 1
            results = orjson.loads(await self.post("decisions:batch", {"requests": batch}, chance))["results"]
            assert {each["status"] for each in results} <= {200, 503}, results
            return [
                orjson.dumps(each["decision"])
                if each["status"] == 200
                else await self.post("decisions", asked, chance)
                for each, asked in zip(results, batch, strict=True)
            ]
        # Some callers are impatient: the same request twice at once, maybe to two services.
        times = 2 if chance.random() < 0.05 else 1
        replies = await asyncio.gather(*(self.post("decisions", batch[0], chance) for _ in range(times)))
        self.tally["sent twice at once"] += times - 1
        assert len(set(replies)) == 1
        return replies[:1]

    async def respond(self, asked: dict[str, Any], decision: dict[str, Any], chance: random.Random) -> None:
        self.tally["contended"] += "limits:contended" in decision["degraded"]
        messages = []
        for shown in (item for placement in decision["placements"] for item in placement["items"]):
            if chance.random() > (0.5 if asked["activation"] == "deferred" else 0.2):
                continue
            outcome = chance.choice([*sorted(SEEN), "no_response"])
            messages.append(
                {
                    "response_id": f"r-{asked['request_id']}-{shown['treatment']}",
                    "decision_id": decision["decision_id"],
                    "treatment": shown["treatment"],
                    "outcome": outcome,
                }
            )
        if messages:
            sent = time.time()
            await self.post("responses", messages, chance)
            if chance.random() < 0.05:
                assert orjson.loads(await self.post("responses", messages, chance))["recorded"] == 0
            for each in messages:
                self.acknowledged[each["response_id"]] = (each["decision_id"], each["outcome"])
                self._rests(asked["customer_id"], each["treatment"].partition("_")[0], each["outcome"], sent)

    def _rests(self, customer: str, action: str, outcome: str, sent: float) -> None:
        if (action, outcome) == ("a0", "accepted"):
            self.stopped.append((time.time(), customer, {"a0"}, sent + 3))
        if (action, outcome) == ("a1", "rejected"):
            self.stopped.append((time.time(), customer, {"a1", "a4"}, sent + 1))
        if (action, outcome) == ("a1", "accepted"):
            self.stopped.append((time.time(), customer, {"a2"}, float("inf")))


def request(id: str, customers: list[str], chance: random.Random) -> dict[str, Any]:
    kinds = [["hero"], ["hero", "side"], ["tile"], ["note"], ["news"], ["gift", "perk"]]
    (names,) = chance.choices(kinds, [1, 1, 1, 1, 1, 5])
    channel = PLACEMENTS[names[0]]
    several = chance.random() < 0.1
    asked: dict[str, Any] = {
        "request_id": id,
        "customer_id": chance.choice(customers),
        "mode": "dry_run" if chance.random() < 0.03 else "live",
        # What is noticed at once cannot be limited, only what is reserved until then.
        "activation": "deferred" if channel == "push" else chance.choice(["deferred", "immediate"]),
        **({"channels": ["web", "app", "mail"]} if several and channel != "push" else
           {"channel": channel, "placements": [{"id": name} for name in names]}),
    }  # fmt: skip
    if chance.random() < 0.02:
        asked["timeout_ms"] = 1  # may be too short for what limits the customer to be read
    return asked


# --------------------------------------------------------------------------------------------- tests


@dataclass
class Run:
    """A run that went well, for the report. `given`: what was taken of each budget, then given back."""

    ledger: Ledger
    load: Load
    looks: int
    seconds: float
    given: dict[str, tuple[int, int]]


async def run(size: Size, path: Path) -> Run:
    """All that is to be shown; AssertionError where it is not so."""
    checked = check_document(Source(catalog(size)))
    assert checked.published is not None, checked
    async with opened(f"sqlite:{path}") as store:
        await store.publish_catalog(checked.published.version, checked.document, utc_now())
    # Not httpx's own pool: with many callers it takes more of the machine than the services do.
    limits = httpx.Limits(max_connections=2 * size.callers)
    async with HttpxAiohttpClient(timeout=60, limits=limits) as client, serving(path, client) as services:
        load = Load(client, [each.url for each in services], size.names)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(size.callers):
                group.create_task(load.call(number))
            looking = group.create_task(look(path, size, load))
            await asyncio.sleep(size.seconds / 2)
            services[0].kill()
            services[0].start()
        seconds = time.monotonic() - began
        assert load.tally["the service was gone"] > 0

        await services[0].ready(client)
        await until(lambda: not unsettled(path), "what nobody confirmed is released")
        settled = read(path)
        assert_kept(settled, size)
        # To the last unit: none was lost, none was given out twice.
        await use_up(load)
        final = read(path)
        assert_kept(final, size)
        assert final.amounts(GIFT)[0] == size.gifts
        assert size.totals[PERK] - final.amounts(PERK)[0] < min(COSTS.values()) * TICKS
        assert_heard(final, load)
        for id in random.Random(7).sample(sorted(final.replies), size.replays):
            replayed = orjson.loads(await load.post(f"decisions/{id}/replay", None, random.Random(id)))
            assert replayed == {"identical": True, "decision": orjson.loads(final.replies[id])}
        given = {budget: settled.amounts(budget)[::2] for budget in size.totals}
        return Run(final, load, looking.result(), seconds, given)


async def look(path: Path, size: Size, load: Load) -> int:
    """Counts again and again while they call; ends it when that was long enough. How often it was."""
    looks, began = 0, time.monotonic()
    while load.on:
        await asyncio.sleep(size.pace)
        ledger = await asyncio.to_thread(read, path)
        await asyncio.to_thread(assert_kept, ledger, size)
        looks += 1
        lasted = time.monotonic() - began
        again = all(sum(ledger.amounts(budget)[::2]) > total for budget, total in size.totals.items())
        again &= min(ledger.spent["gift"], ledger.spent["perk"]) > 0
        assert lasted < size.seconds + 90, "released units do not become available again"
        load.on = lasted < size.seconds or not again
    return looks


def unsettled(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT count(*) FROM reservations WHERE state = 'reserved'").fetchone()
        return int(row[0])


async def until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, f"not within 60 s: {what}"
        await asyncio.sleep(0.1)


async def use_up(load: Load) -> None:
    """Gives out what is left of the budgets, for good."""
    left, number = True, 0
    while left:
        number += 1
        assert number < 300, "the budgets are never used up"
        batch = [
            {"request_id": f"u-{number}-{customer}", "customer_id": customer, "channel": "shop"}
            for customer in load.customers
        ]
        replies = [orjson.loads(each) for each in await load.decide(batch, random.Random(number))]
        left = any(
            placement["no_action_reason"] != "budget_spent"
            for reply in replies
            for placement in reply["placements"]
        )
        await asyncio.sleep(0.05)


def assert_heard(ledger: Ledger, load: Load) -> None:
    """What callers were told is what the ledger has, and what was stopped was not shown."""
    for key, content in load.answered.items():
        assert key in ledger.requests
        assert orjson.loads(ledger.replies[orjson.loads(content)["decision_id"]]) == orjson.loads(content)
    assert load.acknowledged.items() <= ledger.responses.items()
    for since, customer, actions, end in load.stopped:
        for item in ledger.shown:
            if item.customer == customer and item.action in actions:
                assert not since < item.at / SECOND < end, item


async def test_no_limit_is_exceeded(tmp_path: Path) -> None:
    await run(SHORT, tmp_path / "service.db")


@pytest.mark.long
async def test_no_limit_is_exceeded_for_long(tmp_path: Path) -> None:
    before = os.getloadavg()[0]
    RESULT.write_text(report(await run(LONG, tmp_path / "service.db"), before), encoding="utf-8")


def report(done: Run, busy: float) -> str:
    ledger, tally, found = done.ledger, done.load.tally, peaks(done.ledger)
    rows = []
    for policy in POLICIES:
        most, there_was = policy.get("at_most", 1), found[policy["id"]]
        span = policy.get("within") or policy.get("gap") or f"each {policy['each']}, {ZONE}"
        limit = f"`{policy['id']}`: {most} per {policy.get('per', 'customer')}, {span}"
        rows.append(f"| {limit} | {there_was} | {max(0, there_was - most)} |")
    for budget, unit in ((GIFT, 1), (PERK, TICKS)):
        taken, total = ledger.amounts(budget)[0] / unit, LONG.totals[budget] / unit
        rows.append(f"| budget `{budget}`: {total:g} | {taken:g} | {max(0, taken - total):g} |")
    table = "\n".join(rows)
    placements = [each for reply in ledger.replies.values() for each in orjson.loads(reply)["placements"]]
    empty = Counter(each["no_action_reason"] for each in placements)
    states = Counter(item.state for item in ledger.shown)
    taken, back = done.given[GIFT]
    return f"""# Zero overshoot

{LONG.callers} callers, {LONG.customers} customers, {SERVICES} processes of `decision serve` on one SQLite
file, {done.seconds:.0f} s; half way one process is killed (SIGKILL) and started again.

| limit | the most there was | overshoot |
|---|---|---|
{table}

- Counted from decisions, responses and the states of reservations in the ledger, never from the
  counters: once all was settled, and {done.looks} times before that, when what was only reserved counted
  too. Each time the accounts of the budgets agreed with what was shown.
- {tally["live"]:,} live decisions, {tally["dry runs"]:,} dry runs, {len(ledger.responses):,} responses; among
  the requests {tally["batches"]:,} batches of 8 and {tally["sent twice at once"]:,} sent twice at once.
- Reserved items: {states["firm"]:,} confirmed, {states["released"]:,} released. When all was settled,
  {taken:,} of `{GIFT}` were given and {back:,} had been taken back: released units were given out again.
  Then the rest was, to the last.
- Placements left empty by a contact policy: {empty["contact_limit"]:,}, by a spent budget:
  {empty["budget_spent"]:,}. Stops that began: {len(done.load.stopped):,}; nothing was shown that they cover.
- {tally["the service was gone"]:,} requests met the killed process and were sent again under the same
  `request_id`; {tally["503"]:,} were answered 503. {tally["contended"]:,} decisions kept every limit there
  could be because too much changed beneath them. How often one was made again before it was committed is
  not recorded.
- Every reply and every acknowledgement is in the ledger, no request is there twice, and {LONG.replays}
  decisions made again came out the same, byte for byte.

Measured on:

- {processor()}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()},
  SQLite {sqlite3.sqlite_version}, httpx {version("httpx")}
- load average before it began: {busy:.1f}; the callers run on the same cores

Repeat: `pytest -m long tests/faults/test_limits.py`.
"""


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()

"""What a customer's past costs: limits checked and kept for customers with 10 to 10,000 past contacts.

    python benchmarks/contact_history.py [--write] [--most 10000] [--rounds 200]

Decides for customers of each kind by turns, in process, every decision committed to disk, and answers each;
then lets them be counted anew, as after a change of contact policies. Prints tables; `--write` also keeps
them in `benchmarks/results/contact_history.md`. With `--most 100 --rounds 3` it only shows that it works.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import uvloop
from storage import busy, keep, machine

from arbitration.catalog.problems import Source
from arbitration.contact import Contact, Limits, Shown, micros
from decision.api.context import build
from decision.clock import new_id, utc_now
from decision.messages import DecisionRequest, ResponseMessage
from decision.publishing import check_document
from decision.storage.port import Claim, DecisionRecord
from decision.storage.sqlite.store import SqliteStore

ACTIONS = 300
FEW = 5
HISTORIES = (10, 100, 1_000, 10_000)
WITHIN, OVER_TIME = timedelta(days=7), timedelta(days=700)
WINDOW, LIMIT = 30, 100
RECOUNTS = 5
INPUTS = b"x" * 2048
PARTS = {"check": "`standing`", "commit": "`commit_decisions`", "decision": "decision", "answer": "response"}


@dataclass(frozen=True)
class Kind:
    """Customers of one kind. `span`: how far back their contacts go; `actions`: how many they had."""

    history: int
    span: timedelta
    actions: int
    customers: tuple[str, ...]


Times = dict[tuple[Kind, str], list[float]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--most", type=int, default=HISTORIES[-1], help="past contacts of the longest")
    parser.add_argument("--rounds", type=int, default=200, help="decisions for each kind of customer")
    options = parser.parse_args()
    histories = [history for history in HISTORIES if history <= options.most]
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(measure(Path(directory), histories, options.rounds))
    keep(report, "contact_history.md", write=options.write)


class Timed(SqliteStore):
    """A store that notes how many seconds its last commit took."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.took = 0.0

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        started = time.perf_counter()
        committed = await super().commit_decisions(records)
        self.took = time.perf_counter() - started
        return committed


async def measure(directory: Path, histories: Sequence[int], rounds: int) -> str:
    """Everything, as markdown."""
    before = busy()
    store = Timed(directory / "store.db")
    context = build(store, timeout_ms=60_000)
    await store.open()
    checked = check_document(Source(_catalog(WINDOW)))
    assert checked.published is not None, checked
    await store.publish_catalog(checked.published.version, checked.document, utc_now())
    await context.live.refresh()
    limits = checked.published.compiled.limits

    now = utc_now()
    kinds = [
        # Enough of them that what is decided here does not make a short history a long one.
        Kind(history, span, actions, tuple(new_id() for _ in range(max(1, min(rounds, 500 // history)))))
        for history in histories
        for span in (WITHIN, OVER_TIME)
        for actions in (FEW, ACTIONS)
    ]
    for kind in kinds:
        for customer in kind.customers:
            await _seed(store, kind, customer, limits, now)

    times: Times = defaultdict(list)
    for number in range(rounds):
        for kind in by_turns(kinds, number):
            times[kind, "check"].append(await _check(store, kind, limits))
    for number in range(rounds):
        for kind in by_turns(kinds, number):
            customer = kind.customers[number % len(kind.customers)]
            started = time.perf_counter()
            reply = await context.deciding.decide(DecisionRequest(customer_id=customer, channel="web"))
            times[kind, "decision"].append(time.perf_counter() - started)
            times[kind, "commit"].append(store.took)
            answer = _answer(orjson.loads(reply))
            started = time.perf_counter()
            await context.responding.respond([answer], listed=False)
            times[kind, "answer"].append(time.perf_counter() - started)
    for number in range(RECOUNTS):
        changed = check_document(Source(_catalog(WINDOW + 1 + number))).published
        assert changed is not None
        for kind in by_turns(kinds, number):
            times[kind, "recount"].append(await _check(store, kind, changed.compiled.limits))
    await store.close()
    return _report(kinds, times, histories, rounds, before)


def by_turns(kinds: Sequence[Kind], number: int) -> Sequence[Kind]:
    """All of them, each time beginning with the next."""
    first = number % len(kinds)
    return (*kinds[first:], *kinds[:first])


async def _check(store: SqliteStore, kind: Kind, limits: Limits) -> float:
    now, started = utc_now(), time.perf_counter()
    await store.standing(kind.customers[:1], now, limits)
    return time.perf_counter() - started


def _answer(decision: dict[str, Any]) -> ResponseMessage:
    (item,) = decision["placements"][0]["items"]
    return ResponseMessage(
        response_id=new_id(),
        decision_id=decision["decision_id"],
        treatment=item["treatment"],
        outcome="click",
    )


async def _seed(store: SqliteStore, kind: Kind, customer: str, limits: Limits, now: datetime) -> None:
    """A customer's past, in the ledger and in the counters."""
    records = []
    for number in range(kind.history):
        at = now - kind.span * (kind.history - number) / (kind.history + 1)
        action = f"a{1 + number % kind.actions}"
        item = {"treatment": f"{action}_hero", "action": action, "group": "all"}
        shown = Contact(micros(at), "web", (Shown(item["treatment"], action, "all"),))
        records.append(
            DecisionRecord(
                decision_id=new_id(),
                customer_id=customer,
                request_id=None,
                request_hash="",
                decided_at=at,
                channel="web",
                mode="live",
                catalog_version="v1",
                snapshots={},
                inputs=INPUTS,
                reply=orjson.dumps({"placements": [{"id": "hero", "items": [item]}]}),
                claim=Claim((customer,), limits, None, {}, shown),
            )
        )
    for start in range(0, len(records), 500):
        await store.commit_decisions(records[start : start + 500])


def _catalog(days: int) -> dict[str, Any]:
    """Actions that are all alike, but for `a0`, which the customer's own limit holds back."""
    window = {"at_most": LIMIT, "within": f"{days}d"}
    where = {"channel": "web", "placement": "hero", "content": {"title": "x"}}
    return {
        "groups": [{"id": "all"}],
        "channels": [
            {"id": "web", "direction": "inbound", "rewards": {"click": 1.0}, "response_window": "1h"}
        ],
        "placements": [{"id": "hero", "channel": "web", "content": [{"id": "title"}]}],
        "policies": [{"id": "default", "strategy": "thompson"}],
        "contact_policies": [
            {"id": "customer", "of": {"channels": ["web"]}, "holds": {"actions": ["a0"]}, **window},
            {"id": "action", "per": "action", **window},
        ],
        "actions": [
            {"id": f"a{number}", "group": "all", "treatments": [{"id": f"a{number}_hero", **where}]}
            for number in range(ACTIONS + 1)
        ],
    }


def _report(
    kinds: Sequence[Kind],
    times: Times,
    histories: Sequence[int],
    rounds: int,
    before: str,
) -> str:
    def typical(part: str, history: int) -> float:
        """Of customers who had a few actions, over either span; milliseconds."""
        alike = [kind for kind in kinds if (kind.history, kind.actions) == (history, FEW)]
        return median([each for kind in alike for each in times[kind, part]]) * 1e3

    least, most = histories[0], histories[-1]
    summary, rows = [], []
    for part, name in PARTS.items():
        little, much = typical(part, least), typical(part, most)
        summary.append(f"| {name} | {little:.3f} | {much:.3f} | {much / little:.2f} |")
    for kind in kinds:
        past = f"{kind.history:,} | {kind.span.days} days | {min(kind.actions, kind.history)}"
        figures = " | ".join(f"{median(times[kind, part]) * 1e3:.3f}" for part in PARTS)
        rows.append(f"| {past} | {figures} | {median(times[kind, 'recount']) * 1e3:.1f} |")
    compared, table = "\n".join(summary), "\n".join(rows)
    return f"""# A long history

Customers with {least:,} past contacts and with {most:,}, of {FEW} actions; medians of {2 * rounds}, in ms:

| | {least:,} | {most:,} | ratio |
|---|---|---|---|
{compared}

Customers of every kind, by turns; medians of {rounds}, in ms. The limits look back {WINDOW} days. The last
column is the first `standing` after contact policies were changed, the median of {RECOUNTS}:

| past contacts | in the last | of actions | {" | ".join(PARTS.values())} | recount |
{"|---" * (4 + len(PARTS))}|
{table}

- {ACTIONS + 1} actions and two contact policies: {LIMIT} per customer, which holds back one action, and
  {LIMIT} per action. `standing` is the check; `commit_decisions` checks again and keeps the counters; both
  are part of the decision. A response looks only at the decision it answers.
- A check reads the counters that hold. So it costs a little more where limits are reached: with 100 contacts
  in the window that per customer, with 1,000 of {FEW} actions those per action too. From there on a longer
  history changes nothing.
- A counter holds as many contacts as its limit, and no more: with a limit of 1,000 it is more to keep.
- The recount does grow with the history. It is made once for each customer, at the next decision after
  contact policies were changed or customers merged, and within a write, so that other writes wait for it.

Measured on:

- {machine()}
- {before}
- one process, without HTTP in front; every decision and response is committed to disk, which is most of
  what a commit takes

Repeat: `python benchmarks/contact_history.py --write`.
"""


if __name__ == "__main__":
    main()

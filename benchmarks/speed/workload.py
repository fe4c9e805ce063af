"""The world that all is measured in: a catalog, customers, and what has been learned of them.

Everything follows from seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

import numpy as np

from arbitration.catalog.compile import CompiledCatalog, compile_document
from arbitration.catalog.problems import Source
from arbitration.facts import rfc3339
from arbitration.inputs import Inputs
from arbitration.policy.state import State
from arbitration.snapshot import Snapshot, empty_state, lineage, serve
from benchmarks.speed.authoring import CHANNEL, GROUPS, PLACEMENT, POLICY, SLOTS, Width, catalog
from benchmarks.speed.clauses import Clause
from benchmarks.speed.population import NOW, Customer, customers
from decision.clock import utc_now
from decision.importing import to_customer
from decision.messages import ImportLine
from decision.publishing import check_document
from decision.storage.port import SnapshotRecord, Store

Maturity = Literal["mature", "young"]
EVENTS: Mapping[Maturity, float] = {"mature": 2_000, "young": 100}
"""Outcomes learned of the median arm."""


@dataclass(frozen=True)
class World:
    """A catalog with what has been learned in it. `rules`: the three clauses of each action."""

    document: dict[str, Any]
    rules: tuple[tuple[Clause, Clause, Clause], ...]
    catalog: CompiledCatalog
    states: Mapping[str, State]
    snapshots: Mapping[str, Snapshot]


@cache
def world(arms: int, maturity: Maturity = "mature", width: Width = "features") -> World:
    """The world with so many actions."""
    document, rules, compiled = _compiled(arms, width)
    state = learned(compiled, maturity, width)
    snapshot = serve(compiled, POLICY, state, f"{maturity}-{arms}")
    return World(document, rules, compiled, {POLICY: state}, {POLICY: snapshot})


@cache
def _compiled(arms: int, width: Width) -> tuple[dict[str, Any], Any, CompiledCatalog]:
    document, rules = catalog(arms, width)
    return document, rules, compile_document(document)


@cache
def _contexts(width: Width) -> np.ndarray:
    """x of 4,000 customers, whatever actions there are."""
    encoder = _compiled(GROUPS, width)[2].encoders[POLICY]
    return np.array([encoder.encode(customer.facts, NOW) for customer in customers(4_000, 7)])


def learned(compiled: CompiledCatalog, maturity: Maturity, width: Width) -> State:
    """What a learner would have: sums over real encoded customers, drawn and not added one by one.

    An arm has met a mixture of 16 cohorts of customers; its reward rate is 1% to 15% (log-uniform) and moves
    with x. Given Σ x xᵀ, Σ r x is drawn from its Normal limit.
    """
    rng = np.random.default_rng([3, len(compiled.arms)])
    x = _contexts(width)
    cohorts = np.array([part.T @ part / len(part) for part in np.split(x, 16)])
    arms, size = len(compiled.arms), x.shape[1]
    count = np.maximum(10.0, EVENTS[maturity] * np.exp(rng.normal(0, 0.7, arms)))
    mixture = rng.dirichlet(np.ones(16), arms) * count[:, None]
    rate = np.exp(rng.uniform(math.log(0.01), math.log(0.15), arms))
    truth = rng.normal(0, 0.25, (arms, size)) * rate[:, None] / math.sqrt(np.square(x).sum(1).mean())
    truth[:, 0] += rate
    noise = rng.normal(size=(arms, size)) @ np.linalg.cholesky(cohorts.mean(0) + 1e-9 * np.eye(size)).T
    moment = noise * np.sqrt(count * rate * (1 - rate))[:, None]
    for share, cohort in zip(mixture.T, cohorts, strict=True):
        moment += share[:, None] * (truth @ cohort)
    upper = np.triu_indices(size)
    state = empty_state(compiled, POLICY)
    assert isinstance(state, State)
    state.rows = {arm: row for row, arm in enumerate(compiled.arm_ids)}
    state.outer = mixture @ cohorts[:, upper[0], upper[1]]
    state.moment = moment
    state.squares = np.maximum(moment[:, 0], rate)  # rewards are 0 or 1, and the bias is the first column
    state.count = count
    return state


def inputs(customer: Customer, compiled: CompiledCatalog) -> Inputs:
    """What the service would decide this customer with: 2% of actions shown in the last week, and so held
    back, one group at its limit for 3 customers of 10, and their answer to marketing."""
    rng = np.random.default_rng([4, *customer.id.encode()])
    actions = compiled.model.actions
    until = rfc3339(NOW + timedelta(days=3))
    recent = rng.choice(len(actions), math.ceil(len(actions) * 0.02), replace=False)
    holds: dict[str, dict[str, str | None]] = {
        "same_action": {actions[each].id: until for each in recent.tolist()}
    }
    if rng.random() < 0.3:
        holds["same_group"] = {f"g{rng.integers(GROUPS)}": until}
    return Inputs(
        decision_id=f"d-{customer.id}",
        now=NOW,
        customer_id=customer.id,
        channels=(CHANNEL,),
        placements=((PLACEMENT, SLOTS),),
        facts=customer.facts,
        consents=customer.consents,
        holds=holds,
    )


def request(customer: Customer) -> dict[str, Any]:
    """The body of the request that asks for this decision."""
    return {"customer_id": customer.id, "channel": CHANNEL, "context": customer.context()}


async def publish(store: Store, made: World, now: datetime | None = None) -> None:
    """Puts the catalog and what has been learned into a store, as a publish and a learner would."""
    now = now or utc_now()
    checked = check_document(Source(made.document))
    assert checked.published is not None, checked.problems
    await store.publish_catalog(checked.published.version, checked.document, now)
    await put_snapshot(store, made, now)


async def put_snapshot(store: Store, made: World, now: datetime | None = None, change: float = 0.0) -> str:
    """Commits what has been learned as the newest snapshot; its version. `change`: what is added to the count
    of the first arm before, so that there is another snapshot to serve."""
    state = made.states[POLICY]
    state.count[0] += change
    digest, content = state.to_bytes()
    line = lineage(made.catalog, POLICY)
    record = SnapshotRecord(f"{line}-{digest}", line, now or utc_now(), content)
    cursor = await store.cursor()
    await store.commit_learning([], [record], cursor, expected=cursor, lineages=[line])
    return record.version


async def import_customers(store: Store, people: Sequence[Customer], now: datetime | None = None) -> None:
    """Puts profiles into a store, checked as an import checks them."""
    lines = [ImportLine.model_validate(each.profile()) for each in people]
    for start in range(0, len(lines), 500):
        batch = [to_customer(line.customer_id, line) for line in lines[start : start + 500]]
        await store.put_customers(batch, now or utc_now())

"""The whole loop learns: the real engine in the simulated telco world, against its hidden truth.

Every decision is made by `decide` from the example catalog and one simulated customer in one simulated
visit, one item each. The customer accepts with the hidden probability; the answer is learned from, a new
snapshot is served after every 500 answers, and what an acceptance lets rest, rests. At the same moments
the truth says what a random eligible arm would have had (the baseline), and the best one.

Held to: acceptance over the last tenth of the decisions is at least 1.5 times the random baseline. All
seeds and decision ids are fixed, so there are no false alarms. A tenth of 8,000 decisions is known to
± 0.015, standard error (of 50,000, with `-m long`, to ± 0.006), and stands more than four of these above the
bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arbitration import CompiledCatalog, Inputs, decide, serve
from arbitration.facts import Facts, admit
from arbitration.policy.state import State
from arbitration.snapshot import fingerprint
from decision.catalog_files import read_catalog
from decision.demo.world import Truth, facts_of, simulate_customers, visit
from decision.publishing import check_document

TELCO = Path(__file__).parents[2] / "examples" / "telco"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CUSTOMERS = 5_000
REFRESH = 500  # answers between two snapshots
SAMPLED = 3  # the references are worked out for one decision in so many
BOUND = 1.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """Over the last tenth of the decisions: shares accepted, and expected of random and best arms.
    `worth`: ratio of the value accepted to that expected of random arms, per item."""

    acceptance: float
    random: float
    best: float
    worth: float


def catalog() -> CompiledCatalog:
    source, unreadable = read_catalog(TELCO)
    published = check_document(source).published
    assert not unreadable
    assert published is not None
    return published.compiled


def admitted(customer: dict[str, Any], compiled: CompiledCatalog) -> Facts:
    named = {f"customer.{name}": raw for name, raw in customer["attributes"].items()}
    named |= {f"scores.{name}": raw for name, raw in customer["scores"].items()}
    return {name: admit(name, raw, compiled.declared[name]) for name, raw in named.items()}


def simulate(count: int) -> Outcome:
    compiled = catalog()
    (policy,) = compiled.policies
    encoder = compiled.encoders[policy]
    state = State(fingerprint(compiled, policy), encoder.size)
    snapshots = {policy: serve(compiled, policy, None, "prior")}
    customers = list(simulate_customers(CUSTOMERS, 7, NOW))
    facts = [admitted(customer, compiled) for customer in customers]
    known = [facts_of(customer) for customer in customers]
    stops: list[tuple[tuple[str, str], ...]] = [()] * CUSTOMERS
    truth, rng = Truth(11, NOW), np.random.default_rng(1)
    waiting: list[tuple[str, np.ndarray, float]] = []
    accepted: list[tuple[float, float]] = []
    references: list[tuple[float, float, float]] = []
    for number in range(count):
        who = int(rng.integers(CUSTOMERS))
        channel, placements, context = visit(rng)
        placement = placements[int(rng.integers(len(placements)))]
        seen = {**facts[who], **{f"context.{name}": value for name, value in context.items()}}
        inputs = Inputs(
            decision_id=f"loop-{number}",
            now=NOW,
            customer_id=customers[who]["customer_id"],
            channels=(channel,),
            placements=((placement, 1),),
            facts=seen,
            consents=customers[who]["consents"],
            stops=stops[who],
        )
        slate = decide(inputs, compiled, snapshots).slates[0]
        if not slate.items:
            continue  # an e-mail without consent
        slot, arm = slate.slots[0], slate.items[0].arm
        yes = rng.random() < truth.acceptance(arm.treatment.id, known[who], context)
        for stop in arm.action.stops:
            if yes and "accepted" in stop.on:
                assert stop.scope in ("action", "group")
                stops[who] += ((stop.scope, arm.action.id if stop.scope == "action" else arm.group.id),)
        waiting.append((arm.treatment.id, encoder.encode(seen, NOW), float(yes)))
        if len(waiting) == REFRESH:
            arms, contexts, rewards = zip(*waiting, strict=True)
            state.add(arms, np.array(contexts), np.array(rewards), np.ones(REFRESH))
            waiting.clear()
            snapshots = {policy: serve(compiled, policy, state, f"after {number}")}
        if number >= count - count // 10:
            value = slate.screening.value
            accepted.append((yes, yes * float(value[slot.pool[slot.picked]])))
            if number % SAMPLED == 0:
                names = [slate.candidates.arms[row].treatment.id for row in slot.pool]
                chances = np.array([truth.acceptance(name, known[who], context) for name in names])
                references.append((chances.mean(), chances.max(), (chances * value[slot.pool]).mean()))
    acceptance, worth = np.mean(accepted, axis=0)
    random, best, random_worth = np.mean(references, axis=0)
    return Outcome(float(acceptance), float(random), float(best), float(worth / random_worth))


def hold(outcome: Outcome) -> None:
    ratio = outcome.acceptance / outcome.random
    print(
        f"\naccepted {outcome.acceptance:.3f}, random {outcome.random:.3f}, best {outcome.best:.3f}: ", end=""
    )
    print(f"{ratio:.2f} × random in acceptance, {outcome.worth:.2f} × in worth")
    assert outcome.random < outcome.best
    assert ratio >= BOUND
    # What is optimised is propensity × value: so that gains more than acceptance alone.
    assert outcome.worth >= ratio


@pytest.mark.parametrize("count", [8_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_thousands_of_decisions_beat_random_arms(count: int) -> None:
    hold(simulate(count))

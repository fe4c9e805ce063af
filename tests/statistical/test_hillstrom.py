"""Learning works on real data: the engine replayed on Hillstrom's randomised e-mail experiment.

64,000 customers got one of two mailings or none, at random, a third each; the reward is `visit`. Each
row of the shuffled log is decided by the real engine from the customer's facts; where the decision is
what the customer did get, the event counts and is learned from, otherwise it is passed over. With
uniform logging the mean reward of the counted events is an unbiased replay of the policy (Li, Chu,
Langford, Wang 2011, "Unbiased offline evaluation of contextual-bandit-based news article recommendation
algorithms"). The uniform policy's value on the same rows is the mean of the log itself.

Held to: the lower end of the two-sided 99% Student interval, over shuffles, of the margin above uniform
is greater than 0. False-alarm rate: 5e-3 if learning were worth nothing (and none in practice: shuffles,
decision ids and draws are fixed). The interval speaks of orders of the log and draws of the policy; all
shuffles are of the same 64,000 customers.

Skipped where the data are absent. The long version (`pytest -m long tests/statistical/test_hillstrom.py`)
replays all rows and writes `benchmarks/results/hillstrom_replay.md`.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from scipy.stats import t as student

from arbitration import CompiledCatalog, Inputs, Snapshot, compile_document, decide, serve
from arbitration.facts import Facts
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities
from arbitration.snapshot import fingerprint

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "hillstrom" / "hillstrom.csv.gz"
RESULT = ROOT / "benchmarks" / "results" / "hillstrom_replay.md"
NOW = datetime(2008, 3, 20, tzinfo=UTC)
ARMS = {"Mens E-Mail": "mens", "Womens E-Mail": "womens", "No E-Mail": "none"}
REFRESH = 500  # counted events between two snapshots
CONFIDENCE = 0.99

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no data at ../{DATA.relative_to(ROOT.parent)}")


@dataclass(frozen=True, slots=True)
class Row:
    """One customer: what was known, what was sent, whether they visited, bought, and for how much."""

    facts: Facts
    arm: str
    visit: float
    conversion: float
    spend: float


@cache
def rows() -> tuple[Row, ...]:
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        return tuple(_row(line) for line in csv.DictReader(file))


def _row(line: dict[str, str]) -> Row:
    facts: Facts = {
        "customer.recency": int(line["recency"]),
        "customer.history": float(line["history"]),
        "customer.mens": line["mens"] == "1",
        "customer.womens": line["womens"] == "1",
        "customer.newbie": line["newbie"] == "1",
        "customer.zip_code": line["zip_code"],
        "customer.channel": line["channel"],
    }
    amounts = (float(line[name]) for name in ("visit", "conversion", "spend"))
    return Row(facts, ARMS[line["segment"]], *amounts)


@cache
def catalog() -> CompiledCatalog:
    types = {"recency": "int", "history": "double", "zip_code": "string", "channel": "string"}
    types |= {"mens": "bool", "womens": "bool", "newbie": "bool"}
    document: dict[str, Any] = {
        "attributes": [{"id": name, "type": kind} for name, kind in types.items()],
        "groups": [{"id": "mailing"}],
        "channels": [
            {
                "id": "email",
                "direction": "outbound",
                "rewards": {"click": 1.0, "no_response": 0.0},
                "response_window": "14d",
            }
        ],
        "placements": [{"id": "email_block", "channel": "email", "content": [{"id": "subject"}]}],
        "features": [
            {"id": "recency", "kind": "numeric", "source": "customer.recency", "center": 6, "scale": 3.5},
            {"id": "history", "kind": "numeric", "source": "customer.history", "center": 240, "scale": 250},
            {"id": "mens", "kind": "numeric", "source": "customer.mens"},
            {"id": "womens", "kind": "numeric", "source": "customer.womens"},
            {"id": "newbie", "kind": "numeric", "source": "customer.newbie"},
            {
                "id": "zip_code",
                "kind": "categorical",
                "source": "customer.zip_code",
                "values": ["Rural", "Surburban", "Urban"],
            },
            {
                "id": "channel",
                "kind": "categorical",
                "source": "customer.channel",
                "values": ["Phone", "Web", "Multichannel"],
            },
        ],
        "policies": [{"id": "learning", "strategy": "thompson"}],
        "actions": [
            {
                "id": arm,
                "group": "mailing",
                "treatments": [
                    {"id": arm, "channel": "email", "placement": "email_block", "content": {"subject": arm}}
                ],
            }
            for arm in ARMS.values()
        ],
    }
    return compile_document(document)


def new_state() -> State:
    return State(fingerprint(catalog(), "learning"), catalog().encoders["learning"].size)


def inputs(row: Row, decision_id: str) -> Inputs:
    return Inputs(decision_id, NOW, None, ("email",), (("email_block", 1),), row.facts)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Rewards of the counted events in order, the share of each arm in them, and uniform's value."""

    rewards: np.ndarray
    arms: dict[str, float]
    uniform: float
    state: State

    @property
    def whole(self) -> float:
        return float(self.rewards.mean())

    @property
    def last_half(self) -> float:
        return float(self.rewards[len(self.rewards) // 2 :].mean())


def replay(seed: int, count: int | None) -> Replayed:
    """Replays `count` rows (default: all) of the log, shuffled by `seed`, through `decide`."""
    log = [rows()[index] for index in np.random.default_rng(seed).permutation(len(rows()))[:count]]
    encoder, state = catalog().encoders["learning"], new_state()
    snapshots = {"learning": serve(catalog(), "learning", None, "prior")}
    rewards: list[float] = []
    waiting: list[tuple[str, np.ndarray, float]] = []
    shown = dict.fromkeys(ARMS.values(), 0)
    for number, row in enumerate(log):
        decision = decide(inputs(row, f"{seed}-{number}"), catalog(), snapshots)
        chosen = decision.slates[0].items[0].arm.treatment.id
        if chosen != row.arm:
            continue
        rewards.append(row.visit)
        shown[chosen] += 1
        waiting.append((chosen, encoder.encode(row.facts, NOW), row.visit))
        if len(waiting) == REFRESH:
            arms, contexts, visits = zip(*waiting, strict=True)
            state.add(arms, np.array(contexts), np.array(visits), np.ones(REFRESH))
            waiting.clear()
            snapshots = {"learning": serve(catalog(), "learning", state, f"after {len(rewards)}")}
    share = {arm: count / len(rewards) for arm, count in shown.items()}
    return Replayed(np.array(rewards), share, float(np.mean([row.visit for row in log])), state)


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean and Student interval."""
    half = student.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def test_the_data_are_read_as_the_published_figures_say() -> None:
    assert len(rows()) == 64_000
    expected = {
        "mens": (21_307, 0.18276, 0.01253, 1.42262),
        "womens": (21_387, 0.15140, 0.00884, 1.07720),
        "none": (21_306, 0.10617, 0.00573, 0.65279),
    }
    for arm, (count, *means) in expected.items():
        of_arm = [(row.visit, row.conversion, row.spend) for row in rows() if row.arm == arm]
        assert len(of_arm) == count
        assert np.mean(of_arm, axis=0) == pytest.approx(means, abs=5e-6)
    assert np.mean([row.visit for row in rows()]) == pytest.approx(0.14678, abs=5e-6)


def test_every_fact_is_encoded_and_none_is_missing() -> None:
    encoder = catalog().encoders["learning"]
    x = np.array([encoder.encode(row.facts, NOW) for row in rows()[:5_000]])
    unknown = [i for i, name in enumerate(encoder.columns) if name.endswith(("=missing", "=other"))]
    assert not x[:, unknown].any()
    constant = [n for i, n in enumerate(encoder.columns) if i not in unknown and x[:, i].std() == 0]
    assert constant == ["bias"]


@pytest.mark.long
def test_ending_wiser_than_it_started() -> None:
    """8 shuffles of 5,000 rows, about 1,700 counted events each."""
    replays = [replay(seed, 5_000) for seed in range(8)]
    whole, low, high = interval(np.array([r.whole - r.uniform for r in replays]))
    half, half_low, half_high = interval(np.array([r.last_half - r.uniform for r in replays]))
    print(f"\nmargin over uniform: {whole:.4f} ({low:.4f} to {high:.4f}), last half {half:.4f} ", end="")
    print(f"({half_low:.4f} to {half_high:.4f})")
    assert low > 0
    assert half_low > 0


def test_probabilities_are_those_of_the_strategy_alone() -> None:
    """With one slot and no rules, `decide` adds nothing to encoder, posterior and strategy."""
    state, encoder, some = new_state(), catalog().encoders["learning"], rows()[:3_000]
    x = np.array([encoder.encode(row.facts, NOW) for row in some])
    state.add([row.arm for row in some], x, np.array([row.visit for row in some]), np.ones(len(some)))
    snapshot: Snapshot = serve(catalog(), "learning", state, "fixed")
    for number, row in enumerate(rows()[3_000:3_200]):
        slate = decide(inputs(row, f"same-{number}"), catalog(), {"learning": snapshot}).slates[0]
        mean, sd = snapshot.posterior.score(encoder.encode(row.facts, NOW), 0, 3)
        alone = selection_probabilities(catalog().policies["learning"], mean, sd, np.ones(3))
        assert slate.slots[0].probabilities == pytest.approx(alone, abs=0)


@pytest.mark.long
def test_the_whole_log_many_times() -> None:
    """20 shuffles of all 64,000 rows; writes the committed result."""
    started = time.process_time()
    replays = [replay(seed, None) for seed in range(20)]
    took = time.process_time() - started
    _, low, _ = interval(np.array([r.whole - r.uniform for r in replays]))
    _, half_low, _ = interval(np.array([r.last_half - r.uniform for r in replays]))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(_report(replays, took), encoding="utf-8")
    assert low > 0
    assert half_low > 0


def _report(replays: list[Replayed], took: float) -> str:
    def line(name: str, values: np.ndarray) -> str:
        mean, low, high = interval(values, 0.95)
        return f"| {name} | {mean:.4f} | {low:.4f} to {high:.4f} |"

    whole = np.array([r.whole for r in replays])
    half = np.array([r.last_half for r in replays])
    counted = np.mean([len(r.rewards) for r in replays])
    shares = ", ".join(f"{arm} {np.mean([r.arms[arm] for r in replays]):.0%}" for arm in ARMS.values())
    uniform = replays[0].uniform
    engine = f"numpy {np.__version__}, scipy {scipy.__version__}"
    size = catalog().encoders["learning"].size
    gain, gain_half = ((rate / uniform - 1).mean() for rate in (whole, half))
    of = f"{len(replays)} shuffles (seeds 0 to {len(replays) - 1})"
    return f"""# Replay on Hillstrom's randomised e-mail log

Does learning work on real data? Every row of the log (64,000 customers; the men's mailing, the women's
or none, a third each) is decided by the engine, from nothing: Thompson sampling with its default
settings, {size} columns from 7 features. An event counts, and is learned from, where the decision is
what the customer did get (rejection sampling, Li et al. 2011). Reward: `visit`. A new snapshot is served
after every {REFRESH} counted events.

| visit rate | mean | 95% interval over shuffles |
|---|---|---|
{line("whole replay, learning included", whole)}
{line("its last half", half)}
| uniform policy, same rows | {uniform:.4f} | |
{line("margin over uniform, whole replay", whole - uniform)}
{line("margin over uniform, last half", half - uniform)}

Relative to uniform: {gain:+.1%} over the whole replay, {gain_half:+.1%} over its last half.
Always sending the men's mailing, the best single arm in hindsight, is worth 0.1828.

The intervals are over the order of the log and the policy's own draws. Every shuffle is of the same
customers, so they do not speak of other customers.

- {of}, {counted:,.0f} counted events each on average: {shares}
- {_processor()}, {os.cpu_count()} cores, {platform.system()}
- Python {platform.python_version()}, {engine}
- one process, {took:.0f} s of processor time for {64_000 * len(replays):,} decisions and their learning

Repeat: `pytest -m long tests/statistical/test_hillstrom.py`. The data set is not part of this repository;
without it the test is skipped and says where it looked.
"""


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

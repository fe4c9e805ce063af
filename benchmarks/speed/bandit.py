"""Choosing among arms, and learning: MABWiser, Vowpal Wabbit and ours with the same events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from arbitration.catalog.learning import UCB, Policy, SquareCB, Thompson
from arbitration.policy.posterior import Posterior, posterior_of
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities
from benchmarks.speed.learner import learner_rate
from benchmarks.speed.peers import VowpalWabbit, mabwiser, shared_line
from benchmarks.speed.report import Progress, Section, Table, Target, figure
from benchmarks.speed.timing import Call, by_turns

SIZE = 32
PER_ARM = 200
THOMPSON = Thompson(id="t", strategy="thompson", alpha=1.0, warm_start=0.0)
OURS: dict[str, Policy] = {
    "ours: thompson, exact probabilities": THOMPSON,
    "ours: squarecb": SquareCB(id="s", strategy="squarecb", warm_start=0.0),
    "ours: ucb": UCB(id="u", strategy="ucb", warm_start=0.0),
}
EXACT = next(iter(OURS))
TEXT, PARSED = "VW squarecb", "VW squarecb, the arms parsed before"


@dataclass(frozen=True)
class Events:
    """What came of so many decisions: contexts (n, 32) with a bias first, arms (n,), and
    rewards of 0 or 1 (n,)."""

    arms: int
    x: np.ndarray
    arm: np.ndarray
    reward: np.ndarray


def run(smoke: bool, progress: Progress) -> Section:
    """Choosing at several numbers of arms, then learning with 100."""
    sizes = (10, 20) if smoke else (10, 32, 100, 300, 1_000)
    rounds = 3 if smoke else 60
    rows, medians = [], {}
    for arms in sizes:
        events = draw(arms, arms * (20 if smoke else PER_ARM))
        times = by_turns(
            _choosing(events, 20 if smoke else 200), rounds, tick=progress(f"{arms} arms", rounds)
        )
        medians = {name: each.median for name, each in times.items()}
        rows += [
            (arms, name, each.median, each.p99, f"{figure(each.median / medians[EXACT])} ×")
            for name, each in times.items()
        ]
    learning = _learning(draw(10 if smoke else 100, 300 if smoke else 20_000), smoke)
    learning["ours: the whole learner, from the ledger to the snapshot (SQLite)"] = learner_rate(smoke)
    most = f"of {sizes[-1]:,} arms, faster than"
    return Section(
        "Bandits: MABWiser, Vowpal Wabbit and ours",
        f"""x of {SIZE} numbers, {PER_ARM} events per arm, rewards of 0 or 1 at rates of 1% to 15%. MABWiser
        and ours have learned the same events (λ of 1; ours gives LinUCB's expectations to nine digits,
        which is checked first), VW up to 20,000 of them. All arms are eligible. {rounds} rounds by turns,
        each with the same 5 contexts, of which the first is not counted.""",
        [
            Table("Choosing", ("arms", "policy", "median µs", "p99 µs", "of exact Thompson"), rows),
            Table(
                f"Learning: {10 if smoke else 100} arms, x of {SIZE}",
                ("", "events/s"),
                list(learning.items()),
            ),
        ],
        [
            Target(
                f"choosing one {most} VW squarecb, by squarecb",
                medians[TEXT] / medians["ours: squarecb"],
                10,
                "×",
                least=True,
            ),
            Target("the same, by exact Thompson", medians[TEXT] / medians[EXACT], 10, "×", least=True),
            Target(
                "the same, VW's arms parsed before, by squarecb",
                medians[PARSED] / medians["ours: squarecb"],
                10,
                "×",
                least=True,
            ),
            Target(
                f"choosing one {most} LinTS", medians["MABWiser LinTS"] / medians[EXACT], 30, "×", least=True
            ),
            Target(
                "learning",
                learning["ours: sums, and a posterior every 1,000 events"],
                20_000,
                "/s",
                least=True,
            ),
        ],
        (
            """MABWiser states an expectation per arm and no probabilities; LinTS draws one for each. VW
            states probabilities. Ours are exact, of the strategy named, and from the customer's x.""",
            """VW is told of a customer by a line of text, and of the arms by text as well or by examples that
            were parsed once. It learns from each event by itself, with the lines of all arms; for the table
            of choosing it was trained with the line of the arm shown and of one other, as only its
            size matters there.""",
        ),
    )


def draw(arms: int, count: int) -> Events:
    """So many events of customers who were shown arms at random."""
    rng = np.random.default_rng([6, arms])
    x = np.hstack([np.ones((count, 1)), rng.normal(size=(count, SIZE - 1)) / 2])
    arm = rng.integers(arms, size=count)
    arm[:arms] = np.arange(arms)
    rate = np.exp(rng.uniform(np.log(0.01), np.log(0.15), arms))
    slope = rng.normal(0, 0.2, (arms, SIZE)) * rate[:, None]
    chance = np.clip(rate[arm] + (x * slope[arm])[:, 1:].sum(axis=1), 0.001, 0.9)
    return Events(arms, x, arm, (rng.random(count) < chance).astype(float))


def _state(events: Events) -> State:
    state = State("bench", SIZE)
    names = [str(arm) for arm in range(events.arms)]
    state.add([names[arm] for arm in events.arm], events.x, events.reward, np.ones(len(events.arm)))
    return state


def _choosing(events: Events, contexts: int) -> dict[str, Call]:
    x = draw(events.arms, max(events.arms, contexts)).x[-contexts:]
    posterior = posterior_of(THOMPSON, [str(arm) for arm in range(events.arms)], SIZE, _state(events))
    calls: dict[str, Call] = {name: _ours(policy, posterior, x, events.arms) for name, policy in OURS.items()}
    for name in ("LinTS", "LinUCB"):
        mab = mabwiser(name, events.arms)
        mab.fit(events.arm, events.reward, events.x)
        calls[f"MABWiser {name}"] = lambda n, mab=mab: mab.predict_expectations(x[n % contexts][None])
    _check(events, calls["MABWiser LinUCB"], x)
    vw = VowpalWabbit(events.arms)
    for each, arm, reward in zip(events.x[:20_000], events.arm, events.reward, strict=False):
        vw.learn(vw.event(shared_line(each), int(arm), reward, 1 / events.arms, all_arms=False))
    lines = [shared_line(each) for each in x]
    assert np.allclose(vw.predict(lines[0]), vw.predict_parsed(lines[0]))
    calls[TEXT] = lambda n: vw.predict(lines[n % contexts])
    calls[PARSED] = lambda n: vw.predict_parsed(lines[n % contexts])
    return calls


def _ours(policy: Policy, posterior: Posterior, x: np.ndarray, arms: int) -> Call:
    weight = np.ones(arms)

    def choose(number: int) -> object:
        mean, sd = posterior.score(x[number % len(x)], 0, arms)
        return selection_probabilities(policy, mean, sd, weight)

    return choose


def _check(events: Events, expectations: Call, x: np.ndarray) -> None:
    """Raises AssertionError where ours is not the posterior that MABWiser has."""
    unit = THOMPSON.model_copy(update={"noise_sd": 1.0})  # MABWiser does not estimate how rewards vary
    names = [str(arm) for arm in range(events.arms)]
    mean, sd = posterior_of(unit, names, SIZE, _state(events)).score(x[0], 0, events.arms)
    theirs = expectations(0)
    assert isinstance(theirs, dict)
    assert np.allclose(mean + sd, [theirs[arm] for arm in range(events.arms)], atol=1e-9)


def _learning(events: Events, smoke: bool) -> dict[str, float]:
    """Events per second of each way to learn."""
    count, batch = len(events.arm), 100 if smoke else 1_000
    few = slice(0, count // 20)
    names = [str(arm) for arm in range(events.arms)]
    found: dict[str, float] = {}

    def timed(name: str, events_: int, learn: Callable[[], object]) -> None:
        began = perf_counter()
        learn()
        found[name] = events_ / (perf_counter() - began)

    def ours(posteriors: bool) -> None:
        state = State("bench", SIZE)
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            arms = [names[arm] for arm in events.arm[part]]
            state.add(arms, events.x[part], events.reward[part], np.ones(len(arms)))
            if posteriors:
                posterior_of(THOMPSON, names, SIZE, state)

    def theirs(step: int, part: slice) -> None:
        mab = mabwiser("LinTS", events.arms)
        arm, reward, x = events.arm[part], events.reward[part], events.x[part]
        mab.fit(arm[:1], reward[:1], x[:1])
        for start in range(1, len(arm), step):
            these = slice(start, start + step)
            mab.partial_fit(arm[these], reward[these], x[these])

    timed("ours: sums, 1,000 events at once", count, lambda: ours(False))
    timed("ours: sums, and a posterior every 1,000 events", count, lambda: ours(True))
    timed("MABWiser LinTS, one by one", count // 20, lambda: theirs(1, few))
    timed("MABWiser LinTS, 1,000 events at once", count, lambda: theirs(batch, slice(0, count)))
    vw = VowpalWabbit(events.arms)
    chance = 1 / events.arms
    lines = [
        vw.event(shared_line(x), int(arm), reward, chance, all_arms=True)
        for x, arm, reward in zip(events.x[few], events.arm[few], events.reward[few], strict=True)
    ]
    timed("VW, from text", len(lines), lambda: [vw.learn(each) for each in lines])
    parsed = vw.parsed(lines)
    timed("VW, parsed before", len(lines), lambda: [vw.learn(each) for each in parsed])
    return found

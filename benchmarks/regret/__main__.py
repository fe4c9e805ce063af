"""Does the default policy lose less than its peers? Three simulated worlds, and a real log replayed.

    PYTHONPATH=. python benchmarks/regret [--write] [--seeds 20] [--events 6000] [--world linear …]

Needs `vowpalwabbit` and `mabwiser` (`make regret` installs them beside the project). Prints tables; `--write`
also keeps them in `benchmarks/results/regret.md`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the service has it

import argparse
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from play import regret, replay
from players import MabWiser, Ours, Player, VowpalWabbit, mabwiser
from scipy.stats import t as student
from worlds import HILLSTROM, WORLDS, hillstrom

from arbitration.catalog.compile import DEFAULT_POLICY
from arbitration.catalog.learning import Policy

RESULT = Path(__file__).parents[1] / "results" / "regret.md"
REFRESH = {"hillstrom": 500}  # events between two updates; 200 in the simulated worlds
ROWS = 15_000  # of each shuffle of Hillstrom's 64,000
TUNING = range(1000, 1003)  # seeds that parameters are chosen on; none of them is reported
OURS = "ours, as it comes"

Make = Callable[[int, int, int], Player]


@dataclass(frozen=True, slots=True)
class Entry:
    """A player to be made for (arms, columns, seed). `step`: events it learns at a time (None: a refresh)."""

    name: str
    make: Make
    step: int | None = None


def ours(name: str, policy: Policy) -> Entry:
    return Entry(name, lambda arms, size, seed: Ours(arms, size, seed, policy))


def mab(name: str, **parameters: float) -> Entry:
    spelled = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
    made = mabwiser(name, **parameters)
    return Entry(f"MABWiser {name}, {spelled}", lambda arms, _, seed: MabWiser(arms, seed, made))


def vw(step: int | None, gamma: float = 10, rate: float = 0.5, power: float = 0.5) -> Entry:
    name = (
        f"VW squarecb{', each event' if step else ''}, gamma_scale {gamma:g}, -l {rate:g}, power_t {power:g}"
    )
    options = f"--gamma_scale {gamma} -l {rate} --power_t {power}"
    return Entry(name, lambda arms, _, seed: VowpalWabbit(arms, seed, options), step)


DEFAULTS = (
    ours(OURS, DEFAULT_POLICY),
    mab("LinTS", alpha=1),
    mab("LinUCB", alpha=1),
    mab("EpsilonGreedy", epsilon=0.1),
    vw(None),
)
# Of our own: what another default would do.
VARIANTS = tuple(
    ours(f"ours, alpha {alpha:g}, ridge {ridge:g}", policy)
    for alpha, ridge in ((1.0, 1.0), (0.5, 1.0), (0.25, 1.0))
    if (policy := DEFAULT_POLICY.model_copy(update={"alpha": alpha, "ridge": ridge})) != DEFAULT_POLICY
)
_ALPHAS, _EPSILONS = (0.05, 0.1, 0.25, 0.5, 1), (0.01, 0.02, 0.05, 0.1)
GRIDS = (
    tuple(mab("LinTS", alpha=alpha) for alpha in _ALPHAS),
    tuple(mab("LinUCB", alpha=alpha) for alpha in _ALPHAS),
    tuple(mab("EpsilonGreedy", epsilon=epsilon) for epsilon in _EPSILONS),
    tuple(mab("LinGreedy", epsilon=epsilon) for epsilon in _EPSILONS),
    *(
        (
            *(vw(step, gamma) for gamma in (10, 100, 1000)),
            *(vw(step, 100, rate, power) for rate, power in ((0.1, 0.5), (0.5, 0))),
        )
        for step in (None, 1)
    ),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--events", type=int, default=6_000)
    parser.add_argument("--world", nargs="*", choices=[*WORLDS, "hillstrom"], default=[*WORLDS, "hillstrom"])
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the peers' own dependencies
    started = time.process_time()
    parts = []
    for world in asked.world:
        if world == "hillstrom" and not HILLSTROM.exists():
            parts.append(f"## hillstrom\n\nLeft out: no data at {HILLSTROM.name}.\n")
            continue
        parts.append(_world(world, range(asked.seeds), asked.events))
        sys.stderr.write(parts[-1])
    report = _head(asked.seeds, asked.events) + "\n".join(parts) + _foot(time.process_time() - started)
    sys.stdout.write(report)
    if asked.write:
        RESULT.write_text(report, encoding="utf-8")


def _world(world: str, seeds: Sequence[int], events: int) -> str:
    chosen = [min(grid, key=lambda entry: _tuned(world, entry, events)) for grid in GRIDS]
    entries = {entry.name: entry for entry in (*DEFAULTS, *VARIANTS, *chosen)}
    best = {entry.name for entry in chosen}
    lost = {name: _lost(world, entry, seeds, events) for name, entry in entries.items()}
    mine = lost[OURS]
    lines = []
    for name, losses in lost.items():
        mean, half = _interval(losses)
        note = " (chosen)" if name in best else ""
        line = f"| {name}{note} | {mean:,.1f} ± {half:.1f} |"
        if name != OURS:
            more, spread = _interval(losses - mine)
            verdict = (
                "the default is better"
                if more > spread
                else "the default is worse"
                if more < -spread
                else "no difference"
            )
            line += f" {more:+,.1f} ± {spread:.1f} | {verdict} |"
        else:
            line += " | |"
        lines.append(line)
    unit = "visits lost per 1,000 counted events" if world == "hillstrom" else "regret"
    about = _about(world, seeds, events)
    head = f"| policy | {unit} | more than the default | |\n|---|---|---|---|\n"
    return f"## {world}\n\n{about}\n\n{head}" + "\n".join(lines) + "\n"


def _tuned(world: str, entry: Entry, events: int) -> float:
    return float(_lost(world, entry, TUNING, events).mean())


def _lost(world: str, entry: Entry, seeds: Sequence[int], events: int) -> np.ndarray:
    """Final regret by seed; of Hillstrom, visits lost per 1,000 against always sending the best mailing."""
    refresh = REFRESH.get(world, 200)
    step = entry.step or refresh
    found = []
    for seed in seeds:
        if world == "hillstrom":
            log = hillstrom(seed, ROWS)
            rewards = replay(entry.make(log.arms, log.x.shape[1], seed), log, refresh, step)
            best = max(log.reward[log.arm == arm].mean() for arm in range(log.arms))
            found.append(1000 * (best - rewards.mean()))
            continue
        episode = WORLDS[world](seed, events)
        player = entry.make(episode.truth.shape[1], episode.x.shape[1], seed)
        found.append(regret(player, episode, refresh, step)[-1])
    return np.array(found)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the 95% Student interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def _about(world: str, seeds: Sequence[int], events: int) -> str:
    if world == "hillstrom":
        return (
            f"{ROWS:,} rows of each of {len(seeds)} shuffles of the same 64,000 customers, replayed by "
            f"rejection (Li et al. 2011); 3 arms, 19 columns; an update every {REFRESH[world]} counted "
            "events. Lost against always sending the mailing that was best in those rows; the intervals "
            "speak of orders and draws, not of other customers."
        )
    random, best, fixed = [], [], []
    for seed in seeds:
        episode = WORLDS[world](seed, events)
        open_ = np.where(episode.eligible, episode.truth, np.nan)
        random.append(np.nanmean(open_))
        best.append(np.nanmax(open_, axis=1).mean())
        fixed.append(np.nanmean(open_, axis=0).max())
    kind = " ".join(str(WORLDS[world].__doc__).split())
    return (
        f"{kind} An update every 200 events. P(outcome): {np.mean(random):.1%} under random arms, "
        f"{np.mean(best):.1%} under the best for each customer. A random arm's regret would be "
        f"{(np.mean(best) - np.mean(random)) * (events - 200):,.0f}."
    )


def _head(seeds: int, events: int) -> str:
    policy = DEFAULT_POLICY
    return f"""# Regret: the default policy against MABWiser and Vowpal Wabbit

Is our default (`{policy.strategy}`, alpha {policy.alpha:g}, ridge {policy.ridge:g}, floor {policy.floor:g})
no worse than its peers? {seeds} seeds of {events:,} events a world. Regret is expected: P(outcome) of the
best eligible arm less that of the arm chosen, from the known truth, summed. All meet the same events with
the same luck, start from the same first block of random arms (not counted), and learn in blocks of the same
size; VW also after each event, which is its strength. ± is half a 95% Student interval over seeds; "more than
the default" is paired by seed, positive where the default is better.

Peers are shown with their defaults and, marked *chosen*, with what was best for them on {len(TUNING)} other
seeds of the same world: alpha of 0.05, 0.1, 0.25, 0.5, 1; epsilon of 0.01, 0.02, 0.05, 0.1; VW's gamma_scale
of 10, 100, 1000, and at 100 a learning rate of 0.1 and a power_t of 0. Ours is never tuned; its variants show
what another default would do. MABWiser's are its own objects, restricted to the eligible arm of the greatest
expectation; VW crosses the customer's features with the arm (`-q ca`).

"""


def _foot(took: float) -> str:
    names = ("numpy", "scipy", "mabwiser", "vowpalwabbit")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    model = models[0].split(":", 1)[1].strip() if models else platform.machine()
    return f"""
- {model}, {os.cpu_count()} cores, {platform.system()}
- Python {platform.python_version()}, {versions}
- one process, {took:,.0f} s of processor time

Repeat: `make regret`. Hillstrom's data are not part of this repository; without them that part is left out.
"""


if __name__ == "__main__":
    main()

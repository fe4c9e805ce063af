"""Simulated visitors: they ask the running service for decisions and answer by the hidden truth.

A visitor who is not interested says so when leaving: an explicit `no_response`, as a page's unload
beacon or a mail provider's event feed would report it. Without that, silence on web and email counts only
once the response window is over (two hours, seven days), and a one-minute demo would learn from successes
alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from arbitration.catalog.compile import CompiledCatalog
from arbitration.facts import Value, admit
from decision.demo.client import Client
from decision.demo.tally import Sums, Tally
from decision.demo.world import Truth, facts_of, simulate_customers, visit

CONCURRENT = 4
SLOW_AFTER = 40_000
"""Visits after which the visitors slow down, so that the demo may be left running."""
SLOW_RATE = 20.0
_SAMPLED = 0.2
_SHUFFLES = 4

_ANSWERS = {
    "agent_desktop": (("accepted",), ("rejected",)),
    "web": (("impression", "click", "accepted"), ("impression", "no_response")),
    "email": (("click", "accepted"), ("no_response",)),
}
"""Per channel: what comes back from an interested customer, and from one who is not."""


class World:
    """`count` simulated customers and what they want, over a catalog."""

    def __init__(self, catalog: CompiledCatalog, count: int, seed: int, now: datetime) -> None:
        self.catalog = catalog
        self.customers = list(simulate_customers(count, seed, now))
        self._truth = Truth(seed, now)
        self._now = now
        self._programs = {
            candidates.arms[row].treatment.id: number
            for candidates in catalog.candidates.values()
            for number, rows in candidates.value_programs
            for row in np.arange(len(candidates))[rows]
        }

    def chance(self, customer: Mapping[str, Any], treatment: str, context: Mapping[str, object]) -> float:
        """The hidden probability that the customer accepts."""
        return self._truth.acceptance(treatment, facts_of(customer), context)

    def worth(self, customer: Mapping[str, Any], treatment: str) -> float:
        """The value of the treatment's action if this customer accepts it, in the catalog's currency."""
        number = self._programs.get(treatment)
        if number is None:
            value = self.catalog.arm_of[treatment].action.value
            assert isinstance(value, int | float)
            return float(value)
        activation = self.catalog.rules.language.activation(self._facts(customer), self._now)
        return self.catalog.values[number].number(activation) or 0.0

    def _facts(self, customer: Mapping[str, Any]) -> dict[str, Value]:
        named = {f"customer.{name}": raw for name, raw in customer["attributes"].items()}
        named |= {f"scores.{name}": raw for name, raw in customer["scores"].items()}
        return {name: admit(name, raw, self.catalog.declared[name]) for name, raw in named.items()}


class Visitors:
    """Who comes, and what they do; it is counted in `tally`."""

    def __init__(self, world: World, host: str, port: int, seed: int, tally: Tally) -> None:
        self._world = world
        self._host, self._port = host, port
        self._seed = seed
        self._tally = tally

    async def one_after_the_other(self, number: int) -> None:
        """Visits until cancelled, as the `number`-th of `CONCURRENT`. Raises CallFailed where the service
        does not answer as it should."""
        rng = np.random.default_rng([self._seed, number])
        async with Client(self._host, self._port) as client:
            while True:
                await self._visit(client, rng)
                if self._tally.visits >= SLOW_AFTER:
                    await asyncio.sleep(CONCURRENT / SLOW_RATE)

    async def _visit(self, client: Client, rng: np.random.Generator) -> None:
        customer = self._world.customers[int(rng.integers(len(self._world.customers)))]
        channel, placements, context = visit(rng)
        sampled = rng.random() < _SAMPLED
        request = {
            "customer_id": customer["customer_id"],
            "channel": channel,
            "placements": [{"id": placement} for placement in placements],
            "context": context,
            "explain": sampled,
        }
        started = time.perf_counter()
        decision = await client.call("POST", "/v1/decisions", request)
        seconds = time.perf_counter() - started
        sums, responses, shown = Sums(), [], []
        for treatment in shown_treatments(decision):
            yes = rng.random() < self._world.chance(customer, treatment, context)
            sums.items += 1
            sums.accepted += yes
            sums.worth += yes * self._world.worth(customer, treatment)
            shown.append((treatment, yes))
            responses += [
                {
                    "response_id": f"{decision['decision_id']}/{treatment}/{outcome}",
                    "decision_id": decision["decision_id"],
                    "treatment": treatment,
                    "outcome": outcome,
                }
                for outcome in _ANSWERS[channel][0 if yes else 1]
            ]
        if responses:
            await client.call("POST", "/v1/responses", responses)
        if sampled:
            self._compare(sums, decision["explanation"]["placements"], customer, context, rng)
        self._tally.visit(channel, seconds, sums, shown)

    def _compare(
        self,
        sums: Sums,
        placements: Sequence[Mapping[str, Any]],
        customer: Mapping[str, Any],
        context: Mapping[str, object],
        rng: np.random.Generator,
    ) -> None:
        """Adds what random and best arms would have brought, in the same slots at the same moment.

        That is why it is asked again and again: every acceptance lets an action rest for its customer,
        which changes what is left to offer.
        """
        names = {arm["treatment"] for placement in placements for arm in placement["ranked"]}
        chance = {name: self._world.chance(customer, name, context) for name in names}
        gain = {name: chance[name] * self._world.worth(customer, name) for name in names}
        for _ in range(_SHUFFLES):
            order = {name: rng.random() for name in sorted(names)}
            slate = self._slate(placements, order.__getitem__)
            sums.sampled += len(slate) / _SHUFFLES
            sums.random += sum(chance[name] for name in slate) / _SHUFFLES
            sums.random_worth += sum(gain[name] for name in slate) / _SHUFFLES
        sums.best += sum(chance[name] for name in self._slate(placements, chance.__getitem__))
        sums.best_worth += sum(gain[name] for name in self._slate(placements, gain.__getitem__))

    def _slate(self, placements: Iterable[Mapping[str, Any]], merit: Callable[[str], float]) -> list[str]:
        """What would be shown if the eligible arm of the greatest merit always went first."""
        picked: list[str] = []
        actions: set[str] = set()
        for placement in placements:
            candidates = self._world.catalog.candidates[placement["id"]]
            groups: dict[str, int] = {}
            room = candidates.placement.slots
            for arm in sorted(placement["ranked"], key=lambda arm: (arm["tier"], -merit(arm["treatment"]))):
                group = self._world.catalog.arm_of[arm["treatment"]].group.id
                most = candidates.placement.max_per_group
                full = most is not None and groups.get(group, 0) >= most
                if room == 0 or full or arm["action"] in actions:
                    continue
                picked.append(arm["treatment"])
                actions.add(arm["action"])
                groups[group] = groups.get(group, 0) + 1
                room -= 1
        return picked


def shown_treatments(decision: Mapping[str, Any]) -> list[str]:
    """The treatments a reply shows; fallbacks have none."""
    items = [item for placement in decision["placements"] for item in placement["items"]]
    return [item["treatment"] for item in items if item["treatment"] is not None]

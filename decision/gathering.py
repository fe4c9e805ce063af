"""Gathers what is known of a customer at a moment, from all sources at once, within a request's time.

What does not come, comes too late or does not fit is missing, and named in `degraded`: it costs quality,
never the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.provenance import Call
from arbitration.errors import FactError
from arbitration.facts import DERIVED, STORE, Facts, Value, admit, admitter
from decision.sources.guard import Answer, Guarded
from decision.sources.port import Cause, Key
from decision.sources.registry import Sources
from decision.storage.port import Customer, Situation, Standing
from decision.subjects import Subject

# Of a source: there is nobody of whom it could say so, or it says nothing of this.
_NOTHING_KNOWN = (None, Cause.NOT_FOUND, Cause.MISSING_INPUT)
CONSENTS = ("given", "withdrawn")
RESTRICTED = "profile:restricted"
"""In `degraded`: what is known of the customer was not used, as they had it restricted."""
# Of a request's time; the rest is for deciding and for making the answer durable.
_SHARE_OF_SOURCES = 0.8


@dataclass(slots=True)  # not frozen: see `decision.deciding`
class TimeBudget:
    """When a request began, by the clock of the event loop, and how many seconds it has."""

    began: float
    seconds: float

    @property
    def deadline(self) -> float:
        """Until when the store is read."""
        return self.began + self.seconds

    @property
    def sources_by(self) -> float:
        """Until when other sources are waited for."""
        return self.began + self.seconds * _SHARE_OF_SOURCES


@dataclass(slots=True)  # not frozen: see `decision.deciding`
class Gathered:
    """What is known of a customer at a moment; see `arbitration.inputs.Inputs` for the fields.

    `standing`: None where it could not be read. `answers`: what each source had to say. `stored`: the profile
    in the store, if there is one. `life`: of the customer when it was read; see `Standing`.
    """

    facts: Mapping[str, Value] = field(default_factory=dict)
    consents: Mapping[str, str] = field(default_factory=dict)
    objects: bool = False
    standing: Standing | None = None
    degraded: tuple[str, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    stored: Customer | None = None
    life: int = 0


class _Plan:
    """What a catalog says of gathering, put so that it is quickly done.

    `stored`: the facts that the store has, by section and key: their names, and how they are admitted.
    `elsewhere`: the purposes that come from a source. `profiling`: those whose withdrawal is an objection to
    profiling, with their sources.
    """

    def __init__(self, catalog: CompiledCatalog) -> None:
        self.catalog = catalog
        stored: dict[str, dict[str, tuple[str, Callable[[object], Value]]]] = {}
        for name, declared in catalog.declared.items():
            if declared.origin == STORE:
                section, _, key = name.partition(".")
                stored.setdefault(section, {})[key] = (name, admitter(name, declared))
        self.attributes, self.scores = stored.get("customer", {}), stored.get("scores", {})
        purposes = catalog.model.purposes
        self.elsewhere = frozenset(purpose.id for purpose in purposes if purpose.source != STORE)
        self.profiling = tuple((purpose.id, purpose.source) for purpose in purposes if purpose.profiling)
        self.stores_anything = bool(stored) or len(self.elsewhere) < len(purposes)


class Gatherer:
    """Asks all sources of a catalog, and takes what the store has."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._plan: _Plan | None = None

    async def gather(
        self,
        catalog: CompiledCatalog,
        subject: Subject,
        situation: Situation | None,
        given: Facts,
        now: datetime,
        budget: TimeBudget,
    ) -> Gathered:
        """Everything known of whom a request is about, typed. `situation`: what the store has (None: it was
        too slow). `given`: what the request says itself, which overrides."""
        if situation is None:
            facts, _ = catalog.derivations.derive(given, now)
            # Who it is cannot be told, so neither can whether they object.
            return Gathered(facts, objects=bool(catalog.objectionable), degraded=subject.degraded)
        plan = self._plan
        if plan is None or plan.catalog is not catalog:
            plan = self._plan = _Plan(catalog)
        round = _Round(plan, subject, situation, given, now, budget, self._sources.of(catalog))
        if catalog.calls:
            asking = [asyncio.create_task(round.ask(call)) for call in catalog.calls]
            try:
                await asyncio.gather(*asking)
            finally:
                for task in asking:
                    task.cancel()
        return round.outcome()


class _Round:
    """One gathering under way. Facts are added as they arrive; who needs some waits for their source."""

    def __init__(
        self,
        plan: _Plan,
        subject: Subject,
        situation: Situation,
        given: Facts,
        now: datetime,
        budget: TimeBudget,
        sources: Mapping[str, Guarded | None],
    ) -> None:
        self._plan = plan
        self._catalog = catalog = plan.catalog
        self._subject = subject
        self._given = given
        self._now = now
        self._budget = budget
        self._sources = sources
        self._facts: dict[str, Value] = {}
        self._consents: dict[str, str] = {}
        self._standing = situation.standing
        self._customer = situation.profile
        self._missing: list[str] = []
        self._unfit: list[str] = []
        self._answers: dict[str, Answer] = {}
        self._arrived = {call.source.id: asyncio.Event() for call in catalog.calls}
        self._restricted = self._customer is not None and bool(self._customer.restricted)
        if self._restricted:
            self._missing.append(RESTRICTED)
        if self._customer is not None:
            self._take_stored(self._customer)
        elif not situation.stranger and plan.stores_anything:
            self._missing.append(f"profile:{Cause.NOT_FOUND}")

    async def ask(self, call: Call) -> None:
        """Asks one source, as soon as what it is asked with is known."""
        for name in call.after:
            await self._arrived[name].wait()
        answer = await self._answer(call, self._sources[call.source.id])
        self._answers[call.source.id] = answer
        for name, raw in (answer.row or {}).items():
            self._admit(name, raw)
        self._arrived[call.source.id].set()

    async def _answer(self, call: Call, source: Guarded | None) -> Answer:
        if self._restricted:
            return Answer(None)
        if self._withdrawn() and all(served.name.startswith("scores.") for served in call.serves):
            return Answer(None)
        if source is None:
            return Answer(None, cause=Cause.NOT_CONNECTED)
        answer = Answer(None, cause=Cause.MISSING_INPUT)
        # A system that has not heard of a merge knows the customer by an id of before.
        ids = self._subject.ids if "customer_id" in call.source.inputs.values() else self._subject.ids[:1]
        for id in ids or (None,):
            if (key := self._key(call, id)) is not None:
                answer = await source.get(key, self._budget.sources_by)
            if answer.cause != Cause.NOT_FOUND:
                break
        return answer

    def outcome(self) -> Gathered:
        """What came."""
        known = {**self._facts, **self._given}
        facts, unfit = self._catalog.derivations.derive(known, self._now)
        objects = self._objects()
        if objects:
            facts = {name: value for name, value in facts.items() if not name.startswith("scores.")}
        causes = [
            f"sources.{call.source.id}:{cause}"
            for call in self._catalog.calls
            if (cause := self._answers[call.source.id].cause) is not None
        ]
        bad: list[str] = []
        if self._unfit or unfit:
            bad = [f"{name}:{Cause.BAD_VALUE}" for name in sorted({*self._unfit, *unfit})]
        return Gathered(
            facts,
            self._consents,
            objects,
            self._standing,
            (*self._subject.degraded, *self._missing, *causes, *bad),
            self._answers,
            self._customer,
            self._standing.life,
        )

    def _objects(self) -> bool:
        """Whether the customer objects to profiling, or may be used nothing of. An answer that was there to
        be had, and did not come, may have been yes."""
        if self._withdrawn() or self._restricted:
            return True
        for purpose, source in self._plan.profiling:
            if purpose not in self._consents:
                answer = self._answers.get(source)
                failed = answer is not None and answer.cause not in _NOTHING_KNOWN
                if failed or f"consents.{purpose}" in self._unfit:
                    return True
        return False

    def _withdrawn(self) -> bool:
        consents = self._consents
        return any(consents.get(purpose) == "withdrawn" for purpose, _ in self._plan.profiling)

    def _key(self, call: Call, customer_id: str | None) -> Key | None:
        names = call.source.inputs.values()
        known: Facts = {**self._facts, **self._given}
        if any(self._origin(name) == DERIVED and name not in known for name in names):
            known, _ = self._catalog.derivations.derive(known, self._now)
        values = [customer_id if name == "customer_id" else self._input(name, known) for name in names]
        key = tuple(value for value in values if value is not None)
        return key if len(key) == len(values) else None

    def _input(self, name: str, known: Facts) -> Value | None:
        kind, _, rest = name.partition(".")
        return self._subject.identities.get(rest) if kind == "identity" else known.get(name)

    def _origin(self, name: str) -> str | None:
        declared = self._catalog.declared.get(name)
        return None if declared is None else declared.origin

    def _take_stored(self, customer: Customer) -> None:
        elsewhere = self._plan.elsewhere
        consents = {p: answer for p, answer in customer.consents.items() if p not in elsewhere}
        if self._restricted:  # what protects the customer still does
            self._consents |= {p: answer for p, answer in consents.items() if answer == "withdrawn"}
            return
        self._consents |= consents
        facts, plan = self._facts, self._plan
        for declared, values in ((plan.attributes, customer.attributes), (plan.scores, customer.scores)):
            for key, raw in values.items():
                if (fact := declared.get(key)) is not None:
                    name, admitted = fact
                    try:
                        facts[name] = admitted(raw)
                    except FactError:
                        self._unfit.append(name)  # its text stays private: it shows the value

    def _admit(self, name: str, raw: object) -> None:
        prefix, _, rest = name.partition(".")
        if prefix == "consents":
            answer = {True: "given", False: "withdrawn"}.get(raw, raw) if isinstance(raw, bool) else raw
            if isinstance(answer, str) and answer in CONSENTS:
                self._consents[rest] = answer
                return
        elif (declared := self._catalog.declared.get(name)) is not None:
            try:
                self._facts[name] = admit(name, raw, declared)
            except FactError:
                self._unfit.append(name)  # its text stays private: it shows the value
            return
        self._unfit.append(name)

"""Goes over the log of a store with another catalog, or with each policy of the live one."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

from arbitration.catalog.scalars import duration
from arbitration.contact import Shown, micros
from arbitration.decide import Decision, decide
from arbitration.errors import SnapshotError
from arbitration.evaluation import Estimator
from arbitration.facts import rfc3339
from arbitration.inputs import Inputs
from decision.deciding import read_recorded
from decision.errors import FieldError, Rejected
from decision.fairness.bounds import Bounds
from decision.labels import reward, value
from decision.live import Live
from decision.publishing import Published
from decision.responding import treatments
from decision.storage.port import DecisionRecord, Label, ResponseRecord, Store
from decision.whatif.candidate import Candidate
from decision.whatif.judging import Asked, Judgement, logged
from decision.whatif.recount import Answer, Past, Recount
from decision.whatif.report import Report, verdict
from decision.whatif.states import Loaded, States
from decision.whatif.targets import Target, roles

Progress = Callable[[int, int], None]
"""Told how many decisions of how many are done."""

_CHUNK = 500
_AWAITED = 0.01  # of the decisions on a channel
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Options:
    """Which decisions, the first `limit` of those with since ≤ decided_at < until; and how they are judged.
    `now`: what is known is known at this time."""

    now: datetime
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    examples: int = 5
    estimator: Estimator = "dr"
    confidence: float = 0.95
    signing_key: bytes = b""


async def whatif(
    store: Store, candidate: Published, options: Options, progress: Progress = lambda done, of: None
) -> Report:
    """What `candidate` would have done with the decisions of the log, and what that would have brought.
    Raises StoreUnavailable."""
    target = Target("candidate", f"catalog {candidate.version}", Judgement(options.examples))
    live = Live(store, signing_key=options.signing_key)
    publication = await store.live_catalog()
    serving = None if publication is None else await live.published(publication.version)
    bounds = Bounds(candidate.compiled, None if serving is None else serving.compiled)
    return await _Run(store, live, candidate, options, [target], progress, bounds).report("whatif")


async def evaluate(
    store: Store,
    options: Options,
    policies: Sequence[str] = (),
    progress: Progress = lambda done, of: None,
) -> Report:
    """What each policy of the live catalog (or each of `policies`) would have brought if it had decided for
    everybody. Raises StoreUnavailable, and Rejected where there is no live catalog or no such policy."""
    live = Live(store, signing_key=options.signing_key)
    await live.refresh()
    serving = live.serving
    targets = []
    for champion, policy, role in roles(serving.published):
        snapshot = serving.snapshots[policy]
        learned = f"now at {snapshot.version}, {snapshot.learned:,.0f} outcomes learned"
        targets.append(
            Target(policy, f"{role} of {champion}: {learned}", Judgement(options.examples), champion, policy)
        )
    for policy in policies:
        if policy not in {target.policy for target in targets}:
            error = FieldError("policy", "unknown_policy", f"no placement is decided by '{policy}'")
            raise Rejected(404, "unknown_policy", "The live catalog does not use this policy.", [error])
    chosen = [target for target in targets if not policies or target.policy in policies]
    return await _Run(store, live, serving.published, options, chosen, progress).report("evaluate")


@dataclass
class _Run:
    store: Store
    live: Live
    candidate: Published
    options: Options
    targets: list[Target]
    progress: Progress
    bounds: Bounds | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    catalogs: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)
    known: dict[tuple[str, ...], int] = field(default_factory=dict)
    seen: Counter[tuple[str, ...]] = field(default_factory=Counter)
    money: bool = False
    first: datetime | None = None
    last: datetime | None = None

    def __post_init__(self) -> None:
        self.loaded = Loaded(self.live)

    async def report(self, kind: str) -> Report:
        """Goes over the log."""
        began = time.monotonic()
        options = self.options
        total = await self._look()
        states = States(self.store, self.loaded, self.candidate, options.signing_key)
        skip = 0
        asked = Candidate(self.candidate.compiled)
        past = [await self.live.published(version) for version in await self._versions()]
        recount = self._recount(asked, past)
        if self.last is not None and (fresh := await states.prepare(past, self.last)):
            skip = total // 2
            await states.learn(fresh, self._part(0, skip), self.last)
        done = 0
        async for chunk in _chunks(self._log(self._counted_from(asked, recount))):
            answers = await self._answers(chunk) if recount is not None else {}
            for record, labels in chunk:
                within = options.since is None or record.decided_at >= options.since
                if within:
                    done += 1
                    if done <= skip:
                        self.seen[channels_of(record)] += 1
                        self.left_out["first_half"] += 1
                    else:
                        await self._judge(record, labels, asked, states, recount)
                if recount is not None:
                    await self._count(record, recount, answers.get(record.decision_id, ()))
            self.progress(done, total)
        self._note(asked, states, skip)
        return Report(
            kind,
            self.candidate.version,
            options.estimator,
            options.confidence,
            None if self.first is None else rfc3339(self.first),
            None if self.last is None else rfc3339(self.last),
            total,
            sum(self.catalogs.values()),
            dict(self.left_out),
            dict(self.catalogs),
            time.monotonic() - began,
            {
                policy: {str(origin): count for origin, count in used.items()}
                for policy, used in states.used.items()
            },
            dict(self.missing),
            dict(self.lacking),
            tuple(self.notes),
            tuple(
                verdict(
                    each.name,
                    each.description,
                    each.judgement,
                    self.candidate.compiled,
                    options.estimator,
                    options.confidence,
                    money=self.money,
                )
                for each in self.targets
            ),
            self.bounds.verdicts() if self.bounds else (),
        )

    async def _log(self, since: datetime | None) -> AsyncIterator[tuple[DecisionRecord, tuple[Label, ...]]]:
        """The decisions asked for, and those from `since` on before them."""
        count = 0
        async for record, labels in self.store.decided(since, self.options.until):
            if self.options.since is None or record.decided_at >= self.options.since:
                if count == self.options.limit:
                    return
                count += 1
            yield record, labels

    async def _part(self, start: int, stop: int) -> AsyncIterator[tuple[DecisionRecord, tuple[Label, ...]]]:
        number = 0
        async for each in self._log(self.options.since):
            if start <= number < stop:
                yield each
            number += 1

    async def _judge(
        self,
        record: DecisionRecord,
        labels: Sequence[Label],
        candidate: Candidate,
        states: States,
        recount: Recount | None,
    ) -> None:
        past = await self.live.published(record.catalog_version)
        inputs = read_recorded(record.inputs).inputs
        self.seen[inputs.channels] += 1
        if self.seen[inputs.channels] > self.known.get(inputs.channels, 0):
            self.left_out["awaited"] += 1
            return
        holds = {} if recount is None else recount.holds(record.customer_id, record.decided_at)
        used = {} if recount is None else recount.used
        asked = candidate.rework(inputs, past.compiled, record.customer_id, holds, used)
        try:
            snapshots = {
                policy: await self.loaded.get(past, policy, version)
                for policy, version in record.snapshots.items()
            }
            theirs = await states.at(record, past, self._taking_part(asked.inputs))
        except SnapshotError:
            self.left_out["snapshot_gone"] += 1
            return
        made = decide(inputs, past.compiled, snapshots)
        self.catalogs[record.catalog_version] += 1
        self.missing.update(asked.missing)
        self.lacking.update(asked.lacking)
        was = logged(made, past.compiled, record.customer_id, self._heard(made, past, labels))
        for target in self.targets:
            what = target.asked(Asked(asked.inputs, candidate.catalog, theirs))
            if what is not None:
                followed = target.judgement.add(was, what)
                if self.bounds:
                    self.bounds.add(was, _outcomes(labels), what, followed)

    def _taking_part(self, inputs: Inputs | None) -> list[str]:
        """The policies that some target decides with, or that look on."""
        found: dict[str, None] = {}
        for id, _ in () if inputs is None else inputs.placements:
            champion = self.candidate.compiled.candidates[id].policy
            assert inputs is not None
            found[inputs.assigned.get(champion.id, champion.id)] = None
            found |= dict.fromkeys(each.policy for each in champion.challengers if each.shadow)
            found |= dict.fromkeys(each.policy for each in self.targets if each.champion == champion.id)
        return list(found)

    async def _look(self) -> int:
        """Looks through the log: how long it is, and until where its outcomes are known. How many there are.

        What is answered at once is not like the rest, so where outcomes are still awaited nothing is judged.
        Of each channel (or choice of channels) the log is used up to the last decision at which at most a
        hundredth is awaited; to these nothing has come back so far.
        """
        found: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        total = 0
        async for record, labels in self._log(self.options.since):
            total += 1
            self.first = self.first or record.decided_at
            self.last = record.decided_at
            counts = found[channels_of(record)]
            counts[0] += 1
            counts[1] += await self._awaited(record, labels)
            if counts[1] <= _AWAITED * counts[0]:
                self.known[channels_of(record)] = counts[0]
        return total

    async def _awaited(self, record: DecisionRecord, labels: Sequence[Label]) -> bool:
        """Whether the outcome of a decision is not known yet."""
        published = await self.live.published(record.catalog_version)
        channel = published.compiled.channels[record.channel]
        at_once = channel.contact == "decision" and record.activation != "deferred"
        if at_once and len(labels) < len(treatments(record)):
            return True  # the learner has not come to it
        age = self.options.now - record.decided_at
        return age < duration(channel.response_window) and any(label.outcomes is None for label in labels)

    def _heard(
        self, made: Decision, logged: Published, labels: Sequence[Label]
    ) -> dict[str, tuple[float, float]]:
        if made.channel is None:
            return {}
        channel = logged.compiled.channels[made.channel]
        found = {
            label.treatment: (reward(channel, label.outcomes), value(channel, label.outcomes))
            for label in labels
            if label.outcomes is not None
        }
        self.money = self.money or any(money for _, money in found.values())
        return found

    def _recount(self, candidate: Candidate, past: Sequence[Published]) -> Recount | None:
        """What the candidate counts otherwise than any catalog of the log."""
        policies: set[str] = set()
        budgets: set[str] = set()
        for published in past:
            departures = candidate.departures(published.compiled)
            policies |= departures.contact_policies
            budgets |= departures.budgets
            if departures.slots:
                more = ", ".join(departures.slots)
                self.notes[f"more slots are not judged, as so many were not asked for: {more}"] = None
            if departures.stops:
                self.notes["stops are as they were in force then: what stops what has changed"] = None
        for name, what in (("contact policies", policies), ("budgets", budgets)):
            if what:
                counted = f"{name} counted anew, from the contacts that were made: {', '.join(sorted(what))}"
                self.notes[counted] = None
        return Recount(candidate.catalog, policies, budgets) if policies or budgets else None

    async def _versions(self) -> list[str]:
        """The catalogs that were live while the log was written."""
        found = []
        for publication in await self.store.publications(1_000_000):
            if self.last is None or publication.published_at <= self.last:
                found.append(publication.version)
            if self.first is not None and publication.published_at <= self.first:
                break
        return list(dict.fromkeys(found))

    def _counted_from(self, candidate: Candidate, recount: Recount | None) -> datetime | None:
        """From when on the log is read: contacts before its first decision count too, budgets from ever."""
        since = self.options.since
        if since is None or recount is None:
            return since
        if recount.counts_budgets:
            return None
        horizon = candidate.catalog.limits.horizon * _MICROSECOND
        return since - min(horizon, since - datetime(1970, 1, 1, tzinfo=UTC))

    async def _answers(
        self, chunk: Sequence[tuple[DecisionRecord, tuple[Label, ...]]]
    ) -> Mapping[str, list[ResponseRecord]]:
        found: dict[str, list[ResponseRecord]] = {}
        for response in await self.store.responses([record.decision_id for record, _ in chunk]):
            found.setdefault(response.decision_id, []).append(response)
        return found

    async def _count(
        self, record: DecisionRecord, recount: Recount, responses: Sequence[ResponseRecord]
    ) -> None:
        catalog = (await self.live.published(record.catalog_version)).compiled
        made, due = micros(record.decided_at), None
        if record.activation == "deferred":
            due = made + duration(catalog.channels[record.channel].response_window) // _MICROSECOND
        answers = []
        for each in responses:
            known = max(micros(each.received_at), made)
            answers.append(
                Answer(each.treatment, each.outcome, min(max(micros(each.occurred_at), made), known), known)
            )
        items = [catalog.arm_of[treatment] for treatment in treatments(record)]
        shown = tuple(Shown(arm.treatment.id, arm.action.id, arm.group.id) for arm in items)
        recount.add(record.customer_id, Past(made, record.channel, shown, due, tuple(answers)))

    def _note(self, candidate: Candidate, states: States, skip: int) -> None:
        if skip:
            learned = "the first half of the log taught policies without a state of then; the rest is judged"
            self.notes[learned] = None
        for policy, used in states.used.items():
            if used["before"]:
                where = "the newest snapshot made before"
                self.notes[f"{policy}: {where}, in {used['before']:,} decisions it was not logged in"] = None
            if used["prior"]:
                self.notes[f"{policy}: had learned nothing yet in {used['prior']:,} decisions"] = None
        for policy, why in states.refused.items():
            self.notes[f"{policy}: stands at its prior, as its state cannot be used: {why}"] = None


def _outcomes(labels: Sequence[Label]) -> dict[str, set[str]]:
    return {
        label.treatment: {outcome for outcome, _ in label.outcomes}
        for label in labels
        if label.outcomes is not None
    }


def channels_of(record: DecisionRecord) -> tuple[str, ...]:
    """The channels a decision was asked for."""
    raw = orjson.loads(record.inputs)
    return tuple(raw["channels"]) if "channels" in raw else (raw["channel"],)


async def _chunks(
    log: AsyncIterator[tuple[DecisionRecord, tuple[Label, ...]]],
) -> AsyncIterator[list[tuple[DecisionRecord, tuple[Label, ...]]]]:
    chunk: list[tuple[DecisionRecord, tuple[Label, ...]]] = []
    async for each in log:
        chunk.append(each)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

"""Takes in what came back: checks each response against the decision it answers, and commits them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson

from arbitration.catalog.scalars import duration
from decision.errors import Conflict, FieldError, Rejected
from decision.live import Live
from decision.storage.port import DecisionRecord, ResponseRecord, Stop, Store

if TYPE_CHECKING:
    from arbitration.catalog.compile import CompiledCatalog
    from decision.messages import ResponseMessage

# What a response says of the future would let a stop or a window last for ever.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK_SKEW = timedelta(days=1)


class Responding:
    """Records responses. `clock` gives aware UTC."""

    def __init__(self, store: Store, live: Live, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._live = live
        self._clock = clock

    async def respond(self, messages: Sequence[ResponseMessage], *, listed: bool) -> list[bool]:
        """Commits all responses or none; per response, whether it was new.

        `listed`: whether they came as a list, which is how their fields are named in errors. Raises
        Rejected (422 where one does not fit its decision, 409 where its id was used for another).
        """
        decisions = await self._store.decisions([message.decision_id for message in messages])
        errors: list[FieldError] = []
        records: list[ResponseRecord] = []
        for number, message in enumerate(messages):
            prefix = f"[{number}]." if listed else ""
            record = await self._record(message, decisions.get(message.decision_id), prefix, errors)
            if record is not None:
                records.append(record)
        if errors:
            raise Rejected(422, "invalid_response", "A response does not fit the decision it names.", errors)
        try:
            return await self._store.commit_responses(records, self._live.serving.published.compiled.limits)
        except Conflict as conflict:
            if conflict.field.endswith("decision_id"):
                field = conflict.field if listed else conflict.field.partition(".")[2]
                error = FieldError(field, "too_many_responses", conflict.message)
                detail = "So many responses to one decision are not taken."
                raise Rejected(422, "too_many_responses", detail, [error]) from conflict
            field = conflict.field if listed else conflict.field.partition(".")[2]
            raise Rejected(
                409,
                "response_id_reused",
                "A response_id names one response; this one says something else.",
                [FieldError(field, "response_id_reused", conflict.message)],
            ) from conflict

    async def _record(
        self,
        message: ResponseMessage,
        decision: DecisionRecord | None,
        prefix: str,
        errors: list[FieldError],
    ) -> ResponseRecord | None:
        if decision is None:
            errors.append(
                FieldError(f"{prefix}decision_id", "unknown_decision", "there is no decision with this id")
            )
            return None
        if decision.mode != "live":
            errors.append(FieldError(f"{prefix}decision_id", "dry_run", "this decision was a dry run"))
            return None
        if message.treatment is None and message.outcome == "impression":
            text = "an impression is of a treatment"
            errors.append(FieldError(f"{prefix}treatment", "missing", text))
            return None
        if message.corrects == message.response_id:
            text = "a response cannot correct itself"
            errors.append(FieldError(f"{prefix}corrects", "own_response", text))
            return None
        if message.treatment is not None and message.treatment not in treatments(decision):
            text = "this decision did not show this treatment"
            errors.append(FieldError(f"{prefix}treatment", "unknown_treatment", text))
            return None
        catalog = (await self._live.published(decision.catalog_version)).compiled
        outcomes = catalog.channels[decision.channel].outcomes
        if message.outcome not in outcomes:
            text = f"the channel '{decision.channel}' knows {', '.join(sorted(outcomes))}"
            errors.append(FieldError(f"{prefix}outcome", "unknown_outcome", text))
            return None
        received = self._clock()
        occurred = received if message.occurred_at is None else message.occurred_at
        if not _EARLIEST <= occurred <= received + _CLOCK_SKEW:
            text = f"must lie between {_EARLIEST:%Y} and now"
            errors.append(FieldError(f"{prefix}occurred_at", "out_of_range", text))
            return None
        return ResponseRecord(
            response_id=message.response_id,
            decision_id=message.decision_id,
            customer_id=decision.customer_id,
            treatment=message.treatment or "",
            outcome=message.outcome,
            value=message.value,
            occurred_at=occurred,
            received_at=received,
            corrects=message.corrects,
            # Whatever a caller's clock says, nothing comes back before its decision, or from the future.
            stops=tuple(
                _stops(
                    catalog,
                    message.treatment,
                    message.outcome,
                    min(max(occurred, decision.decided_at), max(received, decision.decided_at)),
                )
            ),
        )


def treatments(decision: DecisionRecord) -> list[str]:
    """The treatments a decision showed, fallbacks left out, in the order of its reply."""
    placements = orjson.loads(decision.reply)["placements"]
    return [
        item["treatment"]
        for placement in placements
        for item in placement["items"]
        if item["treatment"] is not None
    ]


def _stops(
    catalog: CompiledCatalog, treatment: str | None, outcome: str, occurred: datetime
) -> Iterator[Stop]:
    if treatment is None:
        return
    arm = catalog.arm_of[treatment]
    for stop in arm.action.stops:
        if outcome not in stop.on:
            continue
        until = None if stop.for_ is None else occurred + duration(stop.for_)
        if stop.scope == "group":
            yield Stop("group", arm.group.id, until)
        else:
            actions = stop.scope if isinstance(stop.scope, tuple) else (arm.action.id,)
            yield from (Stop("action", action, until) for action in actions)

"""From what the ledger has of a decision to what limits count of it. Pure; shared by all backends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import orjson

from arbitration.contact import Contact, Limits, Shown, State
from decision.storage.rows import Row


def basis(limits: Limits, names: int) -> str:
    """What counters are counted by. A customer's names only ever become more, so their number tells."""
    return f"{limits.fingerprint}/{names}"


def contacts(
    decided: Iterable[Row], said: Iterable[Row], states: Mapping[tuple[str, str], State]
) -> list[Contact]:
    """`decided`: (decision_id, decided_at, channel, activation, reply); `said`: all that was said of
    them, (decision_id, treatment, outcome, occurred_at, received_at) in the order of commits; `states`: of
    what was reserved, by decision and treatment."""
    found = list(decided)
    made_at = {row[0]: row[1] for row in found}
    outcomes = defaultdict(list)
    for decision_id, treatment, outcome, occurred, received in said:
        outcomes[decision_id].append((treatment, outcome, _at(made_at[decision_id], occurred, received)))
    return [
        Contact(
            at,
            channel,
            tuple(
                Shown(
                    item["treatment"],
                    item["action"],
                    item["group"],
                    states.get((decision_id, item["treatment"]), "firm"),
                )
                for placement in orjson.loads(reply)["placements"]
                for item in placement["items"]
                if item["treatment"] is not None
            ),
            activation == "deferred",
            tuple(outcomes[decision_id]),
        )
        for decision_id, at, channel, activation, reply in found
    ]


def answered(contact: Contact, said: Row, *, settled: bool) -> Contact:
    """A contact after one more answer: (treatment, outcome, occurred_at, received_at). `settled`: it made
    firm what the item had reserved."""
    treatment, outcome, occurred, received = said
    items = contact.items
    if settled:
        items = tuple(replace(each, state="firm") if each.treatment == treatment else each for each in items)
    at = _at(contact.at, occurred, received)
    return replace(contact, items=items, outcomes=(*contact.outcomes, (treatment, outcome, at)))


def _at(made: int, occurred: int, received: int) -> int:
    """Whatever a caller's clock says, nothing comes back before its decision, or from the future."""
    return min(max(occurred, made), max(received, made))

"""Contact policies: what is counted, when, and until when it holds back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import catalog_document

from arbitration.calendars import period_end
from arbitration.catalog.model import Catalog
from arbitration.catalog.scalars import duration
from arbitration.contact import Contact, Counter, Limits, Shown, limits_of, micros, moment

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
ITEMS = {name: Shown(f"{name}_t", name, group) for name, group in (("a", "g"), ("b", "g"), ("c", "h"))}
DIRECTIONS = {"agent": "inbound", "web": "inbound", "mail": "outbound"}


def limits(*policies: dict[str, Any], time_zone: str = "UTC") -> Limits:
    channels = catalog_document()["channels"]
    named = [{"id": f"p{number}", **policy} for number, policy in enumerate(policies)]
    return limits_of(
        Catalog.model_validate({"channels": channels, "contact_policies": named, "time_zone": time_zone})
    )


def hour(number: float) -> int:
    return micros(BEGIN + timedelta(hours=number))


def contact(
    at: float, items: str = "a", channel: str = "mail", deferred: str = "", outcomes: Any = ()
) -> Contact:
    """A decision `at` an hour that shows `items`; `deferred`: their states, as first letters."""
    states = {"f": "firm", "r": "reserved", "x": "released"}
    shown = [ITEMS[item] for item in items]
    if deferred:
        shown = [
            replace(item, state=states[state])  # type: ignore[arg-type]
            for item, state in zip(shown, deferred, strict=True)
        ]
    heard = tuple((f"{item}_t", outcome, hour(when)) for item, outcome, when in outcomes)
    return Contact(hour(at), channel, tuple(shown), bool(deferred), heard)


def held(policy: dict[str, Any], ledger: Sequence[Contact], **more: Any) -> dict[str, float]:
    """Until which hour each target is held."""
    counting = limits(policy, **more)
    ends = {key[1]: counting.limits["p0"].until(c) for key, c in counting.counted(ledger).items()}
    return {target: (end - hour(0)) / hour_long for target, end in ends.items() if end is not None}


hour_long = 3_600_000_000
TWO = {"at_most": 2, "within": "24h"}
SEEN = {"on": "impression", "gap": "24h"}
CASES: list[tuple[dict[str, Any], list[Contact], dict[str, float]]] = [
    # one limit of each kind
    (TWO, [contact(0)], {}),
    (TWO, [contact(0), contact(5)], {"": 24}),
    (TWO, [contact(0), contact(5), contact(6)], {"": 29}),
    (TWO, [contact(6), contact(0), contact(5)], {"": 29}),  # in whatever order they were recorded
    ({**TWO, "rest": "100h"}, [contact(0), contact(5)], {"": 105}),
    ({**TWO, "rest": "1h"}, [contact(0), contact(5)], {"": 6}),
    ({**TWO, "rest": "100h"}, [contact(0), contact(24)], {}),
    ({**TWO, "rest": "100h"}, [contact(0), contact(23.999)], {"": 123.999}),
    ({"gap": "3h"}, [contact(0), contact(5)], {"": 8}),
    ({"at_most": 1, "each": "day"}, [contact(0)], {"": 24}),
    ({"at_most": 1, "each": "day", "time_zone": "Europe/Berlin"}, [contact(22.5)], {"": 23}),
    ({"at_most": 1, "each": "day", "time_zone": "Europe/Berlin"}, [contact(23)], {"": 47}),
    ({"at_most": 2, "each": "week"}, [contact(-1), contact(1)], {"": 0}),
    ({"at_most": 2, "each": "week"}, [contact(0), contact(1)], {"": 168}),
    # what is counted together
    ({"gap": "1h", "per": "direction"}, [contact(0), contact(1, channel="web")],
     {"outbound": 1, "inbound": 2}),
    ({"gap": "1h", "per": "channel"}, [contact(0, channel="agent"), contact(1, channel="web")],
     {"agent": 1, "web": 2}),
    ({"gap": "1h", "per": "group"}, [contact(0, "ab"), contact(1, "c")], {"g": 1, "h": 2}),
    ({"gap": "1h", "per": "action"}, [contact(0, "ab")], {"a": 1, "b": 1}),
    ({"gap": "1h", "per": "treatment"}, [contact(0, "ab")], {"a_t": 1, "b_t": 1}),
    (TWO, [contact(0, "abc")], {}),  # a decision counts once, however many items it shows
    ({**TWO, "per": "group"}, [contact(0, "ab"), contact(1, "a")], {"g": 24}),
    ({"gap": "1h"}, [contact(0, "")], {}),
    # of: all kinds that are named must match
    ({"gap": "1h", "of": {"channels": ["web"]}}, [contact(0)], {}),
    ({"gap": "1h", "of": {"directions": ["outbound"]}}, [contact(0), contact(3, channel="web")], {"": 1}),
    ({"gap": "1h", "of": {"groups": ["h"]}}, [contact(0, "a"), contact(2, "ac"), contact(3, "b")], {"": 3}),
    ({"gap": "1h", "of": {"groups": ["g"], "actions": ["b", "c"]}}, [contact(0, "b"), contact(2, "ac")],
     {"": 1}),
    # a decision that was deferred counts from then on, until it is released
    ({"gap": "9h"}, [contact(0, deferred="r")], {"": 9}),
    ({"gap": "9h"}, [contact(0, deferred="f", outcomes=[("a", "click", 3)])], {"": 9}),
    ({"gap": "9h"}, [contact(0, deferred="x")], {}),
    ({"gap": "9h"}, [contact(0, deferred="x", outcomes=[("a", "click", 3)])], {}),
    ({"gap": "9h", "per": "action"}, [contact(0, "ab", deferred="xr")], {"b": 9}),
    ({"gap": "9h"}, [contact(0, "ab", deferred="xr")], {"": 9}),
    # impressions: the first recorded counts
    (SEEN, [contact(0)], {}),
    (SEEN, [contact(0, outcomes=[("a", "click", 1)])], {}),
    (SEEN, [contact(0, outcomes=[("a", "impression", 2), ("a", "impression", 1)])], {"": 26}),
    (SEEN, [contact(0, "ab", outcomes=[("b", "impression", 2), ("a", "impression", 1)])], {"": 26}),
    (SEEN, [contact(0, deferred="r")], {"": 24}),
    (SEEN, [contact(0, deferred="r", outcomes=[("a", "no_response", 3)])], {"": 24}),
    (SEEN, [contact(0, deferred="f", outcomes=[("a", "impression", 3)])], {"": 27}),
    (SEEN, [contact(0, deferred="f", outcomes=[("a", "click", 3), ("a", "impression", 2)])], {"": 27}),
    (SEEN, [contact(0, deferred="f", outcomes=[("a", "no_response", 1), ("a", "click", 3)])], {"": 27}),
    (SEEN, [contact(0, "ab", deferred="fr", outcomes=[("a", "impression", 3)])], {"": 27}),
    (SEEN, [contact(0, deferred="x")], {}),
    (SEEN, [contact(0, deferred="x", outcomes=[("a", "click", 30)])], {}),
    (SEEN, [contact(0, deferred="x", outcomes=[("a", "impression", 30)])], {"": 54}),
    # other answers
    ({"on": "click", "gap": "1h"}, [contact(0, outcomes=[("a", "accepted", 1), ("a", "click", 2)])], {"": 3}),
    ({"on": "click", "gap": "1h"}, [contact(0, deferred="x", outcomes=[("a", "click", 2)])], {"": 3}),
    ({"on": "click", "gap": "1h"}, [contact(0, outcomes=[("b", "click", 2)])], {}),  # not shown
    ({"on": "click", "at_most": 2, "within": "9h"},
     [contact(0, "ab", outcomes=[("a", "click", 1), ("b", "click", 2)])], {}),
    # what starts the count anew: only later contacts count
    ({**TWO, "unless": "click"}, [contact(0), contact(5, outcomes=[("a", "click", 6)]), contact(7)], {}),
    ({**TWO, "unless": "click"}, [contact(0), contact(5, outcomes=[("a", "click", 4)]), contact(7)],
     {"": 29}),
    ({**TWO, "unless": "click"}, [contact(0), contact(5, outcomes=[("a", "click", 5)])], {}),
    ({**TWO, "unless": "click"}, [contact(0, outcomes=[("a", "click", 6)]), contact(5), contact(7)], {}),
    ({"gap": "9h", "unless": "click", "per": "action"}, [contact(0, "ab", outcomes=[("a", "click", 1)])],
     {"b": 9}),
    ({"gap": "9h", "unless": "click", "of": {"actions": ["a"]}},
     [contact(0, "ab", outcomes=[("b", "click", 1)])], {"": 9}),
    ({"gap": "9h", "unless": "click"},
     [contact(0, outcomes=[("a", "click", 3), ("a", "click", 1)]), contact(2)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "ledger", "until"), CASES)
def test_what_is_counted_and_until_when_it_holds(
    policy: dict[str, Any], ledger: list[Contact], until: dict[str, float]
) -> None:
    assert held(policy, ledger) == pytest.approx(until)


def test_a_calendar_period_is_of_the_zone_of_the_catalog_unless_the_policy_names_one() -> None:
    assert held({"at_most": 1, "each": "day"}, [contact(22.5)], time_zone="Europe/Berlin") == {"": 23}
    named = {"at_most": 1, "each": "day", "time_zone": "UTC"}
    assert held(named, [contact(22.5)], time_zone="Europe/Berlin") == {"": 24}


def test_times_survive_exactly() -> None:
    at = datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert moment(micros(at)) == at


def test_counters_depend_on_nothing_but_what_the_fingerprint_tells() -> None:
    """Each change that moves a counter must change the fingerprint; other words must not."""
    base = limits(TWO)
    assert limits() == Limits()
    assert limits(TWO).fingerprint == base.fingerprint
    others = [
        limits({**TWO, "at_most": 3}), limits({**TWO, "of": {"channels": ["web"]}}),
        limits({**TWO, "unless": "click"}), limits({**TWO, "id": "q"}),
        limits({"at_most": 2, "each": "day"}), limits({"at_most": 2, "each": "day"}, time_zone="Asia/Tokyo"),
    ]  # fmt: skip
    assert len({each.fingerprint for each in (base, *others)}) == 1 + len(others)
    week, rest = limits(TWO, {"gap": "168h"}), limits({**TWO, "rest": "200h"})
    assert (week.horizon, rest.horizon) == (168 * hour_long, (24 + 200) * hour_long)
    assert others[4].horizon >= 366 * 24 * hour_long


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_counter_keeps_as_many_times_as_it_needs(limit: int) -> None:
    counting = limits({"at_most": limit, "within": "999h"})
    counter = Counter()
    for number in range(50):
        state = "r" if number in (10, 20, 30) else "f"
        for key, before, after, begins in counting.changes(None, contact(number, deferred=state)):
            counter = counting.moved(counter, key, before, after, begins)
    assert (len(counter.times), counter.reserved) == (limit + 3, 3)


POLICIES = st.fixed_dictionaries(
    {
        "on": st.sampled_from(["decision", "impression", "click"]),
        "per": st.sampled_from(["customer", "channel", "group", "action"]),
        "of": st.sampled_from([{}, {"channels": ["mail"]}, {"groups": ["g"]}, {"actions": ["a", "c"]}]),
        "unless": st.sampled_from([None, "accepted"]),
    }
).flatmap(
    lambda common: st.sampled_from(
        [
            {**common, "gap": "5h"},
            {**common, "at_most": 2, "within": "6h"},
            {**common, "at_most": 3, "within": "9h", "rest": "4h"},
            {**common, "at_most": 2, "each": "day", "time_zone": "Asia/Kolkata"},
        ]
    )
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["decide", "answer", "release"]),
        st.integers(0, 40),  # the hour; or which item
        st.sampled_from(["a", "b", "c", "ab", "abc"]),
        st.sampled_from(["web", "mail"]),
        st.booleans(),
        st.sampled_from(["impression", "click", "accepted", "no_response"]),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(POLICIES, STEPS)
def test_counters_that_move_tell_what_the_ledger_tells(policy: dict[str, Any], steps: list[Any]) -> None:
    """Whatever happens in whatever order, counters moved by each change, counters counted from the whole
    ledger, and the definition of each limit agree at every hour."""
    counting = limits(policy)
    limit = counting.limits["p0"]
    ledger: list[Contact] = []
    moved: dict[Any, Counter] = {}
    for kind, number, items, channel, deferred, outcome in steps:
        before: Contact | None = None
        if kind == "decide":
            after = contact(number, items, channel, "r" * len(items) if deferred else "")
            ledger.append(after)
        elif ledger:
            place = number % len(ledger)
            before = ledger[place]
            shown = before.items[number % len(before.items)]
            after = before
            if kind == "answer":
                state = "firm" if shown.state == "reserved" and outcome != "no_response" else shown.state
                told = (shown.treatment, outcome, hour(number))
                after = replace(before, outcomes=(*before.outcomes, told))
            else:
                state = "released" if shown.state == "reserved" else shown.state
            changed = tuple(replace(i, state=state) if i == shown else i for i in before.items)
            ledger[place] = after = replace(after, items=changed)
        else:
            continue
        for key, old, new, begins in counting.changes(before, after):
            moved[key] = counting.moved(moved.get(key, Counter()), key, old, new, begins)
    counted = counting.counted(ledger)
    targets = {"customer": [""], "channel": ["web", "mail"], "group": ["g", "h"], "action": ["a", "b", "c"]}
    for target in targets[policy["per"]]:
        until = limit.until(moved.get(("p0", target), Counter()))
        assert until == limit.until(counted.get(("p0", target), Counter()))
        times = by_definition(policy, ledger, target)
        for now in range(-1, 60):
            assert (until is not None and until > hour(now)) == holds(policy, times, hour(now)), (target, now)


def by_definition(policy: dict[str, Any], ledger: list[Contact], target: str) -> list[int]:
    """The times that count, newest first: at most one for each decision."""

    def covered(item: Shown, channel: str) -> bool:
        names = {"channels": channel, "groups": item.group, "actions": item.action}
        level = {"customer": "", "channel": channel, "group": item.group, "action": item.action}
        return level[policy["per"]] == target and all(
            names[kind] in chosen for kind, chosen in policy["of"].items()
        )

    times, begun = [], -(2**62)
    for each in ledger:
        items = {item.treatment: item for item in each.items if covered(item, each.channel)}
        answers = [(items[t], outcome, at) for t, outcome, at in each.outcomes if t in items]
        waits = any(item.state == "reserved" for item in items.values())
        begun = max([begun, *(at for _, outcome, at in answers if outcome == policy["unless"])])
        if policy["on"] == "decision":
            found = [each.at] * (waits or any(item.state == "firm" for item in items.values()))
        else:
            found = [
                at
                for item, outcome, at in answers
                if outcome == policy["on"]
                or (
                    policy["on"] == "impression"
                    and each.deferred
                    and item.state == "firm"
                    and outcome != "no_response"
                )
            ]
            if not found and policy["on"] == "impression" and each.deferred and waits:
                found = [each.at]
        times += found[:1]
    return sorted((at for at in times if at > begun), reverse=True)


def holds(policy: dict[str, Any], times: list[int], now: int) -> bool:
    n: int = policy.get("at_most", 1)
    if len(times) < n:
        return False
    if "each" in policy:
        return micros(period_end(policy["each"], moment(times[n - 1]), ZoneInfo(policy["time_zone"]))) > now
    window = micros(moment(0) + duration(policy.get("within") or policy["gap"]))
    if "rest" in policy:
        return times[0] - times[n - 1] < window and times[0] + 4 * hour_long > now
    return times[n - 1] + window > now

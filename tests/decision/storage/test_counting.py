"""What limits count of a decision: the same read from the ledger, and moved by one more answer."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from arbitration.contact import Limits, State
from decision.storage.counting import answered, basis, contacts

REPLY = orjson.dumps(
    {
        "placements": [
            {"items": [{"treatment": "a_1", "action": "a", "group": "g"}]},
            {
                "items": [
                    {"treatment": "b_1", "action": "b", "group": "g"},
                    {"treatment": None, "action": None},
                ]
            },
        ]
    }
)
TIMES = st.integers(0, 100)
SAID = st.tuples(
    st.just("d"), st.sampled_from(["a_1", "b_1", "", "c_1"]), st.sampled_from("xy"), TIMES, TIMES
)


def of(said: list[tuple[Any, ...]], states: dict[tuple[str, str], State], deferred: bool) -> Any:
    decided = ("d", 50, "web", "deferred" if deferred else "immediate", REPLY)
    return contacts([decided], said, states)[0]


@given(st.lists(SAID, max_size=4), SAID, st.booleans(), st.booleans())
def test_one_more_answer_moves_it_to_where_the_ledger_has_it(
    said: list[Any], more: tuple[Any, ...], deferred: bool, settled: bool
) -> None:
    before: dict[tuple[str, str], State] = {("d", "a_1"): "reserved", ("d", "b_1"): "released"}
    after = before | ({("d", more[1]): "firm"} if settled else {})
    moved = answered(of(said, before, deferred), more[1:], settled=settled)
    assert moved == of([*said, more], after, deferred)


def test_nothing_comes_back_before_its_decision_or_from_the_future() -> None:
    said = [("d", "a_1", "x", *times) for times in ((10, 20), (60, 70), (90, 70), (60, 20))]
    assert [at for _, _, at in of(said, {}, False).outcomes] == [50, 60, 70, 50]


def test_counters_are_counted_by_limits_and_names() -> None:
    assert basis(Limits({}, "abc"), 2) == "abc/2"

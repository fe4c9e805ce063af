"""Changes as a pure state machine: every step in every state, by everybody, with and without four eyes."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DAY, NOW

from decision.errors import Rejected
from decision.governance.changes import STATES, STEPS, Change, Changes, Step, allow, event
from decision.storage.port import Entry, Event, Json

AT, UNTIL = NOW + DAY, NOW + 2 * DAY
DETAIL: dict[str, dict[str, Json]] = {
    "draft": {"title": "t", "version": "v1", "base": "v0"},
    "edit": {"version": "v2", "base": "v0"},
    "approve": {"version": "v1"},
    "schedule": {"version": "v1", "at": AT.isoformat()},
    "publish": {"version": "v1", "previous": "v0"},
    "expire": {"version": "v0"},
    "fail": {"code": "c", "message": "why not"},
}


class Trail:
    """Entries as they would be in the audit trail, followed."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.seq = 0

    def add(self, made: Event, at: Any = NOW) -> None:
        self.seq += 1
        self.changes.apply(Entry(self.seq, at, made, ""))

    def step(self, step: str, actor: str, when: Any = NOW, id: str = "c", **detail: Json) -> None:
        self.add(event(id, step, actor, {**DETAIL.get(step, {}), "why": "w", **detail}), when)


# How a change comes into each situation; `a` wrote it.
SITUATIONS: dict[str, list[tuple[str, str]]] = {
    "draft": [("draft", "a")],
    "submitted": [("draft", "a"), ("submit", "a")],
    "approved by b": [("draft", "a"), ("submit", "a"), ("approve", "b")],
    "approved by a": [("draft", "a"), ("submit", "a"), ("approve", "a")],
    "scheduled": [("draft", "a"), ("submit", "a"), ("approve", "b"), ("schedule", "a")],
    "scheduled unapproved": [("draft", "a"), ("submit", "a"), ("schedule", "a")],
    "scheduled unsubmitted": [("draft", "a"), ("schedule", "a")],
    "rejected": [("draft", "a"), ("submit", "a"), ("reject", "b")],
    "withdrawn": [("draft", "a"), ("withdraw", "a")],
    "published": [("draft", "a"), ("submit", "a"), ("approve", "b"), ("publish", "a")],
    "expired": [("draft", "a"), ("submit", "a"), ("approve", "b"), ("publish", "a"), ("expire", "service")],
}
# The state after each step that can be taken; `!`: with four eyes only with another's approval, which is not
# there (403); `another`: with four eyes not by its author (403). Nobody but `a` submits it (403).
EXPECTED: dict[str, dict[Step, str]] = {
    "draft": {
        "edit": "draft", "submit": "submitted", "comment": "draft", "withdraw": "withdrawn",
        "schedule": "scheduled !", "publish": "published !",
    },
    "submitted": {
        "edit": "draft", "approve": "approved another", "reject": "rejected", "comment": "submitted",
        "withdraw": "withdrawn", "schedule": "scheduled !", "publish": "published !",
    },
    "approved by b": {
        "edit": "draft", "reject": "rejected", "comment": "approved", "withdraw": "withdrawn",
        "schedule": "scheduled", "publish": "published",
    },
    "approved by a": {
        "edit": "draft", "approve": "approved only b", "reject": "rejected", "comment": "approved",
        "withdraw": "withdrawn", "schedule": "scheduled !", "publish": "published !",
    },
    "scheduled": {
        "edit": "draft", "reject": "rejected", "comment": "scheduled", "withdraw": "withdrawn",
        "schedule": "scheduled", "publish": "published", "fail": "approved",
    },
    "scheduled unapproved": {
        "edit": "draft", "approve": "scheduled only b", "reject": "rejected", "comment": "scheduled",
        "withdraw": "withdrawn", "schedule": "scheduled !", "publish": "published !", "fail": "submitted",
    },
    "scheduled unsubmitted": {
        "edit": "draft", "reject": "rejected", "comment": "scheduled", "withdraw": "withdrawn",
        "schedule": "scheduled !", "publish": "published !", "fail": "draft",
    },
    "rejected": {"edit": "draft", "submit": "submitted", "comment": "rejected", "withdraw": "withdrawn"},
    "withdrawn": {"comment": "withdrawn"},
    "published": {"comment": "published", "fail": "published", "expire": "expired"},
    "expired": {"comment": "expired"},
}  # fmt: skip


def test_the_table_is_whole() -> None:
    assert SITUATIONS.keys() == EXPECTED.keys()
    assert {name.split()[0] for name in SITUATIONS} == set(STATES)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_step_in_every_state_by_everybody(situation: str) -> None:
    for step, actor, four_eyes in product(STEPS, ("a", "b"), (False, True)):
        trail = Trail()
        for taken, by in SITUATIONS[situation]:
            trail.step(taken, by)
        before = trail.changes.change("c")
        expected = EXPECTED[situation].get(step, "")
        status = None if expected else 409
        if expected.endswith("!") and four_eyes:
            status = 403
        if expected.endswith("another") and four_eyes and actor == "a":
            status = 403
        if step == "submit" and expected and actor != "a":
            status = 403
        overdone = not expected and before.state in ("approved", "scheduled")
        if step == "approve" and actor == "a" and (expected.endswith("only b") or overdone):
            status = 403 if four_eyes else 409
        assert refusal(before, step, actor, four_eyes) == status, (step, actor, four_eyes)
        if status is not None:
            continue
        trail.step(step, actor)
        after = trail.changes.change("c")
        assert after.state == expected.split()[0]
        assert [note.step for note in after.history] == [*(each for each, _ in SITUATIONS[situation]), step]
        assert (after.schedule is not None) == (after.state == "scheduled")
        if step in ("edit", "submit", "reject"):
            assert after.approval is None


def refusal(change: Change, step: Step, actor: str, four_eyes: bool) -> int | None:
    try:
        allow(change, step, actor, four_eyes=four_eyes)
    except Rejected as refused:
        return refused.status
    return None


@pytest.mark.parametrize("editor", ["a", "b", "c"])
def test_an_approval_covers_one_document_and_nobody_approves_what_he_wrote(editor: str) -> None:
    trail = Trail()
    for step, by in (("draft", "a"), ("submit", "a"), ("approve", "b")):
        trail.step(step, by)
    assert trail.changes.ready("v1", four_eyes=True) is not None
    trail.step("edit", editor, version="v2")
    assert trail.changes.ready("v1", four_eyes=True) is None
    trail.step("submit", "a")
    with pytest.raises(Rejected, match="their own"):
        allow(trail.changes.change("c"), "approve", editor, four_eyes=True)
    trail.step("approve", "d", version="v1")  # of a document that it is not any more
    assert not trail.changes.change("c").approved_by_another
    with pytest.raises(Rejected, match="four eyes"):
        allow(trail.changes.change("c"), "publish", "d", four_eyes=True)


ACTORS = st.sampled_from("abc")
MOVES = st.lists(st.tuples(st.sampled_from(STEPS), ACTORS, st.sampled_from(["v1", "v2"])), max_size=14)


@settings(max_examples=150, deadline=None)
@given(MOVES)
def test_with_four_eyes_nothing_is_published_that_nobody_else_approved(
    moves: list[tuple[Step, str, str]],
) -> None:
    trail = Trail()
    trail.step("draft", "a")
    document, wrote, approved = "v1", {"a"}, None
    for step, actor, version in moves:
        change = trail.changes.change("c")
        try:
            allow(change, step, actor, four_eyes=True)
        except Rejected:
            continue
        trail.step(step, actor, version=version if step == "edit" else change.version)
        if step == "edit":
            document, approved = version, None
            wrote.add(actor)
        elif step == "approve":
            approved = actor
        elif step in ("reject", "submit"):
            approved = None
        if step in ("publish", "schedule"):
            assert approved is not None
            assert approved not in wrote
            assert trail.changes.change("c").version == document


def publish(trail: Trail, id: str, version: str, at: Any, until: Any, previous: str) -> None:
    trail.step("draft", "a", at, id, version=version)
    until = None if until is None else until.isoformat()
    trail.step(
        "publish", "a", at, id, version=version, previous=previous, **({"until": until} if until else {})
    )


def test_what_expires_gives_way_to_what_was_before_and_has_not_expired_itself() -> None:
    trail, hour = Trail(), timedelta(hours=1)
    publish(trail, "c1", "v1", NOW, NOW + 5 * hour, "v0")
    publish(trail, "c2", "v2", NOW + hour, NOW + 2 * hour, "v1")  # within
    changes = trail.changes
    assert changes.expired(NOW + hour) is None
    back = changes.expired(NOW + 2 * hour)
    assert back is not None
    assert (back[0].id, back[1]) == ("c2", "v1")
    late = changes.expired(NOW + 6 * hour)
    assert late is not None
    assert (late[0].id, late[1]) == ("c2", "v0")  # v1 has expired, too
    trail.step("expire", "service", NOW + 2 * hour, "c2", version="v1")
    again = changes.expired(NOW + 5 * hour)
    assert again is not None
    assert (again[0].id, again[1]) == ("c1", "v0")  # what is back expires in its own time
    trail.step("expire", "service", NOW + 5 * hour, "c1", version="v0")
    assert changes.expired(NOW + 100 * DAY) is None


def test_what_was_overtaken_does_not_expire() -> None:
    for kind in ("catalog.publish", "catalog.rollback", "change"):
        trail = Trail()
        publish(trail, "c1", "v1", NOW, NOW + DAY, "v0")
        if kind == "change":
            publish(trail, "c2", "v2", NOW, None, "v1")
        else:
            trail.add(Event(kind, "x", "catalog:v2", {}, state=True))
        assert trail.changes.expired(NOW + 9 * DAY) is None


def test_what_is_live_for_a_while_and_published_directly_again_expires_when_it_would_have() -> None:
    for kind in ("catalog.publish", "catalog.rollback"):
        trail = Trail()
        publish(trail, "c1", "v1", NOW, NOW + DAY, "v0")
        trail.add(Event(kind, "x", "catalog:v1", {"previous": "v1"}, state=True))
        found = trail.changes.expired(NOW + DAY)
        assert found is not None
        assert (found[0].id, found[1]) == ("c1", "v0")
        # but not where another one was published in between, past the trail
        trail.add(Event(kind, "x", "catalog:v1", {"previous": "v9"}, state=True))
        assert trail.changes.expired(NOW + DAY) is None


def test_what_is_planned_comes_due_in_its_order_until_it_is_done_or_given_up() -> None:
    trail = Trail()
    for number, end in enumerate(["", "withdraw", "reject", "edit", "publish", "fail", ""]):
        id = f"c{number}"
        trail.step("draft", "a", id=id)
        trail.step("schedule", "a", id=id, at=(AT - number * timedelta(minutes=1)).isoformat())
        if end:
            trail.step(end, "a", id=id)
    assert trail.changes.due(AT - timedelta(hours=1)) == []
    assert [change.id for change in trail.changes.due(AT)] == ["c6", "c0"]
    assert trail.changes.change("c5").failure == "why not"


def test_what_is_not_its_own_is_ignored() -> None:
    trail = Trail()
    trail.add(Event("key.create", "x", "key:1", {}, state=True))
    trail.add(Event("halt.begin", "x", "action:a", {"id": "1", "why": "w"}, state=True))
    assert trail.changes.all == {}
    with pytest.raises(Rejected) as refused:
        trail.changes.change("c")
    assert refused.value.status == 404

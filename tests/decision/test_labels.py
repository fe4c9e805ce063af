"""What an item came to, from all that was heard of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from arbitration.catalog.model import Channel
from decision.labels import label_of, reward, value
from decision.storage.port import DecisionRecord, Label, Outcomes, ResponseRecord

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
REWARDS = {"click": 0.3, "accepted": 1.0, "rejected": 0.0, "no_response": 0.0}
WEB = Channel(id="web", direction="inbound", contact="impression", rewards=REWARDS, response_window="2h")
AGENT = WEB.model_copy(update={"contact": "decision"})
SHOWN = DecisionRecord("d", "c", None, "", NOW, "web", "live", "v", {}, b"", b"")


def said(id: str, outcome: str, hours: float = 0.5, **more: object) -> ResponseRecord:
    at = NOW + hours * HOUR
    response = ResponseRecord(id, "d", "c", "arm", outcome, None, at, at)
    return replace(response, **more)  # type: ignore[arg-type]


def label(*responses: ResponseRecord, channel: Channel = WEB, at: float = 1.0) -> Label | None:
    """At `at` hours after the decision; in whatever order the responses came, it must be the same."""
    found = {label_of(SHOWN, "arm", channel, order, NOW + at * HOUR) for order in _orders(responses)}
    assert len(found) == 1
    return found.pop()


def _orders(responses: tuple[ResponseRecord, ...]) -> list[tuple[ResponseRecord, ...]]:
    return list(itertools.permutations(responses))


def outcomes(*responses: ResponseRecord, **more: float) -> Outcomes | None:
    found = label(*responses, **more)  # type: ignore[arg-type]
    assert found is not None
    assert found.due_at is None
    return found.outcomes


SILENCE = (("no_response", None),)


def test_no_contact_no_label() -> None:
    assert label() is None
    assert label(said("r", "click", treatment="other"), said("s", "accepted", treatment="")) is None
    assert label_of(replace(SHOWN, activation="deferred"), "arm", AGENT, [], NOW) is None
    assert label_of(replace(SHOWN, mode="dry_run"), "arm", AGENT, [], NOW) is None


def test_silence_begins_with_the_contact() -> None:
    assert label(channel=AGENT, at=1.99) == Label("d", "arm", None, NOW + 2 * HOUR)
    assert label(channel=AGENT, at=2) == Label("d", "arm", SILENCE, None)
    seen = said("i", "impression", 1.0)
    assert label(seen, at=2.99) == Label("d", "arm", None, NOW + 3 * HOUR)
    assert label(seen, at=3) == Label("d", "arm", SILENCE, None)


def test_of_several_impressions_the_first_is_the_contact() -> None:
    found = label(said("i", "impression", 1.0), said("j", "impression", 0.25))
    assert found == Label("d", "arm", None, NOW + 2.25 * HOUR)


def test_answers_stand_in_the_order_in_which_they_occurred() -> None:
    late = said("a", "accepted", 99.0, value=12.5)
    assert outcomes(late, said("b", "click", 0.1), said("i", "impression", 0.0)) == (
        ("click", None),
        ("accepted", 12.5),
    )


def test_of_the_same_moment_the_order_is_still_one() -> None:
    assert outcomes(said("b", "click"), said("a", "rejected")) == (("rejected", None), ("click", None))


def test_silence_reported_counts_unless_something_was_said() -> None:
    assert outcomes(said("n", "no_response"), said("m", "no_response", 0.7)) == SILENCE
    assert outcomes(said("n", "no_response", 0.9), said("c", "click")) == (("click", None),)


def test_what_was_corrected_counts_no_more() -> None:
    wrong = said("a", "accepted", value=100.0)
    right = said("b", "rejected", 0.7, corrects="a")
    assert outcomes(wrong, right) == (("rejected", None),)
    again = said("c", "accepted", 0.8, value=80.0, corrects="b")
    assert outcomes(wrong, right, again) == (("accepted", 80.0),)


def test_corrected_to_an_impression_it_is_awaited_again() -> None:
    found = label(said("a", "accepted", 0.5), said("b", "impression", 0.5, corrects="a"))
    assert found == Label("d", "arm", None, NOW + 2.5 * HOUR)


@pytest.mark.parametrize(
    ("combine", "worth", "money"), [("max", 1.0, 60.0), ("last", 0.3, -10.0), ("sum", 1.3, 50.0)]
)
def test_several_combine_as_the_channel_says(combine: str, worth: float, money: float) -> None:
    channel = WEB.model_copy(update={"combine": combine})
    several: Outcomes = (("rejected", None), ("accepted", 60.0), ("click", -10.0))
    assert reward(channel, several) == pytest.approx(worth)
    assert value(channel, several) == pytest.approx(money)


def test_what_the_channel_does_not_list_is_worth_nothing() -> None:
    assert reward(WEB, (("returned", 5.0),)) == 0.0


def test_nothing_occurred_before_its_decision() -> None:
    early = said("i", "impression", -500_000.0)
    assert label(early) == Label("d", "arm", None, NOW + 2 * HOUR)
    assert label(early, channel=AGENT) == Label("d", "arm", None, NOW + 2 * HOUR)
    # and so of two answers from before it, the one told first comes first
    later, sooner = NOW + 2 * HOUR, NOW + HOUR
    assert outcomes(
        said("b", "click", -9.0, received_at=later), said("a", "rejected", -7.0, received_at=sooner)
    ) == (("rejected", None), ("click", None))

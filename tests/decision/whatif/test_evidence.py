"""What rows a decision becomes, and what they come to."""

from __future__ import annotations

import numpy as np
import pytest

from arbitration.following import Followed, Pick
from decision.whatif.evidence import Belief, Earned, Evidence

ARMS = {("p", "a"): "sales", ("p", "b"): "sales", ("q", "c"): "service"}
BELIEFS = {name: Belief(group, 0.3, 3.0) for name, group in ARMS.items()}
COUNT = 4_000


def two_armed(log: float, target: float, chances: tuple[float, float], estimator: str) -> tuple[float, ...]:
    """One slot, two arms, the first picked with probability `log`: (estimate, low, high)."""
    rng = np.random.default_rng(4)
    evidence = Evidence()
    for number in range(COUNT):
        first = rng.random() < log
        arm = ("p", "a") if first else ("p", "b")
        own = log if first else 1 - log
        pick = Pick("p", 1, arm[1], {("p", "a"): log, ("p", "b"): 1 - log})
        reward = float(rng.random() < chances[0 if first else 1])
        other = {("p", "a"): target, ("p", "b"): 1 - target}
        along = Followed(np.array([own]), np.array([other[arm]]), np.ones(1), (other,), ())
        evidence.add(str(number), "web", 1, [pick], [Earned(reward, 10 * reward, 0.0)], along, BELIEFS)
    found = evidence.compared("reward", estimator, 0.95).target  # type: ignore[arg-type]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return found.value, found.low, found.high


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "sndr", "switch_dr", "dros"])
def test_every_estimator_finds_what_the_target_earns(estimator: str) -> None:
    value, low, high = two_armed(0.3, 0.8, (0.5, 0.2), estimator)
    assert low < 0.8 * 0.5 + 0.2 * 0.2 < high
    assert high - low < 0.1
    assert low < value < high


def test_a_slot_that_the_target_leaves_empty_earns_it_nothing_and_is_no_doubt() -> None:
    """Slot two is filled by the log in every decision, and by the target in none."""
    rng = np.random.default_rng(4)
    evidence = Evidence()
    rewards = rng.random((COUNT, 2)) < (0.5, 0.25)
    for number, brought in enumerate(rewards.astype(float)):
        picks = [Pick("p", 1, "a", {("p", "a"): 1.0}), Pick("q", 1, "c", {("q", "c"): 1.0})]
        earned = [Earned(each, 10 * each, 0.0) for each in brought]
        along = Followed(
            np.ones(2), np.array([1.0, 0.0]), np.array([1.0, np.nan]), ({("p", "a"): 1.0}, None), ()
        )
        evidence.add(str(number), "web", 2, picks, earned, along, BELIEFS)
    for estimator in ("ips", "snips", "dr", "sndr"):
        found = evidence.compared("reward", estimator, 0.95)  # type: ignore[arg-type]
        assert not found.target.warnings
        assert found.today.value is not None
        assert found.target.value is not None
        assert found.difference.value is not None
        assert found.today.value * found.scale == pytest.approx(rewards.sum(axis=1).mean())
        assert found.target.value * found.scale == pytest.approx(rewards[:, 0].mean())
        assert found.difference.value * found.scale == pytest.approx(-rewards[:, 1].mean())
        service = evidence.compared("value", estimator, 0.95, group="service")  # type: ignore[arg-type]
        assert service.today.value is not None
        assert service.today.value * service.scale == pytest.approx(10 * rewards[:, 1].mean())
        assert (service.target.unquotable or service.target).value == pytest.approx(0, abs=1e-12)


def test_what_the_log_could_not_show_gives_no_figure() -> None:
    evidence = Evidence()
    for number in range(COUNT):
        pick = Pick("p", 1, "a", {("p", "a"): 1.0})
        along = Followed(
            np.ones(1), np.array([0.9]), np.array([0.9]), ({("p", "a"): 0.9, ("p", "b"): 0.1},), ()
        )
        evidence.add(str(number), "web", 1, [pick], [Earned(number % 2, 0.0, 0.0)], along, BELIEFS)
    found = evidence.compared("reward", "dr", 0.95)
    assert found.today.value == pytest.approx(0.5)
    assert found.target.value is None
    assert {warning.code for warning in found.target.warnings} == {"unsupported", "mean_weight"}


def test_a_slot_that_only_the_target_fills_gives_no_figure() -> None:
    evidence = Evidence()
    for number in range(COUNT):
        shown = number % 4 > 0
        pick = Pick("p", 1, "a", {("p", "a"): 1.0})
        own = np.ones(int(shown))
        more = () if shown else ({("p", "b"): 1.0},)
        along = Followed(own, own, own, ({("p", "a"): 1.0},) * int(shown), more)
        picks = [pick] if shown else []
        evidence.add(
            str(number), "web", 1, picks, [Earned(number % 2, 0.0, 0.0)][: len(picks)], along, BELIEFS
        )
    codes = {warning.code for warning in evidence.compared("reward", "dr", 0.95).target.warnings}
    assert codes == {"unsupported", "mean_weight"}


def test_decisions_count_alike_however_many_slots_they_have() -> None:
    """The mean is over decisions: of one with three slots and one with none, not of their slots."""
    rng = np.random.default_rng(4)
    evidence = Evidence()
    earned = []
    for number in range(COUNT):
        slots = number % 4
        brought = (rng.random(slots) < 0.5).astype(float)
        earned.append(brought.sum())
        picks = [Pick("p", rank + 1, "a", {("p", "a"): 1.0}) for rank in range(slots)]
        along = Followed(np.ones(slots), np.ones(slots), np.ones(slots), ({("p", "a"): 1.0},) * slots, ())
        rows = [Earned(each, each, 2 * each) for each in brought]
        evidence.add(str(number), "web" if slots else "none", slots, picks, rows, along, BELIEFS)
    found = evidence.compared("money", "dr", 0.95)
    assert found.today.value is not None
    assert found.today.low is not None
    assert found.today.high is not None
    assert found.today.value * found.scale == pytest.approx(2 * np.mean(earned))
    width = (found.today.high - found.today.low) * found.scale
    assert width == pytest.approx(2 * 1.96 * 2 * np.std(earned) / np.sqrt(COUNT), rel=0.02)
    web = evidence.compared("reward", "dr", 0.95, kind="web")
    assert web.today.value is not None
    assert web.today.value * web.scale == pytest.approx(sum(earned) / (COUNT * 3 / 4))
    assert evidence.classes == ("none", "web")
    assert (evidence.decisions, evidence.customers, evidence.groups) == (COUNT, COUNT, ("sales",))


def test_a_customer_s_decisions_are_one_unit() -> None:
    evidence = Evidence()
    alone = Evidence()
    rng = np.random.default_rng(4)
    for customer in range(COUNT // 4):
        reward = float(rng.random() < 0.5)
        for visit in range(4):
            pick = Pick("p", 1, "a", {("p", "a"): 1.0})
            along = Followed(np.ones(1), np.ones(1), np.ones(1), ({("p", "a"): 1.0},), ())
            for each, who in ((evidence, str(customer)), (alone, f"{customer}/{visit}")):
                each.add(who, "web", 1, [pick], [Earned(reward, 0.0, 0.0)], along, BELIEFS)
    wide, narrow = (each.compared("reward", "ips", 0.95).today for each in (evidence, alone))
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.value is not None
    assert narrow.value is not None
    assert (wide.value - wide.low) / (narrow.value - narrow.low) == pytest.approx(2, rel=0.02)


def test_a_model_that_knows_all_leaves_no_doubt() -> None:
    """Rewards are what was believed, and the same in both slots: all weights must cancel, each time."""
    rng = np.random.default_rng(4)
    evidence = Evidence()
    believed = {
        (placement, arm): Belief("sales", reward, 10 * reward)
        for placement in ("p", "q")
        for arm, reward in (("a", 0.75), ("b", 0.25))
    }
    logged, other = (0.5, 0.5), (0.875, 0.125)
    for number in range(COUNT):
        drawn = rng.integers(2, size=2)
        arms = ["ab"[each] for each in drawn]
        picks = [
            Pick(placement, 1, arm, {(placement, "a"): logged[0], (placement, "b"): logged[1]})
            for placement, arm in zip("pq", arms, strict=True)
        ]
        earned = [Earned(believed[pick.placement, pick.treatment].reward, 0.0, 0.0) for pick in picks]
        along = Followed(
            np.cumprod([logged[each] for each in drawn]),
            np.cumprod([other[each] for each in drawn]),
            np.ones(2),
            tuple({(placement, "a"): other[0], (placement, "b"): other[1]} for placement in "pq"),
            (),
        )
        evidence.add(str(number), "web", 2, picks, earned, along, believed)
    found = evidence.compared("reward", "dr", 0.95).target
    said = found.unquotable or found
    assert said.value == pytest.approx(0.875 * 0.75 + 0.125 * 0.25)
    assert said.low == pytest.approx(said.value)
    assert said.high == pytest.approx(said.value)


def test_a_pick_that_would_outweigh_the_log_is_as_good_as_none() -> None:
    """An arm of one in a hundred would have a weight of 30: too much for 1,000 decisions, not for 10,000."""
    for count, refused in ((1_000, True), (10_000, False)):
        evidence = Evidence()
        for number in range(count):
            chances = {("p", "a"): 0.99, ("p", "b"): 0.01}
            other = {("p", "a"): 0.7, ("p", "b"): 0.3}
            arm = "b" if number % 100 == 99 else "a"
            own = np.array([chances["p", arm]])
            along = Followed(own, np.array([other["p", arm]]), np.ones(1), (other,), ())
            pick = Pick("p", 1, arm, chances)
            evidence.add(str(number), "web", 1, [pick], [Earned(number % 2, 0.0, 0.0)], along, BELIEFS)
        codes = {warning.code for warning in evidence.compared("reward", "dr", 0.95).target.warnings}
        assert ("unsupported" in codes) is refused

"""Following another procedure along logged picks gives the numbers of brute force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from support import ANNA, NOW, catalog_document

from arbitration import CompiledCatalog, Inputs, decide, serve
from arbitration.catalog.compile import compile_document
from arbitration.decide import Decision, decide_by
from arbitration.facts import Facts, admit
from arbitration.following import Followed, Pick, follow, picks
from arbitration.snapshot import Snapshot


def compiled(document: dict[str, Any]) -> CompiledCatalog:
    return compile_document(document)


def snapshots(catalog: CompiledCatalog) -> dict[str, Snapshot]:
    return {policy: serve(catalog, policy, None, "prior") for policy in catalog.policies}


def facts(catalog: CompiledCatalog, **changes: object) -> Facts:
    raw = {f"customer.{name}": value for name, value in ANNA["attributes"].items()}
    raw |= {f"scores.{name}": value for name, value in ANNA["scores"].items()}
    raw |= {f"customer.{name}": value for name, value in changes.items()}
    return {name: admit(name, value, catalog.declared[name]) for name, value in raw.items()}


def inputs(catalog: CompiledCatalog, channels: str, *placements: tuple[str, int], **changes: Any) -> Inputs:
    return Inputs(
        decision_id="d",
        now=NOW,
        customer_id="anna",
        channels=tuple(channels.split()),
        placements=placements,
        facts=facts(catalog),
        consents={"marketing": "given"},
        **changes,
    )


def slates(asked: Inputs, catalog: CompiledCatalog) -> Iterator[tuple[float, Decision]]:
    """Every way a decision can come out, with its probability: all sequences of picks are tried."""
    todo: list[tuple[int, ...]] = [()]
    while todo:
        path = todo.pop()
        chances: list[np.ndarray] = []

        def choose(number: int, fields: Any, pools: Any, of: np.ndarray) -> int:
            chances.append(of)  # noqa: B023
            return path[len(chances) - 1] if len(chances) <= len(path) else 0  # noqa: B023

        made = decide_by(choose, asked, catalog, snapshots(catalog))
        if len(chances) > len(path):
            todo += [(*path, each) for each in range(len(chances[len(path)]))]
        else:
            yield float(np.prod([of[each] for of, each in zip(chances, path, strict=True)])), made


def names(made: Decision) -> tuple[tuple[str, int, str], ...]:
    return tuple((pick.placement, pick.rank, pick.treatment) for pick in picks(made))


def followed(made: Decision, asked: Inputs, catalog: CompiledCatalog) -> Followed:
    return follow(picks(made), asked, catalog, snapshots(catalog))


CASES = [
    ("agent", (("panel", 3),)),
    ("web", (("hero", 1), ("side", 2))),
    ("web mail", (("hero", 1), ("block", 1))),
    ("mail web agent", (("block", 1), ("hero", 1), ("panel", 2))),
]


@pytest.fixture
def changed(document: dict[str, Any]) -> CompiledCatalog:
    """Another lever, and a context weight less."""
    document["actions"][3]["lever"] = 4.0
    document["context_weights"] = []
    return compiled(document)


@pytest.mark.parametrize(("channels", "placements"), CASES)
def test_the_probability_of_every_slate_is_that_of_brute_force(
    changed: CompiledCatalog, channels: str, placements: tuple[tuple[str, int], ...]
) -> None:
    today = compiled(catalog_document())
    if " " in channels:
        # A channel is chosen by one policy.
        assert {today.candidates[id].policy.id for id, _ in placements} == {"default"}
    asked = inputs(today, channels, *placements)
    other: dict[Any, float] = {}
    for chance, made in slates(asked, changed):
        other[names(made)] = other.get(names(made), 0.0) + chance
    assert sum(other.values()) == pytest.approx(1, abs=1e-12)
    total = 0.0
    for chance, made in slates(asked, today):
        found = followed(made, asked, changed)
        assert found.logging[-1] == pytest.approx(chance, abs=1e-12)
        assert found.target[-1] == pytest.approx(other[names(made)], abs=1e-12)
        assert not found.more
        assert found.supported == pytest.approx(np.ones(len(found.target)))
        total += found.target[-1]
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("channels", "placements"), CASES)
def test_the_same_procedure_has_exactly_the_logged_probabilities(
    channels: str, placements: tuple[tuple[str, int], ...]
) -> None:
    today = compiled(catalog_document())
    for number in range(20):
        asked = replace(inputs(today, channels, *placements), decision_id=f"d{number}")
        made = decide(asked, today, snapshots(today))
        found = followed(made, asked, today)
        assert (found.target == found.logging).all()
        assert [dict(each or {}) for each in found.chances] == [dict(pick.chances) for pick in picks(made)]
        assert [list(each or {}) for each in found.chances] == [list(pick.chances) for pick in picks(made)]


@pytest.mark.parametrize(
    "behaviour", ["random_eligible", "propensity_only", "no_levers", "random_propensity"]
)
def test_control_groups_are_followed_too(document: dict[str, Any], behaviour: str) -> None:
    document["control_groups"] = [
        {"id": "held", "share": 0.5, "behaviour": behaviour, "groups": ["retention"]}
    ]
    today, other = compiled(catalog_document()), compiled(document)
    asked = inputs(today, "agent", ("panel", 2))
    theirs = replace(asked, controls={"held": True})
    brute = {names(made): chance for chance, made in slates(theirs, other)}
    for _, made in slates(asked, today):
        assert followed(made, theirs, other).target[-1] == pytest.approx(brute[names(made)], abs=1e-12)


def test_what_is_held_out_is_lost_and_what_is_let_in_is_without_support(document: dict[str, Any]) -> None:
    document["control_groups"] = [
        {"id": "held", "share": 0.5, "behaviour": "no_action", "groups": ["retention"]}
    ]
    today, other = compiled(catalog_document()), compiled(document)
    asked = inputs(today, "agent", ("panel", 3))
    theirs = replace(asked, controls={"held": True})
    for _, made in slates(asked, today):
        found = followed(made, theirs, other)
        first = next((n for n, pick in enumerate(picks(made)) if pick.treatment.startswith("renew")), 3)
        assert (found.target[first:] == 0).all()
        assert (found.target[:first] > 0).all()
        assert found.chances[first + 1 :] == (None,) * len(found.chances[first + 1 :])
    for _, made in slates(theirs, other):  # two arms in the log, three slots without the control group
        found = followed(made, asked, today)
        assert len(found.target) == 2
        assert (found.supported < 1).all()
        assert len(found.more) == 1


def test_an_empty_slot_leaves_the_rest_of_its_placement_and_no_other(document: dict[str, Any]) -> None:
    for action in document["actions"]:
        action["treatments"] = [each for each in action["treatments"] if each["placement"] != "hero"]
    today, other = compiled(catalog_document()), compiled(document)
    asked = inputs(today, "web", ("hero", 1), ("side", 2))
    made = decide(asked, today, snapshots(today))
    drawn = picks(made)
    assert [pick.placement for pick in drawn] == ["hero", "side", "side"]
    found = followed(made, asked, other)
    assert found.target[0] == 0
    assert np.isnan(found.supported[0])
    assert found.chances[0] is None
    assert found.logging[1] == pytest.approx(drawn[1].probability)  # the hero does not count
    assert found.target[1] > 0


def test_an_empty_decision_says_what_would_be_shown() -> None:
    today = compiled(catalog_document())
    asked = inputs(today, "agent", ("panel", 3))
    nobody = replace(asked, stops=(("group", "retention"), ("group", "sales"), ("group", "service")))
    made = decide(nobody, today, snapshots(today))
    found = followed(made, asked, today)
    assert len(found.target) == 0
    (more,) = found.more
    assert sum(more.values()) == pytest.approx(1)


def test_weights_make_the_log_worth_what_the_other_would_earn(changed: CompiledCatalog) -> None:
    """Summed over every slate of the log, weight × reward is the other's expected reward, slot by slot."""
    today = compiled(catalog_document())
    asked = inputs(today, "web", ("hero", 1), ("side", 2))
    worth = {arm.treatment.id: number / 7 for number, arm in enumerate(today.arms)}
    places = list(product(["hero", "side"], [1, 2]))
    estimated = dict.fromkeys(places, 0.0)
    true = dict.fromkeys(places, 0.0)
    for chance, made in slates(asked, today):
        found = followed(made, asked, changed)
        for pick, target, logging in zip(picks(made), found.target, found.logging, strict=True):
            estimated[pick.placement, pick.rank] += chance * target / logging * worth[pick.treatment]
    for chance, made in slates(asked, changed):
        for pick in picks(made):
            true[pick.placement, pick.rank] += chance * worth[pick.treatment]
    assert estimated == pytest.approx(true, abs=1e-12)


def test_a_pick_knows_its_own_probability() -> None:
    pick = Pick("panel", 1, "a", {("panel", "a"): 0.25, ("panel", "b"): 0.75})
    assert pick.probability == 0.25

"""Policies are read as in a catalog, and see the log's columns as a catalog's features would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arbitration.catalog.learning import Mabwiser, Thompson
from arbitration.errors import CatalogError
from decision.bakeoff.entrants import contexts, read_entrants
from decision.errors import Rejected

GOOD = """
features:
  - {id: age, kind: numeric, source: customer.age, center: 40, scale: 10}
  - {id: plan, kind: categorical, source: customer.plan, values: [basic, "2"]}
policies:
  - {id: ours, strategy: thompson}
  - {id: theirs, library: mabwiser, learning_policy: {name: LinUCB, alpha: 0.5}}
  - {id: plain, strategy: epsilon_greedy, features: []}
"""
COLUMNS = {"age": ("30", "", "true"), "plan": ("basic", "2", ""), "Über": ("", "", "")}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_policies_of_both_kinds(tmp_path: Path) -> None:
    policies, features = read_entrants(written(tmp_path, GOOD), list(COLUMNS))
    assert [type(policy) for policy in policies][:2] == [Thompson, Mabwiser]
    assert [feature.id for feature in features] == ["age", "plan"]


def test_contexts(tmp_path: Path) -> None:
    policies, features = read_entrants(written(tmp_path, GOOD), list(COLUMNS))
    x = contexts(policies, features, COLUMNS, 3)
    expected = [[1, -1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 0], [1, -3.9, 0, 0, 0, 1]]
    assert x["ours"] == pytest.approx(np.array(expected))
    assert x["theirs"] is x["ours"]
    assert x["plain"].tolist() == [[1], [1], [1]]


def test_typed_cells_mean_the_same(tmp_path: Path) -> None:
    policies, features = read_entrants(written(tmp_path, GOOD), list(COLUMNS))
    typed = {"age": [30, None, True], "plan": ["basic", 2, None]}
    assert contexts(policies, features, typed, 3)["ours"].tolist() == (
        contexts(policies, features, COLUMNS, 3)["ours"].tolist()
    )


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (GOOD.replace("r.age", "r.aeg"), "features[0].source", "'aeg' (there are: age, plan)"),
        (GOOD.replace("customer.age", "scores.age"), "features[0].source", "unknown score 'age'"),
        (GOOD.replace("thompson", "tompson"), "policies[0]", "tompson"),
        (GOOD.replace("0.5}", "-1}"), "policies[1].learning_policy.alpha", "greater than or equal to 0"),
        (GOOD.replace("id: theirs", "id: ours"), "policies[1].id", "taken"),
        (GOOD.replace(": []", ": [agee]"), "policies[2].features[0]", "unknown feature 'agee'"),
        (GOOD.replace("son}", "son, half_life: 30d}"), "policies[0].half_life", "half_life has no meaning"),
        (GOOD.replace("son}", "son, apprentice: 9}"), "policies[0].apprentice", "apprentice has no meaning"),
        (GOOD + "actions: []\n", "actions", "only features and policies belong here"),
        (GOOD.partition("policies")[0], "policies", "no policy to try"),
    ],
)  # fmt: skip
def test_every_problem_is_named_with_its_place(tmp_path: Path, text: str, path: str, says: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read_entrants(written(tmp_path, text), list(COLUMNS))
    (problem,) = caught.value.problems
    assert problem.path == path
    assert says in problem.message
    assert problem.file == "policies.yaml"


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    policies, features = read_entrants(written(tmp_path, GOOD), list(COLUMNS))
    with pytest.raises(Rejected) as caught:
        contexts(policies, features, COLUMNS | {"age": ("30", "old", "")}, 3)
    assert (caught.value.errors[0].field, caught.value.errors[0].message) == (
        "age",
        "row 2: 'old' is no number",
    )


def test_a_column_is_a_number_or_a_category(tmp_path: Path) -> None:
    both = GOOD.replace("source: customer.plan", "source: customer.age")
    policies, features = read_entrants(written(tmp_path, both), list(COLUMNS))
    with pytest.raises(Rejected) as caught:
        contexts(policies, features, COLUMNS, 3)
    assert caught.value.errors[0].field == "age"

"""MABWiser's policies in a catalog: its names and defaults; what it refuses is refused at publish."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from support import catalog_document

from arbitration.catalog import mabwiser
from arbitration.catalog.compile import compile_document
from arbitration.catalog.learning import Mabwiser
from arbitration.catalog.problems import Source
from decision.publishing import check_document

UCB1 = {"name": "UCB1"}
PARTS = [
    *((part, "LearningPolicy") for part in get_args(get_args(mabwiser.LearningPolicy)[0])),
    *((part, "NeighborhoodPolicy") for part in get_args(get_args(mabwiser.NeighborhoodPolicy)[0])),
]


def document(**policy: Any) -> dict[str, Any]:
    made = catalog_document()
    made["policies"].append({"id": "x", "library": "mabwiser", **policy})
    return made


def problems(**policy: Any) -> list[tuple[str, str, str]]:
    found = check_document(Source(document(**policy))).problems
    return [(problem.code, problem.path, problem.message) for problem in found]


@pytest.mark.parametrize(("part", "kind"), PARTS, ids=lambda part: getattr(part, "__name__", ""))
def test_names_parameters_and_defaults_are_mabwisers(part: type[mabwiser.EpsilonGreedy], kind: str) -> None:
    library = pytest.importorskip("mabwiser.mab")
    theirs = getattr(getattr(library, kind), part.__name__)
    ours = part(name=part.__name__).model_dump()  # type: ignore[arg-type]
    assert ours.pop("name") == part.__name__
    expected = dict(theirs._field_defaults)
    expected.pop("binarizer", None)  # a function; a catalog has none
    if "tree_parameters" in ours:
        tree = pytest.importorskip("sklearn.tree").DecisionTreeRegressor().get_params()
        theirs_alone = {"random_state", "monotonic_cst"}
        assert ours.pop("tree_parameters") == {k: v for k, v in tree.items() if k not in theirs_alone}
        expected.pop("tree_parameters")
    assert ours == expected
    made = part(name=part.__name__)  # type: ignore[arg-type]
    if not isinstance(made, mabwiser.TreeBandit):
        theirs(**made.model_dump(exclude={"name"}))._validate()


@pytest.mark.parametrize("metric", get_args(mabwiser.Metric))
def test_every_metric_works(metric: str) -> None:
    """On contexts as they are: a column that is always 1, others that are 0 or 1."""
    distance = pytest.importorskip("scipy.spatial.distance")
    constants = pytest.importorskip("mabwiser.utils").Constants
    assert metric in constants.distance_metrics
    found = distance.cdist([[1.0, 0, 0, 1.5], [1.0, 0, 1, 0]], [[1.0, 0, 1, 0]], metric=metric)
    assert (found == found).all()


@pytest.mark.parametrize(
    ("policy", "code", "path", "says"),
    [
        ({}, "missing", ".learning_policy", "required"),
        ({"library": "vw"}, "literal_error", ".library", "'mabwiser'"),
        ({"learning_policy": {"name": "x"}}, "union_tag_invalid", ".learning_policy", "'LinUCB'"),
        ({"strategy": "ucb", "learning_policy": UCB1}, "extra_forbidden", ".strategy", "strategy"),
        ({"ridge": 2.0, "learning_policy": UCB1}, "extra_forbidden", ".ridge", "ridge"),
        ({"learning_policy": {"name": "LinTS", "alpha": 0}}, "greater_than", ".learning_policy.alpha", "0"),
        (
            {"learning_policy": {"name": "LinUCB", "l2_lambda": 0}},
            "greater_than",
            ".learning_policy.l2_lambda",
            "0",
        ),
        ({"learning_policy": {"name": "Softmax", "tau": 0}}, "greater_than", ".learning_policy.tau", "0"),
        (
            {"learning_policy": {"name": "EpsilonGreedy", "epsilon": 1.1}},
            "less_than_equal",
            ".learning_policy.epsilon",
            "1",
        ),
        (
            {"learning_policy": {"name": "LinUCB", "scale": 1}},
            "bool_type",
            ".learning_policy.scale",
            "boolean",
        ),
        (
            {"learning_policy": {"name": "ThompsonSampling", "binarizer": "x"}},
            "extra_forbidden",
            ".learning_policy.binarizer",
            "binarizer",
        ),
    ],
)
def test_what_is_wrong_with_a_policy(policy: dict[str, Any], code: str, path: str, says: str) -> None:
    found = problems(**policy)
    assert [(at, where) for at, where, message in found if says in message] == [(code, f"policies[2]{path}")]


@pytest.mark.parametrize(
    ("near", "code", "path", "says"),
    [
        ({"name": "Clusters", "n_clusters": 1}, "greater_than_equal", ".n_clusters", "2"),
        ({"name": "KNearest", "k": 0}, "greater_than_equal", ".k", "1"),
        ({"name": "KNearest", "k": 2.5}, "int_type", ".k", "integer"),
        ({"name": "KNearest", "metric": "seuclidean"}, "literal_error", ".metric", "'euclidean'"),
        ({"name": "Radius", "radius": 0}, "greater_than", ".radius", "0"),
        ({"name": "Radius", "no_nhood_prob_of_arm": {"a": 0.5}}, "value_error", "", "sum up to 1"),
        ({"name": "Radius", "no_nhood_prob_of_arm": [1.0]}, "dict_type", ".no_nhood_prob_of_arm", "dict"),
        ({"name": "LSHNearest", "n_tables": 0}, "greater_than_equal", ".n_tables", "1"),
        (
            {"name": "TreeBandit", "tree_parameters": {"random_state": 1}},
            "extra_forbidden",
            ".tree_parameters.random_state",
            "random_state",
        ),
        (
            {"name": "TreeBandit", "tree_parameters": {"max_depth": 0}},
            "greater_than_equal",
            ".tree_parameters.max_depth",
            "1",
        ),
    ],
)
def test_what_is_wrong_with_a_neighbourhood(near: dict[str, Any], code: str, path: str, says: str) -> None:
    found = problems(learning_policy=UCB1, neighborhood_policy=near)
    where = f"policies[2].neighborhood_policy{path}"
    assert [(at, place) for at, place, message in found if says in message] == [(code, where)]


LEARNING = [part.__name__ for part, kind in PARTS if kind == "LearningPolicy"]


@pytest.mark.parametrize("name", LEARNING)
def test_treebandit_takes_what_mabwiser_says_it_takes(name: str) -> None:
    library = pytest.importorskip("mabwiser.mab")
    found = problems(learning_policy={"name": name}, neighborhood_policy={"name": "TreeBandit"})
    learning = getattr(library.LearningPolicy, name)()
    if library.NeighborhoodPolicy.TreeBandit()._is_compatible(learning):
        assert not found
    else:
        ((code, path, message),) = found
        assert (code, path) == ("value_error", "policies[2]")
        assert (
            message
            == f"learning_policy: TreeBandit takes EpsilonGreedy, ThompsonSampling or UCB1, not {name}"
        )


def test_a_neighbourhood_needs_features_and_forgets_by_its_history() -> None:
    near = {"learning_policy": UCB1, "neighborhood_policy": {"name": "Radius"}}
    for more, names in (({"features": []}, "features: "), ({"half_life": "30d"}, "half_life: ")):
        ((code, path, message),) = problems(**near, **more)
        assert (code, path) == ("value_error", "policies[2]")
        assert message.startswith(names)
    assert not problems(**near, history=500, features=["nps"])


@pytest.mark.parametrize("name", LEARNING)
def test_what_takes_no_context_is_encoded_without_one(name: str) -> None:
    compiled = compile_document(document(learning_policy={"name": name}, features=["nps"]))
    columns = compiled.encoders["x"].columns
    assert (columns == ("bias",)) == (not name.startswith("Lin"))
    near = compile_document(
        document(learning_policy={"name": name}, neighborhood_policy={"name": "KNearest"}, features=["nps"])
    )
    assert len(near.encoders["x"].columns) > 1


def test_a_published_catalog_reads_back_as_it_was() -> None:
    policy = {
        "learning_policy": {"name": "ThompsonSampling"},
        "neighborhood_policy": {
            "name": "Radius",
            "radius": 2,
            "no_nhood_prob_of_arm": {"a": 0.25, "b": 0.75},
        },
    }
    compiled = compile_document(document(**policy))
    again = type(compiled.model).model_validate(compiled.model.model_dump(mode="json", by_alias=True))
    assert again == compiled.model
    assert isinstance(again.policies[-1], Mabwiser)

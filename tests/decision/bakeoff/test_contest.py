"""A bake-off from file to files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from rich.console import Console

from decision.bakeoff.contest import Options, run
from decision.errors import Rejected

POLICIES = """
features:
  - {id: segment, kind: categorical, source: customer.segment, values: [x, y]}
policies:
  - {id: coin, strategy: softmax, temperature: 1.0e9}
  - {id: learner, strategy: thompson}
  - {id: greedy, library: mabwiser, learning_policy: {name: LinGreedy, epsilon: 0.05}}
"""
ROWS = 900


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Three arms a third each; a is right for x, b for y. Rewards of 0 or 20."""
    folder = tmp_path_factory.mktemp("bakeoff")
    rng = np.random.default_rng(11)
    lines = ["segment,arm,gain"]
    for segment, arm, luck in zip(
        rng.integers(2, size=ROWS), rng.integers(3, size=ROWS), rng.random(ROWS), strict=True
    ):
        chance = 0.8 if segment == arm else 0.1
        lines.append(f"{'xy'[segment]},{'abc'[arm]},{20 * (luck < chance)}")
    (folder / "log.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "policies.yaml").write_text(POLICIES, encoding="utf-8")
    return Options(
        folder / "log.csv", folder / "policies.yaml", "arm", "gain", runs=2, refresh=50,
        html=folder / "page.html", json=folder / "report.json",
    )  # fmt: skip


def quiet() -> Console:
    return Console(file=io.StringIO(), width=160)


def test_who_learns_wins_and_it_is_written_down(options: Options) -> None:
    console = quiet()
    report = run(options, console)
    coin, learner, greedy = report.policies
    # Uniform is worth 20 (0.8 + 0.1 + 0.1) / 3 = 6.67, the best arm for each 16; one arm for all 9.
    # 4.5 standard errors: a false alarm in 1.5e5.
    assert abs(coin.reward.value - 20 / 3) < 4.5 / 1.96 * (coin.reward.customers[1] - coin.reward.value)
    assert abs(report.references.uniform.value - 20 / 3) < 1.5
    assert 6.5 < report.references.best.value < 11.5
    for wise in (learner, greedy):
        assert wise.gain.customers[0] > 0
        assert wise.reward.value > report.references.best.value
    assert 230 < report.events < 350
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "learner" in printed
    assert "900 rows of log.csv" in printed
    assert options.html is not None
    assert options.json is not None
    page = options.html.read_text("utf-8")
    assert (
        len(list(ElementTree.fromstring(page.partition("\n")[2]).iter("{http://www.w3.org/2000/svg}svg")))
        == 5
    )
    kept = orjson.loads(options.json.read_bytes())
    assert [one["policy"] for one in kept["policies"]] == ["coin", "learner", "greedy"]
    assert kept["policies"][1]["gain"]["value"] == learner.gain.value
    assert kept["events"] == report.events


def test_the_same_seed_gives_the_same_report(options: Options) -> None:
    short = replace(options, limit=200, html=None, json=None, runs=1)
    assert run(short, quiet()) == run(short, quiet())
    assert run(short, quiet()) != run(replace(short, seed=1), quiet())


def test_too_few_events_are_refused_before_the_work(options: Options) -> None:
    with pytest.raises(Rejected) as caught:
        run(replace(options, limit=100), quiet())
    assert caught.value.errors[0].field == "arm"
    assert "of 100 events would count, fewer than one refresh (50)" in caught.value.errors[0].message


def test_a_place_that_cannot_be_written_to_is_found_out_first(options: Options, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        run(replace(options, html=tmp_path / "nowhere" / "page.html"), quiet())
    assert "nowhere" in caught.value.errors[0].field

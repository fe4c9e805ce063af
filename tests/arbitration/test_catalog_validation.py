"""Every kind of problem in a catalog is found, all at once, each where the author wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import catalog_document

from arbitration.catalog.compile import compile_document
from arbitration.catalog.problems import Source
from decision.catalog_files import read_catalog
from decision.publishing import check_document


def problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in check_document(Source(document)).problems]


def put(document: Any, path: str, value: object) -> None:
    """Sets `a.0.b` in a document."""
    *way, last = path.split(".")
    for step in way:
        document = document[int(step) if step.isdigit() else step]
    document[int(last) if last.isdigit() else last] = value


HERO = "actions.0.treatments.1"


@pytest.mark.parametrize(
    ("path", "value", "code", "where"),
    [
        ("actions.1.id", "renew_12", "duplicate_id", "actions[1].id"),
        ("actions.1.treatments.0.id", "renew_12_agent", "duplicate_id", "actions[1].treatments[0].id"),
        ("groups.1.id", "retention", "duplicate_id", "groups[1].id"),
        ("attributes.1.id", "first_name", "duplicate_id", "attributes[1].id"),
        ("actions.0.group", "zork", "unknown_group", "actions[0].group"),
        ("actions.0.treatments.0.channel", "zork", "unknown_channel", "actions[0].treatments[0].channel"),
        ("actions.0.treatments.0.placement", "x", "unknown_placement", "actions[0].treatments[0].placement"),
        ("actions.0.treatments.0.channel", "web", "other_channel", "actions[0].treatments[0].channel"),
        ("placements.0.policy", "zork", "unknown_policy", "placements[0].policy"),
        ("placements.0.channel", "zork", "unknown_channel", "placements[0].channel"),
        ("channels.0.consent", "zork", "unknown_purpose", "channels[0].consent"),
        ("policies.1.features", ["zork"], "unknown_feature", "policies[1].features[0]"),
        ("features.0.source", "scores.zork", "unknown_score", "features[0].source"),
        ("features.3.of", ["churn", "zork"], "cross", "features[3].of"),
        ("context_weights.0.group", "zork", "unknown_group", "context_weights[0].group"),
        ("context.0.channels", ["zork"], "unknown_channel", "context[0].channels[0]"),
        (f"{HERO}.content", {}, "missing_content", "actions[0].treatments[1].content"),
        (f"{HERO}.content.zork", "x", "unknown_content", "actions[0].treatments[1].content.zork"),
        ("placements.1.fallback", {}, "missing_content", "placements[1].fallback"),
        ("actions.0.eligibility", ["customer.nps"], "rule", "actions[0].eligibility[0]"),
        ("actions.0.eligibility", ["customer.nsp > 3"], "rule", "actions[0].eligibility[0]"),
        ("actions.0.eligibility", ['customer.nps == "3"'], "rule", "actions[0].eligibility[0]"),
        ("actions.0.eligibility", ["scores.clv > 3"], "rule", "actions[0].eligibility[0]"),
        ("actions.0.eligibility", ["customer.nps >"], "rule", "actions[0].eligibility[0]"),
        ("actions.0.eligibility", [{"rule": "1", "why": "x"}], "rule", "actions[0].eligibility[0].rule"),
        ("actions.0.value", "customer.plan", "rule", "actions[0].value"),
        ("context_weights.0.when", "1 + 1", "rule", "context_weights[0].when"),
        ("actions.1.eligibility", ['context.page == "x" && context.intent == "cancel"'], None, ""),
        ("actions.0.eligibility", ['customer.plan == "\n'], "rule", "actions[0].eligibility[0]"),
        (f"{HERO}.content.title", "{{ customer.plan", "template", "actions[0].treatments[1].content.title"),
        (f"{HERO}.content.title", "{{ now.x }}", "template_name", "actions[0].treatments[1].content.title"),
        ("placements.1.fallback.title", "{{ zork }}", "template_name", "placements[1].fallback.title"),
        ("actions.0.stop.on", ["converted"], "unheard_outcome", "actions[0].stop.on[0]"),
        ("actions.2.valid.to", "2025-01-01", "empty_validity", "actions[2].valid"),
        ("actions.2.valid.to", "9999-12-31", "value_error", "actions[2].valid.to"),
        ("actions.2.valid.from", "0001-01-01T00:00:00+10:00", "value_error", "actions[2].valid.from"),
        ("actions.0.stop.for", "999999w", "value_error", "actions[0].stop.for"),
        ("actions.0.lever", "2", "float_type", "actions[0].lever"),
        ("actions.0.lever", True, "float_type", "actions[0].lever"),
        ("actions.0.lever", 1e308, "less_than_equal", "actions[0].lever"),
        ("actions.0.zork", 1, "extra_forbidden", "actions[0].zork"),
        ("attributes.1.type", "number", "literal_error", "attributes[1].type"),
        ("attributes.1.values", ["a"], "value_error", "attributes[1]"),
        ("channels.0.rewards.impression", 1.0, "value_error", "channels[0]"),
    ],
)  # fmt: skip
def test_each_kind_of_problem(path: str, value: object, code: str | None, where: str) -> None:
    document = catalog_document()
    put(document, path, value)
    found = problems(document)
    assert ((code, where) in found) if code else not found, found


def test_a_sound_catalog_has_no_problem() -> None:
    assert problems(catalog_document()) == []
    assert problems({}) == []


def test_a_broken_part_hides_nothing_and_is_told_once() -> None:
    document = catalog_document()
    put(document, "attributes.1", {"id": "nps", "type": "zork"})  # used by rules, features
    put(document, "actions.0.lever", -1)
    put(document, "actions.0.group", "zork")
    put(document, "actions.0.eligibility", ["customer.nsp > 3", "1 +"])
    put(document, f"{HERO}.content", {"zork": "{{ customer.plan | zork }}"})
    put(
        document,
        "actions.1.treatments.0",
        {"id": "x", "placement": "panel", "content": {"headline": "{{ y }}"}},
    )
    assert set(problems(document)) == {
        ("literal_error", "attributes[1].type"),
        ("greater_than_equal", "actions[0].lever"),
        ("unknown_group", "actions[0].group"),
        ("rule", "actions[0].eligibility[0]"),
        ("rule", "actions[0].eligibility[1]"),
        ("missing_content", "actions[0].treatments[1].content"),
        ("unknown_content", "actions[0].treatments[1].content.zork"),
        ("template", "actions[0].treatments[1].content.zork"),
        ("missing", "actions[1].treatments[0].channel"),
        ("template_name", "actions[1].treatments[0].content.headline"),
    }


def test_problems_stand_where_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "actions").mkdir()
    (tmp_path / "attributes.yaml").write_text("- {id: nps, type: int}\n")
    (tmp_path / "groups.yaml").write_text("- {id: g}\n- {id: g}\n")
    (tmp_path / "actions" / "a.yaml").write_text(
        "- id: a\n  group: g\n  eligibility:\n    - customer.nps > 3 && customer.nsp < 2\n"
        "  lever: x\n  treatments: [{id: t, channel: web, placement: p, content: {}}]\n"
    )
    (tmp_path / "bad.yaml").write_text("a: [\n")
    source, unreadable = read_catalog(tmp_path)
    assert [(problem.code, problem.file) for problem in unreadable] == [("not_yaml", "bad.yaml")]
    found = {problem.path: problem for problem in check_document(source).problems}
    rule = found["actions[0].eligibility[0]"]
    assert (rule.file, rule.line, rule.column) == ("actions/a.yaml", 4, 7)
    row, caret = str(rule.excerpt).split("\n")
    assert row[caret.index("^") :].startswith(("customer.nsp", ".nsp"))
    assert (found["actions[0].lever"].line, found["groups[1].id"].line) == (5, 2)
    assert "actions/a.yaml:4:7: actions[0].eligibility[0]:" in str(rule)


def test_yaml_and_json_and_any_order_are_one_version(tmp_path: Path) -> None:
    document = catalog_document()
    version = compile_document(document).version
    folder = tmp_path / "folder"
    folder.mkdir()
    for section, content in document.items():
        if isinstance(content, list):
            (folder / f"{section}.yaml").write_text(yaml.safe_dump(content, sort_keys=True))
    (folder / "catalog.yaml").write_text("name: small\ncurrency: EUR\n")
    (tmp_path / "one.json").write_text(json.dumps(document))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document, sort_keys=True))))
    for path in (folder, tmp_path / "one.json", tmp_path / "one.yaml"):
        source, unreadable = read_catalog(path)
        assert not unreadable
        published = check_document(source).published
        assert published is not None
        assert published.version == version
    document["actions"][0]["lever"] = 1  # the default, written out
    assert compile_document(document).version == version
    document["actions"][0]["lever"] = 1.1
    assert compile_document(document).version != version


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("actions: &a [*a]\n", "too_deep"),
        ("name: a\nname: b\n", "duplicate_key"),
        ("actions: [{id: a, id: b}]\n", "duplicate_key"),
        ("- 1\n", "not_a_mapping"),
        ("a: b: c\n", "not_yaml"),
        ('name: "\\ud800"\n', "not_text"),
    ],
)
def test_unreadable_yaml_is_told(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "one.yaml").write_text(text)
    assert code in [problem.code for problem in read_catalog(tmp_path / "one.yaml")[1]]


@pytest.mark.parametrize("section", ["channels", "name"])
def test_what_stands_in_two_files_is_told(tmp_path: Path, section: str) -> None:
    (tmp_path / "catalog.yaml").write_text(f"{section}: foo\n")
    (tmp_path / f"{section}.yaml").write_text("- id: a\n")
    (found,) = read_catalog(tmp_path)[1]
    assert (found.code, found.path) == ("not_a_list", f"{section}.yaml")

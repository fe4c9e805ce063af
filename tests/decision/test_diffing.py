"""What differs between two catalogs."""

from __future__ import annotations

from typing import Any

from support import catalog_document

from decision.diffing import Difference, by_part, differences


def test_equal_catalogs_do_not_differ() -> None:
    assert differences(catalog_document(), catalog_document()) == []


def test_every_change_is_told_by_id() -> None:
    before, after = catalog_document(), catalog_document()
    after["actions"][1]["lever"] = 2.0
    del after["actions"][0]
    after["groups"].append({"id": "new"})
    after["policies"].reverse()  # the first is the default
    assert differences(before, after) == [
        Difference("added", "groups.new", None, {"id": "new"}),
        Difference("changed", "default policy", "default", "plain"),
        Difference("changed", "policies (order)", ["default", "plain"], ["plain", "default"]),
        Difference("removed", "actions.renew_12", before["actions"][0]),
        Difference("changed", "actions.renew_24.lever", 1.5, 2.0),
    ]


def told(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [line for part in by_part(differences(before, after)) for line in part.lines]


def test_a_reviewer_reads_it_part_by_part() -> None:
    before, after = catalog_document(), catalog_document()
    before["governance"], after["governance"] = {"four_eyes": True}, {"four_eyes": False}
    renewal = after["actions"][1] = {**after["actions"][1], "lever": 2.0}
    renewal["applicability"] = ["customer.nps <= 5", before["actions"][1]["applicability"][1]]
    renewal["treatments"][0]["content"]["headline"] = "Two years"
    after["channels"][0]["rewards"] = {**after["channels"][0]["rewards"], "rejected": 0.1, "click": 0.2}
    after["actions"][3]["valid"] = {"to": "2027-01-01"}
    after["contact_policies"] = [{"id": "weekly", "gap": "7d", "exempt": []}]
    assert told({**before, "contact_policies": []}, after) == [
        "~ channel agent",
        "    rewards rejected 0.0 → 0.1",
        "    rewards click: added 0.2",
        "~ action renew_24",
        "    applicability: removed customer.nps <= 6",
        "    applicability: added customer.nps <= 5",
        "    lever 1.5 → 2.0",
        '    treatment renew_24_agent content headline "24 months" → "Two years"',
        "~ action check",
        '    valid: added {"to": "2027-01-01"}',
        "~ governance four_eyes",
        "    true → false",
        "+ contact policy weekly",
        "    gap: 7d",
    ]


def test_what_is_added_or_removed_is_told_whole() -> None:
    before, after = catalog_document(), catalog_document()
    before["actions"], after["actions"] = before["actions"][:1], []
    assert told(before, after) == [
        "- action renew_12",
        "    group: retention",
        "    value: scores.clv * 0.1",
        '    eligibility: customer.contract_end - now < duration("2160h")',
        "    applicability: customer.nps <= 6",
        "    applicability: !customer.open_complaint (why: No complaint is open.)",
        '    stop: {"on": ["accepted"], "scope": "group", "for": "365d"}',
        '    treatment: renew_12_agent {"channel": "agent", "placement": "panel",'
        ' "content": {"headline": "12 months of {{ customer.plan }}"}}',
        '    treatment: renew_12_hero {"channel": "web", "placement": "hero",'
        ' "content": {"title": "Stay", "body": "<b>{{ customer.first_name }}</b>"}}',
        '    treatment: renew_12_mail {"channel": "mail", "placement": "block",'
        ' "content": {"subject": "Renew by'
        " {{ customer.contract_end | date: '%F' }}\", \"body\": \"Sent {{ 'now' | date: '%F %T' }} to"
        ' {{ customer.first_name }}"}}',
    ]
    added = {"id": "free", "lever": 0, "value": 0.0, "treatments": []}
    assert told({"actions": []}, {"actions": [added]}) == ["+ action free", "    lever: 0", "    value: 0.0"]


def test_only_the_order_of_rules_is_a_difference_too() -> None:
    before = {"actions": [{"id": "a", "eligibility": ["x", "y"]}]}
    after = {"actions": [{"id": "a", "eligibility": ["y", "x"]}]}
    assert told(before, after) == ["~ action a", '    eligibility (order) ["x", "y"] → ["y", "x"]']


def test_nobody_approves_what_he_cannot_see() -> None:
    hidden = "\x1b[2Kgone\u202eback\nline\u200b"
    before = {"actions": [{"id": "a", "description": ""}]}
    after = {"actions": [{"id": "a", "description": hidden}]}
    (_, line) = told(before, after)
    assert line == '    description "" → "\\u001b[2Kgone\\u202eback\\nline\\u200b"'
    assert all(character.isprintable() for character in line)


def test_another_default_policy_is_told() -> None:
    before, after = catalog_document(), catalog_document()
    after["policies"].insert(0, {"id": "sly", "strategy": "epsilon_greedy"})
    added = ["+ policy sly", "    strategy: epsilon_greedy"]
    assert told(before, after) == ["~ default policy", '    "default" → "sly"', *added]
    removed = ["- policy sly", "    strategy: epsilon_greedy"]
    assert told(after, before) == ["~ default policy", '    "sly" → "default"', *removed]
    after["policies"].append(after["policies"].pop(0))
    assert told(before, after) == added


def text(before: object, after: object) -> str:
    (part,) = by_part(differences({"name": before}, {"name": after}))
    return part.changes[0].text


def test_of_long_texts_all_that_differs_is_told() -> None:
    same, end = "x" * 5_000, "z" * 5_000
    assert text(same + " 10 EUR", same + " 99 EUR") == f'…{"x" * 59} 10 EUR" → …{"x" * 59} 99 EUR"'
    middle = "y" * 400
    whole = text(f"{same}1{middle}2{end}", f"{same}3{middle}4{end}")
    assert whole == f"…{'x' * 60}1{middle}2{'z' * 60}… → …{'x' * 60}3{middle}4{'z' * 60}…"
    assert text(same, same + "!").endswith('x!"')
    new = {"id": "new", "description": same + " FREE"}
    assert told({"actions": []}, {"actions": [new]})[1] == f"    description: {same} FREE"


def test_equal_looks_are_told_apart() -> None:
    assert text("Save", "Save ") == '"Save" → "Save "'
    assert text("Save", "S\ufe0fav\u3164e\u2800") == '"Save" → "S\\ufe0fav\\u3164e\\u2800"'
    assert text("Save", "S\u0430ve") == '"Save" → "S\\u0430ve"'  # a Cyrillic letter
    assert text("\u0441", "c") == '"\\u0441" → "c"'
    assert text("caf\u00e9", "cafe\u0301") == '"caf\\xe9" → "cafe\\u0301"'
    assert text("f\u00fcr \u6771\u4eac", "über") == '"für 東京" → "über"'
    assert text("x", "\\u202e") != text("x", "\u202e")
    assert text(1, True) == "1 → true"
    assert text([1], [True]) == "[1] → [true]"
    rules = [
        {"actions": [{"id": "a", "eligibility": [rule]}]} for rule in ('p == "gold"', 'p == "g\u043eld"')
    ]
    assert told(*rules)[2] == '    eligibility: added p == "g\\u043eld"'
    assert told({}, {"name": "x "}) == ["~ name", '    added "x "']


def test_the_values_are_whole_and_so_are_the_words() -> None:
    long = "x" * 5_000
    (part,) = by_part(differences({"name": ""}, {"name": long}))
    assert (part.part, part.kind) == ("name", "changed")
    assert part.changes[0].after == long
    assert part.changes[0].text == f'"" → "{long}"'

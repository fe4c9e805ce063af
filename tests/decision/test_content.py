"""Templates: a sandbox without files, clocks or surprises."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from support import NOW, Service, catalog_document

from arbitration.catalog.problems import Source
from arbitration.inputs import Inputs
from decision.content import Renderer, template_problems
from decision.publishing import check_document

HOSTILE = "<script>alert('x')</script>"


def problems(text: str, field: str = "body") -> list[Any]:
    document = catalog_document()
    document["actions"][0]["treatments"][1]["content"][field] = text
    return list(check_document(Source(document)).problems)


def render(text: str, field: str = "body", **facts: Any) -> tuple[str, list[str]]:
    """What a template of the hero comes to, and what failed."""
    document = catalog_document()
    document["actions"][0]["treatments"][1]["content"][field] = text
    checked = check_document(Source(document))
    assert checked.published is not None, checked.problems
    named = {f"customer.{name}": value for name, value in facts.items()}
    renderer = Renderer(Inputs("d", NOW, "c", ("web",), (("hero", 1),), named))
    content = renderer.render("renew_12_hero", checked.published.templates.treatments["renew_12_hero"])
    return content[field], renderer.failed


@pytest.mark.parametrize(
    "text",
    [
        "{% include 'x' %}", "{% render 'x' %}", "{% extends 'x' %}", "{% layout 'x' %}", "{% if %}",
        "{{ customer.nps", "{{ customer.nps | safe }}", "{{ customer.nps | zork }}", "{% zork %}",
        "{{ customer.zork }}", "{{ zork }}", "{{ customer }}", "{{ customer[customer.plan] }}",
        "{% if customer.nps > scores.zork %}x{% endif %}", "{% for i in context %}{% endfor %}",
        "{{ now.year }}", "{{ customer.nps | date: zork }}", "{% if 1 %}" * 2000,
    ],
)  # fmt: skip
def test_what_may_not_be_is_refused_when_published(text: str) -> None:
    found = problems(text)
    assert found
    assert {problem.path for problem in found} == {"actions[0].treatments[1].content.body"}
    assert all("^" in problem.excerpt for problem in found)


def test_the_caret_stands_under_the_name() -> None:
    (problem,) = problems("<p>\n  {{ customer.nsp }}")
    row, caret = problem.excerpt.split("\n")
    assert row[caret.index("^") :].startswith("customer.nsp")


@pytest.mark.parametrize(
    "filters",
    ["", "| upcase", "| url_decode", "| append: '!'", "| strip", "| split: ' ' | join: ' '", "| default: 'x'",
     "| replace: 'alert', '<b>'", "| newline_to_br", "| truncate: 100", "| prepend: '<i>' | downcase"],
)  # fmt: skip
def test_what_is_filled_into_html_is_escaped(filters: str) -> None:
    text, failed = render(f"<b>{{{{ customer.first_name {filters} }}}}</b>", first_name=HOSTILE)
    assert "<script" not in text.lower()
    assert "<b>alert" not in text.lower()
    assert text.startswith("<b>")
    assert not failed


def test_text_fields_are_left_as_they_are() -> None:
    assert render("{{ customer.first_name }}", "title", first_name=HOSTILE)[0] == HOSTILE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 'now' | date: '%F %T' }}", "2026-03-01 12:30:15"),
        ("{{ 'today' | date: '%F' }}", "2026-03-01"),
        ("{{ now | date: '%F %T %Z' }}", "2026-03-01 12:30:15 UTC"),
        ("{{ now | date: '%s %%s' }}", f"{int(NOW.timestamp())} %s"),
        ("{{ 86400 | date: '%F %T' }}", "1970-01-02 00:00:00"),
        ("{{ '86400' | date: '%F %T' }}", "1970-01-02 00:00:00"),
        ("{{ '2026-12-24' | date: '%d.%m.%Y' }}", "24.12.2026"),
        ("{{ 'Monday' | date: '%F' }}", "Monday"),  # Liquid would ask the machine's clock
        ("{{ '10:30' | date: '%F' }}", "10:30"),
        ("{{ customer.contract_end | date: '%-d %B' }}", "1 April"),
        ("{{ customer.plan | date: '%F' }}", ""),
    ],
)
def test_dates_know_no_clock_and_no_time_zone(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    for zone in ("UTC", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert render(text, contract_end=datetime(2026, 4, 1, tzinfo=UTC))[0] == expected
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "{{ customer.nps | divided_by: 0 }}",
        "{{ customer.spend | modulo: customer.nps }}",
        "{{ customer.first_name | base64_decode }}",
        "{{ 'x' | slice: 'y' }}",
    ],
)
def test_a_text_that_fails_is_empty_and_named(text: str) -> None:
    assert render(text, nps=3, spend=1e308, first_name="/w==") == (
        "", ["content.renew_12_hero.body:render_error"]
    )  # fmt: skip


def test_what_is_not_known_is_empty() -> None:
    assert render("Hi {{ customer.first_name | default: 'you' }}{{ customer.nps }}") == ("Hi you", [])


async def test_a_failing_text_degrades_the_decision(service: Service, document: dict[str, Any]) -> None:
    document["actions"][3]["treatments"][0]["content"]["headline"] = "{{ customer.nps | divided_by: 0 }}"
    await service.publish(document)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    assert decision["degraded"] == ["content.check_agent.headline:render_error"]
    assert decision["placements"][0]["items"][0]["content"] == {"headline": ""}
    path = f"/v1/decisions/{decision['decision_id']}/replay"
    assert (await service.client.post(path)).json()["identical"]


def test_templates_of_broken_parts_are_checked_too() -> None:
    document = {"actions": [{"treatments": [{"placement": [], "content": {"x": "{{ zork }}", "y": 3}}]}]}
    (problem,) = template_problems(Source(document), {}, frozenset())
    assert problem.code == "template_name"

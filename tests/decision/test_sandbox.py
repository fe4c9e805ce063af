"""Hostile templates: each is refused, or costs little and its own text alone."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from liquid.exceptions import LiquidError, ResourceLimitError
from support import NOW, catalog_document

from arbitration.catalog.problems import Source
from arbitration.inputs import Inputs
from decision.content import Renderer
from decision.publishing import check_document
from decision.sandbox import ENVIRONMENTS, LONGEST, MOST_STEPS, _Counting

MIB = 1024 * 1024
LONG = "a" * 4096
FACTS: dict[str, Any] = {
    "customer": {"name": LONG, "first": "<b>Anna</b>", "interests": [LONG] * 256, "nps": 7},
    "scores": {"clv": 1e308},
    "context": {},
    "now": datetime(2026, 1, 1, tzinfo=UTC),
}
ENDLESS = [
    "{% for i in (1..100000000) %}x{% endfor %}",
    "{% for i in (1..100000000) reversed %}x{% endfor %}",
    "{% assign r = (1..100000000) %}{% for i in r reversed %}x{% endfor %}",
    "{% for i in (1..100000000) offset: 99999998 limit: 1 %}x{% endfor %}",
    "{% for i in (1..5000) %}{% for j in (1..5000) %}{% endfor %}{% endfor %}",
    "{% for i in (1..99) %}{% for j in (1..99) %}{% for k in (1..99) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in (1..9999) %}{% endfor %}" * 100,
    "{% for i in (1..9999) %}" + "{% if true or true %}{% endif %}" * 100 + "{% endfor %}",
    "{% tablerow i in (1..100000000) cols:2 %}x{% endtablerow %}",
    "{% tablerow i in (1..9000) %}{% tablerow j in (1..9000) %}{% endtablerow %}{% endtablerow %}",
    "{% liquid\nfor i in (1..9999)\nfor j in (1..9999)\necho 'x'\nendfor\nendfor %}",
    "{% for i in (1..9999) %}{% cycle 'a', 'b' %}{% endfor %}",
    "{% for i in (1..9999) %}{% ifchanged %}{{ i }}{% endifchanged %}{% endfor %}",
    "{{ (1..100000000) | join: ',' | size }}",
    "{{ (1..100000000) | reverse | first }}",
    "{{ (1..100000000) | sum }}",
    "{% assign s = 'aaaaaaaaaa' %}" + "{% assign s = s | append: s %}" * 40,
    "{% assign s = 'aaaaaaaaaa' %}{% for i in (1..60) %}{% assign s = s | append: s %}{% endfor %}",
    "{% assign s = 'aaaaaaaaaa' %}" + "{% capture s %}{{ s }}{{ s }}{% endcapture %}" * 40,
    "{{ 'aaaaaaaaaa' " + "| replace: 'a', 'aaaaaaaaaaaaaaaaaaaa'" * 20 + "| size }}",
    "{{ 'x' " + "| base64_encode" * 90 + "| size }}",
    "{{ '&' " + "| escape | replace: '&', '&&&&'" * 90 + "| size }}",
    "{% assign n = 99999999999999999999 %}" + "{% assign n = n | times: n %}" * 30,
    "".join(f"{{% assign v{n} = 1 %}}" for n in range(1200))
    + "{% for i in (1..2000) %}{% assign w = i %}{% endfor %}",
    "{{ 'now' | date: '%999999999d' | size }}",
    "{{ 'now' | date: '%0999999999Y' | size }}",
    "{{ 'now' | date: '" + "%c" * 40_000 + "' }}",
]
BY_DATA = [
    "{{ customer.name | replace: '', customer.name | size }}",
    "{{ customer.name | replace: 'a', customer.name | replace: 'a', 'aaaaaaaaaa' | size }}",
    "{{ customer.interests | join: customer.name | size }}",
    "{{ customer.name | split: '' | join: customer.name | split: '' | join: 'aaaaaaaaaa' | size }}",
    "{{ customer.interests " + "| concat: customer.interests" * 30 + "| join: '' | size }}",
    "{{ customer.name | split: '' | uniq | size }}",
    "{{ customer.interests | map: '__class__' | map: '__class__' | sort: 'x' | size }}",
    "{% for i in customer.interests %}{{ i | split: '' | sort | size }}{% endfor %}",
    "{% for i in customer.interests %}{% for j in customer.interests %}{{ j }}{% endfor %}{% endfor %}",
    "{% for i in customer.interests %}{{ i }}{% endfor %}",
    "{{ customer.name | replace: 'a', '<' | strip_html | size }}",
    "{{ customer.name | replace: 'a', '<script' | strip_html | size }}",
    "{{ customer.name | replace: 'a', '<!--' | strip_html | size }}",
    "{{ customer.name | replace: 'a', '&' | escape_once | escape_once | escape_once | size }}",
    "{{ 'now' | date: customer.name }}",
    "{{ scores.clv | times: 10 | times: 10 | ceil }}",
    "{{ 1.5 | round: 1000000000 }}{{ 5 | round: -1000000000 }}",
    "{{ customer.name | slice: 0, 100000000000 | truncate: 1000000000, customer.name | size }}",
]
LARGE = [
    "{{ " + "9" * 90_000 + " | plus: 1 }}",
    "{{ '" + "9" * 90_000 + "' | plus: 1 }}",
    "{% if " + " or ".join(["true"] * 5000) + " %}x{% endif %}",
    "{% if " + "(" * 500 + "true" + ")" * 500 + " %}x{% endif %}",
    "{{ customer" + "[customer" * 300 + "]" * 300 + " }}",
    "{% case customer.nps %}" + "{% when 1 %}a" * 5000 + "{% endcase %}",
    "".join(f"{{% assign v{i} = customer.name %}}" for i in range(2000)),
    "{{ customer.name }}" * 2000,
    "{{ '" + "<" * 50_000 + "' | strip_html | size }}",
    "{{ '" + "<!--" * 20_000 + "' | strip_html | size }}",
]
CURIOUS = [
    "{{ customer.__class__ }}{{ customer['__class__'] }}{{ customer.name.__class__.__mro__ }}",
    "{{ customer.items }}{{ customer.keys }}{{ customer.interests.append }}{{ now.year }}{{ now.__class__ }}",
    "{{ customer.interests | map: '__class__' }}{{ customer | map: '__init__' }}",
    "{% for i in customer.interests limit: 1 %}{{ forloop.__class__ }}{{ forloop.it }}{% endfor %}",
    "{% tablerow i in customer.interests limit: 1 %}{{ tablerowloop.__init__ }}{% endtablerow %}",
    "{{ self }}{{ template }}{{ env }}{{ environment }}{{ globals }}{{ context.env }}{{ __builtins__ }}",
]


def render(text: str, kind: str = "text") -> tuple[str | None, int]:
    """What a template comes to (None: it failed), and the steps it took."""
    template = ENVIRONMENTS[kind].from_string(text)
    context = _Counting(template, globals=template.make_globals(FACTS))
    buffer = template._get_buffer()
    try:
        template.render_with_context(context, buffer)
    except (LiquidError, ArithmeticError, TypeError, ValueError):
        return None, context.steps
    return buffer.getvalue(), context.steps


@pytest.mark.parametrize("text", [*ENDLESS, *BY_DATA, *LARGE])
def test_a_hostile_template_costs_little(text: str) -> None:
    # What is counted decides; the seconds are there to see that the count is about what it takes.
    begin = time.process_time()
    try:
        rendered, steps = render(text)
    except LiquidError:
        return  # it cannot even be read
    assert time.process_time() - begin < 2
    assert len(rendered or "") <= LONGEST
    # What would be too much is not begun.
    assert steps <= MOST_STEPS or rendered is None


def test_hostile_templates_take_little_memory() -> None:
    render(ENDLESS[0])  # what is loaded once is not the template's
    tracemalloc.start()
    try:
        for text in [*ENDLESS, *BY_DATA]:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            render(text)
            # To read a template takes its part: some 250 bytes a character.
            most = 6 * MIB + 400 * len(text)
            assert tracemalloc.get_traced_memory()[1] - before < most, text
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ENDLESS)
def test_what_never_ends_is_refused_when_published(text: str) -> None:
    document = catalog_document()
    document["actions"][0]["treatments"][1]["content"]["body"] = text
    (problem,) = check_document(Source(document)).problems
    assert problem.code in ("template_cost", "template")
    assert problem.path == "actions[0].treatments[1].content.body"


def test_too_long_a_template_is_refused() -> None:
    document = catalog_document()
    document["actions"][0]["treatments"][1]["content"]["body"] = "x" * (LONGEST + 1)
    (problem,) = check_document(Source(document)).problems
    assert problem.message == "a text has at most 100000 characters"


@pytest.mark.parametrize("text", CURIOUS)
@pytest.mark.parametrize("kind", ["text", "html"])
def test_no_object_of_python_is_in_reach(text: str, kind: str) -> None:
    rendered = render(text, kind)[0] or ""
    assert not any(word in rendered for word in ("<class", "object", "built-in", " at 0x", "2026"))


def test_one_costly_text_leaves_the_others() -> None:
    document = catalog_document()
    content = document["actions"][0]["treatments"][1]["content"]
    content["title"] = "{{ customer.first_name | replace: '', customer.first_name | size }}"
    checked = check_document(Source(document))
    assert checked.published is not None
    renderer = Renderer(Inputs("d", NOW, "c", ("web",), (("hero", 1),), {"customer.first_name": LONG}))
    rendered = renderer.render("renew_12_hero", checked.published.templates.treatments["renew_12_hero"])
    assert rendered == {"title": "", "body": f"<b>{LONG}</b>"}
    assert renderer.failed == ["content.renew_12_hero.title:render_error"]


def test_usual_templates_are_far_from_the_limit() -> None:
    usual = (
        "{% assign name = customer.first | capitalize %}Dear {{ name | escape }},"
        "{% for i in customer.interests limit: 5 %}<li>{{ i | truncate: 30 | upcase }}</li>{% endfor %}"
        "{% if customer.nps > 6 and scores.clv > 10 %}{{ scores.clv | round: 2 }}{% endif %}"
        "{{ now | date: '%d.%m.%Y' }}"
    )
    rendered, steps = render(usual, "html")
    assert rendered is not None
    assert steps < MOST_STEPS / 10
    with pytest.raises(ResourceLimitError):
        _Counting(ENVIRONMENTS["text"].from_string("")).charge(MOST_STEPS + 1)

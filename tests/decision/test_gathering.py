"""Facts from systems that depend on each other: what is asked, in which order, and what is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from support import Service, actions, running

from arbitration.facts import Value
from arbitration.inputs import Inputs
from decision.deciding import read_recorded
from decision.sources.connections import Connection
from decision.storage.port import Customer

Answer = Callable[[str], Any]
"""What a system answers to a path: JSON, or None for 404."""


@dataclass
class Systems:
    """The systems around the service, by the id of their source. `asked`: (system, path, body) in order."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host.removesuffix(".test")
        path = request.url.raw_path.decode()
        self.asked.append((name, path, orjson.loads(request.content) if request.content else None))
        answer = self.answers[name](path)
        content = b"" if answer is None else orjson.dumps(answer)
        return httpx.Response(404 if answer is None else 200, stream=httpx.ByteStream(content))

    @property
    def paths(self) -> list[str]:
        return [f"{name}{path}" for name, path, _ in self.asked]


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> Systems:
    found = Systems()

    def opened(_: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(found))

    monkeypatch.setattr("decision.sources.web.open_client", opened)
    return found


def source(id: str, path: str, inputs: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    found = {"id": id, "kind": "http", "path": path, "timeout": "30s", **more}
    return found if inputs is None else {**found, "inputs": inputs}


def attribute(id: str, type: str = "int", source: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"id": id, "type": type, **more}
    return found if source is None else {**found, "source": source}


def action(
    id: str, *eligibility: str, channel: str = "agent", content: str = "x", **more: Any
) -> dict[str, Any]:
    placement = {"agent": "panel", "mail": "block"}[channel]
    treatment = {"id": f"{id}_t", "channel": channel, "placement": placement, "content": {"text": content}}
    return {"id": id, "group": "all", "eligibility": list(eligibility), "treatments": [treatment]}


def catalog(**parts: Any) -> dict[str, Any]:
    """One of which nothing is stored unless `parts` say so. Letters need a consent, where there is one."""
    more = {"direction": "inbound", "rewards": {"accepted": 1.0}, "response_window": "1h"}
    mail = {"id": "mail", **more, **({"consent": "marketing"} if "purposes" in parts else {})}
    return {
        "groups": [{"id": "all"}],
        "channels": [{"id": "agent", **more}, mail],
        "placements": [
            {"id": "panel", "channel": "agent", "slots": 9, "content": [{"id": "text"}]},
            {"id": "block", "channel": "mail", "slots": 9, "content": [{"id": "text"}]},
        ],
        "policies": [{"id": "default", "strategy": "thompson"}],
        "actions": [action("free")],
        **parts,
    }


CONNECTED = {
    name: Connection(url=SecretStr(f"http://{name}.test")) for name in ("crm", "model", "orders", "consent")
}


@asynccontextmanager
async def serving(
    path: Path, document: dict[str, Any], connections: dict[str, Connection] | None = None, **profile: Any
) -> AsyncIterator[Service]:
    """The service with a catalog and one customer, `anna`, in its store if anything of her is given."""
    async with running(
        path / "service.db", connections=CONNECTED if connections is None else connections
    ) as service:
        await service.publish(document)
        if profile:
            reply = await service.client.put("/v1/customers/anna", json=profile)
            assert reply.status_code == 200, reply.text
        yield service


async def decided(
    service: Service, systems: Systems, customer: str | None = "anna", placement: str = "panel", **more: Any
) -> tuple[dict[str, Any], Inputs]:
    """A reply, and the inputs recorded for it. Its replay is the same to the byte and asks nobody."""
    before = len(systems.asked)
    reply = await service.decide(customer, placement, timeout_ms=30_000, **more)  # type: ignore[arg-type]
    asked = len(systems.asked)
    assert asked >= before
    record = await service.context.store.decision(reply["decision_id"])
    assert record is not None
    replayed = await service.context.replaying.replay(reply["decision_id"])
    assert (replayed.identical, replayed.reply) == (True, record.reply)
    assert len(systems.asked) == asked
    return reply, read_recorded(record.inputs).inputs


# The model is asked with an age, wherever the catalog says that it comes from.
MODEL = source("model", "/churn?age={age}", {"age": "customer.age"})
SCORES = [{"id": "churn", "source": "model", "path": "churn", "min": 0, "max": 1}]
AT_RISK = [action("keep", "scores.churn > 0.5"), action("free")]


def churn(path: str) -> Any:
    return {"churn": 0.75 if path.endswith("=41") else 0.25}


async def test_a_score_is_asked_with_another_sources_answer(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"crm": lambda _: {"age": 41}, "model": churn}
    document = catalog(
        sources=[MODEL, source("crm", "/of/{customer_id}")],
        attributes=[attribute("age", source="crm")],
        scores=SCORES,
        actions=AT_RISK,
    )
    async with serving(tmp_path, document) as service:
        reply, inputs = await decided(service, systems)
    assert systems.paths == ["crm/of/anna", "model/churn?age=41"]
    assert inputs.facts == {"customer.age": 41, "scores.churn": 0.75}
    assert reply["degraded"] == []
    assert sorted(actions(reply)) == ["free", "keep"]


async def test_a_score_is_asked_with_what_the_store_knows(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"model": churn}
    document = catalog(sources=[MODEL], attributes=[attribute("age")], scores=SCORES)
    async with serving(tmp_path, document, attributes={"age": 41}) as service:
        _, inputs = await decided(service, systems)
    assert inputs.facts == {"customer.age": 41, "scores.churn": 0.75}


async def test_a_score_is_asked_with_what_is_derived_from_another_source(
    systems: Systems, tmp_path: Path
) -> None:
    systems.answers = {"crm": lambda _: {"born": 1985}, "model": churn}
    born = attribute("born", source="crm")
    age = attribute("age", derive="2026 - customer.born")
    document = catalog(
        sources=[MODEL, source("crm", "/of/{customer_id}")], attributes=[born, age], scores=SCORES
    )
    async with serving(tmp_path, document) as service:
        _, inputs = await decided(service, systems)
    assert inputs.facts == {"customer.born": 1985, "customer.age": 41, "scores.churn": 0.75}


async def test_a_score_is_asked_with_the_situation(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"model": churn}
    document = catalog(
        sources=[source("model", "/churn?age={n}", {"n": "context.age"})],
        context=[{"id": "age", "type": "int"}],
        scores=SCORES,
    )
    async with serving(tmp_path, document) as service:
        _, inputs = await decided(service, systems, context={"age": 41})
        assert inputs.facts == {"context.age": 41, "scores.churn": 0.75}
        reply, _ = await decided(service, systems)
        assert reply["degraded"] == ["sources.model:missing_input"]
    assert systems.paths == ["model/churn?age=41"]


async def test_what_a_request_says_overrides_for_everybody(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"crm": lambda _: {"age": 20}, "model": churn}
    document = catalog(
        sources=[MODEL, source("crm", "/of/{customer_id}")],
        attributes=[attribute("age", source="crm")],
        scores=SCORES,
    )
    async with serving(tmp_path, document) as service:
        _, inputs = await decided(service, systems, profile={"age": 41})
    assert inputs.facts == {"customer.age": 41, "scores.churn": 0.75}
    assert systems.paths[-1] == "model/churn?age=41"


async def test_who_lacks_an_input_is_not_asked(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"crm": lambda _: {"plan": "Max"}, "model": churn}
    document = catalog(
        sources=[MODEL, source("crm", "/of/{customer_id}")],
        attributes=[attribute("age", source="crm"), attribute("plan", type="string", source="crm")],
        scores=SCORES,
        actions=AT_RISK,
    )
    async with serving(tmp_path, document) as service:
        reply, inputs = await decided(service, systems)
        assert reply["degraded"] == ["sources.model:missing_input"]
        assert inputs.facts == {"customer.plan": "Max"}
        assert actions(reply) == ["free"]  # what needs the score fails closed
        systems.answers["crm"] = lambda _: None
        reply, _ = await decided(service, systems)
        assert reply["degraded"] == ["sources.crm:not_found", "sources.model:missing_input"]
    assert systems.paths == ["crm/of/anna"] * 2


async def test_a_source_without_a_connection_is_missing(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"crm": lambda _: {"age": 41}}
    document = catalog(
        sources=[MODEL, source("crm", "/of/{customer_id}")],
        attributes=[attribute("age", source="crm")],
        scores=SCORES,
        actions=AT_RISK,
    )
    async with serving(tmp_path, document, {"crm": CONNECTED["crm"]}) as service:
        reply, inputs = await decided(service, systems)
    assert (reply["degraded"], inputs.facts) == (["sources.model:not_connected"], {"customer.age": 41})
    assert actions(reply) == ["free"]


@pytest.mark.parametrize(
    ("answer", "consent"),
    [
        (True, "given"),
        (False, "withdrawn"),
        ("given", "given"),
        ("withdrawn", "withdrawn"),
        (None, None),
        ("yes", "bad"),
        (1, "bad"),
        ("GIVEN", "bad"),
        ([True], "bad"),
        ({}, "bad"),
    ],
)
async def test_consents_from_a_source(
    systems: Systems, tmp_path: Path, answer: object, consent: str | None
) -> None:
    systems.answers = {"consent": lambda _: {"mail": answer}}
    document = catalog(
        sources=[source("consent", "/of/{customer_id}")],
        purposes=[{"id": "marketing", "source": "consent", "path": "mail"}],
        actions=[action("letter", channel="mail")],
    )
    async with serving(tmp_path, document) as service:
        # What the store has of it from before is not the source's answer.
        old = Customer("anna", {}, {}, {"marketing": "given"}, ())
        await service.context.store.put_customers([old], service.clock())
        reply, inputs = await decided(service, systems, placement="block")
    assert actions(reply) == (["letter"] if consent == "given" else [])
    assert inputs.consents == ({"marketing": consent} if consent in ("given", "withdrawn") else {})
    named = {"bad": ["consents.marketing:bad_value"], None: ["sources.consent:not_found"]}
    assert reply["degraded"] == named.get(consent, [])


async def test_a_source_is_asked_with_an_identity(systems: Systems, tmp_path: Path) -> None:
    systems.answers = {"orders": lambda path: {"open": 2} if path == "/%2B49171" else None}
    document = catalog(
        sources=[source("orders", "/{number}", {"number": "identity.msisdn"})],
        attributes=[attribute("open", source="orders")],
    )
    known = [{"type": "cookie", "value": "k"}, {"type": "msisdn", "value": "+49171"}]
    msisdn = {"type": "msisdn", "value": "+49171"}
    async with serving(tmp_path, document, identities=known) as service:
        for who in ({"customer": "anna"}, {"customer": None, "identity": known[0]}):
            _, inputs = await decided(service, systems, **who)  # type: ignore[arg-type]
            assert (inputs.customer_id, inputs.facts) == ("anna", {"customer.open": 2})
        reply, _ = await decided(service, systems, "ben")
        assert reply["degraded"] == ["sources.orders:missing_input"]
        assert len(systems.asked) == 2
    other = tmp_path / "other"
    other.mkdir()
    async with serving(other, document) as service:
        # nobody knows whose it is, and the source does all the same
        reply, inputs = await decided(service, systems, None, identity=msisdn)
        assert (inputs.customer_id, inputs.facts) == (None, {"customer.open": 2})
        assert reply["degraded"] == ["identity:not_found"]


@pytest.mark.parametrize(
    ("declared", "answer", "value"),
    [
        ({"type": "int"}, 7, 7),
        ({"type": "int"}, 7.0, None),
        ({"type": "int"}, True, None),
        ({"type": "int"}, "7", None),
        ({"type": "int", "max": 6}, 7, None),
        ({"type": "double"}, 7, 7.0),
        ({"type": "double"}, "7", None),
        ({"type": "double", "min": 8}, 7.5, None),
        ({"type": "bool"}, False, False),
        ({"type": "bool"}, 0, None),
        ({"type": "string"}, "", ""),
        ({"type": "string"}, 7, None),
        ({"type": "string"}, "a\x00b", None),
        ({"type": "string"}, "x" * 4097, None),
        ({"type": "string", "values": ["a"]}, "b", None),
        ({"type": "timestamp"}, "2026-03-01T12:00:00", None),
        ({"type": "timestamp"}, 1700000000, None),
        ({"type": "strings"}, ["a", "b"], ("a", "b")),
        ({"type": "strings"}, "a", None),
        ({"type": "strings"}, ["a", 1], None),
        ({"type": "strings"}, {"a": 1}, None),
    ],
)
async def test_what_is_not_of_its_declared_type_is_missing(
    systems: Systems, tmp_path: Path, declared: dict[str, Any], answer: object, value: Value | None
) -> None:
    systems.answers = {"crm": lambda _: {"x": answer, "plan": "Max"}}
    document = catalog(
        sources=[source("crm", "/of/{customer_id}")],
        attributes=[{"id": "x", "source": "crm", **declared}, attribute("plan", "string", "crm")],
    )
    async with serving(tmp_path, document) as service:
        reply, inputs = await decided(service, systems)
    known = {"customer.plan": "Max"} | ({} if value is None else {"customer.x": value})
    assert inputs.facts == known
    assert {name: type(fact) for name, fact in inputs.facts.items()} == {n: type(v) for n, v in known.items()}
    assert reply["degraded"] == (["customer.x:bad_value"] if value is None else [])


DERIVED = [
    attribute("spent", source="crm"),
    attribute("orders", source="crm"),
    attribute("basket", derive="customer.spent / customer.orders"),
    attribute("big", "bool", derive="customer.basket >= 50"),
]


def deriving(**parts: Any) -> dict[str, Any]:
    return catalog(
        sources=[source("crm", "/of/{customer_id}")],
        attributes=DERIVED,
        features=[
            {"id": "basket", "kind": "numeric", "source": "customer.basket", "center": 50, "scale": 10}
        ],
        policies=[{"id": "default", "strategy": "thompson", "features": ["basket"]}],
        actions=[action("gift", "customer.big", content="{{ customer.basket }} EUR"), action("free")],
        **parts,
    )


async def test_a_derived_value_is_used_in_rules_features_and_templates(
    systems: Systems, tmp_path: Path
) -> None:
    systems.answers = {"crm": lambda _: {"spent": 120, "orders": 2}}
    async with serving(tmp_path, deriving()) as service:
        reply, inputs = await decided(service, systems)
        known = {"customer.spent": 120, "customer.orders": 2, "customer.basket": 60, "customer.big": True}
        assert inputs.facts == known
        texts = {item["action"]: item["content"]["text"] for item in reply["placements"][0]["items"]}
        assert texts["gift"] == "60 EUR"

        # The learner works with the value of then, whatever the source says by now.
        systems.answers = {}
        await service.respond(reply, "accepted", "r-1", "gift_t")
        learner = service.learner()
        while await learner.step():
            pass
        await service.context.live.refresh()
        assert len(systems.asked) == 1
        systems.answers = {"crm": lambda _: {"spent": 120, "orders": 2}}
        after, _ = await decided(service, systems)
        odds = [
            next(item["propensity"] for item in each["placements"][0]["items"] if item["action"] == "gift")
            for each in (reply, after)
        ]
        assert odds[1] > odds[0]


@pytest.mark.parametrize(
    ("answer", "degraded"),
    [
        ({"spent": 120}, []),  # missing input, missing value: nothing is wrong
        ({"spent": 120, "orders": 0}, ["customer.basket:bad_value"]),
        ({"spent": 120, "orders": "2"}, ["customer.orders:bad_value"]),
    ],
)
async def test_a_derived_value_that_cannot_be_is_missing(
    systems: Systems, tmp_path: Path, answer: dict[str, Any], degraded: list[str]
) -> None:
    systems.answers = {"crm": lambda _: answer}
    async with serving(tmp_path, deriving()) as service:
        reply, inputs = await decided(service, systems)
        assert reply["degraded"] == degraded
        assert "customer.basket" not in inputs.facts
        assert "customer.big" not in inputs.facts
        assert actions(reply) == ["free"]
        # and what the request says of it takes its place
        reply, inputs = await decided(service, systems, profile={"basket": 50})
        assert inputs.facts["customer.basket"] == 50
        assert inputs.facts["customer.big"] is True
        assert sorted(actions(reply)) == ["free", "gift"]


async def test_stored_values_of_what_now_comes_from_elsewhere_are_not_used(
    systems: Systems, tmp_path: Path
) -> None:
    systems.answers = {"crm": lambda _: {"age": 41}}
    stored = catalog(attributes=[attribute("age"), attribute("plan", "string")], scores=[{"id": "churn"}])
    fetched = catalog(
        sources=[source("crm", "/of/{customer_id}")],
        attributes=[attribute("age", source="crm"), attribute("plan", "string", derive="'none'")],
        scores=[{"id": "churn", "source": "crm"}],
    )
    profile = {"attributes": {"age": 20, "plan": "Max"}, "scores": {"churn": 0.9}}
    async with serving(tmp_path, stored, **profile) as service:
        _, inputs = await decided(service, systems)
        assert inputs.facts == {"customer.age": 20, "customer.plan": "Max", "scores.churn": 0.9}
        await service.publish(fetched)
        _, inputs = await decided(service, systems)
        assert inputs.facts == {"customer.age": 41, "customer.plan": "none"}
        systems.answers = {"crm": lambda _: None}
        reply, inputs = await decided(service, systems)
        assert inputs.facts == {"customer.plan": "none"}
        assert reply["degraded"] == ["sources.crm:not_found"]


async def test_a_stranger_of_whom_nothing_is_stored_is_no_degradation_where_nothing_is(
    systems: Systems, tmp_path: Path
) -> None:
    systems.answers = {"crm": lambda _: {"age": 41}, "consent": lambda _: {"marketing": True}}
    document = catalog(
        sources=[source("crm", "/of/{customer_id}"), source("consent", "/{customer_id}")],
        attributes=[attribute("age", source="crm")],
        purposes=[{"id": "marketing", "source": "consent"}],
    )
    async with serving(tmp_path, document) as service:
        reply, _ = await decided(service, systems, "nobody")
        assert reply["degraded"] == []


async def test_who_objects_to_profiling_is_not_scored(systems: Systems, tmp_path: Path) -> None:
    """A source of scores alone is not asked, one that also says other things is; and no score is recorded."""
    systems.answers = {"crm": lambda _: {"nps": 3, "clv": 9.0}, "model": churn}
    document = catalog(
        sources=[source("crm", "/{customer_id}"), source("model", "/{customer_id}")],
        attributes=[attribute("nps", source="crm")],
        scores=[{"id": "clv", "source": "crm"}, {"id": "churn", "source": "model"}],
        purposes=[{"id": "marketing"}, {"id": "offers", "profiling": True}],
    )
    async with serving(tmp_path, document, consents={"offers": "given"}) as service:
        assert (await service.decide("anna"))["degraded"] == []
        assert sorted(systems.paths) == ["crm/anna", "model/anna"]
        systems.asked.clear()
        await service.client.patch("/v1/customers/anna", json={"consents": {"offers": "withdrawn"}})
        decision = await service.decide("anna", explain=True)
    assert (systems.paths, decision["degraded"]) == (["crm/anna"], [])
    assert {fact["name"] for fact in decision["explanation"]["facts"]} == {"customer.nps", "consents.offers"}

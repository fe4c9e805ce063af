"""IBM's 7,043 telco customers: imported from the real file, decided for on every channel over HTTP.

Every reply fits the contract, and every eligible set is the one found here by evaluating each clause on
its own with the reference CEL runtime, from facts read from the file here: neither the import nor the
service's rule evaluation takes part. Skipped where the data are absent.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cel_expr_python import cel

from decision.api.app import contract, create_app
from decision.api.context import build
from decision.catalog_files import read_catalog
from decision.import_files import Summary, import_file
from decision.messages import DecisionReply
from decision.publishing import check_document
from decision.storage.sqlite.store import SqliteStore

HERE = Path(__file__).resolve().parent / "telco_churn"
FILE = Path(__file__).resolve().parents[3] / "shared/data/telco_churn/telco-customer-churn.csv.gz"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"the data are not there: {FILE.name}")

PLACEMENTS = {"agent_desktop": "agent_panel", "web": "hero", "email": "email_block"}
DOCUMENT: dict[str, Any] = read_catalog(HERE / "catalog")[0].document
TYPES = {"bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE, "string": cel.Type.STRING}
STAGES = ("eligibility", "applicability", "suitability")
CUSTOMERS = 7043


@dataclass(frozen=True)
class Imported:
    database: Path
    summary: Summary
    seconds: float


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("telco")
    published = check_document(read_catalog(HERE / "catalog")[0]).published
    assert published is not None

    async def run() -> Imported:
        store = SqliteStore(folder / "telco.db")
        await store.open()
        started = time.perf_counter()
        rejects = folder / "rejects.ndjson"
        summary = await import_file(FILE, store, published.compiled, HERE / "map.yaml", rejects)
        seconds = time.perf_counter() - started
        await store.close()
        return Imported(folder / "telco.db", summary, seconds)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        return {row["customerID"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def expected(rows: dict[str, dict[str, str]]) -> dict[tuple[str, str], frozenset[str]]:
    """The treatments each customer may see, by (customer, channel)."""
    reference = Reference()
    found: dict[tuple[str, str], frozenset[str]] = {}
    for customer_id, row in rows.items():
        actions = reference.actions(facts(row))
        for channel in PLACEMENTS:
            allowed = channel != "email" or row["PaperlessBilling"] == "Yes"
            found[customer_id, channel] = frozenset(
                treatment["id"]
                for action in DOCUMENT["actions"]
                for treatment in action["treatments"]
                if treatment["channel"] == channel and allowed and action["id"] in actions
            )
    return found


def facts(row: Mapping[str, str]) -> dict[str, object]:
    """What the file says of a customer, read without the import."""
    read = {
        "bool": lambda text: text in ("Yes", "1"),
        "int": int,
        "double": float,
        "string": str,
    }
    cells = ((each["id"], each["type"], row[each["id"]].strip()) for each in DOCUMENT["attributes"])
    return {name: read[kind](text) for name, kind, text in cells if text}


class Reference:
    """Each clause of the catalog as a program of its own in the reference runtime."""

    def __init__(self) -> None:
        variables = {f"customer.{each['id']}": TYPES[each["type"]] for each in DOCUMENT["attributes"]}
        variables |= {f"known_{each['id']}": cel.Type.BOOL for each in DOCUMENT["attributes"]}
        self._env = cel.NewEnv(variables=variables)
        self._clauses = {
            action["id"]: [self._compile(clause) for stage in STAGES for clause in action.get(stage, ())]
            for action in DOCUMENT["actions"]
        }
        self._values = {
            action["id"]: self._compile(action["value"])
            for action in DOCUMENT["actions"]
            if isinstance(action["value"], str)
        }

    def _compile(self, text: str) -> Any:
        return self._env.compile(text.replace("has(customer.TotalCharges)", "known_TotalCharges"))

    def actions(self, known: Mapping[str, object]) -> set[str]:
        """The actions whose every clause is true, and whose value, if a rule, is a number of 0 or more."""
        variables = {f"customer.{name}": value for name, value in known.items()}
        variables |= {f"known_{each['id']}": each["id"] in known for each in DOCUMENT["attributes"]}
        activation = self._env.Activation(variables)
        found = set()
        for action, clauses in self._clauses.items():
            true = all(clause.eval(activation).value() is True for clause in clauses)
            value = self._values[action].eval(activation).value() if action in self._values else 0.0
            if true and isinstance(value, int | float) and math.isfinite(value) and value >= 0:
                found.add(action)
        return found


def request(customer_id: str, channel: str) -> dict[str, object]:
    placements = [{"id": PLACEMENTS[channel]}]
    return {"customer_id": customer_id, "channel": channel, "placements": placements, "explain": True}


def check_reply(reply: dict[str, Any], customer_id: str, channel: str, eligible: frozenset[str]) -> None:
    """One reply against the contract and against what it must say."""
    read = DecisionReply.model_validate(reply)
    assert read.model_dump(mode="json", exclude_unset=True) == reply  # and nothing the contract has not
    assert (reply["customer_id"], reply["degraded"], reply["control_group"]) == (customer_id, [], None)
    (placement,), (why,) = reply["placements"], reply["explanation"]["placements"]
    assert placement["id"] == why["id"] == PLACEMENTS[channel]
    ranked = {arm["treatment"] for arm in why["ranked"]}
    assert ranked == eligible, (customer_id, channel)
    removed = {arm["treatment"] for arm in why["removed"]}
    assert not ranked & removed
    assert len(ranked) + len(removed) == why["funnel"][0]["remaining"] == _arms(channel)
    assert why["funnel"][-1]["remaining"] == len(ranked)
    shown = [item["treatment"] for item in placement["items"] if not item["is_fallback"]]
    assert set(shown) <= ranked
    assert bool(shown) == bool(ranked)
    assert len({item["action"] for item in placement["items"]}) == len(placement["items"])
    assert (placement["no_action_reason"] is None) == bool(placement["items"])
    assert (why["no_action_reason"] is None) == bool(ranked)
    for item in placement["items"]:
        assert 0 < item["selection_probability"] <= 1
    if ranked:
        assert math.isclose(sum(arm["selection_probability"] for arm in why["ranked"]), 1)


def _arms(channel: str) -> int:
    treatments = [each for action in DOCUMENT["actions"] for each in action["treatments"]]
    return sum(each["channel"] == channel for each in treatments)


def test_every_customer_is_imported(imported: Imported) -> None:
    summary = imported.summary
    assert (summary.imported, summary.rejected, summary.rejects_file) == (CUSTOMERS, 0, None)
    assert summary.ignored == ("Churn",)


async def test_what_is_stored_is_what_the_file_says(
    imported: Imported, rows: dict[str, dict[str, str]]
) -> None:
    store = SqliteStore(imported.database)
    await store.open()
    unbilled = 0
    for customer_id, row in rows.items():
        customer = await store.customer(customer_id)
        assert customer is not None
        assert customer.attributes == facts(row)
        assert customer.consents == {
            "email_offers": "given" if row["PaperlessBilling"] == "Yes" else "withdrawn"
        }
        unbilled += "TotalCharges" not in customer.attributes
    await store.close()
    assert (len(rows), unbilled) == (CUSTOMERS, 11)


def test_the_rules_split_the_customers(expected: dict[tuple[str, str], frozenset[str]]) -> None:
    """The comparison below would say little if everyone, or no one, were eligible for everything."""
    times = Counter(treatment for eligible in expected.values() for treatment in eligible)
    for action in DOCUMENT["actions"]:
        for treatment in action["treatments"]:
            assert 0 < times[treatment["id"]] < CUSTOMERS, treatment["id"]
    assert len(set(expected.values())) > 100


@pytest.mark.parametrize(
    ("channels", "every"),
    [(1, 12), pytest.param(1, 1, marks=pytest.mark.long), pytest.param(3, 1, marks=pytest.mark.long)],
)
async def test_a_decision_for_every_customer(
    imported: Imported,
    expected: dict[tuple[str, str], frozenset[str]],
    capsys: pytest.CaptureFixture[str],
    channels: int,
    every: int,
) -> None:
    """On one channel each, or on every one; the short form takes every twelfth customer."""
    app = create_app(build(SqliteStore(imported.database), timeout_ms=5_000, local=True))
    asked = [pair for number, pair in enumerate(expected) if (number // 3 + number) % 3 < channels][::every]
    answered: list[dict[str, Any]] = []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        published = await client.post("/v1/catalog/publish", json=DOCUMENT)
        assert published.status_code == 200, published.text
        started = time.perf_counter()
        for start in range(0, len(asked), 1000):
            requests = [request(*each) for each in asked[start : start + 1000]]
            reply = await client.post("/v1/decisions:batch", json={"requests": requests}, timeout=60)
            assert reply.status_code == 200, reply.text
            answered += reply.json()["results"]
        seconds = time.perf_counter() - started
    assert len(answered) == len(asked) == -(-channels * CUSTOMERS // every)
    assert len({customer for customer, _ in asked}) == -(-CUSTOMERS // every)
    for (customer_id, channel), result in zip(asked, answered, strict=True):
        assert result["status"] == 200, result
        check_reply(result["decision"], customer_id, channel, expected[customer_id, channel])
        assert result["decision"]["catalog_version"] == published.json()["version"]
    assert len({result["decision"]["decision_id"] for result in answered}) == len(asked)
    document = contract(app)
    for result in answered[::50]:
        conforms(result["decision"], {"$ref": "#/components/schemas/DecisionReply"}, document)
    with capsys.disabled():
        rate = len(asked) / seconds
        print(f"\nimport {imported.seconds:.2f} s; {len(asked)} decisions {seconds:.1f} s, {rate:.0f}/s")


def test_a_real_server_says_the_same(
    imported: Imported, expected: dict[tuple[str, str], frozenset[str]]
) -> None:
    app = create_app(build(SqliteStore(imported.database), timeout_ms=5_000, local=True))
    with served(app) as url, httpx.Client(base_url=url, timeout=10) as client:
        assert client.post("/v1/catalog/publish", json=DOCUMENT).status_code == 200
        document = client.get("/openapi.json").json()
        for customer_id, channel in list(expected)[::200]:
            reply = client.post("/v1/decisions", json=request(customer_id, channel))
            assert reply.status_code == 200, reply.text
            check_reply(reply.json(), customer_id, channel, expected[customer_id, channel])
            conforms(reply.json(), {"$ref": "#/components/schemas/DecisionReply"}, document)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application behind a real server on a free loopback port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def conforms(value: object, schema: Mapping[str, Any], document: Mapping[str, Any], path: str = "") -> None:
    """Asserts that `value` fits a schema of an OpenAPI document, and has no property it does not name."""
    if (reference := schema.get("$ref")) is not None:
        name = reference.removeprefix("#/components/schemas/")
        conforms(value, document["components"]["schemas"][name], document, path)
    elif (options := schema.get("anyOf")) is not None:
        null = [option for option in options if option.get("type") == "null"]
        others = [option for option in options if option.get("type") != "null"]
        assert len(others) == 1, f"{path}: only optional values are expected here"
        conforms(value, null[0] if value is None and null else others[0], document, path)
    elif "type" in schema:
        kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
        kinds |= {"integer": int, "number": (int, float)}
        assert isinstance(value, kinds[schema["type"]]), path
        if isinstance(value, dict):
            properties, others = schema.get("properties", {}), schema.get("additionalProperties")
            assert set(schema.get("required", ())) <= set(value), path
            for key, item in value.items():
                known = properties.get(key, others)
                assert known is not None, f"{path}.{key} is not in the contract"
                conforms(item, {} if known is True else known, document, f"{path}.{key}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                conforms(item, schema["items"], document, f"{path}[{index}]")

"""The adapter against a real MLServer, and scikit-learn's own numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from servers import Models

from arbitration.catalog.model import FactType
from arbitration.catalog.sources import OpenInferenceSource
from decision.sources.connections import Connection
from decision.sources.open_inference import OpenInference
from decision.sources.port import Cause, Key, Row, Served, SourceFault
from decision.sources.web import open_client

pytestmark = pytest.mark.peers

LABEL = Served("customer.label", "int", "predict")
CHURN = Served("scores.churn", "double", "predict_proba[1]")
NUMBERS = {"inputs": {name: f"customer.{name}" for name in "abc"}, "tensor": "x"}
COLUMNS = {"inputs": {name: f"customer.{name}" for name in ("segment", "orders", "spent", "vip")}}
COLUMN_TYPES: tuple[FactType, ...] = ("string", "int", "double", "bool")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


async def fetched(
    models: Models,
    client: httpx.AsyncClient,
    keys: Sequence[Key],
    served: Sequence[Served] = (LABEL, CHURN),
    types: Sequence[FactType] = ("double",) * 3,
    model: str = "churn",
    **spec: Any,
) -> Sequence[Row | None]:
    filled = {"id": "model", "kind": "open_inference", "model": model} | (spec or NUMBERS)
    connection = Connection(url=SecretStr(models.url))
    source = OpenInference(OpenInferenceSource(**filled), served, connection, client, types)
    return await source.fetch(keys)


def keys_of(models: Models, model: str) -> list[Key]:
    return [tuple(row) for row in models.expected[model]["rows"]]


@pytest.mark.parametrize("version", [None, "v1"])
async def test_the_models_own_numbers(models: Models, client: httpx.AsyncClient, version: str | None) -> None:
    expected = models.expected["churn"]
    rows = await fetched(models, client, keys_of(models, "churn"), **NUMBERS, version=version)
    assert [row and row["customer.label"] for row in rows] == expected["predict"]
    probabilities = [second for _, second in expected["predict_proba"]]
    assert [row and row["scores.churn"] for row in rows] == pytest.approx(probabilities, rel=0, abs=1e-9)
    assert len(set(probabilities)) == len(rows) > 2


async def test_stacked_rows_are_the_single_ones(models: Models, client: httpx.AsyncClient) -> None:
    keys = keys_of(models, "churn")
    single = [(await fetched(models, client, [key]))[0] for key in keys]
    stacked = await fetched(models, client, keys[::-1])
    for one, other in zip(single, stacked[::-1], strict=True):
        assert one is not None
        assert one == pytest.approx(other, rel=0, abs=1e-9)


async def test_tensors_of_several_types(models: Models, client: httpx.AsyncClient) -> None:
    keys, expected = keys_of(models, "columns"), models.expected["columns"]
    served = [Served("customer.label", "string", "predict"), CHURN]
    rows = await fetched(models, client, keys, served, COLUMN_TYPES, "columns", **COLUMNS)
    assert [row and row["customer.label"] for row in rows] == expected["predict"]
    probabilities = [second for _, second in expected["predict_proba"]]
    assert [row and row["scores.churn"] for row in rows] == pytest.approx(probabilities, rel=0, abs=1e-9)
    assert len({key[0] for key in keys}) > 1


async def test_whole_numbers_of_a_double_input(models: Models, client: httpx.AsyncClient) -> None:
    floats = await fetched(models, client, [(1.0, 2.0, 3.0)])
    assert await fetched(models, client, [(1, 2, 3)]) == floats
    assert await fetched(models, client, [(1, 2, 3)], **NUMBERS, datatype="INT64") == floats


async def test_no_number_is_left_out(models: Models, client: httpx.AsyncClient) -> None:
    served = [Served("scores.root", "double", "transform")]
    spec = {"inputs": {"a": "customer.a"}, "tensor": "x"}
    keys: list[Key] = [(4.0,), (-1.0,), (9.0,)]
    rows = await fetched(models, client, keys, served, ["double"], "root", **spec)
    assert rows == [{"scores.root": 2.0}, {}, {"scores.root": 3.0}]


@pytest.mark.parametrize("change", [{"model": "nothing"}, {"version": "v2"}])
async def test_a_model_that_is_not_there_is_unavailable(
    models: Models, client: httpx.AsyncClient, change: dict[str, str]
) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched(models, client, keys_of(models, "churn"), **NUMBERS, **change)
    assert (fault.value.cause, fault.value.ill) == (Cause.UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("nothing", Cause.BAD_REPLY),  # refused by the server, with status 400
        ("predict_proba", Cause.BAD_REPLY),
        ("predict_proba[2]", Cause.BAD_REPLY),
        ("transform", Cause.UNAVAILABLE),  # a classifier has none, and the server breaks: status 500
    ],
)
async def test_an_output_that_is_not_there(
    models: Models, client: httpx.AsyncClient, path: str, cause: Cause
) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched(models, client, keys_of(models, "churn"), [Served("scores.x", "double", path)])
    assert fault.value.cause is cause


async def test_inputs_of_another_number(models: Models, client: httpx.AsyncClient) -> None:
    spec = {"inputs": {"a": "customer.a"}, "tensor": "x"}
    with pytest.raises(SourceFault) as fault:
        await fetched(models, client, [(1.0,)], types=["double"], **spec)
    assert fault.value.cause is Cause.UNAVAILABLE

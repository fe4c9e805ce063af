"""What is sent to a model server, what is taken of its answer, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from arbitration.catalog.model import FactType
from arbitration.catalog.sources import OpenInferenceSource
from decision.sources.connections import Connection
from decision.sources.open_inference import OpenInference
from decision.sources.port import Cause, Key, Row, Served, SourceFault

CHURN = Served("scores.churn", "double", "churn")
SECOND = Served("scores.second", "double", "classes[1]")
INPUTS = {"age": "customer.age", "nps": "customer.nps"}


def output(name: str, shape: object, data: object) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP64", "data": data}


def answer(*outputs: object) -> dict[str, Any]:
    return {"model_name": "m", "outputs": list(outputs)}


async def fetched(
    reply: object,
    served: Sequence[Served] = (CHURN,),
    keys: Sequence[Key] = ((1, 2),),
    types: Sequence[FactType] = ("int", "int"),
    asked: list[httpx.Request] | None = None,
    status: int = 200,
    **spec: Any,
) -> Sequence[Row | None]:
    def answered(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request)
        content = reply if isinstance(reply, bytes) else orjson.dumps(reply)
        return httpx.Response(status, stream=httpx.ByteStream(content))  # not read yet, as a real one

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client:
        connection = Connection(url=SecretStr("http://models.test"))
        filled = {"id": "model", "kind": "open_inference", "model": "m", "inputs": INPUTS} | spec
        source = OpenInference(OpenInferenceSource(**filled), served, connection, client, types)
        return await source.fetch(keys)


async def test_each_input_is_a_tensor_of_its_declared_type() -> None:
    asked: list[httpx.Request] = []
    inputs = {name: f"customer.{name}" for name in ("vip", "orders", "spent", "segment")}
    keys = [(True, 1, 2, "gold"), (False, 2**53 + 1, 0.5, "")]
    types: list[FactType] = ["bool", "int", "double", "string"]
    reply = answer(output("churn", [2], [0.25, 0.5]))
    rows = await fetched(reply, keys=keys, types=types, asked=asked, inputs=inputs)
    assert rows == [{"scores.churn": 0.25}, {"scores.churn": 0.5}]
    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/v2/models/m/infer")
    sent = orjson.loads(request.content)
    assert sent == {
        "inputs": [
            {"name": "vip", "shape": [2, 1], "datatype": "BOOL", "data": [True, False]},
            {"name": "orders", "shape": [2, 1], "datatype": "INT64", "data": [1, 2**53 + 1]},
            {"name": "spent", "shape": [2, 1], "datatype": "FP64", "data": [2.0, 0.5]},
            {"name": "segment", "shape": [2, 1], "datatype": "BYTES", "data": ["gold", ""]},
        ],
        "outputs": [{"name": "churn"}],
    }
    assert b"[2.0,0.5]" in request.content  # an int of a double column is sent as a double


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP64", "[1.0,2.5,3.0,1.0]"), ("FP32", "[1.0,2.5,3.0,1.0]")],
)
async def test_one_tensor_holds_the_rows_one_after_the_other(datatype: str, data: str) -> None:
    asked: list[httpx.Request] = []
    reply = answer(output("churn", [2, 1], [0.25, 0.5]))
    keys = [(1, 2.5), (3, True)]
    spec = {"tensor": "x", "datatype": datatype, "version": "3"}
    rows = await fetched(reply, keys=keys, types=("int", "double"), asked=asked, **spec)
    assert rows == [{"scores.churn": 0.25}, {"scores.churn": 0.5}]
    assert asked[0].url.path == "/v2/models/m/versions/3/infer"
    tensor = f'{{"name":"x","shape":[2,2],"datatype":"{datatype}","data":{data}}}'
    assert asked[0].content.decode() == f'{{"inputs":[{tensor}],"outputs":[{{"name":"churn"}}]}}'


async def test_one_tensor_of_whole_numbers() -> None:
    asked: list[httpx.Request] = []
    reply = answer(output("churn", [2], [1, 2]))
    spec = {"tensor": "x", "datatype": "INT64"}
    await fetched(reply, keys=[(1, True), (2**62, 3.0)], asked=asked, **spec)
    assert b'"shape":[2,2],"datatype":"INT64","data":[1,1,4611686018427387904,3]' in asked[0].content
    with pytest.raises(SourceFault) as fault:
        await fetched(reply, keys=[(1, 2.5)], asked=asked, **spec)
    assert (fault.value.cause, fault.value.ill, len(asked)) == (Cause.BAD_VALUE, False, 1)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 3], [1, 2, 3, 4, 5, 6]),
        ([2, 3], [[1, 2, 3], [4, 5, 6]]),
    ],
)
async def test_a_column_of_several_flat_or_nested(shape: object, data: object) -> None:
    asked: list[httpx.Request] = []
    third = Served("customer.third", "int", "classes[2]")
    reply = answer(
        output("unasked", None, None), output("classes", shape, data), output("churn", [2], [8, 9])
    )
    rows = await fetched(reply, [SECOND, third, CHURN], [(1, 2), (3, 4)], asked=asked)
    assert rows == [
        {"scores.second": 2, "customer.third": 3, "scores.churn": 8},
        {"scores.second": 5, "customer.third": 6, "scores.churn": 9},
    ]
    assert orjson.loads(asked[0].content)["outputs"] == [{"name": "classes"}, {"name": "churn"}]


@pytest.mark.parametrize(
    ("path", "shape", "data"),
    [
        ("churn", [2], [0.5, None]),
        ("churn", [2, 1], [0.5, None]),
        ("churn", [2, 1], [[0.5], [None]]),
        ("churn[0]", [2], [0.5, None]),
        ("churn[0]", [2, 1], [0.5, None]),
        ("churn[1]", [2, 2], [None, 0.5, 1, None]),
    ],
)
async def test_null_is_left_out(path: str, shape: object, data: object) -> None:
    served = [Served("scores.churn", "double", path)]
    rows = await fetched(answer(output("churn", shape, data)), served, [(1, 2), (3, 4)])
    assert rows == [{"scores.churn": 0.5}, {}]


@pytest.mark.parametrize("value", [0, 1, -0.5, True, False, "", "yes"])
async def test_values_are_taken_as_they_came(value: object) -> None:
    (row,) = await fetched(answer(output("churn", [1, 1], [value])))
    assert row is not None
    assert (row["scores.churn"], type(row["scores.churn"])) == (value, type(value))


@pytest.mark.parametrize(
    "reply",
    [
        [],
        "text",
        {},
        {"outputs": None},
        {"outputs": {"churn": [1]}},
        {"outputs": "churn"},
        answer(),
        answer(None, "churn", 1, [1]),
        answer(output("other", [1], [1])),
        answer(output("churn", [1], [1]), output("churn", [1], [1])),
        answer({"name": "churn", "shape": [1]}),
        answer({"name": "churn", "data": [1]}),
        answer({"name": "churn", "shape": [1], "parameters": {"binary_data_size": 8}}),
        answer({"name": ["churn"], "shape": [1], "data": [1]}),
        *(
            answer(output("churn", shape, [1]))
            for shape in (None, [], 1, "1", ["1"], [1.0], [None], [[1]], [2], [0], [-1], [1, 1, 1], [1, -1])
        ),
        *(answer(output("churn", shape, [1])) for shape in ([1, 0], [1, 2], [2, 1], {"0": 1}, [1, 2**62])),
        *(
            answer(output("churn", [1, 1], data))
            for data in (None, 1, "1", {"0": 1}, [], [1, 2], [[]], [[1, 2]], [[1], [2]], [{}], [[[1]]])
        ),
        *(answer(output("churn", [1], data)) for data in ([], [1, 2], [[1]], [[1, 2]], [{"a": 1}])),
        answer(output("churn", [1, 2], [1, 2])),
        answer(output("churn", [1, 0], [])),
        b'{"outputs":[{"name":"churn","shape":[1],"datatype":"FP64","data":[NaN]}]}',
        b'{"outputs":[{"name":"churn","shape":[1],"datatype":"FP64","data":[1e999]}]}',
        b"{",
        b"",
    ],
)
async def test_an_answer_of_another_shape_is_a_bad_reply(reply: object) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched(reply)
    assert fault.value.cause is Cause.BAD_REPLY


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([4], [1, 2, 3, 4]),
        ([4, 1], [1, 2, 3, 4]),
        ([2, 2], [1, 2, 3]),
        ([2, 2], [[1], [2, 3, 4]]),
        ([2, 2], [[1, 2], 3]),
        ([2, 2], [[1, 2]]),
        ([2, 1], [1, 2]),
        ([2, 2], [1, [2], 3, 4]),
    ],
)
async def test_rows_that_are_not_those_of_the_keys(shape: object, data: object) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched(answer(output("classes", shape, data)), [SECOND], [(1, 2), (3, 4)])
    assert fault.value.cause is Cause.BAD_REPLY


@pytest.mark.parametrize(
    ("status", "cause", "ill"),
    [(404, Cause.UNAVAILABLE, True), (500, Cause.UNAVAILABLE, True), (400, Cause.BAD_REPLY, False)],
)
async def test_a_refusal_is_no_unknown_customer(status: int, cause: Cause, ill: bool) -> None:
    with pytest.raises(SourceFault) as fault:
        await fetched({"error": "Model m not found"}, status=status)
    assert (fault.value.cause, fault.value.ill) == (cause, ill)

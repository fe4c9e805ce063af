"""The Open Inference Protocol, version 2, over HTTP: what KServe, MLServer and Triton answer alike.

Protocol: `POST /v2/models/{model}[/versions/{version}]/infer` with `inputs` and `outputs`, see
`specification/protocol/inference_rest.md` of the kserve/open-inference-protocol repository. Tensors are
JSON; the binary extension is not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from arbitration.catalog.model import FactType
from arbitration.catalog.sources import OpenInferenceSource
from arbitration.facts import Value
from decision.sources.connections import Connection
from decision.sources.port import Cause, Key, Row, Served, SourceFault
from decision.sources.web import ask

_DATATYPES: dict[FactType, str] = {"bool": "BOOL", "int": "INT64", "double": "FP64", "string": "BYTES"}


class OpenInference:
    """Implements `decision.sources.port.Source`.

    `types`: the declared type of each of `spec.inputs`, in order; publishing refuses those that make no
    tensor. Keys are stacked as the rows of tensors.

    Without `spec.tensor` each input is a tensor of shape (keys, 1): bool as BOOL, int as INT64, double as
    FP64, string as BYTES. With it, all are one tensor (keys, inputs) of `spec.datatype`.

    The path of a value is `output`, or `output[column]` of one with several; outputs have shape (keys,) or
    (keys, columns). JSON has no NaN: servers write null in its place, and null is left out. A model has an
    answer for everybody; none is ever None.
    """

    def __init__(
        self,
        spec: OpenInferenceSource,
        served: Sequence[Served],
        connection: Connection,
        client: httpx.AsyncClient,
        types: Sequence[FactType],
    ) -> None:
        version = "" if spec.version is None else f"/versions/{spec.version}"
        self._path = f"/v2/models/{spec.model}{version}/infer"
        self._spec = spec
        self._datatypes = [_DATATYPES[declared] for declared in types] if spec.tensor is None else []
        self._connection = connection
        self._client = client
        self._wanted = [(one.name, *_split(one.path)) for one in served]
        # Named, because a server may leave out what is not: MLServer sends only `predict` unasked.
        self._outputs = [{"name": name} for name in dict.fromkeys(output for _, output, _ in self._wanted)]

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        """One call for all keys. Raises SourceFault; a model that the server does not have is UNAVAILABLE."""
        body = {"inputs": self._inputs(keys), "outputs": self._outputs}
        reply = await ask(self._client, self._connection, "POST", self._path, body=body, keys=len(keys))
        if reply is None:
            raise SourceFault(Cause.UNAVAILABLE, "the server has no such model")
        tables = {one["name"]: _table(reply, one["name"], len(keys)) for one in self._outputs}
        rows: list[dict[str, object]] = [{} for _ in keys]
        for name, output, column in self._wanted:
            for row, values in zip(rows, tables[output], strict=True):
                value = _cell(output, values, column)
                if value is not None:
                    row[name] = value
        return rows

    async def close(self) -> None:
        """The client is everybody's; there is nothing of its own to close."""

    def _inputs(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        if self._spec.tensor is not None:
            cells = [value for key in keys for value in key]
            return [_tensor(self._spec.tensor, len(keys), self._spec.datatype, cells)]
        return [
            _tensor(name, len(keys), datatype, [key[at] for key in keys])
            for at, (name, datatype) in enumerate(zip(self._spec.inputs, self._datatypes, strict=True))
        ]


def _tensor(name: str, rows: int, datatype: str, cells: Sequence[Value]) -> dict[str, Any]:
    data: list[object] = list(cells)
    if datatype in ("FP32", "FP64"):
        data = [float(cell) for cell in cells]  # type: ignore[arg-type]  # numbers, by their declared type
    elif datatype == "INT64":
        data = [_whole(cell) for cell in cells]
    return {"name": name, "shape": [rows, len(data) // rows], "datatype": datatype, "data": data}


def _whole(cell: Value) -> int:
    if isinstance(cell, float) and not cell.is_integer():
        # Servers cut off what is behind the point, and say nothing.
        raise SourceFault(Cause.BAD_VALUE, "an INT64 tensor takes whole numbers only", ill=False)
    return int(cell)  # type: ignore[arg-type]  # a number, by its declared type


def _split(path: str) -> tuple[str, int | None]:
    output, _, column = path.partition("[")
    return output, int(column.removesuffix("]")) if column else None


def _table(reply: Any, name: str, keys: int) -> list[list[Any]]:
    """One output as `keys` rows of the same length, whether its data came flat or nested."""
    outputs = reply.get("outputs") if isinstance(reply, dict) else None
    found = [one for one in outputs if _is(one, name)] if isinstance(outputs, list) else []
    match found:
        case [{"shape": [int(rows)], "data": [*data]}]:
            nested, width = False, 1
        case [{"shape": [int(rows), int(width)], "data": [*data]}]:
            nested = bool(data) and all(isinstance(row, list) and len(row) == width for row in data)
        case _:
            raise SourceFault(
                Cause.BAD_REPLY, f"the answer has no one output {name} of one or two dimensions"
            )
    table = data if nested else [data[at : at + width] for at in range(0, len(data), max(width, 1))]
    if rows != keys or len(table) != keys or any(len(row) != width for row in table):
        raise SourceFault(Cause.BAD_REPLY, f"the data of output {name} is not of the shape expected")
    return table


def _is(output: object, name: str) -> bool:
    return isinstance(output, dict) and output.get("name") == name


def _cell(output: str, row: list[Any], column: int | None) -> object:
    if column is None and len(row) != 1:
        raise SourceFault(Cause.BAD_REPLY, f"output {output} has {len(row)} columns, and none is named")
    if column is not None and column >= len(row):
        raise SourceFault(Cause.BAD_REPLY, f"output {output} has no column {column}")
    value: object = row[column or 0]
    if isinstance(value, list | dict):
        raise SourceFault(Cause.BAD_REPLY, f"output {output} holds more than numbers, texts and bools")
    return value

"""Any JSON service over HTTP: an URL template in, JMESPath expressions on the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import httpx

from arbitration.catalog.provenance import PLACEHOLDER
from arbitration.catalog.sources import HttpSource
from arbitration.facts import Value, rfc3339
from decision.sources.connections import Connection
from decision.sources.jmes import selector
from decision.sources.port import Cause, Key, Row, Served, SourceFault
from decision.sources.web import ask

_WHOLE = re.compile(r"^\{([^{}]*)\}$")
_STEPS = (".", "..")


class Http:
    """Implements `decision.sources.port.Source`."""

    def __init__(
        self,
        specification: HttpSource,
        served: Sequence[Served],
        connection: Connection,
        client: httpx.AsyncClient,
    ) -> None:
        self._specification = specification
        self._connection = connection
        self._client = client
        self._select: list[tuple[str, Callable[[Any], Any]]] = [
            (each.name, selector(each.path)) for each in served
        ]

    async def fetch(self, keys: Sequence[Key]) -> list[Row | None]:
        """As the port says; one call per key."""
        return [await self._fetch(key) for key in keys]

    async def close(self) -> None:
        """The client is everybody's; there is nothing of its own to close."""

    async def _fetch(self, key: Key) -> Row | None:
        spec = self._specification
        values = dict(zip(spec.inputs, key, strict=True))
        path = filled_path(spec.path, values)
        body = None if spec.body is None else _filled(spec.body, values)
        answer = await ask(self._client, self._connection, spec.method, path, body=body)
        if answer is None:
            return None
        found = {name: select(answer) for name, select in self._select}
        return {name: value for name, value in found.items() if value is not None}


def filled_path(template: str, values: Mapping[str, Value]) -> str:
    """The template with each `{name}` replaced by its value, percent-encoded whole: a value stays within
    its path segment or query parameter, whatever it is made of.

    Raises SourceFault where a segment would be one step up or none (`..`, `.`): servers and proxies read
    these as another path, encoded or not.
    """
    filled = PLACEHOLDER.sub(lambda match: quote(_text(values[match[1]]), safe=""), template)
    for segment, written in zip(
        filled.partition("?")[0].split("/"), template.partition("?")[0].split("/"), strict=True
    ):
        if unquote(segment) in _STEPS or (segment != written and not segment):
            raise SourceFault(Cause.NOT_FOUND, "an input cannot be part of a path", ill=False)
    return filled


def _text(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return rfc3339(value)
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def _filled(node: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(node, dict):
        return {name: _filled(value, values) for name, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if not isinstance(node, str):
        return node
    if (whole := _WHOLE.match(node)) is not None and whole[1] in values:
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda match: _text(values[match[1]]) if match[1] in values else match[0], node)

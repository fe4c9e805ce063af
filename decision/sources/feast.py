"""Feast: the features of many customers in one `POST /get-online-features`.

Protocol: `GetOnlineFeaturesRequest` in Feast's `feature_server.py`, answered as its `feature_server_utils.py`
writes it (0.67). The answer has one column per feature, in an order of its own: `metadata.feature_names`
says which is which, `results` holds for each the `values` and `statuses` of all entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from arbitration.catalog.model import FactType
from arbitration.catalog.sources import FeastSource
from arbitration.facts import rfc3339
from decision.sources.connections import Connection
from decision.sources.port import Cause, Key, Row, Served, SourceFault
from decision.sources.web import ask

_NO_TIME = -(2**63)
"""What Feast stores where a timestamp is missing; it calls it PRESENT."""


class Feast:
    """Implements `decision.sources.port.Source`.

    `spec.inputs` are the join keys; the path of a value is `view:feature`, or `view@v2:feature`.

    Taken are the values that the server calls PRESENT and that are not null (it says PRESENT of a null,
    too), as they came; times, which come as whole seconds since 1970, become RFC 3339 text where the value
    is declared a timestamp. A key of which every feature is NOT_FOUND is not known.

    A view's `ttl` does not make values old here: Feast serves them as PRESENT long after (feast-dev/feast
    issue 6821).
    """

    def __init__(
        self, spec: FeastSource, served: Sequence[Served], connection: Connection, client: httpx.AsyncClient
    ) -> None:
        self._join_keys = list(spec.inputs)
        self._connection = connection
        self._client = client
        self._wanted = [(one, one.path.replace(":", "__", 1)) for one in served]
        # Asked for twice, a feature is refused.
        self._features = list(dict.fromkeys(one.path for one in served))

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        """One call for all keys. Raises SourceFault.

        A view that does not exist is UNAVAILABLE, and so is a feature that does not: the server answers
        404 and 500.
        """
        body = {
            "features": self._features,
            "entities": {name: [key[at] for key in keys] for at, name in enumerate(self._join_keys)},
            "full_feature_names": True,
        }
        reply = await ask(
            self._client, self._connection, "POST", "/get-online-features", body=body, keys=len(keys)
        )
        if reply is None:
            raise SourceFault(Cause.UNAVAILABLE, "the server has no such feature view")
        columns = _columns(reply, len(keys))
        for _, column in self._wanted:
            if column not in columns:
                raise SourceFault(Cause.BAD_REPLY, f"the answer has no column {column}")
        return [self._row(columns, at) for at in range(len(keys))]

    async def close(self) -> None:
        """The client is everybody's; there is nothing of its own to close."""

    def _row(self, columns: dict[str, _Column], at: int) -> Row | None:
        if all(columns[column][1][at] == "NOT_FOUND" for _, column in self._wanted):
            return None
        row: dict[str, object] = {}
        for one, column in self._wanted:
            values, statuses = columns[column]
            value = _value(values[at], one.type) if statuses[at] == "PRESENT" else None
            if value is not None:
                row[one.name] = value
        return row


_Column = tuple[list[Any], list[Any]]
"""The values and the statuses of one feature, each as long as there are keys."""


def _columns(reply: Any, keys: int) -> dict[str, _Column]:
    match reply:
        case {"metadata": {"feature_names": [*names]}, "results": [*results]} if len(names) == len(results):
            pass
        case _:
            raise SourceFault(Cause.BAD_REPLY, "the answer is not one column per feature")
    columns: dict[str, _Column] = {}
    for name, result in zip(names, results, strict=True):
        match name, result:
            case str(), {"values": [*values], "statuses": [*statuses]} if (
                len(values) == len(statuses) == keys and name not in columns
            ):
                columns[name] = (values, statuses)
            case _:
                raise SourceFault(Cause.BAD_REPLY, f"a column of the answer is not of length {keys}")
    return columns


def _value(raw: object, declared: FactType) -> object:
    if declared != "timestamp" or not isinstance(raw, int) or isinstance(raw, bool):
        return raw
    if raw == _NO_TIME:
        return None
    try:
        return rfc3339(datetime.fromtimestamp(raw, UTC))
    except (ValueError, OverflowError, OSError):
        return raw  # no time at all, which is for whoever types it to say

"""The sources of the live catalog, with their connections. They outlive a catalog that does not change them:
what is cached, and what is known to be broken, stays so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence, Set
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.model import FactType
from arbitration.catalog.provenance import Call
from arbitration.catalog.sources import FeastSource, HttpSource, OpenInferenceSource
from decision.sources.connections import Connection, Connections
from decision.sources.guard import Guarded, Report
from decision.sources.port import Source

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

_PATIENCE = 2.0


class Sources:
    """Makes each source once. Belongs to one event loop; to be closed."""

    def __init__(self, connections: Connections, report: Report) -> None:
        self._connections = connections
        self._report = report
        self._clients: dict[Path | None, httpx.AsyncClient] = {}
        self._made: dict[str, Guarded | None] = {}
        self._plans: dict[str, dict[str, Guarded | None]] = {}
        self._closing: dict[asyncio.Task[None], Guarded] = {}

    async def prepare(self, catalog: CompiledCatalog) -> None:
        """Does what takes long beside the event loop, so that the first decision does not pay for it."""
        kinds = {call.source.kind for call in catalog.calls}
        databases = [
            connection.url.get_secret_value()
            for call in catalog.calls
            if call.source.kind == "sql"
            and (connection := self._connections.get(call.source.connected_as)) is not None
        ]
        try:
            await asyncio.to_thread(_import, kinds, databases)
        except Exception as error:  # noqa: BLE001  # then the first call is slow, or says what is wrong
            log.error("what the sources need could not be made ready: %s", type(error).__name__)
        self.of(catalog)

    def of(self, catalog: CompiledCatalog) -> Mapping[str, Guarded | None]:
        """The sources of a catalog by id; None stands for one that the service has no connection for."""
        if catalog.version not in self._plans:
            self._take_up(catalog)
        plan = self._plans[catalog.version] = self._plans.pop(catalog.version)  # the last one is in use
        return plan

    def circuits(self) -> dict[str, bool]:
        """Of each source that is in use, whether its circuit is open."""
        plan = next(reversed(self._plans.values()), {})
        return {id: source is not None and source.left_alone for id, source in plan.items()}

    async def close(self) -> None:
        """Lets the calls under way come to their end, for a while, and closes every connection."""
        made, self._made, self._plans = self._made, {}, {}
        open_still = [*(each for each in made.values() if each is not None), *self._closing.values()]
        await asyncio.gather(*(each.close(_PATIENCE) for each in open_still), *self._closing)
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _take_up(self, catalog: CompiledCatalog) -> None:
        plan: dict[str, Guarded | None] = {}
        spelled = {call.source.id: _spelled(call, catalog) for call in catalog.calls}
        for call in catalog.calls:
            name = spelled[call.source.id]
            if name not in self._made:
                self._made[name] = self._make(call, catalog)
            plan[call.source.id] = self._made[name]
        # The one before is kept too: requests that began with it may still ask.
        self._plans = {**dict(list(self._plans.items())[-1:]), catalog.version: plan}
        wanted = [each for kept in self._plans.values() for each in kept.values()]
        for name, source in list(self._made.items()):
            if source not in wanted:
                del self._made[name]
                if source is not None:
                    task = asyncio.create_task(source.close())
                    self._closing[task] = source
                    task.add_done_callback(self._closing.pop)

    def _make(self, call: Call, catalog: CompiledCatalog) -> Guarded | None:
        specification = call.source
        connection = self._connections.get(specification.connected_as)
        if connection is None or connection.web == (specification.kind == "sql"):
            log.error(
                "source %s: there is no %s connection '%s' (there are: %s); what it serves is missing",
                specification.id,
                "database" if specification.kind == "sql" else "web",
                specification.connected_as,
                ", ".join(self._connections) or "none",
            )
            return None
        try:
            source = self._source(call, connection, catalog)
        except Exception as error:  # noqa: BLE001  # one source must not keep a whole catalog from being served
            log.error("source %s cannot be made: %s", specification.id, type(error).__name__)
            return None
        return Guarded(specification, source, connection.calls, self._report)

    def _source(self, call: Call, connection: Connection, catalog: CompiledCatalog) -> Source:
        specification = call.source
        # What a kind needs is imported only by those who have such a source.
        if isinstance(specification, HttpSource):
            from decision.sources.http import Http

            return Http(specification, call.serves, connection, self._http(connection))
        if isinstance(specification, FeastSource):
            from decision.sources.feast import Feast

            return Feast(specification, call.serves, connection, self._http(connection))
        if isinstance(specification, OpenInferenceSource):
            from decision.sources.open_inference import OpenInference

            types = _input_types(call, catalog)
            return OpenInference(specification, call.serves, connection, self._http(connection), types)
        from decision.sources.sql import Sql

        return Sql(specification, call.serves, connection)

    def _http(self, connection: Connection) -> httpx.AsyncClient:
        """The one client that all share, but for those whose servers an authority of their own has signed."""
        if connection.ca_file not in self._clients:
            from decision.sources.web import open_client

            self._clients[connection.ca_file] = open_client(connection.ca_file)
        return self._clients[connection.ca_file]


def _spelled(call: Call, catalog: CompiledCatalog) -> str:
    """Equal where all that is asked and done is equal: then it is the same source."""
    return repr((call.source, call.serves, _input_types(call, catalog)))


def _import(kinds: Set[str], databases: Sequence[str]) -> None:
    if kinds - {"sql"}:
        import_module("decision.sources.web").trust(None)
    for kind in kinds:
        import_module(f"decision.sources.{kind}")
    for url in databases:
        import_module("decision.sources.sql").driver(url)


def _input_types(call: Call, catalog: CompiledCatalog) -> tuple[FactType, ...]:
    declared = catalog.declared
    return tuple(
        declared[name].type if name in declared else "string" for name in call.source.inputs.values()
    )

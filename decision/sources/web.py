"""One HTTP call to a source: bounded in size, without redirects, and every fault given its cause."""

from __future__ import annotations

import ssl
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from decision.sources.connections import Connection
from decision.sources.port import Cause, SourceFault

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection as Connection_
    from aiohttp.tracing import Trace

# Shorter than what common servers keep an idle connection open for (uvicorn: 5 s), or a call would now and
# then meet one that is just being closed.
_KEEP_ALIVE_SECONDS = 4.0
# Says that this call was wrong, not that the system is ill.
_OUR_FAULT = range(400, 500)
_ILL_ALL_THE_SAME = (401, 403, 407, 408, 425, 429)


def open_client(ca_file: Path | None = None) -> httpx.AsyncClient:
    """A client for sources whose servers the machine's authorities, or those of a file, have signed.
    Timeouts are set per call, by whoever calls.

    Proxies, netrc files and the like in the environment are not looked at: a source is where its
    connection says. Cookies are not kept: the next call is for another customer. The transport is
    aiohttp's: under load a call costs a fraction of what it does with httpx's own
    (`benchmarks/results/gathering.md`).
    """
    return httpx.AsyncClient(
        transport=_transport(ca_file),
        timeout=None,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "next-best-action",
        },
    )


class _Connector(aiohttp.TCPConnector):
    """Does not use a connection again on which something came that nobody had asked for: it would be taken
    for the answer to the next question, and that is about another customer."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection_ | None:
        while True:
            kept = await super()._get(key, traces)
            if kept is None or kept.protocol is None or not kept.protocol.should_close:
                return kept
            kept.close()


def _transport(ca_file: Path | None) -> AiohttpTransport:
    verify = trust(ca_file)

    def session() -> aiohttp.ClientSession:
        # How many calls there are at once is bounded per source, so that one slow system cannot take the
        # connections of the others.
        connector = _Connector(limit=0, ssl=verify, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        opened = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        # Else it takes some of the encoding back: of `a%3Bb` servers would get `a;b`, and some read `a`.
        opened._build_url = _as_it_is  # type: ignore[method-assign]
        return opened

    return AiohttpTransport(verify=verify, trust_env=False, client=session)


def _as_it_is(str_or_url: str | URL) -> URL:
    return URL(str(str_or_url), encoded=True)


@cache
def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Whom to believe: the machine's authorities, or those in a file. Reading them takes tens of ms."""
    return ssl.create_default_context(cafile=ca_file)


async def ask(
    client: httpx.AsyncClient,
    connection: Connection,
    method: str,
    path: str,
    *,
    body: Any = None,
    keys: int = 1,
) -> Any:
    """The JSON answer to one call; None where the system says that it knows nothing (404, 410, 204).

    `path` begins with `/`, is percent-encoded already, and goes below the connection's URL. `keys`: for how
    many customers it asks; the answer may be so many times as large. Raises SourceFault. Messages of faults
    name no path: customers' ids are in it.
    """
    url = connection.url.get_secret_value() + path
    sent = connection.plain_headers()
    most = connection.answer_bytes * keys
    content = None
    if body is not None:
        content = orjson.dumps(body)
        sent["content-type"] = "application/json"
    try:
        async with client.stream(method, url, headers=sent, content=content) as reply:
            if reply.status_code in (204, 404, 410):
                return None
            _refuse(reply)
            if reply.headers.get("content-encoding", "identity") != "identity":
                # Not asked for, and a small answer may unpack to a very large one.
                raise SourceFault(Cause.BAD_REPLY, "the answer is compressed")
            received = bytearray()
            async for chunk in reply.aiter_raw():
                received += chunk
                if len(received) > most:
                    # One customer with a long history is no reason to leave the system alone.
                    raise SourceFault(Cause.BAD_REPLY, f"the answer has more than {most} bytes", ill=False)
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, UnicodeError) as error:
        # Of the cause only its kind: the text may hold the URL, and with it a customer's id.
        raise SourceFault(Cause.UNAVAILABLE, type(error.__cause__ or error).__name__) from error
    try:
        return orjson.loads(received)
    except orjson.JSONDecodeError as error:
        raise SourceFault(Cause.BAD_REPLY, "the answer is not JSON") from error


def _refuse(reply: httpx.Response) -> None:
    status = reply.status_code
    if reply.is_success:
        return
    if reply.is_redirect or status < 400:
        raise SourceFault(Cause.BAD_REPLY, f"status {status}: redirects are not followed")
    if status in _OUR_FAULT and status not in _ILL_ALL_THE_SAME:
        raise SourceFault(Cause.BAD_REPLY, f"status {status}", ill=False)
    raise SourceFault(Cause.UNAVAILABLE, f"status {status}")

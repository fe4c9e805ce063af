"""Connections: where the catalog's sources are, and with which secrets. A file of the service's own.

Hosts come from here and from nowhere else: not from a catalog, not from a request, not from a redirect.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from arbitration.catalog.scalars import Id
from decision.errors import FieldError, Rejected, validation_errors

_ASYNCPG = "postgresql+asyncpg:"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _without_slash(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    return SecretStr(text.rstrip("/")) if text.startswith("http") else url


def _reachable(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text.startswith(("http://", "https://")):
        parts = urlsplit(text)
        odd = not parts.hostname or parts.query or parts.fragment or parts.username is not None
        if odd or not _port(parts):
            raise ValueError("must be https://host[:port][/prefix]; credentials go into headers")
        return url
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        dialect = make_url(text).get_dialect()
        dialect.import_dbapi()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        message = "is neither https://host… nor a database URL whose driver is installed; a password in it"
        raise ValueError(f"{message} is percent-encoded") from error
    if not dialect.is_async:
        raise ValueError("needs an async driver: postgresql+asyncpg://…, sqlite+aiosqlite:///…")
    return url


def _port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _printable(header: SecretStr) -> SecretStr:
    if not header.get_secret_value().isprintable():
        raise ValueError("a header is one line of printable characters")
    return header


def _authority(file: Path) -> Path:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:  # which those of ssl are as well
        raise ValueError("is not a file of certificates that can be read") from error
    return file


class Connection(BaseModel):
    """Where one system is. `url`: `https://host[:port][/prefix]`, or for a database what SQLAlchemy's
    async engine takes, `postgresql+asyncpg://user:password@host/name`.

    `headers` go with every call. `ca_file`: the authority that signed the server's certificate (default:
    those the machine trusts). `calls`: the most calls at once, for each source. `answer_bytes`: the most that
    an answer may have; to read a large one holds up every other request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[SecretStr, AfterValidator(_without_slash), AfterValidator(_reachable)]
    headers: dict[str, Annotated[SecretStr, AfterValidator(_printable)]] = Field(default_factory=dict)
    ca_file: Annotated[Path, AfterValidator(_authority)] | None = None
    calls: Annotated[int, Field(ge=1, le=1_000)] = 32
    answer_bytes: Annotated[int, Field(ge=1_024, le=16 * 1024 * 1024)] = 64 * 1024

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Connection:
        if not self.web and (self.headers or "answer_bytes" in self.model_fields_set):
            raise ValueError("headers and answer_bytes are for http connections")
        asyncpg = self.url.get_secret_value().startswith(_ASYNCPG)
        if self.ca_file is not None and not self.web and not asyncpg:
            raise ValueError("ca_file is for http and postgresql+asyncpg connections")
        return self

    @property
    def web(self) -> bool:
        """Whether it is one for HTTP."""
        return self.url.get_secret_value().startswith(("http://", "https://"))

    def plain_headers(self) -> dict[str, str]:
        """The headers as they are sent."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}


Connections = Mapping[str, Connection]
_FILE = TypeAdapter(dict[Id, Connection])


def read_connections(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Connection]:
    """The connections of a YAML file, by name. `${NAME}` stands for an environment variable.

    Raises Rejected, naming what is wrong; a secret is never part of a message.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" near line {mark.line + 1}" if mark is not None else ""
        raise Rejected(422, "connections", f"{path} cannot be read{place}.") from error
    missing: set[str] = set()
    filled = _filled(raw if raw is not None else {}, environment, missing)
    if missing:
        faults = [
            FieldError(name, "not_set", "this environment variable is not set") for name in sorted(missing)
        ]
        raise Rejected(422, "connections", f"{path} names variables that are not set.", faults)
    try:
        return _FILE.validate_python(filled)
    except ValidationError as error:
        faults = validation_errors(error.errors(include_input=False))
        raise Rejected(422, "connections", f"{path} is not a file of connections.", faults) from None


def _filled(node: Any, environment: Mapping[str, str], missing: set[str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, environment, missing) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, environment, missing) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            missing.add(match[1])
        return environment.get(match[1], "")

    return _VARIABLE.sub(value, node)

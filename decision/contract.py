"""Generates what is published of the code's contracts: `python -m decision.contract` rewrites the files.

`openapi/openapi.json` describes the HTTP API, `openapi/catalog.schema.json` the authoring model, for
editors. A test fails where the files and the code have drifted apart.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from arbitration.catalog.model import Catalog
from decision.api.app import contract, create_app
from decision.api.context import build
from decision.storage.sqlite.store import SqliteStore

FOLDER = Path(__file__).resolve().parent.parent / "openapi"


def files() -> dict[str, bytes]:
    """The content of each file, by name."""
    app = create_app(build(SqliteStore(Path("never-opened.db"))))
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Catalog.model_json_schema(by_alias=True),
    }
    return {"openapi.json": _pretty(contract(app)), "catalog.schema.json": _pretty(schema)}


def _pretty(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def main() -> None:
    """Writes the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()

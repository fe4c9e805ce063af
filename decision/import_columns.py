"""The columns of a CSV file: where each goes in a profile, and what the text of its cells means.

A column goes where its name says: `customer_id`; an attribute of the catalog (`nps`, or `attributes.nps`);
`scores.<score>`, `consents.<purpose>`, and beside it `consents.<purpose>.at` and `.source`;
`identities.<type>`. Other columns are ignored. A map says otherwise: a YAML or JSON file, every part of it
optional:

    customer_id_from_line: "h-{line}"        # for files without ids: the row on line 7 is customer h-7
    columns:
      customerID: customer_id                # column: target
      Months with us: tenure                 # the same as attributes.tenure
      Mail hash: identities.email_sha256
      Newsletter:                            # with a translation of its cells
        to: consents.marketing_email
        values: {Yes: given, No: withdrawn, Unknown: null}
      notes: null                            # ignored, whatever its name

A cell is read by the declared type of its target: an int; a double; a bool as true/false, yes/no or 1/0 in
any case; a timestamp in RFC 3339, or a bare date for midnight UTC; strings separated by `|`. White space
around a cell does not count, and an empty cell (or one translated to null) means: not known. A cell that
the translation does not list is read as it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.model import FactType
from decision.catalog_files import read_catalog
from decision.errors import FieldError, Rejected, validation_errors

Cell = bool | int | float | str | None

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_INT = re.compile(r"[-+]?[0-9]{1,20}")
_DOUBLE = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_IDENTITY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LINE = "{line}"
_CONSENT: dict[str, FactType] = {"at": "timestamp", "source": "string"}  # what there may be beside an answer


def invalid_import(detail: str, errors: Sequence[FieldError]) -> Rejected:
    """An import that cannot begin."""
    return Rejected(422, "invalid_import", detail, errors)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Target(_Part):
    """Where a column goes, and what stands for some of its cells."""

    to: str
    values: dict[str, Cell] = Field(default_factory=dict)


def _spelled_out(raw: object) -> object:
    return {"to": raw} if isinstance(raw, str) else raw


class ColumnMap(_Part):
    """What a map file says."""

    customer_id_from_line: str | None = None
    columns: dict[str, Annotated[Target | None, BeforeValidator(_spelled_out)]] = Field(default_factory=dict)


def read_map(path: Path) -> ColumnMap:
    """The map in a YAML or JSON file. Raises Rejected naming every fault and its line."""
    if not path.is_file():
        raise invalid_import("There is no such map.", [FieldError(str(path), "no_such_file", "is no file")])
    source, problems = read_catalog(path)  # reads any document of plain data: `Yes` is text there, not true
    faults = [
        FieldError(found.path, found.code, f"line {found.line or 1}: {found.message}") for found in problems
    ]
    try:
        read = ColumnMap.model_validate(source.document)
    except ValidationError as error:
        faults += validation_errors(error.errors())
    else:
        if not faults:
            return read
    raise invalid_import(f"The map {path.name} has faults.", faults)


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is used: its position and name in the file, and its place in a profile."""

    position: int
    name: str
    section: str
    key: str
    type: FactType
    values: Mapping[str, Cell]

    @property
    def path(self) -> str:
        """The path of its target in a profile: `attributes.nps`."""
        return f"{self.section}.{self.key}" if self.key else self.section


@dataclass(frozen=True, slots=True)
class Row:
    """A row as its `cells` and, read, as the JSON object of an NDJSON import (`profile`); `faults` are the
    cells that cannot be read, `identities` the columns that gave the profile's identities, in order."""

    cells: Sequence[str]
    profile: dict[str, Any] = field(default_factory=dict)
    faults: list[FieldError] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)


class Columns:
    """Turns the rows of one CSV file into profiles. `names` is its header, `ignored` what is not used."""

    def __init__(self, header: Sequence[str], catalog: CompiledCatalog, mapping: ColumnMap) -> None:
        """Raises Rejected naming every fault of the header and of the map together."""
        self.names = tuple(
            name.strip() or f"(column {number})" for number, name in enumerate(header, start=1)
        )
        self._id_from_line = mapping.customer_id_from_line
        self._used: list[Column] = []
        ignored: list[str] = []
        faults = [*_broken_names(self.names), *_unknown_columns(self.names, mapping)]
        for position, name in enumerate(self.names):
            target = mapping.columns.get(name, Target(to=name))
            place = None if target is None else _place(target.to, catalog)
            if target is not None and place is not None:
                self._used.append(Column(position, name, *place, target.values))
            elif target is not None and name in mapping.columns:
                faults.append(FieldError(f"columns.{name}", "unknown_target", _no_target(target.to, catalog)))
            else:
                ignored.append(name)
        self.ignored = tuple(ignored)
        if faults := [*faults, *self._target_faults()]:
            raise invalid_import("The columns of the file cannot be imported like this.", faults)

    def _target_faults(self) -> Iterator[FieldError]:
        takers: dict[str, list[str]] = {}
        for column in self._used:
            takers.setdefault(column.path, []).append(column.name)
        for path, names in takers.items():
            if len(names) > 1 and not path.startswith("identities."):
                yield FieldError(path, "several_columns", f"gets several columns: {', '.join(names)}")
        for path in takers:
            section, _, key = path.partition(".")
            answer, detail, _ = key.partition(".")
            if section == "consents" and detail and f"consents.{answer}" not in takers:
                message = f"no column has this name or is mapped to it, but one is {path}"
                yield FieldError(f"consents.{answer}", "missing_column", message)
        if self._id_from_line is None and "customer_id" not in takers:
            found = ", ".join(self.names[:20])
            message = f"no column has this name or is mapped to it; the first line of the file has: {found}"
            yield FieldError("customer_id", "missing_column", message)
        if self._id_from_line is not None and "customer_id" in takers:
            message = f"the column {takers['customer_id'][0]} holds the ids"
            yield FieldError("customer_id_from_line", "several_columns", message)
        if self._id_from_line is not None and _LINE not in self._id_from_line:
            yield FieldError("customer_id_from_line", "bad_value", f"must contain {_LINE}")

    def row(self, line: int, cells: Sequence[str]) -> Row:
        """The row that begins on `line`, read."""
        row = Row(cells)
        if len(cells) != len(self.names):
            message = f"the row has {len(cells)} cells, the header has {len(self.names)}"
            row.faults.append(FieldError("row", "ragged_row", message))
            return row
        if self._id_from_line is not None:
            row.profile["customer_id"] = self._id_from_line.replace(_LINE, str(line))
        details: dict[str, dict[str, object]] = {}
        for column in self._used:
            try:
                value = _read(column, cells[column.position])
            except ValueError as error:
                row.faults.append(FieldError(column.name, "bad_value", str(error)))
                continue
            if value is None:
                continue
            if column.section == "customer_id":
                row.profile["customer_id"] = value
            elif column.section == "identities":
                row.profile.setdefault("identities", []).append({"type": column.key, "value": value})
                row.identities.append(column.name)
            elif column.section == "consents" and "." in column.key:
                purpose, _, name = column.key.partition(".")
                details.setdefault(purpose, {})[name] = value
            else:
                row.profile.setdefault(column.section, {})[column.key] = value
        for purpose, detail in details.items():
            consents = row.profile.setdefault("consents", {})
            consents[purpose] = detail if purpose not in consents else {"status": consents[purpose], **detail}
        return row

    def by_column(self, errors: Sequence[FieldError], row: Row) -> list[FieldError]:
        """Faults of the profile of `row`, each under the name of the column it came from."""
        names = {f"{column.path}.status": column.name for column in self._used}
        names |= {column.path: column.name for column in self._used}
        names["identities"] = ", ".join(row.identities)
        for number, name in enumerate(row.identities):
            names[f"identities[{number}].value"] = name
        return [
            FieldError(names.get(fault.field, fault.field), fault.code, fault.message) for fault in errors
        ]


def _broken_names(names: Sequence[str]) -> Iterator[FieldError]:
    for name, times in Counter(names).items():
        if times > 1:
            yield FieldError(name, "duplicate_column", "the header has this column more than once")
        if "\0" in name:
            message = "a column name has a NUL byte; is the file UTF-8 text?"
            yield FieldError(repr(name), "bad_encoding", message)


def _unknown_columns(names: Sequence[str], mapping: ColumnMap) -> Iterator[FieldError]:
    for name in mapping.columns:
        if name not in names:
            yield FieldError(f"columns.{name}", "unknown_column", "the file has no such column")


def _place(target: str, catalog: CompiledCatalog) -> tuple[str, str, FactType] | None:
    """Section, key and type of a target, or None where there is no such thing."""
    if target == "customer_id":
        return "customer_id", "", "string"
    section, dot, key = target.partition(".")
    if not dot:
        section, key = "attributes", target
    if section in ("attributes", "scores"):
        fact = catalog.declared.get(f"{'customer' if section == 'attributes' else section}.{key}")
        return None if fact is None else (section, key, fact.type)
    if section == "consents":
        purpose, dot, detail = key.partition(".")
        kind: FactType | None = _CONSENT.get(detail) if dot else "string"
        known = any(each.id == purpose for each in catalog.model.purposes)
        return (section, key, kind) if known and kind is not None else None
    known = section == "identities" and _IDENTITY.fullmatch(key) is not None
    return (section, key, "string") if known else None


def _no_target(target: str, catalog: CompiledCatalog) -> str:
    section, dot, _ = target.partition(".")
    if section == "identities":
        return f"'{target}' is no target: a type of identity has small letters, digits and _"
    kind = {"scores": "score", "consents": "purpose"}.get(section if dot else "", "attribute")
    return f"'{target}' is no target: the catalog declares no such {kind}"


def _read(column: Column, cell: str) -> object:
    """The value of a cell; None where it says nothing. Raises ValueError, with a message, if unreadable."""
    text = cell.strip()
    if "\0" in text:
        raise ValueError("the cell has a NUL byte")
    if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
        raise ValueError("the cell is not UTF-8 text")
    value = column.values.get(text, text)
    if not isinstance(value, str):
        return value
    return typed(value, column.type) if value else None


def typed(text: str, kind: FactType) -> object:
    """`text` as the JSON value of a declared type. Raises ValueError; bounds are not checked here."""
    match kind:
        case "bool":
            if (truth := _TRUTHS.get(text.lower())) is None:
                raise ValueError(f"{_quote(text)} is not true or false, yes or no, 1 or 0")
            return truth
        case "int":
            if _INT.fullmatch(text) is None:
                raise ValueError(f"{_quote(text)} is not a whole number")
            return int(text)
        case "double":
            if _DOUBLE.fullmatch(text) is None:
                raise ValueError(f"{_quote(text)} is not a number")
            return float(text)
        case "timestamp":
            return f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text
        case "strings":
            return [part.strip() for part in text.split("|") if part.strip()]
        case "string":
            return text


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

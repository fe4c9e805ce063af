"""What is wrong with a catalog, and exactly where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect of a catalog.

    `file`, `line` and `column` (both from 1) point into the authored text where it is known;
    `path` always does. For rules and templates, `excerpt` is the text with a caret under the
    place, as a compiler would print it.
    """

    code: str
    path: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    excerpt: str | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        head = f"{where}: " if where else ""
        tail = "".join(f"\n    {row}" for row in (self.excerpt or "").splitlines())
        return f"{head}{self.path}: {self.message} [{self.code}]{tail}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node of the document was written; lines and columns count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Source:
    """An authored document: plain JSON values, and where each node stood, as far as it is known.

    `places` maps a path in `document` to its place; a path that is not there takes the place
    of its nearest known ancestor.
    """

    document: Mapping[str, object]
    places: Mapping[Path, Place] = field(default_factory=dict)

    def problem(self, code: str, path: Path, message: str, excerpt: str | None = None) -> Problem:
        """A problem at `path`, placed in the file where the author wrote it."""
        place = self._place(path)
        if place is None:
            return Problem(code, spell(path), message, excerpt=excerpt)
        return Problem(code, spell(path), message, place.file, place.line, place.column, excerpt)

    def _place(self, path: Path) -> Place | None:
        for end in range(len(path), 0, -1):
            if (place := self.places.get(path[:end])) is not None:
                return place
        return None


def spell(path: Path) -> str:
    """`("actions", 3, "value")` as `actions[3].value`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def caret(text: str, line: int, column: int) -> str:
    """The `line` of `text` (from 1) with a caret under `column` (from 1)."""
    rows = text.splitlines() or [""]
    row = rows[min(line, len(rows)) - 1]
    return f"{row}\n{' ' * (column - 1)}^"

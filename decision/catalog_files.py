"""Reads a catalog as authored: a directory of YAML files, or one YAML or JSON document.

In a directory, the file or folder directly below it names the section: `channels.yaml` and
`actions/renewal.yaml` hold lists for `channels` and `actions`; `catalog.yaml` holds the single
values (`name`, `currency`). YAML is read as JSON with friendlier clothes: only true, false, null
and numbers are special, so `on:` is a key and `2026-01-31` is text, and the two forms mean the same.
An alias stands for what its anchor holds, and is counted as such, so that few lines cannot come to millions.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from arbitration.catalog.problems import Place, Problem, Source

if TYPE_CHECKING:
    from arbitration.catalog.problems import Path as DocumentPath

_ROOT_FILE = "catalog"
_DEEPEST = 32
_MOST_NODES = 500_000
_INT = re.compile(r"[-+]?\d{1,30}")
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None, "~": None, "": None}


def read_catalog(path: Path) -> tuple[Source, list[Problem]]:
    """The document at `path` with the place of every node, and what could not be read of it."""
    reader = _Reader()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml", ".json"))
        if not files:
            reader.problems.append(Problem("no_files", str(path), "no YAML or JSON file here"))
        for file in files:
            reader.section_file(path, file)
    elif path.is_file():
        reader.whole_file(path)
    else:
        reader.problems.append(Problem("no_such_path", str(path), "no such file or directory"))
    return Source(reader.document, reader.places), reader.problems


class _Reader:
    def __init__(self) -> None:
        self.document: dict[str, object] = {}
        self.places: dict[DocumentPath, Place] = {}
        self.problems: list[Problem] = []
        self._nodes = 0

    def whole_file(self, file: Path) -> None:
        if (node := self._compose(file, file.name)) is None:
            return
        if isinstance(node, MappingNode):
            self._merge(node, file.name)
        else:
            self._complain("not_a_mapping", file.name, node, "a catalog document is a mapping of sections")

    def section_file(self, root: Path, file: Path) -> None:
        relative = file.relative_to(root)
        name, section = str(relative), Path(relative.parts[0]).stem
        if (node := self._compose(file, name)) is None:
            return
        if section == _ROOT_FILE and isinstance(node, MappingNode):
            self._merge(node, name)
            return
        if not isinstance(node, SequenceNode):
            self._complain("not_a_list", name, node, f"a file of the section '{section}' holds a list")
            return
        self._extend(section, node, name)

    def _merge(self, node: MappingNode, name: str) -> None:
        self._complain_of_duplicates(node, name)
        for key, value in node.value:
            if isinstance(value, SequenceNode):
                self._extend(str(key.value), value, name)
            elif str(key.value) in self.document:
                self._complain("not_a_list", name, value, f"'{key.value}' stands elsewhere as well")
            else:
                self.document[str(key.value)] = self._plain(value, (str(key.value),), name)

    def _extend(self, section: str, node: SequenceNode, name: str) -> None:
        items = self.document.setdefault(section, [])
        if not isinstance(items, list):
            self._complain("not_a_list", name, node, f"'{section}' stands elsewhere, and is no list there")
            return
        self.places.setdefault((section,), _place(node, name))
        for child in node.value:
            items.append(self._plain(child, (section, len(items)), name))

    def _compose(self, file: Path, name: str) -> Node | None:
        try:
            node: Node | None = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
            self.problems.append(Problem("not_yaml", name, str(error.problem), name, line, column))
            return None
        except RecursionError:
            self.problems.append(Problem("too_deep", name, f"nested more than {_DEEPEST} levels deep", name))
            return None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.problems.append(Problem("not_yaml", name, str(error), name))
            return None
        return node

    def _complain(self, code: str, name: str, node: Node, message: str) -> None:
        place = _place(node, name)
        self.problems.append(Problem(code, name, message, name, place.line, place.column))

    def _plain(self, node: Node, path: DocumentPath, name: str) -> object:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            if self._nodes == _MOST_NODES + 1:
                self._complain("too_many", name, node, f"a catalog has at most {_MOST_NODES} values")
            return None
        self.places[path] = _place(node, name)
        if len(path) > _DEEPEST:  # an anchor that holds itself has no end
            self._complain("too_deep", name, node, f"nested more than {_DEEPEST} levels deep")
            self._nodes = _MOST_NODES + 1  # once is enough
            return None
        if isinstance(node, ScalarNode):
            if not _is_text(node.value):
                self._complain("not_text", name, node, "half of a surrogate pair is no character")
                return ""
            return _scalar(node)
        if isinstance(node, SequenceNode):
            return [self._plain(child, (*path, index), name) for index, child in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        self._complain_of_duplicates(node, name)
        return {
            str(key.value): self._plain(value, (*path, str(key.value)), name) for key, value in node.value
        }

    def _complain_of_duplicates(self, node: MappingNode, name: str) -> None:
        keys = [str(key.value) for key, _ in node.value]
        times = Counter(keys)
        for (key_node, _), key in zip(node.value, keys, strict=True):
            if times[key] > 1:
                self._complain("duplicate_key", name, key_node, f"the key '{key}' stands here twice")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _place(node: Node, name: str) -> Place:
    return Place(name, node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(node: ScalarNode) -> object:
    text = str(node.value)
    if node.style is not None:
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text

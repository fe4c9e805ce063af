"""The distinct expressions of a catalog that is being compiled."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from arbitration.index import Index
from arbitration.rules import Language, Program
from arbitration.tabulation import Terms, tabulator_of


class Programs:
    """Each distinct expression compiled once, numbered in order of first use."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.clauses: dict[str, Program] = {}
        self.values: dict[str, Program] = {}
        self._numbers: dict[tuple[bool, str], int] = {}
        self._tabulator = tabulator_of(language)
        self._tabulator.begin()
        self._terms: dict[int, Terms] = {}

    def clause(self, text: str) -> int:
        """The number of a rule."""
        return self._number(self.clauses, text.strip(), number=False)

    def value(self, text: str) -> int:
        """The number of a value's expression."""
        return self._number(self.values, text.strip(), number=True)

    def index(self, lists: Sequence[Collection[int]]) -> Index:
        """Lists of rules, by number, tabulated."""
        programs = tuple(self.clauses.values())
        for clause in sorted({clause for clauses in lists for clause in clauses} - self._terms.keys()):
            self._terms[clause] = self._tabulator.tabulate(programs[clause])
        return Index(lists, programs, self._terms, self.language.types, self._tabulator.comparisons)

    def _number(self, known: dict[str, Program], text: str, *, number: bool) -> int:
        if text not in known:
            program = self.language.compile(text, "number" if number else "bool")
            assert isinstance(program, Program), program
            known[text] = program
        return self._numbers.setdefault((number, text), len(known) - 1)

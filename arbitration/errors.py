"""The one rooted hierarchy of errors.

NextBestActionError
├── CatalogError        a catalog that cannot be compiled; carries every problem found
├── EvaluationError     an argument that no estimate can be made from; names it (in evaluation.errors)
├── FactError           a value that does not fit its declared type; names the fact
├── InputsError         recorded or given inputs that name what the catalog does not have
└── SnapshotError       learned state that is truncated, not finite, or of another shape

What is *expected* (no eligible arm, a rule without its value) is never an error: it is a
result with a reason code. The shell adds its own branches in `decision.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbitration.catalog.problems import Problem


class NextBestActionError(Exception):
    """Root of everything this project raises on purpose."""


class CatalogError(NextBestActionError):
    """A catalog that cannot be compiled.

    `problems` holds all of them, in the order of the files.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class FactError(NextBestActionError):
    """A value that does not fit the declared type or range of its fact."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class InputsError(NextBestActionError):
    """Inputs that name a channel or placement which the catalog does not have."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class SnapshotError(NextBestActionError):
    """Learned state that must not be served."""

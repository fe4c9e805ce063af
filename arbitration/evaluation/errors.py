"""The evaluation's branch of the hierarchy of errors."""

from __future__ import annotations

from arbitration.errors import NextBestActionError


class EvaluationError(NextBestActionError):
    """An argument that no estimate can be made from; `argument` names it."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"{argument}: {message}")
        self.argument = argument
        self.message = message

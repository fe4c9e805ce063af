"""Liquid in a sandbox: no files, no clock, and so much work, no more.

The engine bounds nested loops and what is written. Between the two a template can still be made to work for
minutes: loops one after the other, texts that filters multiply, ranges of a hundred million numbers. So work
is counted here, in steps of about a microsecond: for each filter by what goes in and comes out, for each loop
by its turns and the length of what it repeats, for each assignment by the variables there are. It is counted,
not timed: a replay fails exactly where the decision did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from liquid import BoundTemplate, Environment, Mode, RenderContext, Token
from liquid.builtin.expressions import LoopExpression
from liquid.builtin.filters.misc import date as _date
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.builtin.tags.tablerow_tag import TablerowNode, TablerowTag
from liquid.exceptions import LoopIterationLimitError, OutputStreamLimitError, ResourceLimitError
from liquid.filter import liquid_filter, with_context
from liquid.stream import TokenStream

MOST_STEPS = 50_000
LONGEST = 100_000
"""Characters of a template, of what it comes to, and of every text on the way there."""
_MOST_TURNS = 10_000
_LONGEST_FORMAT = 1_000
_NO_FILES = ("include", "render", "extends", "block", "layout")
# Each item is looked into, and most of what it may be has nothing to look into.
_LOOK_INSIDE = frozenset(
    {"compact", "find", "find_index", "has", "map", "reject", "sort", "sort_natural", "sum", "uniq", "where"}
)


class _Counting(RenderContext):
    """What one rendering knows, and how much it has done."""

    steps = 0

    def charge(self, steps: int) -> None:
        """Counts work that is about to be done. Raises ResourceLimitError where it is too much."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ResourceLimitError("too much work", token=None)

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """A filter that counts."""
        of = super().filter(name, token)

        def counted(left: Any, *args: Any, **more: Any) -> object:
            given = (left, *args, *more.values())
            self.charge(1 + sum(map(_work, given)) + _looks(name, left))
            _check_length(name, left, args)
            found = of(left, *args, **more)
            self.charge(_work(found))
            return found

        return counted

    def assign(self, key: str, val: Any) -> None:
        """Adds a variable: the engine then measures all of them."""
        self.charge(1 + len(self.locals) // 16)
        super().assign(key, val)


class _Template(BoundTemplate):
    context_class = _Counting


class _Sandbox(Environment):
    template_class = _Template
    loop_iteration_limit = _MOST_TURNS
    output_stream_limit = LONGEST
    local_namespace_limit = 100_000
    context_depth_limit = 20


class _Loop(LoopExpression):
    """The head of a loop, which counts its turns; `length`: of what is repeated, in characters."""

    length: int

    @classmethod
    def of(cls, head: LoopExpression, length: int) -> _Loop:
        """The same, counting."""
        loop = cls(
            head.token,
            head.identifier,
            head.iterable,
            limit=head.limit,
            offset=head.offset,
            reversed_=head.reversed,
            cols=head.cols,
        )
        loop.length = length
        return loop

    def _slice(
        self,
        it: Iterator[object],
        length: int,
        context: RenderContext,
        *,
        limit: int | None,
        offset: int | str | None,
    ) -> tuple[Iterator[object], int]:
        if length > _MOST_TURNS:  # before any of it is made
            raise LoopIterationLimitError("loop iteration limit reached", token=self.token)
        turns = length if limit is None else max(min(length, limit), 0)
        assert isinstance(context, _Counting)
        context.charge(1 + turns * (1 + self.length // 8))
        return super()._slice(it, length, context, limit=limit, offset=offset)


class _For(ForTag):
    def parse(self, stream: TokenStream) -> ForNode:
        begin = stream.current.start_index
        node = super().parse(stream)
        assert isinstance(node, ForNode)
        node.expression = _Loop.of(node.expression, abs(stream.current.start_index - begin))
        return node


class _TableRow(TablerowTag):
    def parse(self, stream: TokenStream) -> TablerowNode:
        begin = stream.current.start_index
        node = super().parse(stream)
        node.expression = _Loop.of(node.expression, abs(stream.current.start_index - begin))
        return node


def _work(value: object) -> int:
    """What it takes to go through a value once."""
    if isinstance(value, str):
        return len(value) // 32
    if isinstance(value, list | tuple):
        return len(value) // 4 + sum(len(item) for item in value if isinstance(item, str)) // 32
    if isinstance(value, range):
        return max(value.stop - value.start, 0) // 4
    return value.bit_length() // 64 if isinstance(value, int) else 0


def _looks(name: str, left: object) -> int:
    if name not in _LOOK_INSIDE or not isinstance(left, list | tuple | range):
        return 0
    count = len(left)
    return count * count // 64 if name == "uniq" else 10 * count


def _check_length(name: str, left: Any, args: Sequence[Any]) -> None:
    """The two filters that multiply, before they do."""
    length = 0
    if name == "replace" and args:
        text, old, new = str(left), str(args[0]), str(args[1]) if len(args) > 1 else ""
        length = len(text) + text.count(old) * (len(new) - len(old))
    elif name == "join" and isinstance(left, list | tuple | range):
        length = len(str(args[0] if args else " ")) * len(left)
    if length > LONGEST:
        raise OutputStreamLimitError(f"a text has at most {LONGEST} characters", token=None)


@with_context
@liquid_filter
def _date_of_decision(left: Any, fmt: Any, *, context: Any) -> Any:
    if isinstance(left, str | int):
        moment = context.resolve("now") if left in ("now", "today") else _moment(left)
        if moment is None:
            return str(left)
        left = moment
    if isinstance(left, datetime) and isinstance(fmt, str):
        # Widths are not for dates, and a wide one is a text of any length.
        if len(fmt) > _LONGEST_FORMAT or re.search(r"%[-_0^#+]*\d{3}", fmt):
            raise OutputStreamLimitError("a format of a date is short", token=None)
        # "%s" alone would ask the machine for its time zone.
        seconds = str(int(left.timestamp()))
        fmt = type(fmt)(re.sub("%(%|s)", lambda found: seconds if found[1] == "s" else found[0], fmt))
    return _date(left, fmt, environment=context.env)


def _moment(left: str | int) -> datetime | None:
    """Seconds since 1970, or an ISO 8601 text, as a time; None for any other text, which then stays as it is.

    Liquid reads more ("Monday", "10:30"), but by the clock and the time zone of the machine.
    """
    try:
        if isinstance(left, int) or left.isdigit():
            return datetime.fromtimestamp(int(left), UTC)
        moment = datetime.fromisoformat(left)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _environment(*, html: bool) -> Environment:
    env = _Sandbox(tolerance=Mode.STRICT, autoescape=html)
    for tag in _NO_FILES:
        env.tags.pop(tag, None)
    env.add_tag(_For)
    env.add_tag(_TableRow)
    env.filters.pop("safe")  # nothing a customer is called may become markup
    env.add_filter("date", _date_of_decision)
    return env


ENVIRONMENTS = {"text": _environment(html=False), "html": _environment(html=True)}
"""By the type of a field: in `html`, what is filled in is escaped."""

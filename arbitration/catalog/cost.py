"""What a rule may cost at most, worked out when it is published.

The runtime gives up after 10,000 turns of all comprehensions, but each may search texts and make long ones.
So every part of a rule gets two bounds, from what facts may be at most: how large its value is, and how many
steps lead to it. The idea is that of cel-go's checker/cost.go; sizes and prices are ours. A step is about
100 ns; prices were measured on the worst that was found (texts of 4,096 characters, lists of 256 of them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arbitration.catalog.automaton import price
from arbitration.catalog.pattern import Refused
from arbitration.catalog.syntax import Call, Constant, Fold, Literal, Name, Node, TooDeep, tree
from arbitration.facts import MAX_STRING, MAX_STRINGS, Declared
from arbitration.rules import Language, Program, RuleProblem

if TYPE_CHECKING:
    from arbitration.catalog.model import Catalog

MOST_STEPS = 1_000_000
"""Of one rule."""
MOST_STEPS_TOGETHER = 10_000_000
"""Of all rules of a catalog, each distinct one counted once."""
MOST_RULES = 10_000
"""Different ones of a catalog: each takes some 0.2 ms to compile."""
MOST_CLAUSES = 100
"""Rules of one stage of an action: every arm gets a row as long as the longest."""
MOST_ARMS, MOST_WEIGHTS = 20_000, 500
"""Treatments with their incentives, and context weights: of each with each there is a number in memory."""
_LONGEST = 2_000_000  # characters of a text on the way
# After so many turns the runtime gives up. What is meant to take far more fails for every longer list.
_MOST_TURNS, _MOST_MEANT = 10_000, 100_000

# Of rules that call nothing but these, none comes near the limit: a rule has 2,000 characters.
_CHEAP = frozenset({"bool", "double", "duration", "has", "int", "size", "string", "timestamp"})
_CALLED = re.compile(r"(\w+)\s*\(")
_SCALAR = frozenset(
    {"!_", "-_", "_!=_", "_%_", "_&&_", "_*_", "_-_", "_/_", "_<=_", "_<_", "_==_", "_>=_", "_>_", "_||_"}
    | {"@in", "@not_strictly_false", "bool", "contains", "double", "duration", "endsWith", "indexOf", "int"}
    | {"lastIndexOf", "matches", "size", "startsWith", "timestamp"}
)
_SEARCHES = frozenset({"contains", "indexOf", "lastIndexOf", "replace", "split"})


@dataclass(frozen=True, slots=True)
class Size:
    """At most: characters of a text, or items of a list or map and the size of each; 1 of anything else."""

    length: float = 1.0
    item: Size | None = None

    @property
    def all(self) -> float:
        """With all that is in it."""
        return self.length * (1.0 if self.item is None else 1.0 + self.item.all)


class _TooMuch(Exception):
    def __init__(
        self,
        at: int,
        message: str = "may take too long: too many turns, too long a text, or too large a pattern",
    ) -> None:
        self.at, self.message = at, message


class Compiling:
    """Compiles the rules of one catalog, each distinct one once, and adds up what they cost. `full`: there
    are too many, and no more are compiled."""

    def __init__(self, language: Language, declared: Mapping[str, Declared]) -> None:
        self._language = language
        self._sizes = sizes(declared)
        self._known: dict[tuple[str, str], Program | list[RuleProblem]] = {}
        self._steps = 0.0
        self.full = False

    def compile(self, text: str, wanted: Any) -> Program | list[RuleProblem]:
        """A program, or what is wrong: that it does not compile, or costs too much."""
        if (text, wanted) not in self._known:
            if len(self._known) >= MOST_RULES:
                self.full = True
                return [RuleProblem(f"a catalog has at most {MOST_RULES} different rules")]
            self._known[text, wanted] = self._compile(text, wanted)
        return self._known[text, wanted]

    def _compile(self, text: str, wanted: Any) -> Program | list[RuleProblem]:
        compiled = self._language.compile(text, wanted)
        if isinstance(compiled, list):
            return compiled
        if self._steps <= MOST_STEPS_TOGETHER:
            found = steps(compiled, self._sizes)
            if isinstance(found, RuleProblem):
                return [found]
            self._steps += found
        if self._steps > MOST_STEPS_TOGETHER:
            return [RuleProblem("takes too long together with the rules before it")]
        return compiled


def too_many(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Sections with more than can be held, and what is wrong with them."""
    arms = sum(max(len(each.incentives), 1) for action in catalog.actions for each in action.treatments)
    if arms > MOST_ARMS:
        yield "actions", f"a catalog has at most {MOST_ARMS} treatments, each incentive counted as one"
    if len(catalog.context_weights) > MOST_WEIGHTS:
        yield "context_weights", f"a catalog has at most {MOST_WEIGHTS}"


def sizes(declared: Mapping[str, Declared]) -> dict[str, Size]:
    """How large each fact may be."""
    found = {}
    for name, fact in declared.items():
        if fact.type in ("string", "strings"):
            text = Size(MAX_STRING if fact.values is None else max(map(len, fact.values), default=0))
            found[name] = Size(MAX_STRINGS, text) if fact.type == "strings" else text
        else:
            found[name] = Size()
    return found


def steps(program: Program, facts: Mapping[str, Size]) -> float | RuleProblem:
    """How many steps a rule takes at most, or where it becomes too many; `facts`: by `sizes`."""
    if _CHEAP.issuperset(_CALLED.findall(program.text)):
        return len(program.text) / 4
    counting = _Counting(facts)
    try:
        return counting.cost(tree(program.expression.serialize()), {})[0]
    except TooDeep:
        return RuleProblem("is nested too deeply")
    except _TooMuch as found:
        before = program.text[: found.at]
        return RuleProblem(found.message, before.count("\n") + 1, found.at - (before.rfind("\n") + 1) + 1)


class _Counting:
    def __init__(self, facts: Mapping[str, Size]) -> None:
        self._facts = facts
        self._turns = self._meant = 1.0  # of all comprehensions around: made, and written down

    def cost(self, node: Node, variables: Mapping[str, Size]) -> tuple[float, Size]:
        """Steps and size of a part. Raises _TooMuch with the smallest part that takes too many."""
        match node:
            case Constant(text=text):
                return 0.0, Size() if text is None else Size(len(text))
            case Name(name=name):
                unknown = Size(MAX_STRINGS, Size(MAX_STRING))
                size = variables.get(name) or self._facts.get(name)
                return 1.0, size or (Size() if name == "now" or name.startswith("has.") else unknown)
            case Literal(items=items):
                parts = [self.cost(item, variables) for item in items]
                total, size = 1.0 + sum(part[0] for part in parts), Size(len(items), _largest(parts))
            case Fold():
                total, size = self._fold(node, variables)
            case Call():
                total, size = self._call(node, variables)
        if total > MOST_STEPS or size.all > _LONGEST * MAX_STRINGS or _text(size) > _LONGEST:
            raise _TooMuch(node.at)
        return total, size

    def _fold(self, node: Fold, variables: Mapping[str, Size]) -> tuple[float, Size]:
        before, over = self.cost(node.over, variables)
        around, meant = self._turns, self._meant * over.length
        if meant > _MOST_MEANT:
            raise _TooMuch(node.at)
        turns = min(over.length, max(_MOST_TURNS / around, 1.0))
        self._turns, self._meant = around * turns, meant
        begun, begin = self.cost(node.begin, variables)
        within = {**variables, node.variable: over.item or Size(), node.result: begin}
        step, grown = self.cost(node.step, within)
        looked, _ = self.cost(node.goes_on, within)
        self._turns, self._meant = around, meant / max(over.length, 1.0)
        # Either a truth, a number, or a list that each turn may add to.
        size = Size(over.length * grown.length, grown.item) if grown.item is not None else begin
        after, outcome = self.cost(node.outcome, {**variables, node.result: size})
        return before + begun + turns * (1.0 + step + looked) + after, outcome

    def _call(self, node: Call, variables: Mapping[str, Size]) -> tuple[float, Size]:
        parts = [self.cost(given, variables) for given in node.given]
        given = [size for _, size in parts]
        first = given[0] if given else Size()
        total = 1.0 + sum(cost for cost, _ in parts)
        name = node.function
        if name in ("", "_[_]"):
            return total, first.item or first
        if name == "_?_:_":
            return total, _wider(given[1], given[2])
        if name == "matches":
            pattern = node.given[1]
            if not isinstance(pattern, Constant) or pattern.text is None:
                raise _TooMuch(node.at)
            try:
                return total + price(pattern.text, first.length), Size()
            except Refused as refused:
                raise _TooMuch(pattern.at, refused.message) from None
        if name in _SEARCHES:
            total += first.length * given[1].length / 10_000
        if name == "@in":
            among = given[1]
            text = min(first.length, (among.item or Size()).length)
            return total + among.length * (1.0 + text / 100), Size()
        if name in _SCALAR:
            return total + min(size.all for size in given) / 100, Size()
        if name == "split":
            return total + first.length, Size(first.length + 1.0, first)
        size = _made(name, given)
        return total + size.all / (100 if name == "_+_" else 10), size


def _made(name: str, given: list[Size]) -> Size:
    """The size of a text or list that is made of others."""
    first = given[0] if given else Size()
    if name == "_+_":
        lists = [size.item for size in given if size.item is not None]
        length = sum(size.length for size in given)
        return Size(length, _wider(lists[0], lists[-1]) if lists else None)
    if name == "replace":
        return Size((first.length + 1.0) * max(given[2].length, 1.0))
    if name == "join":
        separator = given[1].length if len(given) > 1 else 0.0
        return Size(first.length * ((first.item or Size()).length + separator))
    if name == "format":  # of a number it may make some 400 characters
        return Size(250.0 * first.length + given[1].all)
    return Size(64.0 + sum(size.all for size in given))


def _text(size: Size) -> float:
    return size.length if size.item is None else _text(size.item)


def _largest(parts: list[tuple[float, Size]]) -> Size:
    size = Size(0.0)
    for _, each in parts:
        size = _wider(size, each)
    return size


def _wider(one: Size, other: Size) -> Size:
    length = max(one.length, other.length)
    if one.item is None or other.item is None:
        return Size(length, one.item or other.item)
    return Size(length, _wider(one.item, other.item))

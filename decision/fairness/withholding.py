"""What a report does not tell, so that what it may not tell cannot be worked out from the rest of it.

Figures add up: over levels, to what every other attribute adds up to; and acceptance over actions, to that of
their group, and over groups, to that of everything. Where one of a sum is not told, more of it are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count

from decision.fairness.levels import FEWEST
from decision.storage.fairness import Line

Sum = tuple[Line, tuple[Line, ...]]
"""A line, and those that add up to it."""


def pooled(customers: Mapping[str | None, int]) -> frozenset[str | None]:
    """The levels to be put together: those with fewer than FEWEST customers, and as many of the next smallest
    as make it FEWEST together."""
    found: set[str | None] = set()
    total = 0
    for level in sorted(customers, key=lambda each: (customers[each], each or "")):
        if customers[level] >= FEWEST and (not found or total >= FEWEST):
            break
        found.add(level)
        total += customers[level]
    return frozenset(found)


def sums(lines: Collection[Line], groups: Mapping[str, Collection[str]]) -> list[Sum]:
    """What adds up. `groups`: of each action, those it was in."""
    overall = [line for line in lines if line[0] == "overall"]
    inner = tuple(line for line in lines if line[0] == "group")
    leaves = tuple(line for line in lines if line[0] == "action")
    found = [(line, inner) for line in overall]
    if any(len(groups[name]) > 1 for _, name in leaves):  # then groups are no sums of actions
        return found + [(line, leaves) for line in overall]
    return found + [(line, tuple(each for each in leaves if line[1] in groups[each[1]])) for line in inner]


def withheld(
    counts: Mapping[Line, Sequence[int]], sums: Sequence[Sum], start: Collection[Line] = ()
) -> dict[Line, int]:
    """How many levels of each line are not told, from the first on, so that none with fewer than FEWEST
    customers follows from the others by adding and subtracting. `counts`: customers of each level, smallest
    level first; `start`: lines of which no level is told.

    As those not told are the first ones, any of them can be larger by what the first (or the second) is
    smaller by, along lines that add up, and nothing that is told changes.
    """
    first = {line: len(of) if line in start else _needed(of) for line, of in counts.items()}
    changed = True
    while changed:
        changed = False
        for place in range(max((len(of) for of in counts.values()), default=0)):
            for parent, children in sums:
                more = _more(
                    parent,
                    children,
                    {line: of[place] for line, of in counts.items()},
                    {line for line in counts if first[line] > place},
                )
                if more is not None:
                    first[more] = max(place + 1, min(2, len(counts[more])))
                    changed = True
    return first


def _needed(of: Sequence[int]) -> int:
    """How many levels of a line: all that are small, a large one with them, and two at least."""
    last = max((place for place, number in enumerate(of) if 0 < number < FEWEST), default=None)
    if last is None:
        return 0
    return next(
        end
        for end in count(last + 1)
        if end >= len(of) or (max(of[:end]) >= FEWEST and sum(number > 0 for number in of[:end]) >= 2)
    )


def _more(
    parent: Line, children: Sequence[Line], customers: Mapping[Line, int], hidden: Collection[Line]
) -> Line | None:
    """A line that must not be told either, of one level, or None."""
    some = [line for line in children if customers[line] > 0]
    unknown = [line for line in some if line in hidden]
    told = sorted((line for line in some if line not in hidden), key=lambda line: (customers[line], line))
    if parent in hidden:
        return told[0] if told and not unknown else None
    if not unknown or (len(unknown) > 1 and (not told or max(customers[each] for each in unknown) >= FEWEST)):
        return None
    return told[0] if told else parent

"""That nothing of few customers follows from what a report tells, by any adding and subtracting."""

from __future__ import annotations

import numpy as np
import pytest

from decision.fairness.levels import FEWEST
from decision.fairness.withholding import pooled, sums, withheld
from decision.storage.fairness import Line

OVERALL: Line = ("overall", "")
GROUPS = {"a": {"g"}, "b": {"g"}, "c": {"g"}, "d": {"h"}, "e": {"h"}, "f": {"i"}}
LEVELS = (4, 3)  # of two attributes


def test_small_levels_are_put_together_until_they_are_enough() -> None:
    assert pooled({"f": 200, "m": 208}) == frozenset()
    assert pooled({"f": 200, "m": 208, "other": 12}) == {"other", "f"}
    assert pooled({"f": 200, "x": 20, "other": 12}) == {"other", "x"}
    assert pooled({"f": 20, None: 5}) == {"f", None}


@pytest.mark.parametrize("moved", [False, True])
def test_nothing_of_few_customers_can_be_worked_out(moved: bool) -> None:
    groups = GROUPS | ({"f": {"h", "i"}} if moved else {})
    actions, inner = [("action", each) for each in groups], [("group", each) for each in "ghi"]
    lines = [OVERALL, *inner, *actions]
    adding = sums(lines, groups)
    rng = np.random.default_rng(7)
    small, told = 0, 0
    for _ in range(150):
        cells: dict[tuple[int, Line], list[int]] = {}
        both = {
            each: rng.choice([0, 2, 9, 50, 200], size=LEVELS, p=[0.4, 0.2, 0.1, 0.1, 0.2]) for each in actions
        }
        both |= {each: sum(both[a] for a in actions if each[1] in GROUPS[a[1]]) for each in inner}
        both[OVERALL] = sum(both[each] for each in inner)
        for line, of in both.items():
            cells[0, line], cells[1, line] = of.sum(axis=1).tolist(), of.sum(axis=0).tolist()
        alone = withheld({line: [int(both[line].sum())] for line in lines}, adding)
        start = [line for line in lines if alone[line]]
        hidden = set()
        for number, count in enumerate(LEVELS):
            cut = withheld({line: cells[number, line] for line in lines}, adding, start)
            hidden |= {(number, line, place) for line in lines for place in range(cut[line])}
            told += sum(count - each for each in cut.values())
        few = {
            (*key, place) for key, of in cells.items() for place, value in enumerate(of) if 0 < value < FEWEST
        }
        assert few <= hidden
        small += len(few)
        # The sums that hold, over what is not told: what they leave free is not known to anybody.
        unknown = {each: place for place, each in enumerate(sorted(hidden))}
        rows = []
        for number, count in enumerate(LEVELS):
            for place in range(count):
                for parent, children in adding:
                    rows.append({(number, parent, place): -1.0} | {(number, c, place): 1.0 for c in children})
        for line in lines:
            over = [{(n, line, p): 1.0 - 2.0 * n for p in range(count)} for n, count in enumerate(LEVELS)]
            rows.append(over[0] | over[1])
        matrix = np.zeros((len(rows), len(unknown)))
        for at, row in enumerate(rows):
            for cell, weight in row.items():
                if cell in unknown:
                    matrix[at, unknown[cell]] = weight
        _, values, right = np.linalg.svd(matrix)
        free = right[(values > 1e-9).sum() :]
        assert all(np.abs(free[:, unknown[cell]]).max(initial=0.0) > 1e-9 for cell in few)
    assert small > 300
    assert told > 1000

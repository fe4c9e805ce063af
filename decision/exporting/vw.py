"""Vowpal Wabbit's dsjson: a line for each pick whose outcome is known, with all arms of its draw.

The fields are those that the parser of Vowpal Wabbit 9 reads (`parse_example_json.cc`): `_labelIndex` counts
from 0, `_label_Action` and `a` from 1; `a` begins with the arm shown, and `p` goes with it. The cost is minus
the reward. Namespaces begin with letters of their own, since interactions name them by these: `x`, the
features; `slot`; and `arm`, for each arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import orjson

from arbitration.facts import rfc3339
from decision.exporting.rows import Arm, Item, Row


class Dsjson:
    """Writes lines to `stream`; `features` names the columns of x."""

    def __init__(self, stream: BinaryIO, features: Sequence[str]) -> None:
        self._stream = stream
        # What begins with an underscore is a word of the parser's.
        self._features = [f"x{name}" if name.startswith("_") else name for name in features]

    def write(self, row: Row) -> bool:
        """Takes a pick with an outcome of a customer who may be profiled."""
        item = row.item
        if item is None or item.reward is None or row.x is None:
            return False
        x = {name: value for name, value in zip(self._features, row.x.tolist(), strict=True) if value}
        self._stream.write(orjson.dumps(_event(row, item, item.reward, x), option=orjson.OPT_APPEND_NEWLINE))
        return True

    def finish(self) -> None:
        """Nothing is left to be written."""
        self._stream.flush()


def _event(row: Row, item: Item, reward: float, x: dict[str, float]) -> dict[str, Any]:
    shown = item.arms.index(item.arm)
    order = [shown, *(number for number in range(len(item.arms)) if number != shown)]
    return {
        "_label_cost": 0.0 - reward,  # not minus zero
        "_label_probability": item.selection_probability,
        "_label_Action": shown + 1,
        "_labelIndex": shown,
        "Timestamp": rfc3339(row.decided_at),
        "Version": "1",
        "EventId": f"{row.decision_id}/{item.draw}",
        "a": [number + 1 for number in order],
        "p": [item.arms[number].probability for number in order],
        "c": {
            # Not the placement: where the channel was chosen it would give away where the draw fell.
            "slot": {"rank": str(item.rank)},
            "x": x,
            "_multi": [{"arm": _arm(arm)} for arm in item.arms],
        },
        "VWState": {"m": row.snapshot or "N/A"},
    }


def _arm(arm: Arm) -> dict[str, str]:
    return {
        "treatment": arm.treatment,
        "action": arm.action,
        "group": arm.group,
        "placement": arm.placement,
    }

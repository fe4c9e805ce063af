"""What the log says of another procedure: rows for `arbitration.evaluation`, gathered decision by decision.

A decision is worth the sum over its slots. With cumulative probabilities (`arbitration.following`) the sum
over slots of weight × reward estimates it without bias, and so does the doubly robust form with, for slot k,

    w(k-1) · E_target[q + F] + w(k) · (reward - q - F),

where q is what the log's own policy believed then of each arm (it had not seen the reward), and F, what the
slots after it may bring, as if each were like this one: with the weights' mean of 1 both cancel on average
(Jiang & Li, ICML 2016, "Doubly robust off-policy value evaluation for reinforcement learning"; F stands for
their value of what follows, as any function of the picks above may).

So that the mean over rows, times rows a decision, is the mean over decisions, all decisions have equally many
rows. Those that make up the number have no reward and the weight of the picks made. Where the other
procedure leaves a slot empty it surely earns nothing there: a row of weight 0, and one without reward and of
twice the weight, which keep the mean weight at 1, as nothing is unknown. Where it would fill one that the log
left empty, nothing makes up for it: there the log does not know.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from arbitration.decide import Slate
from arbitration.evaluation import Estimate, Estimator, difference, estimate
from arbitration.following import Chances, Followed, Pick

Floats = npt.NDArray[np.float64]
Arm = tuple[str, str]
"""(placement, treatment)."""

METRICS = ("reward", "value", "money")
"""What is earned: the reward of the outcomes; that times the value of the action; the money reported."""


@dataclass(frozen=True, slots=True)
class Earned:
    """What one shown item came to, by metric."""

    reward: float = 0.0
    value: float = 0.0
    money: float = 0.0


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of an arm before its outcome is known. `value`: what a reward of 1 is worth."""

    group: str
    reward: float
    value: float


def beliefs(slates: Sequence[Slate]) -> dict[Arm, Belief]:
    """What the policies that decided believed of every arm of their placements."""
    found: dict[Arm, Belief] = {}
    for slate in slates:
        scale = slate.policy.value_scale
        mean = np.nan_to_num(np.clip(slate.mean, 0.0, 1.0))
        worth = np.nan_to_num(slate.screening.value)
        value = mean * (worth if scale is None else scale)
        reward = mean if scale is None else np.zeros(len(mean))
        numbers = zip(slate.candidates.arms, reward.tolist(), value.tolist(), strict=True)
        for arm, of_reward, of_value in numbers:
            name = slate.candidates.placement.id, arm.treatment.id
            found[name] = Belief(arm.group.id, of_reward, of_value)
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric per decision: as logged, for the target, and the difference. `scale`: rows per decision, by
    which the figures of the three are to be multiplied."""

    today: Estimate
    target: Estimate
    difference: Estimate
    scale: float


class Evidence:
    """The rows of one target. It takes some 50 bytes a slot, and 60 more for each group in play there."""

    def __init__(self) -> None:
        # Of each row: probabilities of logging and target; the group shown (-1: none); what it earned.
        self._rows = array("d")
        # Of each group in play in a row: row, group; of reward and value the prediction for what was shown,
        # and its mean under target and log.
        self._cells = array("d")
        # Of each decision: how many rows, customer, class; probabilities of logging and target of all picks.
        self._decisions = array("d")
        self._count = 0
        self._customers: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._unknown: dict[int, list[float]] = {}  # by class: all draws, and what is unsupported of them
        # Of each arm that would have a great weight if it were picked: class, the weight of the picks above,
        # that weight, how likely it is.
        self._heavy = array("d")

    @property
    def decisions(self) -> int:
        """How many were added."""
        return len(self._decisions) // _PER_DECISION

    @property
    def customers(self) -> int:
        """How many customers they are of."""
        return len(self._customers)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of decisions there are."""
        return tuple(sorted(self._classes))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of which anything was shown, or would be."""
        return tuple(sorted(self._groups))

    def add(
        self,
        customer: str,
        kind: str,
        slots: int,
        picks: Sequence[Pick],
        earned: Sequence[Earned],
        followed: Followed,
        believed: Mapping[Arm, Belief],
    ) -> None:
        """One decision. `kind`: the class it is reported in (its channel); `slots`: how many were asked for;
        `earned`: of each pick."""
        start = self._count
        number = self._classes.setdefault(kind, len(self._classes))
        unknown = self._unknown.setdefault(number, [0.0, 0.0])
        logging = target = 1.0  # of the picks so far
        lost = False
        for rank, (pick, brought, chances) in enumerate(zip(picks, earned, followed.chances, strict=True)):
            own = believed[pick.placement, pick.treatment]
            expected = _mean(pick.chances, believed)
            if chances is None:
                self._row(float(followed.logging[rank]), 0.0, own.group, brought)
                self._predict(own, {}, expected, 0.0, 0)
                if not lost:
                    self._row(logging / 2, target, None, _EARNED_NOTHING)
                continue
            before = target / logging
            logging, target = float(followed.logging[rank]), min(float(followed.target[rank]), 1.0)
            lost = lost or target == 0
            self._row(logging, target, own.group, brought)
            self._predict(own, _mean(chances, believed), expected, before, slots - rank - 1)
            unknown[0] += before
            unknown[1] += before * (1 - float(followed.supported[rank]))
            for name, chance in chances.items():
                logged = pick.chances.get(name)
                if logged and before * chance > _HEAVY * logged:
                    self._heavy.extend((number, before, before * chance / logged, before * chance))
        for chances in followed.more:
            before = target / logging
            self._row(logging, 0.0, None, _EARNED_NOTHING)
            self._predict(None, _mean(chances, believed), {}, before, 0)
            unknown[0] += before
            unknown[1] += before
        who = self._customers.setdefault(customer, len(self._customers))
        self._decisions.extend((self._count - start, who, number, logging, target))

    def _row(self, logging: float, target: float, group: str | None, earned: Earned) -> None:
        number = -1 if group is None else self._groups.setdefault(group, len(self._groups))
        self._rows.extend((logging, target, number, earned.reward, earned.value, earned.money))
        self._count += 1

    def _predict(
        self,
        own: Belief | None,
        target: Mapping[str, list[float]],
        logged: Mapping[str, list[float]],
        before: float,
        after: int,
    ) -> None:
        """What is believed of the last row, by group; `before`: the weight of the picks above, `after`: how
        many slots come after it."""
        for group in {**target, **logged}:
            reward, value = target.get(group, _NOTHING)
            was_reward, was_value = logged.get(group, _NOTHING)
            mine = own is not None and own.group == group
            self._cells.extend(
                (
                    self._count - 1,
                    self._groups.setdefault(group, len(self._groups)),
                    (own.reward if mine and own else 0.0) + reward * after,
                    before * (reward + reward * after),
                    was_reward + reward * after,
                    (own.value if mine and own else 0.0) + value * after,
                    before * (value + value * after),
                    was_value + value * after,
                )
            )

    def compared(
        self,
        metric: str,
        estimator: Estimator,
        confidence: float,
        *,
        group: str | None = None,
        kind: str | None = None,
    ) -> Compared:
        """Today against the target, of all decisions or of one class, of all groups or one. Units are
        customers. There must be such decisions."""
        frame = self._frame(kind)
        earned, predicted, target, logged = (frame.spread(part) for part in self._columns(metric, group))
        unsupported = self._unsupported(frame)
        of = partial(estimate, earned, frame.logging, estimator=estimator, predicted_reward=predicted)
        return Compared(
            of(
                frame.logging,
                predicted_reward_target=logged,
                confidence=confidence,
                clusters=frame.customer,
            ),
            of(
                frame.target,
                predicted_reward_target=target,
                confidence=confidence,
                clusters=frame.customer,
                unsupported=unsupported,
            ),
            difference(
                earned,
                frame.logging,
                frame.target,
                frame.logging,
                estimator=estimator,
                predicted_reward=predicted,
                predicted_reward_target=target,
                predicted_reward_baseline=logged,
                confidence=confidence,
                clusters=frame.customer,
                unsupported=unsupported,
            ),
            frame.width,
        )

    def _unsupported(self, frame: _Frame) -> float:
        """The share of the target's picks that the log could not show, or is too short to: one that would
        have more than a fiftieth of all weight, had it been made, is as good as none."""
        draws, unsupported = np.sum([of for n, of in self._unknown.items() if n in frame.classes], axis=0)
        of, before, weight, chance = _table(self._heavy, _PER_HEAVY).T
        most = max(_HEAVY, _LARGEST_SHARE * frame.count)
        # What follows on such a pick was counted with it.
        beyond = np.isin(of, list(frame.classes)) & (before <= most) & (weight > most)
        return float((unsupported + chance[beyond].sum()) / draws) if draws > 0 else 0.0

    def _columns(self, metric: str, group: str | None) -> list[Floats]:
        """(earned, predicted of the logged arm, its mean under the target and under the log), a row each, of
        all groups or of one."""
        rows = _table(self._rows, _PER_ROW)
        cells = _table(self._cells, _PER_CELL)
        earned = rows[:, 3 + METRICS.index(metric)]
        if group is not None:
            number = self._groups[group]
            earned = np.where(rows[:, 2] == number, earned, 0.0)
            cells = cells[cells[:, 1] == number]
        row = cells[:, 0].astype(np.intp)
        first = 2 if metric == "reward" else 5
        sums = [np.bincount(row, cells[:, first + part], len(rows)) for part in range(3)]
        return [np.ascontiguousarray(earned), *(part.astype(np.float64) for part in sums)]

    def _frame(self, kind: str | None) -> _Frame:
        count, customer, of, logging, target = _table(self._decisions, _PER_DECISION).T
        chosen = np.ones(len(of), dtype=np.bool_) if kind is None else of == self._classes[kind]
        rows = count.astype(np.intp)
        width = max(int(rows[chosen].max()), 1)
        row_chosen = np.repeat(chosen, rows)
        decision = np.repeat(np.cumsum(chosen) - 1, rows)[row_chosen]
        within = (np.arange(len(row_chosen)) - np.repeat(np.cumsum(rows) - rows, rows))[row_chosen]
        frame = _Frame(
            int(chosen.sum()),
            width,
            row_chosen,
            within + decision * width,
            np.repeat(customer[chosen].astype(np.int64), width),
            frozenset(of[chosen].astype(int).tolist()),
        )
        written = _table(self._rows, _PER_ROW)
        frame.logging = frame.spread(written[:, 0], np.repeat(logging[chosen], width))
        frame.target = frame.spread(written[:, 1], np.repeat(target[chosen], width))
        return frame


_PER_ROW, _PER_CELL, _PER_DECISION, _PER_HEAVY = 6, 8, 5, 4
_HEAVY = 5.0  # a weight that any log can bear
_LARGEST_SHARE = 0.02  # of all weight
_NOTHING = (0.0, 0.0)
_EARNED_NOTHING = Earned()


def _table(numbers: array[float], columns: int) -> Floats:
    return np.array(numbers).reshape(-1, columns)


@dataclass(slots=True)
class _Frame:
    """Decisions with equally many rows: where each written row goes among them."""

    count: int
    width: int
    chosen: npt.NDArray[np.bool_]
    place: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int64]
    classes: frozenset[int]
    logging: Floats = field(default_factory=lambda: np.zeros(0))
    target: Floats = field(default_factory=lambda: np.zeros(0))

    def spread(self, column: Floats, fill: Floats | None = None) -> Floats:
        """A column of all rows as one of equally many a decision."""
        wide = np.zeros(self.count * self.width) if fill is None else fill.copy()
        wide[self.place] = column[self.chosen]
        return wide


def _mean(chances: Chances, believed: Mapping[Arm, Belief]) -> dict[str, list[float]]:
    """Expected reward and value of a draw, by group. An arm of which nothing was believed brings nothing."""
    found: dict[str, list[float]] = {}
    for name, chance in chances.items():
        belief = believed.get(name)
        if belief is not None:
            sums = found.setdefault(belief.group, [0.0, 0.0])
            sums[0] += chance * belief.reward
            sums[1] += chance * belief.value
    return found

"""Control groups: who is in one, what it does to a slot's probabilities, and whether it has the right size.

For customers in a control group, a part of the machine is off, so that what this part brings can be measured.
`no_action` has nothing here: it removes the arms before any probability is computed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from arbitration.catalog.learning import Policy
from arbitration.catalog.limits import Behaviour, ControlGroup
from arbitration.catalog.scalars import moment
from arbitration.policy.strategies import selection_probabilities

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REDISTRIBUTING: frozenset[Behaviour] = frozenset({"random_eligible", "propensity_only", "random_propensity"})
"""The behaviours that share out anew what the covered arms have together."""

_LARGE = 1000.0  # a variance with which a sum of independent draws is as good as Normal


def membership(control: ControlGroup, customer_key: str) -> bool:
    """Whether a customer belongs to the group: always the same answer for the same salt, share and customer.

    Membership says a uniform number, a hash of the salt (of the id, where none is given) and the customer,
    lies below the share. So raising the share only adds members, and of groups that share a salt the smaller
    lies within the greater; all others are independent.
    """
    seed = control.id if control.salt is None else control.salt
    return _hashed(b"control", seed, customer_key) < control.share


def challenger(champion: Policy, customer_key: str) -> str | None:
    """The challenger that decides for a customer in its champion's place, or None: always the same for the
    same shares. Who is in a control group is independent of it."""
    number = _hashed(b"challenge", champion.id, customer_key)
    for each in champion.challengers:
        if each.share is not None:
            number -= each.share
            if number < 0:
                return each.policy
    return None


def _hashed(purpose: bytes, seed: str, customer_key: str) -> float:
    """A number that is as good as uniform in [0, 1) over seeds and customers."""
    # The length first, or ("a/b", "c") and ("a", "b/c") would be one.
    text = f"{len(seed)}/{seed}/{customer_key}"
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def in_window(control: ControlGroup, now: datetime) -> bool:
    """Whether `now`, with a time zone, lies within `valid`: its begin belongs to it, its end does not."""
    begin, end = control.valid.from_, control.valid.to
    if begin is not None and now < moment(begin):
        return False
    return end is None or now < moment(end, end_of_day=True)


def redistributed(
    policy: Policy, mean: Floats, sd: Floats, weight: Floats, controls: Sequence[tuple[Behaviour, Flags]]
) -> Floats:
    """The strategy's probabilities, shared out anew for each control group in turn that the customer is in.

    mean, sd: posterior of the reward; weight: context weight × value × lever, ≥ 0; all float64 (n,), n ≥ 1.
    controls: a behaviour of `REDISTRIBUTING` and the arms covered,
    bool (n,), which may be none. Returns float64 (n,), each ≥ 0, summing to 1. ValueError for any other
    behaviour.

    The covered arms together keep the probability they have together, and the behaviour shares it out among
    them: so a control group on some actions changes how these rank among themselves, not how often one of
    them shows, and what is not covered keeps its probability. `random_eligible`: evenly. `propensity_only`:
    as the strategy would among them alone, all weights being 1. `random_propensity`: to each its chance that
    its weight × an independent uniform random number is the greatest; so an arm without weight gets
    nothing, whatever the policy's floor (unless none has any: then all alike).
    """
    chosen: Floats | None = None
    for behaviour, covered in controls:
        if not covered.any():
            continue
        shared = _shared(behaviour, policy, mean[covered], sd[covered], weight[covered])
        if covered.all():  # nothing of what was before is left: the strategy need not run
            chosen = shared
            continue
        if chosen is None:
            chosen = selection_probabilities(policy, mean, sd, weight)
        chosen[covered] = chosen[covered].sum() * shared
        chosen /= chosen.sum()
    return selection_probabilities(policy, mean, sd, weight) if chosen is None else chosen


def _shared(behaviour: Behaviour, policy: Policy, mean: Floats, sd: Floats, weight: Floats) -> Floats:
    """What each covered arm gets of the probability they have together; arrays of these arms alone."""
    match behaviour:
        case "random_eligible":
            return np.full(len(mean), 1 / len(mean))
        case "propensity_only":
            return selection_probabilities(policy, mean, sd, np.ones(len(mean)))
        case "random_propensity":
            return _greatest_of_uniforms(weight)
    raise ValueError(f"{behaviour} shares nothing out")


def _greatest_of_uniforms(weight: Floats) -> Floats:
    """P(X_i is the greatest), X_i independent and uniform on [0, weight_i]. float64 (n,), n ≥ 1, to the same.

    The greatest lies below x with probability G(x) = Π_j min(1, x / w_j) (order statistics of independent
    uniforms). Between two neighbours lo < hi of the sorted weights only the m arms of weights ≥ hi can be
    the greatest, and as all are uniform there, each alike: with (G(hi) - G(lo)) / m. An arm's probability is
    the sum over the segments below its weight. With steps s = m · log(hi / lo), log G at a weight is minus
    the sum of the steps above it, and G(hi) - G(lo) = G(hi) · (1 - exp(-s)): nothing overflows or cancels,
    and of equal weights the segment between them is empty.
    """
    order = np.argsort(weight, kind="stable")
    order = order[weight[order] > 0]
    if order.size == 0:
        return np.full(len(weight), 1 / len(weight))
    ascending = weight[order]
    able = np.arange(len(order), 0, -1)
    step = np.full(len(order), np.inf)  # from 0 to the least weight
    with np.errstate(over="ignore"):  # a ratio beyond the floats: the lesser has no chance
        step[1:] = able[1:] * np.log1p(np.diff(ascending) / ascending[:-1])
    above = np.append(np.cumsum(step[:0:-1])[::-1], 0.0)
    segment = np.exp(-above) * -np.expm1(-step) / able
    chances = np.zeros(len(weight))
    chances[order] = np.cumsum(segment)
    chances /= chances.sum()
    return chances


def sample_ratio(assigned: int, members: int, expected: float, variance: float) -> float:
    """Two-sided p-value that a control group has the size it should have (test of sample ratio mismatch).

    assigned: the customers of whom it was recorded whether they are in, and `members` (0 to assigned) how
    many are; expected, variance: Σ s and Σ s·(1 - s) over the shares s recorded with them. Returns twice the
    lesser tail, at most 1; without variance 1 or 0, as members are expected or not.

    With equal shares it is the exact binomial test at any size. With unequal ones, where the variance is
    1,000 or more, the normal approximation with continuity correction (the skewness being at most 1/σ, it
    is then within a fifth at p = 0.001). Below, the binomial test with the mean share: by Hoeffding (1956,
    "On the distribution of the number of successes in independent trials", theorem 5) its tails beyond the
    counts next to the expected one are the widest possible, so it errs to the side of no alarm.
    """
    if variance <= 0:
        return 1.0 if math.isclose(members, expected, rel_tol=1e-9, abs_tol=1e-9) else 0.0
    share = expected / assigned
    equal = math.isclose(variance, expected * (1 - share), rel_tol=1e-9)
    if equal or variance < _LARGE:
        return min(
            1.0,
            2 * min(_at_least(assigned, members, share), _at_least(assigned, assigned - members, 1 - share)),
        )
    off = max(0.0, abs(members - expected) - 0.5)
    return math.erfc(off / math.sqrt(2 * variance))


def _at_least(count: int, successes: int, share: float) -> float:
    """P(a binomial number ≥ successes), by the incomplete beta function (DLMF 8.17.5)."""
    return 1.0 if successes <= 0 else float(betainc(successes, count - successes + 1, share))

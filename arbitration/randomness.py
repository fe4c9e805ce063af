"""The only randomness of a decision: a counter-based generator keyed by the decision id.

Uniform number k of a decision is a hash of (decision id, k), so it depends on nothing else: not on
the order of evaluation, the process, the machine or a library's stream (cf. Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib


def uniform(decision_id: str, counter: int) -> float:
    """Uniform number `counter` of this decision, in [0, 1), with 53 random bits."""
    digest = hashlib.blake2b(f"{decision_id}/{counter}".encode(), digest_size=8, person=b"draw").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53

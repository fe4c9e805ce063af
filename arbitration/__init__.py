"""Decides: eligibility, arbitration and exploration as pure functions.

No I/O, no clock, no global randomness, and no import of `decision`. The heart is
`decide(inputs, catalog, snapshots)`; `explain` reads the reasons off its result.
"""

from arbitration.catalog.compile import CompiledCatalog, compile_catalog, compile_document
from arbitration.decide import Decision, decide
from arbitration.explain import explain
from arbitration.inputs import Inputs
from arbitration.snapshot import PRIOR, Snapshot, Snapshots, serve

__all__ = [
    "PRIOR",
    "CompiledCatalog",
    "Decision",
    "Inputs",
    "Snapshot",
    "Snapshots",
    "compile_catalog",
    "compile_document",
    "decide",
    "explain",
    "serve",
]

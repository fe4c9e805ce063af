"""The same rules by three engines: the reference CEL runtime, a decision table of zen-engine, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import zen
from cel_expr_python import cel

from arbitration.rules import Case
from benchmarks.speed.authoring import PLACEMENT
from benchmarks.speed.clauses import Clause
from benchmarks.speed.population import FACTS, NOW, Customer, customers
from benchmarks.speed.report import Progress, Section, Table, Target, figure
from benchmarks.speed.timing import by_turns
from benchmarks.speed.workload import World, world

Rows = Sequence[tuple[Clause, ...]]
Find = Callable[[Customer], list[int]]
"""The numbers of the actions whose rules all hold for a customer, ascending."""

CEL, ONCE = "CEL runtime, clause by clause", "CEL runtime, each distinct clause once"
CELLS, WHOLE = "zen-engine, a column per fact", "zen-engine, a column per clause"
OURS = "ours"
_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
}


def run(smoke: bool, progress: Progress) -> Section:
    """All of them find the same actions for each customer, or there is no section."""
    sizes = (20, 40) if smoke else (100, 1_000)
    rounds, people = (3, 20) if smoke else (200, 500)
    everyone = customers(people)
    rows, targets = [], []
    for actions in sizes:
        made = world(actions, "young", "columns")
        engines = {name: make(made) for name, make in _ENGINES.items()}
        _check(engines, everyone)
        calls = {
            name: lambda number, find=find: find(everyone[number % people]) for name, find in engines.items()
        }
        times = by_turns(calls, rounds, tick=progress(f"{actions} actions", rounds))
        mine = times[OURS].median
        rows += [
            (actions, name, each.median, each.p99, f"{figure(each.median / mine)} ×")
            for name, each in times.items()
        ]
        zens, cels = min(times[CELLS].median, times[WHOLE].median), times[CEL].median
        targets += [
            Target(f"{actions:,} actions: faster than zen-engine", zens / mine, 10, "×", least=True),
            Target(f"{actions:,} actions: faster than CEL one by one", cels / mine, 20, "×", least=True),
        ]
    return Section(
        "Rules: the same ones by CEL, zen-engine and ours",
        f"""Which actions' three clauses all hold for a customer. The clauses and customers of the engine's
        part; {rounds} rounds by turns, each for the same 5 customers, of which the first is not counted.
        Before, all were seen to find the same actions for each of {people} customers.""",
        [Table("", ("actions", "engine", "median µs", "p99 µs", "of ours"), rows)],
        targets,
        (
            """CEL: the official runtime (`cel-expr-python`), expressions compiled before, one activation per
            customer; an action's further clauses are left out once one does not hold.""",
            """zen-engine: one decision table, hit policy *collect*, a row per action, loaded before, asked
            with a dictionary that is ready; clauses are cells of a column per fact (what is about more
            than one, or needs a guard against null, in a column of expressions), or all in three columns
            of expressions. Instants are numbers, ready to be compared; CEL and ours are given instants.""",
            """Ours: from the customer's facts to the mask of actions.""",
        ),
    )


def _check(engines: dict[str, Find], everyone: Sequence[Customer]) -> None:
    """Raises AssertionError where two engines differ about a customer."""
    for customer in everyone:
        found = {name: find(customer) for name, find in engines.items()}
        assert all(each == found[CEL] for each in found.values()), (customer, found)


def _ours(made: World) -> Find:
    index, rules = made.catalog.candidates[PLACEMENT].index, made.catalog.rules
    actions = len(made.rules)

    def find(customer: Customer) -> list[int]:
        holding = index.holding(Case(rules, customer.facts, NOW))
        return index.unpacked(holding)[:actions].nonzero()[0].tolist()

    return find


def _cel(made: World) -> Find:
    compiled, activate = _compiled(made.rules)
    rows = [[compiled[clause.cel] for clause in row] for row in made.rules]

    def find(customer: Customer) -> list[int]:
        activation = activate(customer)
        return [
            number
            for number, row in enumerate(rows)
            if all(clause.eval(activation).value() is True for clause in row)
        ]

    return find


def _cel_once(made: World) -> Find:
    compiled, activate = _compiled(made.rules)
    numbers = {text: number for number, text in enumerate(compiled)}
    rows = [tuple(numbers[clause.cel] for clause in row) for row in made.rules]
    clauses = list(compiled.values())

    def find(customer: Customer) -> list[int]:
        activation = activate(customer)
        holds = [clause.eval(activation).value() is True for clause in clauses]
        return [number for number, (a, b, c) in enumerate(rows) if holds[a] and holds[b] and holds[c]]

    return find


def _compiled(rows: Rows) -> tuple[dict[str, Any], Callable[[Customer], Any]]:
    """The distinct clauses by their text, and what binds a customer's facts."""
    env = cel.NewEnv(variables={fact.name: _TYPES[fact.type] for fact in FACTS} | {"now": cel.Type.TIMESTAMP})
    texts = dict.fromkeys(clause.cel for row in rows for clause in row)
    return {text: env.compile(text) for text in texts}, lambda c: env.Activation({**c.facts, "now": NOW})


def _zen_cells(made: World) -> Find:
    columns = [fact.name for fact in FACTS]
    rows = []
    for row in made.rules:
        cells: dict[str, str] = {}
        for number, clause in enumerate(row):
            if clause.column is None or clause.column in cells:
                cells[f"also {number}"] = clause.zen
            else:
                cells[clause.column] = clause.test
        rows.append(cells)
    return _zen(columns, [f"also {number}" for number in range(3)], rows)


def _zen_whole(made: World) -> Find:
    names = ["first", "second", "third"]
    rows = [dict(zip(names, (clause.zen for clause in row), strict=True)) for row in made.rules]
    return _zen([], names, rows)


def _zen(fields: Sequence[str], others: Sequence[str], rows: Sequence[dict[str, str]]) -> Find:
    """A decision table; `fields` are columns of tests of a fact, `others` of expressions."""
    content = {
        "hitPolicy": "collect",
        "inputs": [
            *({"id": name, "name": name, "field": name} for name in fields),
            *({"id": name, "name": name} for name in others),
        ],
        "outputs": [{"id": "action", "name": "action", "field": "action"}],
        "rules": [{"_id": f"r{n}", **cells, "action": str(n)} for n, cells in enumerate(rows)],
    }
    at = {"position": {"x": 0, "y": 0}}
    nodes = [
        {"id": "in", "type": "inputNode", "name": "in", **at},
        {"id": "table", "type": "decisionTableNode", "name": "table", "content": content, **at},
        {"id": "out", "type": "outputNode", "name": "out", **at},
    ]
    edges = [
        {"id": f"{a}-{b}", "type": "edge", "sourceId": a, "targetId": b}
        for a, b in (("in", "table"), ("table", "out"))
    ]
    graph = {"nodes": nodes, "edges": edges}
    # The fastest of the ways in which it can be asked (2.1.3): the others compile anew, or hand to a thread.
    engine = zen.ZenEngine({"loader": {"type": "static", "content": {"rules": graph}}})
    asked: dict[str, dict[str, Any]] = {}

    def find(customer: Customer) -> list[int]:
        context = asked.get(customer.id)
        if context is None:
            context = asked[customer.id] = _plain(customer)
        return [hit["action"] for hit in engine.evaluate("rules", context)["result"]]

    return find


def _plain(customer: Customer) -> dict[str, Any]:
    """A customer's facts as nested objects, instants as epoch seconds."""
    found: dict[str, Any] = {"customer": {}, "scores": {}, "context": {}, "now": NOW.timestamp()}
    for name, value in customer.facts.items():
        kind, own = name.split(".")
        found[kind][own] = value.timestamp() if isinstance(value, datetime) else value
    return found


_ENGINES: dict[str, Callable[[World], Find]] = {
    CEL: _cel,
    ONCE: _cel_once,
    CELLS: _zen_cells,
    WHOLE: _zen_whole,
    OURS: _ours,
}

"""The core is pure: it imports nothing of the shell, and asks no clock, file or global randomness."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "arbitration").rglob("*.py"))
SHELL = sorted((ROOT / "decision").rglob("*.py"))
MAY = {"numpy", "scipy", "pydantic", "cel_expr_python", "arbitration"}
LAZILY = {"mabwiser"}
SEEDED = {"default_rng", "Generator"}  # of a seed that the caller gives
IMPURE = {
    "time",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "asyncio",
    "os",
    "logging",
    "uuid",
}
CALLS = {"open", "input", "print", "now", "utcnow", "today", "read_text", "write_text"}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """(top-level package, whether when the module is loaded)."""
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield str(node.module).split(".")[0], id(node) not in inner


@pytest.mark.parametrize("path", CORE, ids=names)
def test_the_core_imports_only_what_it_may(path: Path) -> None:
    for package, at_load in imported(ast.parse(path.read_text("utf-8"))):
        lazily = package in LAZILY and not at_load
        assert package in sys.stdlib_module_names or package in MAY or lazily, package
        assert package not in IMPURE, package


@pytest.mark.parametrize("path", CORE, ids=names)
def test_the_core_asks_no_clock_file_or_global_randomness(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in CALLS, f"line {node.lineno}: {ast.unparse(called)}"
            assert name != "default_rng" or node.args, f"line {node.lineno}: a generator without a seed"
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("np.random.", "numpy.random.")):
            assert node.attr in SEEDED, f"line {node.lineno}: {ast.unparse(node)}"


def test_the_shell_is_there_to_be_kept_out() -> None:
    assert len(CORE) > 15
    assert len(SHELL) > 30


def test_serving_does_not_pay_for_what_only_the_learner_needs() -> None:
    code = (
        "import sys, decision.serving.worker; "
        "print(*{'mabwiser', 'pandas', 'sklearn', 'matplotlib', 'seaborn'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == ""

"""Every command in the README, and every call in the docs, is run as it stands, but for port and folder."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from decision.demo.world import simulate_customers

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
CALLS = [
    block
    for name in ("api.md", "limits.md", "governance.md")
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / name).read_text("utf-8"), re.DOTALL)
    if "curl" in block
]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def blocks(word: str) -> list[str]:
    return [block for block in BLOCKS if word in block]


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(command: str, folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command} --port {port}"], cwd=folder, env={**os.environ, "PATH": PATH}
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, "it ended"
                assert time.monotonic() < deadline, "it does not become ready"
                time.sleep(0.05)  # bounded polling
        yield port
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.long
async def test_commands_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (own,) = blocks("postgresql://")
    told, *before, serve = own.strip().splitlines()
    set_store = f"{told.partition('=')[0]}='{postgres_url}'"
    assert "published" in run("\n".join([set_store, *before]), tmp_path)
    with serving(f"env {set_store.removeprefix('export ')} {serve}", tmp_path) as port:
        decide = next(block for block in blocks("curl") if "/v1/decisions " in block)
        decide = decide.replace("localhost:8000", f"127.0.0.1:{port}")
        assert '"decision_id"' in run(decide, tmp_path)


def _cell(value: object) -> object:
    return "|".join(value) if isinstance(value, list) else value


def test_all_blocks_are_known_here() -> None:
    known = [*blocks("make "), *blocks("curl"), *blocks("id=$"), *blocks("decision serve")]
    assert set(known) == set(BLOCKS)
    assert sorted(blocks("make ")) == ["make demo\n", "make test\n"]
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", targets, re.MULTILINE)
    assert re.search(r"^test:", targets, re.MULTILINE)


def test_commands_on_a_service(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with (tmp_path / "customers.csv").open("w", newline="") as file:
        customers = list(simulate_customers(200, 7, datetime.now(UTC)))
        columns = sorted({name for customer in customers for name in customer["attributes"]})
        scores = sorted({name for customer in customers for name in customer["scores"]})
        writer = csv.writer(file)
        writer.writerow(["customer_id", *columns, *(f"scores.{name}" for name in scores)])
        for customer in customers:
            values = [_cell(customer["attributes"].get(name, "")) for name in columns]
            values += [customer["scores"].get(name, "") for name in scores]
            writer.writerow([customer["customer_id"], *values])
    (own,) = blocks("sqlite:mine.db")
    *before, serve = own.strip().splitlines()
    said = run("\n".join(before), tmp_path)
    assert "200 imported, 0 rejected" in said

    with serving(serve, tmp_path) as port:
        chain = "\n".join(blocks("curl")).replace("localhost:8000", f"127.0.0.1:{port}")
        said = run(chain, tmp_path)
        assert '"recorded":1' in said
        assert '"identical":true' in said
        decision = json.loads((tmp_path / "decision.json").read_text())
        assert [item["rank"] for item in decision["placements"][0]["items"]] == [1, 2, 3]
        assert '"funnel":[{"stage":"candidates","remaining":26}' in said
        assert len(CALLS) == 7
        for call in CALLS:
            said = run(call.replace("localhost:8000", f"127.0.0.1:{port}").replace("/tmp/", ""), tmp_path)
            assert '"problem:' not in said
            assert '"status":4' not in said

"""Schemathesis over the whole OpenAPI document, against the service as it is started: `make schemathesis`.

With a key of all scopes, once with ids that it makes up and once with those of what is there; and with no
credential at all. What must hold: no status of 500 or more but those that are meant, none that is not in the
document, no content type, header or body other than it says. Writes `results/schemathesis.md`.

    python benchmarks/conformance.py [--examples 100] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
TOOL = ROOT / ".venv-schemathesis/bin/schemathesis"
RESULT = HERE / "results/schemathesis.md"
PORT = 18_973
URL = f"http://127.0.0.1:{PORT}"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
CATALOG = ROOT / "examples/telco"
LOG = "schemathesis.log"


@dataclass(frozen=True)
class Outcome:
    """What came of one run."""

    name: str
    operations: str
    cases: int
    failures: int
    seconds: float
    seed: str
    report: str


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The service on a file in `folder`, with a catalog and a key; the key."""
    decision = [sys.executable, "-W", "ignore", "-m", "decision"]
    environment = {**os.environ, "DECISION_STORE": f"sqlite:{folder / 'service.db'}", "COLUMNS": "300"}

    def run(*command: str) -> str:
        done = subprocess.run([*decision, *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    run("catalog", "publish", str(CATALOG))
    key = re.search(r"nba_\w+_[\w-]+", run("keys", "create", "conformance", "--role", "operator"))
    assert key is not None
    with (folder / LOG).open("wb") as log:
        started = subprocess.Popen(
            [*decision, "serve", "--port", str(PORT), "--timeout-ms", "1000"], env=environment, stderr=log
        )
        try:
            _wait()
            yield key[0]
        finally:
            started.terminate()
            started.wait(30)


def _wait() -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{URL}/readyz"):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service did not get ready")


def call(key: str, method: str, path: str, body: Any = None) -> Any:
    """One request."""
    data = None if body is None else json.dumps(body).encode()
    head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{URL}{path}", data, head, method=method)
    with urllib.request.urlopen(request) as reply:
        return json.loads(reply.read() or b"null")


def known(key: str) -> dict[str, str]:
    """Path parameters that name something."""
    call(
        key,
        "PUT",
        "/v1/customers/anna",
        {"attributes": {}, "identities": [{"type": "email", "value": "a@b"}]},
    )
    catalog = call(key, "GET", "/v1/catalog")["catalog"]
    channel = catalog["channels"][0]["id"]
    made = call(key, "POST", "/v1/decisions", {"customer_id": "anna", "channel": channel})
    return {
        "customer_id": "anna",
        "decision_id": made["decision_id"],
        "policy": catalog["policies"][0]["id"],
    }


def attack(name: str, folder: Path, examples: int, key: str | None, ids: dict[str, str]) -> Outcome:
    """One run of Schemathesis."""
    config = folder / "schemathesis.toml"
    lines = [f'hooks = "{HERE / "conformance_hooks.py"}"', "[parameters]"]
    config.write_text(
        "\n".join([*lines, *(f'"path.{one}" = "{value}"' for one, value in ids.items())]) + "\n"
    )
    checks = ",".join(CHECKS if key is None else (*CHECKS, "ignored_auth"))
    command = [str(TOOL), "--config-file", str(config), "run", f"{URL}/openapi.json", "--checks", checks]
    command += ["--continue-on-failure", "--no-shrink", "--no-color", "--request-timeout", "30"]
    command += ["--max-examples", str(examples), "--suppress-health-check", "all"]
    command += [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    text = done.stdout + done.stderr

    def found(pattern: str, otherwise: str) -> str:
        match = re.search(pattern, text)
        return otherwise if match is None else match[1]

    cases = int(found(r"([\d,]+) generated", "0").replace(",", ""))
    failures = 0 if done.returncode == 0 else max(int(found(r"(\d+) (?:unique )?failures?", "0")), 1)
    tested = found(r"Tested:\s+(\d+)", "?")
    seconds = time.monotonic() - began
    return Outcome(name, tested, cases, failures, seconds, found(r"Seed: (\d+)", "?"), text)


def main() -> int:
    """Runs them all; 1 where anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100, help="for each operation and way of making them")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with service(folder) as key:
            for title, given, ids in (
                ("a key of all scopes, made-up ids", key, {}),
                ("a key of all scopes, known ids", key, known(key)),
                ("no credential", None, {}),
            ):
                outcomes.append(attack(title, folder, asked.examples, given, ids))
                last = outcomes[-1]
                print(
                    f"{title}: {last.cases} cases, {last.failures} failures, {last.seconds:.0f} s", flush=True
                )
                if last.failures:
                    print(last.report)
        faults = [line for line in (folder / LOG).read_text().splitlines() if " ERROR " in line]
    print(f"{len(faults)} errors in the log", *faults[:10], sep="\n")
    if asked.write:
        RESULT.write_text(_told(outcomes, len(faults), asked.examples))
    return int(any(outcome.failures for outcome in outcomes) or bool(faults))


def _told(outcomes: list[Outcome], faults: int, examples: int) -> str:
    version = subprocess.run([str(TOOL), "--version"], capture_output=True, text=True).stdout.strip()
    rows = "\n".join(
        f"| {of.name} | {of.operations} | {of.cases} | {of.failures} | {of.seconds:.0f} s | {of.seed} |"
        for of in outcomes
    )
    checked = "\n".join(f"- `{check}`" for check in CHECKS)
    return f"""# Schemathesis over the whole OpenAPI document

`make schemathesis` (`benchmarks/conformance.py --examples {examples} --write`): {version}, the service as
`decision serve` starts it (one worker and its learner, SQLite), the telco catalog, all phases (examples,
coverage, fuzzing, stateful), at most {examples} examples of each operation and way of making them, valid and
invalid ones.

Checked of each reply:

{checked}
- with a key also `ignored_auth` (the same call without it, or with another, is refused)

| credentials | operations | cases | failures | time | seed |
|---|---|---|---|---|---|
{rows}

Lines of level ERROR in the service's log meanwhile: {faults}.
"""


if __name__ == "__main__":
    raise SystemExit(main())

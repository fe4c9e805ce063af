"""The renewal offer with facts from four systems: `examples/live`, started as its README says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "live"
CURLS = re.findall(r"```bash\n(curl .*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)
START = re.search(r"```bash\n(export .*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Running:
    """The example, started with the commands of its README but for ports, folder and time."""

    def __init__(self, folder: Path) -> None:
        assert START is not None
        shutil.copytree(EXAMPLE, folder / "examples" / "live")
        self.port, self.systems_port = free_port(), free_port()
        connections = folder / "examples" / "live" / "connections.yaml"
        connections.write_text(connections.read_text("utf-8").replace("8101", str(self.systems_port)))
        sources = folder / "examples" / "live" / "catalog" / "sources.yaml"
        sources.write_text(sources.read_text("utf-8").replace("timeout: 100ms", "timeout: 5s"))
        setting, systems, publish, serve = START[1].strip().splitlines()
        variables = dict(
            part.split("=", 1)
            for part in setting.removeprefix("export ").replace("$PWD", str(folder)).split()
        )
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, **variables, "PATH": path}
        self.folder = folder
        self.systems = self.start(f"{systems.removesuffix('&')} {self.systems_port}")
        self.run(publish)
        self.service = self.start(
            f"{serve.removesuffix('&')} --port {self.port} --no-learner --timeout-ms 5000"
        )

    def start(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment)

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace("localhost:8000", f"127.0.0.1:{self.port}")],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def stop(self) -> None:
        for process in (self.service, self.systems):
            process.terminate()
        for process in (self.service, self.systems):
            process.wait(20)

    def decide(self, customer: str, channel: str, placement: str) -> dict[str, Any]:
        asked = {"customer_id": customer, "channel": channel, "placements": [{"id": placement}]}
        reply = httpx.post(f"http://127.0.0.1:{self.port}/v1/decisions", json=asked, timeout=20)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("live"))
    try:
        deadline = time.monotonic() + 30
        for port, path in ((running.port, "readyz"), (running.systems_port, "customers/c-1")):
            while True:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/{path}").status_code == 200:
                        break
                except httpx.TransportError:
                    assert time.monotonic() < deadline, "the example did not start"
                time.sleep(0.05)
        yield running
    finally:
        running.stop()


def offered(decision: dict[str, Any]) -> set[str]:
    return {item["treatment"] for placement in decision["placements"] for item in placement["items"]}


def test_facts_of_four_systems_meet_in_one_decision(example: Running) -> None:
    decision = example.decide("c-1", "agent_desktop", "agent_panel")
    assert decision["degraded"] == ["profile:not_found"]
    assert offered(decision) == {"renew_12m_agent", "fibre_check_agent"}
    assert {item["content"]["headline"] for item in decision["placements"][0]["items"]} == {
        "39 days left: 12 more months at 15% less",
        "Measure the line together",
    }
    assert offered(example.decide("c-1", "email", "email_block")) == {"renew_12m_mail"}, "the crm allows it"
    # c-2 has a complaint open, says the service database; nobody knows c-9.
    assert offered(example.decide("c-2", "agent_desktop", "agent_panel")) == {"fibre_check_agent"}
    stranger = example.decide("c-9", "agent_desktop", "agent_panel")
    assert offered(stranger) == set()
    assert "sources.marketing_platform:not_found" in stranger["degraded"]
    # The lines to paste work as they stand.
    decided, known = (example.run(line) for line in CURLS)
    assert '"renew_12m_agent"' in decided
    for fact in ('"name":"customer.nps","value":3,"source":"service_database"', '"source":"churn_model"'):
        assert fact in known


def test_when_the_systems_are_gone_the_answer_still_comes(example: Running) -> None:
    before = example.decide("c-1", "agent_desktop", "agent_panel")
    example.systems.terminate()
    example.systems.wait(20)
    decision = example.decide("c-1", "agent_desktop", "agent_panel")
    assert decision["degraded"] == ["profile:not_found", "sources.crm:unavailable"]
    assert offered(decision) == offered(before), "cached, but for the crm, which this channel does not need"
    assert offered(example.decide("c-1", "email", "email_block")) == set(), "no permission is no permission"
    for each in (before, decision):
        url = f"http://127.0.0.1:{example.port}/v1/decisions/{each['decision_id']}/replay"
        assert httpx.post(url, timeout=20).json()["identical"]

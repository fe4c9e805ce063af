"""Dockerfile, .dockerignore and compose.yaml, held to each other, to the command line and to the tree.
Nothing is built here: no container engine is needed."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from decision.cli import app
from decision.serving.post import GRACE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
OURS = [name for name, service in COMPOSE["services"].items() if service["image"] == COMPOSE["name"]]


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """Without flags; from the exec form where it is one."""
        found = json.loads(self.rest) if self.rest.startswith("[") else self.rest.split()
        return [word for word in found if self.rest.startswith("[") or not word.startswith("--")]

    @property
    def source_stage(self) -> str | None:
        found = re.search(r"--from=(\S+)", self.rest)
        return found[1] if found else None


def dockerfile() -> list[list[Instruction]]:
    """The stages, each from its FROM on."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if line[:1] != "#"]
    stages: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stages.append([])
        stages[-1].append(Instruction(word, rest.strip()))
    return stages


STAGES = dockerfile()
FINAL = {instruction.word: instruction for instruction in STAGES[-1]}  # of several the last, as it counts
COPIED = [i for stage in STAGES for i in stage if i.word == "COPY" and i.source_stage is None]
SOURCES = [source for i in COPIED for source in i.arguments[:-1]]


def understood(arguments: list[str]) -> bool:
    """Whether the command line knows the command and all of its options. Only its help is run: options nobody
    knows are refused before that."""
    return CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


def sent(path: str) -> bool:
    """Whether the builder is sent this file: the last pattern that matches it or a folder of it decides."""
    kept = True
    parts = Path(path).parts
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if any(fnmatch(folder, pattern) or fnmatch(f"./{folder}", pattern) for folder in above):
            kept = line.startswith("!")
    return kept


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_copied_is_there_and_is_sent(source: str) -> None:
    found = ROOT / source
    assert found.exists()
    assert sent(source)
    for inner in found.rglob("*") if found.is_dir() else ():
        if inner.is_file() and inner.suffix in {".py", ".sql", ".yaml"}:
            assert sent(str(inner.relative_to(ROOT))), inner


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".venv-feast/bin/python",
        "tests/conftest.py",
        "benchmarks/regret/__main__.py",
        "decision.db",
        "decision/mine.db-wal",
        "decision/cli/__pycache__/base.cpython-311.pyc",
        ".env",
        "pgpass.secret",
    ],
)
def test_the_rest_is_not_sent(path: str) -> None:
    assert not sent(path)


def test_the_base_is_one_and_pinned_to_a_python_that_is_tested() -> None:
    bases = {stage[0].arguments[0] for stage in STAGES}
    assert len(bases) == 1
    found = re.fullmatch(r"python:(3\.\d+)-slim-[a-z]+", bases.pop())
    assert found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["mypy"]["python_version"] == found[1]


def test_images_of_others_are_pinned() -> None:
    images = {service["image"] for name, service in COMPOSE["services"].items() if name not in OURS}
    assert images
    assert all(re.fullmatch(r"[a-z/]+:\d[\w.-]*", image) for image in images)


def test_everything_installed_is_pinned_with_hashes() -> None:
    installed = [i.rest for stage in STAGES for i in stage if i.word == "RUN" and i.rest.startswith("pip ")]
    for command in installed:
        assert "--no-deps" in command or "--require-hashes -r requirements.lock" in command
    assert any("--require-hashes" in command for command in installed)
    lock = (ROOT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in lock.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    assert all("==" in line and "--hash=sha256:" in line for line in lines)


def test_the_final_stage_only_runs() -> None:
    assert not any(i.word == "RUN" and re.search(r"\b(pip|apt-get|gcc|curl)\b", i.rest) for i in STAGES[-1])
    taken = [i.arguments for i in STAGES[-1] if i.word == "COPY" and i.source_stage]
    assert taken == [["/opt/decision", "/opt/decision"]]


def test_it_runs_as_nobody_in_particular() -> None:
    user, group = FINAL["USER"].rest.split(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    made = next(i.rest for i in STAGES[-1] if i.word == "RUN")
    assert f"--uid {user} --gid {group}" in made
    assert "USER" not in {i.word for i in STAGES[-1][-2:]}, "what follows it is for it to run"


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_signals_reach_the_service(word: str) -> None:
    """In the exec form: a shell in between would keep them to itself. Without an init process they would be
    lost until the service has its handlers."""
    assert FINAL[word].rest.startswith("[")
    assert FINAL["STOPSIGNAL"].rest == "SIGTERM"
    assert all(COMPOSE["services"][name]["init"] is True for name in OURS)


def test_the_health_check_asks_what_is_served_where_it_is_served() -> None:
    found = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", FINAL["HEALTHCHECK"].rest)
    assert found
    command = FINAL["CMD"].arguments
    assert command[command.index("--port") + 1] == found[1] == FINAL["EXPOSE"].rest
    served = json.loads((ROOT / "openapi" / "openapi.json").read_text("utf-8"))["paths"]
    assert found[2] in served


def test_the_command_is_one_of_ours() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    [name] = FINAL["ENTRYPOINT"].arguments
    assert name in scripts
    assert understood(FINAL["CMD"].arguments)


@pytest.mark.parametrize("name", OURS)
def test_commands_of_the_services_are_understood(name: str) -> None:
    assert understood(COMPOSE["services"][name]["command"])


def test_commands_in_the_comments_are_understood() -> None:
    commands = re.findall(r"^#   docker compose run --rm api (.+)$", COMPOSE_TEXT, re.MULTILINE)
    assert commands
    for command in commands:
        assert understood(command.split())
        for path in re.findall(r" (/\S+)", command):
            assert path in [i.arguments[-1] for i in STAGES[-1] if i.word == "COPY"]


@pytest.mark.parametrize("arguments", [["serve", "--no-such"], ["no-such"], ["catalog", "no-such"]])
def test_what_is_no_command_is_not_understood(arguments: list[str]) -> None:
    assert not understood(arguments)


@pytest.mark.parametrize("name", OURS)
def test_our_services_may_do_little(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert service.get("privileged", False) is False
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_given_time_to_end(name: str) -> None:
    seconds = re.fullmatch(r"(\d+)s", COMPOSE["services"][name]["stop_grace_period"])
    assert seconds
    assert int(seconds[1]) > GRACE_SECONDS


@pytest.mark.parametrize("name", OURS)
def test_our_services_wait_for_a_healthy_database(name: str) -> None:
    waits = COMPOSE["services"][name]["depends_on"]
    assert waits == {"postgres": {"condition": "service_healthy"}}
    assert COMPOSE["services"]["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]


def test_exactly_one_service_learns() -> None:
    commands = {name: COMPOSE["services"][name]["command"] for name in OURS}
    assert [name for name, command in commands.items() if command[0] == "learn"] == ["learner"]
    assert all("--no-learner" in command for command in commands.values() if command[0] == "serve")


def test_passwords_are_the_callers() -> None:
    """Each is one variable, with a default that says what it is for."""
    found = re.findall(r"PASSWORD: (.+)", COMPOSE_TEXT)
    assert len(found) == 2
    assert set(found) == {"${POSTGRES_PASSWORD:-for-trying-out}"}

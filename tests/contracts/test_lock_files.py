"""The lock files pin everything that is installed, by version and hash, and not by where it comes from."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
_LINE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)(?:\[[a-z,]+\])?==(?P<version>[\w.+!]+)(?P<marker> ; [^\\]+?)?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)


def pins(lock: Path) -> dict[str, set[str]]:
    """Versions by name: more than one where it depends on the machine."""
    text = lock.read_text("utf-8")
    lines = [line for line in re.sub(r" *\\\n +", " ", text).splitlines() if line and line[0] != "#"]
    found: dict[str, set[str]] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match is not None, f"{lock.name}: {line[:100]}"
        found.setdefault(match["name"], set()).add(match["version"])
    return found


def group(name: str) -> list[str]:
    """The requirements of a dependency group, with those it includes."""
    entries = PROJECT["dependency-groups"][name]
    return [
        one
        for entry in entries
        for one in ([entry] if isinstance(entry, str) else group(entry["include-group"]))
    ]


WANTED = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *group("build")],
    "requirements-otel.lock": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["otel"],
    ],
    "requirements-dev.lock": [*PROJECT["project"]["dependencies"], *group("dev")],
    **{
        f"requirements-{name}.lock": group(name)
        for name in PROJECT["dependency-groups"]
        if name not in ("build", "dev")
    },
}


def test_there_is_a_lock_for_each_thing_that_is_installed() -> None:
    assert [lock.name for lock in LOCKS] == sorted(WANTED)
    made = (ROOT / "Makefile").read_text("utf-8")
    assert sorted(set(re.findall(r"-o (requirements\S*\.lock)", made))) == sorted(WANTED)
    # … and nothing is installed but with its hash.
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text("utf-8").replace("\\\n", " ")
        for line in [line for line in text.splitlines() if re.search(r"\binstall\b.*\s-r\s", line)]:
            assert "--require-hashes" in line, line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_everything_is_pinned_with_its_hash_and_without_an_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-e|-f|-i|--(extra-)?index|--find|--trusted)|@ ", text, re.MULTILINE)
    pinned = pins(lock)
    assert pinned
    for wanted in map(Requirement, WANTED[lock.name]):
        versions = pinned.get(canonicalize_name(wanted.name), set())
        assert versions, f"{wanted} is not pinned"
        assert all(wanted.specifier.contains(each, prereleases=True) for each in versions), (
            f"{wanted}: {versions}"
        )


def test_what_is_tested_is_what_is_served() -> None:
    tested = pins(ROOT / "requirements-dev.lock")
    for name, versions in (pins(ROOT / "requirements.lock") | pins(ROOT / "requirements-otel.lock")).items():
        assert tested.get(name) == versions, name
    for wanted in map(Requirement, PROJECT["project"]["dependencies"]):
        assert version(wanted.name) in tested[canonicalize_name(wanted.name)], wanted.name

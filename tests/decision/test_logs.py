"""Log lines: one JSON object each, about which decision, and about nobody."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support import Service, asking

from decision import logs


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is set up is undone, but for pytest's own handlers, which `force` would remove."""
    monkeypatch.setattr(logging, "basicConfig", configured)
    monkeypatch.setattr(logs.access, "level", logs.access.level)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv(logs.FORMAT, "")
    monkeypatch.setenv(logs.ACCESS, "")
    yield
    for handler in [each for each in logging.getLogger().handlers if each in added]:
        logging.getLogger().removeHandler(handler)
    logs.access.manager._clear_cache()  # type: ignore[attr-defined]
    logging.getLogger("httpx").setLevel(logging.NOTSET)


added: list[logging.Handler] = []


def configured(*, level: int, handlers: list[logging.Handler], force: bool) -> None:
    assert force
    logging.getLogger().setLevel(level)
    added.extend(handlers)
    for handler in handlers:
        logging.getLogger().addHandler(handler)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=False)
    logging.getLogger("uvicorn.error").warning("two\nlines of %s", "text")
    (line,) = lines(capsys)
    at = line.pop("time")
    assert at[10] == "T"
    assert at.endswith("Z")
    assert line == {"level": "warning", "logger": "uvicorn.error", "message": "two\nlines of text"}


def test_an_exception_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=False)
    try:
        raise ValueError("odd\nvalue")
    except ValueError:
        logging.getLogger("decision.x").exception("it failed")
    (line,) = lines(capsys)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback")
    assert "in test_an_exception_is_one_field" in line["exception"]
    assert line["exception"].endswith("\nValueError (its text is withheld)")


def test_a_line_names_the_decision_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=False)
    token = logs.about.set(("d-1", "r-1"))
    logging.getLogger("decision.x").info("inside")
    logs.about.reset(token)
    logging.getLogger("decision.x").info("outside")
    inside, outside = lines(capsys)
    assert (inside["decision_id"], inside["request_id"]) == ("d-1", "r-1")
    assert "decision_id" not in outside


def test_what_is_no_json_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=False)
    logging.getLogger("decision.x").info("m", extra={"fields": {"of": {1: object}}})
    (first,) = lines(capsys)
    assert "object" in first["of"]["1"]
    # Not logged: what tests log is sent on as UTF-8.
    second = logs.JsonLines().format(logging.makeLogRecord({"msg": "half a pair: \ud800"}))
    assert json.loads(second)["message"] == "half a pair: \ud800"
    assert second.isascii()


async def test_one_line_for_each_decision(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=True)
    decision = await service.decide("stranger", "hero", request_id="r")
    batch = {"requests": [asking(), {}]}
    await service.client.post("/v1/decisions:batch", json=batch)
    first, second, third = lines(capsys)
    assert first["logger"] == "decision.access"
    assert first["decision_id"] == decision["decision_id"]
    assert (first["request_id"], first["result"], first["channel"]) == ("r", "answered", "web")
    assert first["degraded"] == ["profile:not_found"]
    assert first["ms"] > 0
    assert second["channel"] == "agent"
    assert third["result"] == "rejected"
    assert "decision_id" not in third


async def test_none_unless_asked_for(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", access_log=False)
    await service.decide()
    assert lines(capsys) == []


async def test_a_fault_names_its_decision_and_no_customer(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decision.deciding.reply_bytes", None)
    logs.set_up("json", access_log=True)
    marker = "marker-7c1f"
    profile = {"attributes": {"first_name": marker}, "identities": [{"type": "cookie", "value": marker}]}
    await service.client.put(f"/v1/customers/{marker}", json=profile)
    reply = await service.client.post("/v1/decisions", json=asking(marker, request_id="r"))
    assert reply.status_code == 500
    text = capsys.readouterr().err
    assert marker not in text
    fault, *_ = (json.loads(line) for line in text.splitlines())
    assert fault["message"] == "a request could not be decided"
    assert fault["decision_id"]
    assert fault["request_id"] == "r"


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("text", access_log=False)
    logs.about.set(("d-1", None))
    logging.getLogger("decision.x").warning("odd")
    (line,) = capsys.readouterr().err.splitlines()
    at, rest = line.split(" ", 1)
    assert at.endswith("Z")
    assert rest == "WARNING decision.x odd decision_id=d-1"
    logs.about.set((None, None))


def test_children_are_told() -> None:
    logs.set_up("json", access_log=True)
    assert (os.environ[logs.FORMAT], os.environ[logs.ACCESS]) == ("json", "1")
    logs.access.setLevel(logging.WARNING)
    logs.as_told()
    assert logs.access.isEnabledFor(logging.INFO)
    assert isinstance(added[-1].formatter, logs.JsonLines)

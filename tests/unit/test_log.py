"""The log: whatever is said, only ids, codes and numbers come out."""

import ast
import asyncio
import gc
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import StoreUnavailable
from broker.jobs import JobState
from broker.log import ALLOWED_KEYS, capture_log, configure_log, keep_allowed, report_crashes

CANARY = "kanarienvogel"
ROOT = Path(__file__).parents[2]
JOB = UUID("0b8e9b8e-3f0a-4a58-9d2c-7a4f6f0d9a11")

log = structlog.get_logger()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    root = logging.root
    before = (root.handlers[:], root.level)
    configure_log(is_console=False)
    with capture_log() as captured:
        yield captured
    root.handlers[:], root.level = before


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def only(lines: list[str]) -> dict[str, Any]:
    (line,) = parsed(lines)
    return line


def test_a_line_is_one_json_object_of_ids_codes_and_numbers(lines: list[str]) -> None:
    """minimal-6: what is on the list comes through as it is, with level and time."""
    log.info("job_claimed", job_id=JOB, count=2, state=JobState.RUNNING, duration_ms=1.5, code=None)
    line = only(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "job_claimed",
        "level": "info",
        "job_id": str(JOB),
        "count": 2,
        "state": "running",
        "duration_ms": 1.5,
        "code": None,
    }


def test_keys_that_are_not_on_the_list_are_dropped(lines: list[str]) -> None:
    """No prompt, URL, user id, file name, token or address has a place in a line, under any key of its own."""
    log.info("job_claimed", prompt="x", url="x", user_id="x", user="x", file="x", token="x", ip="x", parameters="x")
    assert set(only(lines)) == {"event", "level", "timestamp"}
    assert not ALLOWED_KEYS & {"prompt", "url", "user", "user_id", "file", "filename", "path", "token", "ip", "detail"}


def said_keys(folder: str) -> Iterator[str]:
    """The keys that the code gives to a logger, by name."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[0] == "log":
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)


def test_the_list_is_what_is_said() -> None:
    """No key of ours is dropped in silence, and none may be said that nothing says."""
    said = {*said_keys("broker"), *said_keys("workers")} - {"exc_info"}
    made_here = {"event", "level", "timestamp", "request_id", "route", "logger", "cause"}
    made_here |= {"exception", "exception_at", "exception_code"}
    assert said | made_here == ALLOWED_KEYS


@pytest.mark.parametrize(
    "value",
    [
        "a red kite",
        "https://example.org/x.jpg",
        "/home/anna/photo",
        "IMG_1234.HEIC",
        "192.0.2.7",
        "2001:db8::7",
        "lethe_" + "A" * 43,
        "é",
        "two\nlines",
        b"bytes",
        bytearray(b"bytes"),
        {"prompt": "x"},
        ["x"],
        object(),
        ValueError("x"),
        2**64,
    ],
)
def test_a_value_that_is_not_a_number_or_one_word_is_withheld(lines: list[str], value: object) -> None:
    """An allowed key does not let content through."""
    log.info("job_claimed", code=value, job_id=value, route=value, logger=value, exception_at=value, pool=value)
    line = only(lines)
    assert {line[key] for key in ("code", "job_id", "pool", "exception_at")} == {"withheld"}
    assert line["route"] == "withheld"
    assert line["logger"] == "withheld"


def test_an_event_is_a_constant(lines: list[str]) -> None:
    """A sentence in place of an event may hold content; it is not written."""
    sentence = f"claimed the job of {CANARY}!"
    log.info(sentence)
    log.info(cast("str", {"event": CANARY}))
    assert [line["event"] for line in parsed(lines)] == ["unnamed_event", "unnamed_event"]
    assert CANARY not in "".join(lines)


def test_a_route_is_written_as_its_template(lines: list[str]) -> None:
    """Request logs hold route templates only."""
    log.info("request_answered", route="/v1/jobs/{job_id:uuid}/outputs/{n:int}", method="GET", status=200)
    log.info("request_answered", route="/links/token")
    log.info("request_answered", route=f"/v1/jobs/{JOB}")
    assert [line["route"] for line in parsed(lines)] == [
        "/v1/jobs/{job_id:uuid}/outputs/{n:int}",
        "/links/token",
        "withheld",
    ]


def test_an_exception_is_its_type_code_and_line(lines: list[str]) -> None:
    """The message and the values of a traceback never reach a line."""
    secret = CANARY
    try:
        try:
            raise ConnectionRefusedError(secret)
        except ConnectionRefusedError as exc:
            raise StoreUnavailable(secret) from exc
    except StoreUnavailable:
        log.exception("scrape_failed")
    line = only(lines)
    assert (line["exception"], line["exception_code"]) == ("StoreUnavailable", "store_unavailable")
    assert line["cause"] == "ConnectionRefusedError"
    assert line["exception_at"].startswith("test_log.py:")
    assert CANARY not in lines[0]
    assert "Traceback" not in lines[0]


def test_a_line_of_a_compiled_library_is_named(lines: list[str]) -> None:
    """What asyncpg raises comes from there."""
    log.error("task_failed", exception_at="protocol.pyx:802")
    assert only(lines)["exception_at"] == "protocol.pyx:802"


def test_of_a_group_the_first_exception_is_named(lines: list[str]) -> None:
    """A task group does not hide what went wrong."""
    group = ExceptionGroup(CANARY, [ExceptionGroup(CANARY, [KeyError(CANARY)])])
    log.error("task_failed", exc_info=group)
    assert only(lines)["exception"] == "KeyError"
    assert "exception_code" not in only(lines)
    assert CANARY not in lines[0]


@pytest.mark.parametrize("name", ["arq.worker", "httpx", "uvicorn.error", "asyncio", "redis", "some.other.library"])
def test_a_librarys_line_keeps_its_name_and_nothing_else(lines: list[str], name: str) -> None:
    """A foreign message may quote anything; only logger and level are written, and nothing below a warning."""
    foreign = logging.getLogger(name)
    foreign.info("HTTP Request: GET %s", CANARY)
    assert lines == []
    foreign.warning("failed: %s", CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        foreign.exception("crashed on %s", CANARY, extra={"prompt": CANARY})
    first, second = parsed(lines)
    assert (first["event"], first["logger"], first["level"]) == ("foreign_log", name, "warning")
    assert (second["level"], second["exception"]) == ("error", "ValueError")
    assert CANARY not in "".join(lines)


def test_a_library_that_sets_its_own_level_is_still_cut(lines: list[str]) -> None:
    """A logger that lets debug lines through finds a handler that does not."""
    chatty = logging.getLogger("chatty.library")
    chatty.setLevel(logging.DEBUG)
    chatty.info("GET %s", CANARY)
    assert lines == []


def test_the_access_log_is_off(lines: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The server's access log holds addresses and URLs; not even its name is written."""
    logging.getLogger("uvicorn.access").error('%s - "GET /%s"', "192.0.2.7", CANARY)
    assert lines == []
    assert capfd.readouterr() == ("", "")


def test_configuring_twice_writes_each_line_once(lines: list[str]) -> None:
    """Handlers do not pile up."""
    configure_log(is_console=False)
    logging.getLogger("httpx").warning("x")
    assert len(lines) == 1


def test_stderr_gets_exactly_what_is_captured(lines: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The capture sees every line, and sees it as it was written."""
    log.warning("job_rescued", job_id=JOB)
    assert capfd.readouterr().err == lines[0] + "\n"


def test_a_capture_ends(lines: list[str]) -> None:
    """Two captures see their own lines; one that has ended sees none."""
    with capture_log() as inner:
        log.info("job_claimed")
    log.info("job_settled")
    assert (len(inner), len(lines)) == (1, 2)


def test_a_closed_stderr_does_not_stop_the_caller(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that nobody reads must not keep an upload from being destroyed."""

    def refuse(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=refuse, flush=lambda: None, isatty=lambda: False))
    log.info("job_claimed")
    assert len(lines) == 1


def test_the_console_form_passes_the_same_list(lines: list[str]) -> None:
    """A person at a terminal sees colours, and no content either."""
    configure_log(is_console=True)
    log.error("job_claimed", job_id=JOB, prompt=CANARY, code=f"{CANARY} {CANARY}", exc_info=ValueError(CANARY))
    assert "job_claimed" in lines[0]
    assert str(JOB) in lines[0]
    assert "ValueError" in lines[0]
    assert CANARY not in lines[0]


def test_bound_ids_are_on_every_line(lines: list[str]) -> None:
    """What is bound once at the edge stands on each line below it."""
    with structlog.contextvars.bound_contextvars(request_id="r1", job_id=JOB):
        log.info("upload_received")
    log.info("job_claimed")
    first, second = parsed(lines)
    assert (first["request_id"], first["job_id"]) == ("r1", str(JOB))
    assert "request_id" not in second


def test_debug_lines_are_not_written(lines: list[str]) -> None:
    """INFO is the lowest level there is."""
    log.debug("job_claimed")
    assert lines == []


async def test_an_exception_that_asyncio_reports_is_named_only(lines: list[str]) -> None:
    """A task that nobody awaited does not print its exception."""

    async def fail() -> None:
        raise ValueError(CANARY)

    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    line = only(lines)
    assert (line["event"], line["logger"], line["exception"]) == ("foreign_log", "asyncio", "ValueError")
    assert CANARY not in lines[0]


def test_a_crash_is_reported_by_type(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncaught exceptions of main and of threads are logged, not printed."""
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    report_crashes()
    exc = ValueError(CANARY)
    sys.excepthook(ValueError, exc, None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    thread = threading.Thread(target=lambda: int(CANARY))
    thread.start()
    thread.join()
    assert [(line["event"], line["exception"]) for line in parsed(lines)] == [("process_crashed", "ValueError")] * 2
    assert CANARY not in "".join(lines)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(event=anything, fields=st.dictionaries(st.sampled_from(sorted(ALLOWED_KEYS)) | st.text(), anything, max_size=4))
def test_nothing_makes_the_filter_fail(event: object, fields: dict[str, object]) -> None:
    """Whatever is said, the filter returns allowed keys with plain values that JSON can hold."""
    kept = keep_allowed(None, "info", {**fields, "event": event})
    assert set(kept) <= ALLOWED_KEYS
    assert all(value is None or isinstance(value, str | int | float) for value in kept.values())
    json.dumps(dict(kept))

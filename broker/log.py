"""One JSON object per line, of keys on an allow-list: no prompt, URL, file name, token, address or bytes fits in."""

import logging
import re
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from uuid import UUID

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

ALLOWED_KEYS = frozenset(
    {
        "attempt",
        "capacity",
        "cause",
        "code",
        "count",
        "duration_ms",
        "event",
        "exception",
        "exception_at",
        "exception_code",
        "job_id",
        "level",
        "logger",
        "memory",
        "method",
        "operation",
        "perturbed",
        "pool",
        "provider",
        "request_id",
        "role",
        "route",
        "state",
        "status",
        "timestamp",
        "worker_id",
    }
)

FOREIGN_LOGGERS = ("arq", "arq.worker", "asyncio", "httpcore", "httpx", "litestar", "redis", "uvicorn", "uvicorn.error")

_EVENT = re.compile(r"[a-z][a-z0-9_]{2,63}")
# An id, a code or a type name. A 256-bit token is longer; a URL, an address and a file name hold other characters.
_WORD = re.compile(r"[A-Za-z0-9_-]{0,40}")
_PATTERNS = {
    "exception_at": re.compile(r"[A-Za-z0-9_]+\.pyx?:[0-9]+"),
    "logger": re.compile(r"[a-z_]+(\.[a-z_]+)*"),
    "route": re.compile(
        r"/(v1|health|metrics|openapi|credits|links|holds|children|breaches)([/.]([a-z_]+|\{[a-z_:]+\}))*"
    ),
    "timestamp": re.compile(r"[0-9T:.-]{19,26}Z"),
}

_captures: list[list[str]] = []


def configure_log(*, is_console: bool | None = None) -> None:
    """Send every line, ours and the libraries', through the allow-list to stderr; may be called again."""
    pretty = sys.stderr.isatty() if is_console is None else is_console
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            name_exception,
            keep_allowed,
            cast("Processor", structlog.dev.ConsoleRenderer()) if pretty else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_make_lines,
        cache_logger_on_first_use=False,
    )
    _take_over_foreign_loggers()


def is_allow_listed() -> bool:
    """Whether every line of this process, a library's too, goes through the allow-list."""
    handlers = logging.root.handlers
    return keep_allowed in structlog.get_config()["processors"] and all(isinstance(h, _ForeignLog) for h in handlers)


def report_crashes() -> None:
    """Log uncaught exceptions by type, where Python would print their messages; for the main of a process."""
    sys.excepthook = _log_crash
    threading.excepthook = lambda args: _log_crash(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_crash(args.exc_type, args.exc_value, args.exc_traceback)


@contextmanager
def capture_log() -> Generator[list[str]]:
    """Collect every line that this process writes meanwhile, as written; for tests."""
    lines: list[str] = []
    _captures.append(lines)
    try:
        yield lines
    finally:
        _captures[:] = [other for other in _captures if other is not lines]


def keep_allowed(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop keys that are not on the list, and values that are not a number or one word."""
    del logger, method
    kept = {key: _worded(key, value) for key, value in event.items() if key in ALLOWED_KEYS}
    name = event.get("event")
    is_named = isinstance(name, str) and _EVENT.fullmatch(name)
    return {**kept, "event": name if is_named else "unnamed_event"}


def name_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace an exception by its type, its code where it is ours, and the line that raised it; never its message."""
    del logger, method
    given: object = event.pop("exc_info", None)
    exc = sys.exc_info()[1] if given is True else given
    if not isinstance(exc, BaseException):
        return event
    exc = _innermost(exc)
    cause = exc.__cause__ or exc.__context__
    named = {
        "exception": type(exc).__name__,
        "exception_code": getattr(type(exc), "code", None),
        "exception_at": _raised_at(exc.__traceback__),
        "cause": type(cause).__name__ if cause else None,
    }
    return {**event, **{key: value for key, value in named.items() if isinstance(value, str)}}


class _Lines:
    """Writes finished lines to stderr."""

    def msg(self, line: str) -> None:
        for lines in _captures:
            lines.append(line)
        # A log that nobody reads any more must not stop a job from being settled.
        with suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


class _ForeignLog(logging.Handler):
    """Turns a library's record into an event that holds its logger's name and level: its text may quote content."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("foreign_log", logger=record.name, exc_info=record.exc_info[1] if record.exc_info else None)


def _take_over_foreign_loggers() -> None:
    logging.root.handlers[:] = [_ForeignLog(logging.WARNING)]
    logging.root.setLevel(logging.WARNING)
    for name in FOREIGN_LOGGERS:
        foreign = logging.getLogger(name)  # noqa: TID251 - libraries log there, and this is where it ends
        foreign.handlers[:] = []
        foreign.propagate = True
        foreign.setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")  # noqa: TID251 - its lines hold addresses and URLs
    access.handlers[:] = []
    access.disabled = True
    access.propagate = False


def _make_lines(*args: Any) -> _Lines:
    del args
    return _Lines()


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    del logger, method
    return msgspec.json.encode(dict(event)).decode()


def _worded(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "withheld"
    if isinstance(value, UUID):
        return str(value)
    return str(value) if isinstance(value, str) and _PATTERNS.get(key, _WORD).fullmatch(value) else "withheld"


def _innermost(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = cast("BaseExceptionGroup[BaseException]", exc).exceptions[0]
    return exc


def _raised_at(traceback: TracebackType | None) -> str | None:
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def _log_crash(kind: type[BaseException], exc: BaseException | None, traceback: TracebackType | None) -> None:
    del kind, traceback
    if not isinstance(exc, KeyboardInterrupt):
        structlog.get_logger().critical("process_crashed", exc_info=exc)

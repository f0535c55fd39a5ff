"""What ComfyUI says of a job, in the words of newer and of older servers. Pure."""

import re
from collections.abc import Iterator
from mimetypes import guess_type
from typing import Any, cast

import msgspec

from providers.calls import UNREADABLE, Reply
from providers.failures import FailureKind, ProviderFailure

ENDED = frozenset({"completed", "failed", "cancelled"})

_MEMORY = re.compile(r"out ?of ?memory|allocation on device", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_OF_HISTORY = {"success": "completed", "error": "failed"}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A file of its folders; `type` is input, temp or output."""

    filename: str
    subfolder: str = ""
    type: str = "output"

    @property
    def is_media(self) -> bool:
        """Whether it is named like a picture or a film."""
        return (guess_type(self.filename)[0] or "").startswith(("image/", "video/"))


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: messages are pairs of a name and what belongs to it."""

    status_str: str = ""
    messages: list[list[Any]] = []

    def told(self, name: str) -> dict[str, Any] | None:
        """Return what came with a message; None where there was none."""
        found = (message[1] for message in self.messages if len(message) > 1 and message[0] == name)
        told = next(found, None)
        return cast("dict[str, Any]", told) if isinstance(told, dict) else None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job; `status` is open, since new words have come before."""

    status: str
    outputs: dict[str, Any] = {}
    execution_status: _Status | None = None

    @property
    def model_s(self) -> float:
        """Seconds between the start and the end of its run; 0 where they are not told."""
        told = self.execution_status or _Status()
        start, end = (told.told(f"execution_{name}") or {} for name in ("start", "success"))
        try:
            return max(0.0, (end["timestamp"] - start["timestamp"]) / 1000)
        except (KeyError, TypeError):
            return 0.0

    def failure(self) -> ProviderFailure:
        """Say why it did not succeed; its own texts are read here and go nowhere."""
        told = self.execution_status or _Status()
        if self.status == "cancelled" or told.told("execution_interrupted") is not None:
            return ProviderFailure(FailureKind.CANCELED, "interrupted")
        error = told.told("execution_error") or {}
        kind = str(error.get("exception_type", ""))
        if _MEMORY.search(f"{kind} {error.get('exception_message', '')}"):
            return ProviderFailure(FailureKind.OVERLOADED, "out_of_memory")
        name = kind.rpartition(".")[2]
        return ProviderFailure(FailureKind.PROVIDER_ERROR, name if _WORD.fullmatch(name) else "failed")


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the history, as servers without /api/jobs show it."""

    outputs: dict[str, Any] = {}
    status: _Status | None = None

    def job(self) -> Job:
        status = _OF_HISTORY.get(self.status.status_str if self.status else "", "completed")
        return Job(status=status, outputs=self.outputs, execution_status=self.status)


History = dict[str, _Entry]
Queue = dict[str, list[list[Any]]]
_STATES = {"queue_running": "in_progress", "queue_pending": "pending"}


def in_queue(queue: Queue, ident: str) -> Job | None:
    """Find a job in the queue of a server without /api/jobs."""
    for name, status in _STATES.items():
        if any(len(item) > 1 and item[1] == ident for item in queue.get(name, [])):
            return Job(status=status)
    return None


def files_in(found: Any) -> Iterator[Stored]:
    """Yield every file that is named in outputs; their lists are called images, gifs, video, or what a node likes."""
    if isinstance(found, list):
        for one in cast("list[Any]", found):
            yield from files_in(one)
    elif isinstance(found, dict):
        try:
            yield msgspec.convert(found, Stored)
        except msgspec.ValidationError:
            yield from files_in(list(cast("dict[str, Any]", found).values()))


class _NodeError(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    extra_info: dict[str, Any] = {}


class _NodeErrors(msgspec.Struct, frozen=True, kw_only=True):
    errors: list[_NodeError] = []


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    node_errors: dict[str, _NodeErrors] = {}
    error: dict[str, Any] = {}


def refused_inputs(reply: Reply) -> list[tuple[str, str]]:
    """Name what a refusal of an order is about, as pairs of node and input."""
    try:
        nodes = msgspec.json.decode(reply.body, type=_Refusal).node_errors
    except UNREADABLE:
        return []
    return [(node, str(e.extra_info.get("input_name", ""))) for node, told in nodes.items() for e in told.errors]

"""
Hooks at everything that a process of Lethe does to the world: commits, frames, blobs, requests, rings, children.

They are put around the product's methods from outside, in a test's own process: nothing in the product knows of them.
"""

import functools
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import httpx

from broker.changes import Changes
from broker.frames import FrameInvalid, Role, Verb, read_head
from broker.keyservice import KeyService
from broker.queue import Bell
from broker.store import files
from broker.store.blobs import CHUNK_BYTES, BlobStore
from broker.store.database import Database
from broker.store.keyholder_link import Connection, Request
from providers.download import Downloader
from providers.lanes import Lanes
from tests.crash.points import Call, Hook
from workers.images.line import Line

_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE)\b(?! OF)")
_ID = re.compile(r"/[^/]*\d[^/]{7,}")


def install(hook: Hook) -> None:
    """Put a hook around every call with an effect."""
    commits = _commits()

    def commit(_: Database, statement: str, *_values: object) -> str:
        return commits.get(statement, "")

    _around(Database, "row", hook, "commit", commit)
    _around(Database, "rows", hook, "commit", commit)
    _around_plain(Connection, "send", hook, "frame", _asked)
    _around_plain(KeyService, "answer", hook, "frame", _answered)
    for name in ("size", "destroy"):
        _around(BlobStore, name, hook, "blob", functools.partial(_named, name))
    _around_reading(hook)
    _around_writing(hook)
    _around(Lanes, "handle_async_request", hook, "request", _requested)
    _around(Downloader, "fetch", hook, "request", functools.partial(_named, "fetch"))
    _around(Bell, "ring", hook, "ring", functools.partial(_named, "bell"))
    _around(Changes, "publish", hook, "ring", functools.partial(_named, "change"))
    _around(Line, "carry_out", hook, "spawn", functools.partial(_named, "child"))


def _named(name: str, *_args: object, **_kwargs: object) -> str:
    return name


def _asked(_: Connection, request: Request) -> str:
    return request.verb.name


def _answered(_: KeyService, request: memoryview, _reply: memoryview, *, by: Role) -> str:
    del by
    try:
        return Verb(read_head(request).code).name
    except (FrameInvalid, ValueError):
        return ""


def _requested(_: Lanes, request: httpx.Request) -> str:
    """Name a request without what differs from job to job."""
    return f"{request.method} {_ID.sub('/*', request.url.path)}"


def _commits() -> dict[str, str]:
    """The statements that change something, by their text; what only reads leaves nothing to tell before from after."""
    tables = sorted(path.stem for path in (files.HERE / "sql").glob("*.sql"))
    return {
        text: f"{table}.{name}"
        for table in tables
        for name, text in files.statements(table).items()
        if _WRITES.search(text)
    }


def _around(owner: type, name: str, hook: Hook, kind: str, verb_of: Callable[..., str]) -> None:
    plain = getattr(owner, name)

    @functools.wraps(plain)
    async def hooked(*args: Any, **named: Any) -> Any:
        verb = verb_of(*args, **named)
        if not verb:
            return await plain(*args, **named)
        call = hook.before(kind, verb)
        answer = await plain(*args, **named)
        hook.after(call, is_effective=bool(answer))
        return answer

    setattr(owner, name, hooked)


def _around_plain(owner: type, name: str, hook: Hook, kind: str, verb_of: Callable[..., str]) -> None:
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def hooked(*args: Any, **named: Any) -> Any:
        verb = verb_of(*args, **named)
        if not verb:
            return plain(*args, **named)
        call = hook.before(kind, verb)
        answer = plain(*args, **named)
        hook.after(call, is_effective=False)
        return answer

    setattr(owner, name, hooked)


def _around_reading(hook: Hook) -> None:
    plain = BlobStore.read

    async def hooked(self: BlobStore, *args: Any, **named: Any) -> AsyncIterator[bytes]:
        call = hook.before("blob", "read")
        async for chunk in plain(self, *args, **named):
            yield chunk
        hook.after(call, is_effective=False)

    BlobStore.read = hooked


def _around_writing(hook: Hook) -> None:
    plain = BlobStore.put

    async def hooked(self: BlobStore, name: str, chunks: AsyncIterator[bytes]) -> None:
        call = hook.before("blob", "put")
        await plain(self, name, _half_way(hook, call, chunks))
        hook.after(call, is_effective=False)

    BlobStore.put = hooked


async def _half_way(hook: Hook, call: Call, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Pass on what is written, and tell when the first part of several must lie there."""
    written = 0
    async for chunk in chunks:
        yield chunk
        before, written = written, written + len(chunk)
        if before <= CHUNK_BYTES < written:
            hook.during(call)

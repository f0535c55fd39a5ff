"""Stores that lie, fall silent or write down what is asked of them: the real ones, with one thing changed."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from broker.custody import Copy, Evidence
from broker.errors import BlobsUnavailable
from broker.frames import FRAME_BYTES, Verb, read_head
from broker.jobs import Job
from broker.store.blobs import BlobStore
from broker.store.custody import CustodyStore
from broker.store.jobs import JobStore
from broker.store.keys import Keyholder


class LyingKeyholder(Keyholder):
    """Answers that a key is shredded, and keeps it."""

    is_lying: ClassVar[bool] = True

    async def shred(self, key_id: bytes, *, ttl_s: int) -> None:
        if not type(self).is_lying:
            await super().shred(key_id, ttl_s=ttl_s)


class LyingBlobStore(BlobStore):
    """Answers that a blob is deleted, and still shows it."""

    is_lying: ClassVar[bool] = True

    async def _delete(self, name: str) -> None:
        if not type(self).is_lying:
            await super()._delete(name)


class HangingBlobStore(BlobStore):
    """Never answers when a blob is to be deleted, and does not refuse either."""

    async def _delete(self, name: str) -> None:
        await asyncio.Event().wait()


class SilentBlobStore(BlobStore):
    """Answers nothing when a blob is to be deleted."""

    is_silent: ClassVar[bool] = True

    async def destroy(self, name: str) -> None:
        if type(self).is_silent:
            raise BlobsUnavailable
        await super().destroy(name)


class Journal:
    """What was asked of all stores, in one order; tests empty it before they look."""

    lines: ClassVar[list[str]] = []

    @classmethod
    def write(cls, line: str) -> None:
        cls.lines.append(line)


class JournalBlobStore(BlobStore):
    """Writes down what is deleted and looked at."""

    async def destroy(self, name: str) -> None:
        Journal.write("blob destroy")
        await super().destroy(name)

    async def size(self, name: str) -> int | None:
        found = await super().size(name)
        Journal.write(f"blob {'absent' if found is None else 'there'}")
        return found


class JournalCustody(CustodyStore):
    """Writes down who is asked whether he has let go, and what is closed."""

    async def ended_holders(self, refs: Sequence[str]) -> set[str]:
        Journal.write("holders")
        return await super().ended_holders(refs)

    async def close_and_list(self, job_id: UUID, evidence: Mapping[int, Evidence]) -> list[Copy]:
        Journal.write("close " + " ".join(sorted(evidence.values())))
        return await super().close_and_list(job_id, evidence)


class JournalJobs(JobStore):
    """Writes down the last write."""

    async def finish(
        self,
        job: Job,
        *,
        note: str,
        outputs_for_s: float | None,
        provider_copies: str = "none",
        exposure: str = "local",
    ) -> Job:
        finished = await super().finish(
            job, note=note, outputs_for_s=outputs_for_s, provider_copies=provider_copies, exposure=exposure
        )
        Journal.write("final and receipt" if note else "final without receipt")
        return finished


class Tap:
    """Stands between clients and a keyholder, and writes down each verb with the number of its connection."""

    def __init__(self, path: Path, *, keyholder: str) -> None:
        self.path = path
        self._keyholder = keyholder
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_unix_server(self._connected, self.path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._keyholder)
        for source, sink, label in ((reader, upstream_writer, f"key {number}"), (upstream_reader, writer, "")):
            task = asyncio.create_task(_pass_on(source, sink, label))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, label: str) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            frame = await source.readexactly(FRAME_BYTES)
            if label:
                verb = Verb(read_head(memoryview(frame)).code)
                if verb is not Verb.HELLO:
                    Journal.write(f"{label} {verb.name}")
            sink.write(frame)
            await sink.drain()
    sink.close()

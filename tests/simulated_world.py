"""What the machine of use cases stands on: its clients' streams, its time, its law, and its end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import asyncpg

from broker.errors import BrokerError
from broker.frames import Answer
from broker.jobs import FINAL_STATES, Job
from broker.services import Services
from tests.simulation import (
    LEASE_S,
    RENEW,
    SHIFT_ATTEMPTS,
    SHIFT_JOBS,
    SHIFT_PROCESSES,
    SHIFT_REQUESTS,
    STEP_S,
    Sky,
    Worker,
)
from tests.stack import JPEG_HEAD, pretend_worker, upload_bytes

EMPTY = """
ALTER TABLE custody DISABLE TRIGGER all_custody_kept;
TRUNCATE jobs, custody, uploads, outputs, attempts, receipts, requests CASCADE;
ALTER TABLE custody ENABLE TRIGGER all_custody_kept;
DELETE FROM processes WHERE role = 'worker';
"""
ROOM = "VACUUM processes"
"""Else each step looks through the dead rows of thousands of examples: servers of tests do not do it themselves."""
LOOK = """
SELECT id, user_id, state, outcome, charged, open_copies, provider_copies,
       (SELECT count(*) FROM receipts WHERE job_id = jobs.id AND revision = 1) AS receipts
FROM jobs
"""
COPIES = "SELECT job_id, domain, holder, what, ref, closed_at IS NULL AS is_open, evidence FROM custody"
UPLOADS = "SELECT job_id, key_id FROM uploads"
ERASED = "SELECT id FROM requests WHERE kind = 'erasure' AND status = 'completed'"
OPEN_ERASURES = "SELECT id FROM requests WHERE kind = 'erasure' AND status <> 'completed'"
AT_PROVIDER = "far"
PASSES = 60
A_WHILE_S = 60


class Stream:
    """An upload that comes in as the machine says."""

    def __init__(self) -> None:
        self._rest: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.is_read = asyncio.Event()
        self.task: asyncio.Task[tuple[Job, bool]] | None = None
        self.user_id = self.token = ""
        self.job_id = uuid4()
        """The job's, once there is one; until then nobody's."""

    async def chunks(self) -> AsyncIterator[bytes]:
        self.is_read.set()
        yield upload_bytes(200)
        while chunk := await self._rest.get():
            yield chunk
        if chunk is None:
            raise ConnectionError

    async def end(self, *, is_whole: bool) -> None:
        assert self.task is not None
        self._rest.put_nowait(b"" if is_whole else None)
        with suppress(BrokerError):
            self.job_id = (await self.task)[0].id


class World:
    """One broker, its workers, the sky above them, and what must hold there."""

    services: ClassVar[Services]
    reached: ClassVar[set[str]]
    sky: Sky
    workers: list[Worker]
    opened: list[Stream]
    ends_s: dict[UUID, float]
    set_back_s: int
    """How far the database's clock was set back, in all."""
    upload_keys: dict[UUID, bytes]
    """By the job: the only one that its upload ever has."""
    keys_of_users: dict[str, set[bytes]]
    erased: dict[str, UUID]
    """Users who asked for it, and their requests."""

    async def make(self) -> None:
        await self._sql(EMPTY)
        await self._sql(ROOM)
        await pretend_worker(self.services)  # somebody who could do it, or nothing would be let in
        for worker in self.workers:
            await worker.begin()

    async def rescued(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            with suppress(BrokerError):  # as its own loop does: the next pass goes on
                await self.services.rescue.once(tasks)

    async def purged(self) -> None:
        for attempt in await self.services.stores.attempts.due([AT_PROVIDER], within_s=1):
            await self.services.purges.go_on(attempt)

    async def time_passes(self, seconds: int) -> None:
        while seconds > 0:
            step_s = min(seconds, STEP_S)
            seconds -= step_s
            await self.shifted(step_s)
            self.sky.now_s += step_s
            self.sky.keys.sweep()  # the keyholder's own timer
            for worker in self.workers:
                await worker.grow_older(step_s)
            await self.renewed()

    async def renewed(self) -> None:
        able = {worker.id: worker for worker in self.workers if worker.is_alive and not worker.is_cut_off}
        for row in await self.services.stores.database.rows(RENEW, list(able), LEASE_S):
            able[row["id"]].left_s = LEASE_S
            await able[row["id"]].reconcile()

    async def shifted(self, seconds: int) -> None:
        for statement in (SHIFT_JOBS, SHIFT_ATTEMPTS, SHIFT_REQUESTS, SHIFT_PROCESSES):
            await self.services.stores.database.rows(statement, timedelta(seconds=seconds))

    async def hold(self) -> None:
        rows = {row["id"]: row for row in await self.services.stores.database.rows(LOOK)}
        copies = await self.services.stores.database.rows(COPIES)
        blobs = set(await self.sky.blob_names())
        for row in rows.values():
            self.reached.add(row["state"])
            _counts(row)
        for copy in copies:
            if rows[copy["job_id"]]["state"] in FINAL_STATES and copy["what"] == "upload" and copy["domain"] == "ours":
                self._nothing_is_left(copy, blobs)
            if self.sky.now_s >= self.ends_s.get(copy["job_id"], float("inf")) + LEASE_S:
                assert not self._is_key(copy), "I2: a key outlives its deadline"
        self._custody_is_single(copies)
        await self._keys_are_written_once()
        await self._blobs_are_ciphertext(blobs)
        await self._erased_is_gone(rows, copies)

    def _nothing_is_left(self, copy: asyncpg.Record, blobs: set[str]) -> None:
        assert not copy["is_open"], "I1: a final job has an open copy"
        assert not self._is_key(copy), "I1: a final job has a key"
        if copy["holder"] == "blob" and copy["evidence"] == "absent":
            assert copy["ref"] not in blobs, "I4: a blob was called absent"

    def _is_key(self, copy: asyncpg.Record) -> bool:
        return copy["holder"] == "key" and self.sky.keys.has(bytes.fromhex(copy["ref"])) is Answer.YES

    def _custody_is_single(self, copies: list[asyncpg.Record]) -> None:
        known = {(copy["job_id"], copy["ref"]) for copy in copies if copy["holder"] == "process" and copy["is_open"]}
        holders = [(job_id, str(worker.id)) for worker in self.workers for job_id in worker.keys]
        assert set(holders) <= known, "I8: somebody holds what no row names"
        assert len({job_id for job_id, _ in holders}) == len(holders), "I8: two hold one upload"
        for job_id, _ in holders:
            # A worker asks the database how long it may hold an upload; nobody asks of the keys, which end in time.
            ends_s = self.ends_s[job_id] + LEASE_S + self.set_back_s
            assert self.sky.now_s < ends_s, "I2: an upload is held past its deadline"

    async def _keys_are_written_once(self) -> None:
        for upload in await self.services.stores.database.rows(UPLOADS):
            known = self.upload_keys.setdefault(upload["job_id"], upload["key_id"])
            assert upload["key_id"] == known, "I7: an upload has got another key"

    async def _blobs_are_ciphertext(self, blobs: set[str]) -> None:
        for name in blobs:
            assert JPEG_HEAD not in await self.sky.blob(name), "I5: an upload lies there in the clear"

    async def _erased_is_gone(self, rows: Mapping[UUID, asyncpg.Record], copies: list[asyncpg.Record]) -> None:
        for copy in copies:
            if copy["holder"] == "key" and (user_id := rows[copy["job_id"]]["user_id"]):
                self.keys_of_users.setdefault(user_id, set()).add(bytes.fromhex(copy["ref"]))
        done = {row["id"] for row in await self.services.stores.database.rows(ERASED)}
        for user_id in (user_id for user_id, request in self.erased.items() if request in done):
            assert not any(row["user_id"] == user_id for row in rows.values()), "an erased user has a job"
            keys = self.keys_of_users.get(user_id, set())
            assert not any(self.sky.keys.has(key) is Answer.YES for key in keys), "an erased user has a key"

    async def ended(self) -> None:
        """L1: when faults are over everything ends, by rescue and sweep alone."""
        self.sky.redis_is_away = self.sky.blobs_are_silent = self.sky.provider_is_down = False
        self.sky.shreds_to_forget = 0
        for stream in self.opened:
            await stream.end(is_whole=False)
        for worker in self.workers:
            worker.die()
        for _ in range(PASSES):
            if await self._is_over():
                break
            await self.time_passes(A_WHILE_S)
            with suppress(BrokerError):
                await self.rescued()
                await self.services.sweep.once()
                await self.services.sweep.records()
                await self.purged()
                await self.services.erasure.go_on()
        await self.hold()
        assert not await self.services.stores.database.rows(OPEN_ERASURES), "L1: an erasure does not end"
        left = [row["state"] for row in await self.services.stores.database.rows(LOOK)]
        assert set(left) <= FINAL_STATES, f"L1: {left}"

    async def _is_over(self) -> bool:
        database = self.services.stores.database
        states = {row["state"] for row in await database.rows(LOOK)}
        return states <= FINAL_STATES and not await database.rows(OPEN_ERASURES)

    async def _sql(self, statement: str) -> None:
        async with self.services.stores.database.connection() as connection:
            await connection.execute(statement)


def _counts(row: asyncpg.Record) -> None:
    is_final = row["state"] in FINAL_STATES
    assert row["receipts"] == (1 if is_final else 0)
    assert not (is_final and row["open_copies"])
    assert not is_final or row["state"] == row["outcome"]
    assert row["charged"] == (row["state"] == "succeeded")

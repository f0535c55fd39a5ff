"""Writes how far an attempt is, at most twice a second, or as seldom as it is told to."""

import time

import msgspec

from broker.changes import Changes
from broker.errors import Unavailable
from broker.jobs import Job
from broker.store.jobs import JobStore

EVERY_S = 0.5


class Progress:
    """The progress of one attempt; a store that is away only makes it look slower."""

    def __init__(self, jobs: JobStore, changes: Changes, job: Job, *, every_s: float = EVERY_S) -> None:
        self._jobs = jobs
        self._changes = changes
        self._job = job
        self._every_s = every_s
        self._next_s = time.monotonic() + every_s

    async def report(self, progress: float) -> None:
        """Take in a value from 0 to 1."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self._every_s
        try:
            version = await self._jobs.set_progress(self._job, progress)
        except Unavailable:
            return
        if version is not None:
            await self._changes.publish(msgspec.structs.replace(self._job, version=version))

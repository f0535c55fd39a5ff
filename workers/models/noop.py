"""Reads an upload from end to end and answers with a constant: what a job costs without a model."""

import asyncio
import hashlib
import mmap
import os
from time import perf_counter
from typing import ClassVar

from providers.base import Exposure, Output, Progress, Reporter, Snapshot, Takes, Task, Terms, Upload
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline

ANSWER = b"ok"
# Under a millisecond each, so that the event loop goes on, and a cancel is heard, without a thread.
PART_BYTES = 1 << 20


class Noop(Inline):
    """The in-house provider of `noop`, for measuring and for tests of the lifecycle."""

    name: ClassVar[str] = "noop"
    terms: ClassVar[Terms] = Terms(
        takes=Takes.UPLOAD, operations=frozenset({"noop"}), exposure=Exposure.LOCAL, retention_s=0
    )

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Hash the upload, drop the digest (it would confirm a known photo), answer `ok`."""
        if task.operation not in self.terms.operations:
            raise ProviderFailure(FailureKind.UNSUPPORTED, "operation")
        upload = task.pictures[0] if len(task.pictures) == 1 else None
        if not isinstance(upload, Upload):
            raise ProviderFailure(FailureKind.INVALID_INPUT, "not_an_upload")
        if os.fstat(upload.fd).st_size < upload.size_bytes:
            raise ProviderFailure(FailureKind.INVALID_INPUT, "upload_short")
        began = perf_counter()
        await _read(upload)
        await reporter.progressed(1.0)
        output = Output(data=ANSWER, media_type="text/plain")
        return Snapshot(progress=Progress.SUCCEEDED, outputs=(output,), model_s=perf_counter() - began)


async def _read(upload: Upload) -> None:
    if upload.size_bytes == 0:
        return
    digest = hashlib.sha256()
    with mmap.mmap(upload.fd, upload.size_bytes, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        for start in range(0, upload.size_bytes, PART_BYTES):
            with view[start : start + PART_BYTES] as part:
                digest.update(part)
            await asyncio.sleep(0)

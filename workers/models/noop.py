"""Reads an upload from end to end and answers with a constant: what a job costs without a model."""

import asyncio
import hashlib
import mmap
import os
from time import perf_counter
from typing import ClassVar

from providers.base import Exposure, FailureKind, ProviderFailure, Report, Result, Takes, Task, Upload

ANSWER = b"ok"
# Under a millisecond each, so that the event loop goes on, and a cancel is heard, without a thread.
PART_BYTES = 1 << 20


class Noop:
    """The in-house provider of `noop`, for measuring and for tests of the lifecycle."""

    name: ClassVar[str] = "noop"
    exposure: ClassVar[Exposure] = Exposure.LOCAL
    retention_s: ClassVar[int] = 0
    takes: ClassVar[Takes] = Takes.UPLOAD
    operations: ClassVar[frozenset[str]] = frozenset({"noop"})

    async def warm(self) -> None:
        """Nothing to load."""

    async def run(self, task: Task, report: Report) -> Result:
        """Hash the upload, drop the digest (it would confirm a known photo), answer `ok`."""
        upload = task.picture
        if task.operation not in self.operations:
            raise ProviderFailure(FailureKind.UNSUPPORTED, "operation")
        if not isinstance(upload, Upload):
            raise ProviderFailure(FailureKind.INVALID_INPUT, "not_an_upload")
        if os.fstat(upload.fd).st_size < upload.size_bytes:
            raise ProviderFailure(FailureKind.INVALID_INPUT, "upload_short")
        began = perf_counter()
        await _read(upload)
        await report(1.0)
        return Result(document=ANSWER, media_type="text/plain", model_s=perf_counter() - began)

    async def aclose(self) -> None:
        """Nothing to let go of."""


async def _read(upload: Upload) -> None:
    if upload.size_bytes == 0:
        return
    digest = hashlib.sha256()
    with mmap.mmap(upload.fd, upload.size_bytes, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        for start in range(0, upload.size_bytes, PART_BYTES):
            with view[start : start + PART_BYTES] as part:
                digest.update(part)
            await asyncio.sleep(0)

"""Orders for adapters under test: a task of a case's own, followed to its end."""

import asyncio
import io
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from providers.base import File, Handle, Output, Picture, Progress, Provider, Snapshot, Task, Value
from providers.failures import ProviderFailure
from providers.replicate import INLINE_BYTES
from tests.emulators.base import Emulator
from tests.emulators.case import Case
from tests.pictures import photo
from tests.reporters import Heard

FILE_NAME = "holiday-canary.jpg"
ENOUGH_S = 20.0


def picture(media_type: str = "image/jpeg", *, seed: int = 1) -> File:
    """Put a clean picture into shared memory, under a name that must not leave."""
    held = io.BytesIO()
    Image.fromarray(photo(64, 48, seed=seed)).save(held, media_type.partition("/")[2].upper())
    fd = os.memfd_create(FILE_NAME)
    os.write(fd, held.getvalue())
    return File(fd=fd, size_bytes=len(held.getvalue()), media_type=media_type, width=64, height=48)


def large_picture() -> File:
    """Put a picture into memory that is too large to go inside an order where larger ones are uploaded first."""
    held = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(held, "PNG")
    assert len(held.getvalue()) > INLINE_BYTES
    fd = os.memfd_create("large")
    os.write(fd, held.getvalue())
    return File(fd=fd, size_bytes=len(held.getvalue()), media_type="image/png", width=400, height=400)


def order(
    operation: str, parameters: Mapping[str, Value], pictures: tuple[Picture, ...] | None = None, /, **changes: object
) -> Task:
    """Ask for something; a picture comes along unless others do."""
    whole = Task(
        attempt=str(uuid.uuid4()),
        operation=operation,
        parameters=parameters,
        pictures=(picture(),) if pictures is None else pictures,
        deadline_s=60,
    )
    return msgspec.structs.replace(whole, **changes)


def task(case: Case, pictures: tuple[Picture, ...] | None = None, **changes: object) -> Task:
    """Ask for the case's own task."""
    own = tuple(picture(seed=n) for n in range(case.pictures)) if pictures is None else pictures
    return order(case.operation, case.parameters, own, **changes)


def stored(handle: Handle) -> Handle:
    """Return what a database gives back."""
    return msgspec.json.decode(msgspec.json.encode(handle), type=Handle)


async def finish(provider: Provider, snapshot: Snapshot, heard: Heard) -> Snapshot:
    """Poll until the attempt succeeded."""
    async with asyncio.timeout(ENOUGH_S):
        while snapshot.progress is not Progress.SUCCEEDED:
            assert 0 < snapshot.poll_after_s <= 10
            await asyncio.sleep(min(snapshot.poll_after_s, 0.01))
            snapshot = await provider.poll(stored(heard.handle))
    return snapshot


async def run(provider: Provider, wanted: Task, heard: Heard | None = None) -> Snapshot:
    """Order a task and follow it to its end."""
    listener = heard or Heard()
    return await finish(provider, await provider.submit(wanted, listener), listener)


async def finished(provider: Provider, wanted: Task) -> Handle:
    """Follow a task to its end, and return its handle as a database gives it back."""
    heard = Heard()
    await run(provider, wanted, heard)
    return stored(heard.handle)


async def failure_of(provider: Provider, wanted: Task) -> ProviderFailure | None:
    """Order a task, follow it, and return how it failed."""
    try:
        await run(provider, wanted)
    except ProviderFailure as failure:
        return failure
    return None


def sent(emulator: Emulator) -> Counter[str]:
    """Count the requests that change something, by route."""
    return Counter(seen.route for seen in emulator.seen if seen.method not in {"GET", "HEAD", "OPTIONS"})


def secrets_seen(emulator: Emulator) -> set[str]:
    """Return the credentials that arrived."""
    values = (seen.headers.get(name, "") for seen in emulator.seen for name in ("authorization", "x-api-key"))
    return {word for value in values for word in value.split() if len(word) >= 8}


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(ENOUGH_S):
        while not condition():  # noqa: ASYNC110  what is waited for happens in another thread or the kernel
            await asyncio.sleep(0.002)


def descriptors() -> set[str]:
    """Return what this process has open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def is_usable(output: Output) -> bool:
    """Whether an output is a file or the address of one."""
    return bool(output.data) != output.url.startswith(("https://", "http://"))

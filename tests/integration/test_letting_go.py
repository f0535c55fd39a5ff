"""What a stopped attempt held is let go of before custody says so; no collector of cycles has to come by first."""

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from broker.jobs import JobState
from broker.settings import Settings
from providers.base import Reporter, Snapshot, Task
from tests.desk import Desk, config, own_desk
from tests.lifecycle import eventually, reread
from tests.relay import relaying, sent


class Held:
    """Stands for a picture on its way."""


async def _hold(held: list[weakref.ref[Held]]) -> None:
    """Wait for ever, with a picture, in a frame that an exception keeps and that keeps the exception."""
    picture = Held()
    held.append(weakref.ref(picture))
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as exc:
        kept = exc
        raise kept  # noqa: B904 - it is the same


async def test_a_cancelled_order_keeps_nothing_of_its_picture(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is canceled and its worker's row closed: what the adapter's frames held is gone by then."""
    desk, held = own_desk(monkeypatch), list[weakref.ref[Held]]()

    async def submit(self: Desk, task: Task, reporter: Reporter) -> Snapshot:
        await _hold(held)
        raise AssertionError

    monkeypatch.setattr(desk, "submit", submit)
    async with relaying(settings, tmp_path, config()) as services:
        job = await sent(services)

        async def is_held() -> bool:
            return bool(held)

        await eventually(is_held, within_s=20)
        gc.collect()
        gc.disable()
        try:
            await services.cancellation.delete(await reread(services, job))
            assert (await reread(services, job)).state is JobState.CANCELED
            assert held[0]() is None
        finally:
            gc.enable()

"""Ends what was begun though the task is being cancelled; the shields of anyio hold off no cancel of asyncio's own."""

import asyncio
from collections.abc import Awaitable


async def to_its_end(action: Awaitable[None]) -> None:
    """Await an action in a task of its own; raise CancelledError only then, if the caller was cancelled meanwhile."""
    task = asyncio.ensure_future(action)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            is_cancelled = True
    task.result()
    if is_cancelled:
        raise asyncio.CancelledError

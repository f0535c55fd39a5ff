"""Tells the worker that waits for an attempt that its provider may have news; whoever hears it asks the provider."""

import asyncio
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from broker.channel import Channel

CHANNEL = "lethe:hints"


class Hints:
    """Hints from providers, by attempt; a forged or repeated one costs a question, a lost one costs time."""

    def __init__(self, redis: Any) -> None:
        # Whoever waits asks in its own time anyway: waking all would have everything asked for at once.
        self._channel = Channel(redis, CHANNEL, hear=self._hear, wakes_in_doubt=False)

    async def publish(self, attempt_id: UUID) -> None:
        """Tell whoever waits for the attempt, in whatever process."""
        await self._channel.publish(attempt_id.bytes)

    def watch(self, attempt_id: UUID) -> AbstractContextManager[asyncio.Event]:
        """Lend an event that is set whenever the provider may have news; its user clears it."""
        return self._channel.watch(attempt_id)

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._channel.run()

    def _hear(self, data: bytes) -> None:
        if len(data) == 16:
            self._channel.wake(UUID(bytes=data))

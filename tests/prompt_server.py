"""uvicorn, but for its pauses: it looks ten times a second whether it is to end, and then waits a tenth of one."""

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn

LOOK_AGAIN_S = 0.01


class PromptServer(uvicorn.Server):
    """Ends when it is told to; of what tests wait for, the pauses would be the most."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        # Nobody is woken: it is set from elsewhere, by emulators from another thread.
        while not self.should_exit:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers finish for as long as is configured, as uvicorn does."""
        del sockets
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - they say nothing
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

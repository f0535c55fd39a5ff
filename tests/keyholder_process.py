"""A real keyholder for tests, in a process of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from broker.frames import KEY_BYTES
from broker.prctl import die_with_parent
from broker.secret_memory import random_into
from broker.store.keys import Keyholder


class KeyholderProcess:
    """A keyholder in a process of its own, which a test may kill, stop and start again."""

    def __init__(self, socket_path: Path, *options: str) -> None:
        self.socket_path = str(socket_path)
        self.log_path = socket_path.with_suffix(".log")
        self._options = options
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "broker.keyholder", "--socket", self.socket_path, *self._options]
        with self.log_path.open("ab") as output:
            self.running = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
            )
        deadline_s = time.monotonic() + 10
        while not self.answers():
            if self.running.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise AssertionError(self.log_path.read_text())
            time.sleep(0.01)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket_path) == 0

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.running.send_signal(signal.SIGCONT)
        self.running.send_signal(number)
        return self.running.wait(10)


@asynccontextmanager
async def own_keyholder(folder: Path, *options: str) -> AsyncGenerator[tuple[KeyholderProcess, Keyholder]]:
    process = KeyholderProcess(folder / "k.sock", *options)
    client = Keyholder(process.socket_path)
    try:
        yield process, client
    finally:
        await client.aclose()
        process.stop()


async def wait_until(predicate: Callable[[], Awaitable[bool]], *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not await predicate():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


def new_key() -> tuple[bytes, bytearray]:
    key = bytearray(KEY_BYTES)
    random_into(key)
    return os.urandom(16), key

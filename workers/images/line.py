"""
One zygote process and the socket to it; orders go out with descriptors, verdicts come back.

Linux kills the zygote when the *thread* that started it ends, so a Line is opened on the thread that stays.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, Self

import msgspec

from broker.prctl import FORGETFUL_HEAP
from providers.finish import to_its_end
from workers.images.errors import ImagesError, SandboxUnavailable
from workers.images.orders import Order, StopOrder, Verdict

NURSERY: Final = "workers.images.nursery"

_START_S: Final = 30.0
_STOP_S: Final = 2.0
_VERDICT_BYTES: Final = 1024
_ROOT: Final = Path(__file__).parents[2]

_encoder: Final = msgspec.msgpack.Encoder()
_verdicts: Final = msgspec.msgpack.Decoder(Verdict)


class ZygoteGone(ImagesError):
    """The zygote process ended while an order was open."""


class Line:
    """One zygote process and the socket to it."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, asyncio.Future[Verdict]] = {}
        self._last_number = 0
        self.is_broken = False
        self._loop.add_reader(control, self._read)

    @classmethod
    async def open(cls, program: str) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-s", "-m", program, str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=FORGETFUL_HEAP,
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
            )
        line = cls(process, ours)
        try:
            await line._be_ready()
        except BaseException:
            await line.aclose()
            raise
        return line

    @property
    def pid(self) -> int:
        return self._process.pid

    async def carry_out(self, order: Callable[[int], Order], given_fd: int, made_fd: int, timeout_s: float) -> Verdict:
        number = self._last_number = self._last_number + 1
        answer = self._open[number] = self._loop.create_future()
        try:
            with _read_only(given_fd) as given:
                await self._send(order(number), [given, made_fd])
            try:
                done, _ = await asyncio.wait([answer], timeout=timeout_s)
            except asyncio.CancelledError:
                await to_its_end(self._stop(number, answer))
                raise
            if not done:
                self._break()
            return await answer
        finally:
            del self._open[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen

    async def aclose(self) -> None:
        """Close the socket, which ends the zygote; kill it if it does not end."""
        self._break()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()

    async def _be_ready(self) -> None:
        ready = self._open[0] = self._loop.create_future()
        try:
            async with asyncio.timeout(_START_S):
                verdict = await ready
        except (ZygoteGone, TimeoutError):
            raise SandboxUnavailable("the zygote process did not start") from None
        finally:
            del self._open[0]
        if verdict.obstacle:
            raise SandboxUnavailable(verdict.obstacle)

    async def _send(self, order: Order, fds: list[int]) -> None:
        data = _encoder.encode(order)
        while not self.is_broken:
            try:
                socket.send_fds(self._control, [data], fds)
                return
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the queue of a local socket holds few packets, and the zygote reads fast
            except OSError:
                self._break()
        raise ZygoteGone

    async def _stop(self, number: int, answer: asyncio.Future[Verdict]) -> None:
        """Have the child killed and wait until it is reaped; take the whole zygote down if it does not answer."""
        with contextlib.suppress(ZygoteGone):
            await self._send(StopOrder(number=number), [])
        done, _ = await asyncio.wait([answer], timeout=_STOP_S)
        if not done:
            self._kill()
            await self._process.wait()

    def _read(self) -> None:
        try:
            data = self._control.recv(_VERDICT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._break()
            return
        verdict = _verdicts.decode(data)
        answer = self._open.get(verdict.number)
        if answer is not None and not answer.done():
            answer.set_result(verdict)

    def _break(self) -> None:
        """Let go of the socket and tell all who wait."""
        if self.is_broken:
            return
        self.is_broken = True
        self._loop.remove_reader(self._control)
        self._control.close()
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ZygoteGone())

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


@contextlib.contextmanager
def _read_only(fd: int) -> Generator[int]:
    """Open the same memory again without the right to write."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield again
    finally:
        os.close(again)

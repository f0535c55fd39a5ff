"""The load generator, a process of its own: phones that put uploads and wait for their jobs.

It reads a plan and prints a tally. It speaks as little HTTP as will do, to take little of the machine it measures.
"""

import asyncio
import itertools
import os
import resource
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec

from bench.stack import HERE

JPEG_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
PIECE_BYTES = 256 * 1024
WAIT_S = 25
NO_BODY = memoryview(b"")
FINAL = (b"succeeded", b"failed", b"canceled", b"expired")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: until `count` jobs are done, or `within_s` are over."""

    port: int
    tokens: list[str]
    query: str = "operation=noop"
    phones: int = 1
    count: int = 1_000_000
    within_s: float = 600.0
    body_bytes: int = 100_000
    body_file: str = ""
    parameters: str = ""
    """What a user types, as JSON."""
    posts: str = ""
    """A job in words, as JSON, to be posted instead of an upload."""
    orders: str = ""
    """JSON for an Images API, whoever speaks it: its answer is the picture, there is no job."""
    waits: bool = False
    """Whether a phone waits for its job to be final before it sends the next one."""
    fetches: bool = False
    """Whether it then gets the first output."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    done: int
    failed: int
    took_s: float
    cpu_s: float
    latencies_ms: list[float]

    @property
    def per_s(self) -> float:
        return self.done / self.took_s

    @property
    def cpu_share(self) -> float:
        """How much of one core the generator took."""
        return self.cpu_s / self.took_s


class Phone:
    """One keep-alive connection that sends one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, head: str, body: memoryview = NO_BODY) -> tuple[int, bytes]:
        """Send a request; return status and body of the answer."""
        self._writer.write(f"{head}\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), PIECE_BYTES):
            self._writer.write(body[start : start + PIECE_BYTES])
            await self._writer.drain()
        answered = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in answered.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return int(answered[9:12]), await self._reader.readexactly(length)


async def send_order(phone: Phone, plan: Plan, token: str, body: memoryview) -> bool:
    """Order a picture at an Images API; tell whether there is one in the answer."""
    del plan
    secret = f"Authorization: Bearer {token}\r\nContent-Type: application/json"
    status, shown = await phone.ask(f"POST /v1/images/generations HTTP/1.1\r\n{secret}", body)
    return status == 200 and b'"b64_json":' in shown


async def send_job(phone: Phone, plan: Plan, token: str, body: memoryview) -> bool:
    """Put or post one job and, where the plan says so, wait until it is final; tell whether all went well."""
    secret = f"Authorization: Bearer {token}"
    path = await _posted(phone, secret, body) if plan.posts else await _put(phone, plan, secret, body)
    return await _awaited(phone, plan, path, secret) if path and plan.waits else bool(path)


async def _put(phone: Phone, plan: Plan, secret: str, body: memoryview) -> str:
    path = f"/v1/jobs/{uuid4()}"
    head = f"PUT {path}?{plan.query} HTTP/1.1\r\n{secret}\r\nContent-Type: image/jpeg{_typed(plan)}"
    status, _ = await phone.ask(head, body)
    return path if status == 202 else ""


async def _posted(phone: Phone, secret: str, body: memoryview) -> str:
    head = f"POST /v1/jobs HTTP/1.1\r\n{secret}\r\nContent-Type: application/json\r\nIdempotency-Key: {uuid4()}"
    status, shown = await phone.ask(head, body)
    return f"/v1/jobs/{_id_in(shown)}" if status == 202 else ""


async def _awaited(phone: Phone, plan: Plan, path: str, secret: str) -> bool:
    while True:
        status, shown = await phone.ask(f"GET {path} HTTP/1.1\r\n{secret}\r\nPrefer: wait={WAIT_S}")
        if status != 200:
            return False
        state = shown.partition(b'"status":"')[2].partition(b'"')[0]
        if state in FINAL:
            break
    if state != b"succeeded" or not plan.fetches:
        return state == b"succeeded"
    status, output = await phone.ask(f"GET {path}/outputs/0 HTTP/1.1\r\n{secret}")
    return status == 200 and output.startswith(JPEG_HEAD[:3])


async def carry_out(plan: Plan) -> Tally:
    """Let all phones work off the plan."""
    body = memoryview(_body(plan))
    send = send_order if plan.orders else send_job
    numbers, latencies_ms = itertools.count(), list[float]()
    failed = 0
    async with _phones(plan) as phones:
        began_s, cpu_before_s = time.perf_counter(), _cpu_s()

        async def work(phone: Phone) -> None:
            nonlocal failed
            for number in _until(numbers, plan, began_s):
                sent_s = time.perf_counter()
                if await send(phone, plan, plan.tokens[number % len(plan.tokens)], body):
                    latencies_ms.append((time.perf_counter() - sent_s) * 1000)
                else:
                    failed += 1

        async with asyncio.TaskGroup() as group:
            for phone in phones:
                group.create_task(work(phone))
        took_s, cpu_s = time.perf_counter() - began_s, _cpu_s() - cpu_before_s
    return Tally(done=len(latencies_ms), failed=failed, took_s=took_s, cpu_s=cpu_s, latencies_ms=latencies_ms)


async def run_load(plan: Plan) -> Tally:
    """Carry out a plan in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", cwd=HERE.parent, stdin=-1, stdout=-1, limit=1 << 24
    )
    printed, _ = await process.communicate(msgspec.json.encode(plan))
    if process.returncode != 0:
        raise RuntimeError(f"the load generator ended with exit code {process.returncode}")
    return msgspec.json.decode(printed, type=Tally)


@asynccontextmanager
async def _phones(plan: Plan) -> AsyncGenerator[list[Phone]]:
    pairs = [await asyncio.open_connection("127.0.0.1", plan.port) for _ in range(plan.phones)]
    try:
        yield [Phone(reader, writer) for reader, writer in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


def _id_in(shown: bytes) -> str:
    return shown.partition(b'"id":"')[2][:36].decode()


def _typed(plan: Plan) -> str:
    if not plan.parameters:
        return ""
    return f"\r\nLethe-Parameters: {urlsafe_b64encode(plan.parameters.encode()).decode().rstrip('=')}"


def _until(numbers: Iterator[int], plan: Plan, began_s: float) -> Iterator[int]:
    for number in numbers:
        if number >= plan.count or time.perf_counter() - began_s >= plan.within_s:
            return
        yield number


def _body(plan: Plan) -> bytes:
    if words := plan.orders or plan.posts:
        return words.encode()
    if plan.body_file:
        return Path(plan.body_file).read_bytes()
    return JPEG_HEAD + os.urandom(plan.body_bytes - len(JPEG_HEAD))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    print(msgspec.json.encode(asyncio.run(carry_out(given))).decode())

"""Many phones at once for the chaos test: good and bad pictures, cancels, broken-off and doubled uploads."""

import asyncio
import random
import secrets
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import msgspec

OPERATIONS = ("upscale&scale=2", "restyle", "restyle", "noop", "noop", "noop")
REFUSED_FOR_NOW = frozenset({429, 500, 502, 503})
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
RETRY_S = 0.15

Body = Callable[[], AsyncIterator[bytes]]


class Sent(msgspec.Struct, kw_only=True):
    """One job id and what became of it, as the phone saw it."""

    id: UUID
    kind: str
    status: str = ""
    refused: int = 0


class Load:
    """Sends until told to stop; every upload carries the marker in its metadata, and in its pixels where it has any."""

    def __init__(self, url: str, *, seed: int) -> None:
        self.marker = f"chaos{secrets.token_hex(12)}".encode()
        self.secret = f"chaosmeta{secrets.token_hex(12)}".encode()
        self.url = url
        self.sent: list[Sent] = []
        self.faults: list[str] = []
        self.token = ""
        self._random = random.Random(seed)
        self._http = httpx.AsyncClient(timeout=30)

    async def open(self) -> None:
        minted = await self._until_answered("POST", "/v1/users")
        self.token = minted.json()["token"]
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    async def aclose(self) -> None:
        await self._http.aclose()

    async def run(self, *, phones: int, for_s: float) -> None:
        ends_s = time.monotonic() + for_s
        async with asyncio.TaskGroup() as tasks:
            for _ in range(phones):
                tasks.create_task(self._phone(ends_s))

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self._until_answered("GET", path, headers=headers)

    async def _phone(self, ends_s: float) -> None:
        acts = (self._plain, self._plain, self._plain, self._bad, self._canceled, self._cut_off, self._doubled)
        while time.monotonic() < ends_s:
            await self._random.choice(acts)()

    async def _plain(self) -> None:
        sent = self._begin("plain")
        await self._put(sent, self.picture(), self._random.choice(OPERATIONS))
        await self._follow(sent)

    async def _bad(self) -> None:
        sent = self._begin("bad")
        picture = self.picture()
        await self._put(sent, picture[: len(picture) // 2], self._random.choice(OPERATIONS[:3]))
        await self._follow(sent)
        if sent.status == "succeeded":
            self.faults.append(f"half a picture succeeded: {sent}")

    async def _canceled(self) -> None:
        sent = self._begin("canceled")
        await self._put(sent, self.picture(), self._random.choice(OPERATIONS))
        await asyncio.sleep(self._random.uniform(0, 0.3))
        await self._until_answered("DELETE", f"/v1/jobs/{sent.id}")
        await self._follow(sent)

    async def _cut_off(self) -> None:
        sent = self._begin("cut_off")
        await asyncio.to_thread(self._half_a_request, sent.id, self.picture(), self._random.uniform(0, 0.5))

    async def _doubled(self) -> None:
        sent = self._begin("doubled")
        picture, operation = self.picture(), self._random.choice(OPERATIONS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._put(sent, picture, operation))
            tasks.create_task(self._put(sent, picture, operation))
        await self._follow(sent)

    def _begin(self, kind: str) -> Sent:
        self.sent.append(Sent(id=uuid4(), kind=kind))
        return self.sent[-1]

    async def _put(self, sent: Sent, picture: bytes, operation: str) -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for start in range(0, len(picture), 16_384):
                yield picture[start : start + 16_384]
                await asyncio.sleep(0)

        url = f"/v1/jobs/{sent.id}?operation={operation}"
        while True:
            answer = await self._until_answered("PUT", url, body=slowly)
            if answer.status_code in {200, 202}:
                return
            if answer.status_code == 409 and answer.json()["code"] == "upload_superseded":
                await asyncio.sleep(RETRY_S)
                continue
            if answer.status_code == 400 and answer.json()["code"] == "upload_incomplete":
                continue
            sent.refused = answer.status_code
            if answer.status_code not in {415, 422}:
                self.faults.append(f"{sent.kind} got {answer.status_code} {answer.text[:200]}")
            return

    async def _follow(self, sent: Sent) -> None:
        while not sent.refused:
            answer = await self.get(f"/v1/jobs/{sent.id}", Prefer="wait=10")
            if answer.status_code != 200:
                self.faults.append(f"{sent.kind} {sent.id}: GET {answer.status_code} {answer.text[:200]}")
                return
            shown = answer.json()
            sent.status = shown["status"]
            if sent.status in FINAL:
                return

    async def _until_answered(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: Body | None = None
    ) -> httpx.Response:
        while True:
            with suppress(httpx.TransportError):
                content = body() if body else None
                answer = await self._http.request(method, self.url + path, headers=headers, content=content)
                if answer.status_code not in REFUSED_FOR_NOW:
                    return answer
                if answer.status_code == 500:
                    self.faults.append(f"{method} 500 {answer.text[:200]}")
            await asyncio.sleep(RETRY_S)

    def _half_a_request(self, job_id: UUID, picture: bytes, rest_s: float) -> None:
        address = urlsplit(self.url)
        head = (
            f"PUT /v1/jobs/{job_id}?operation=noop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Length: {len(picture)}\r\n\r\n"
        )
        with suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=5) as phone:
            phone.sendall(head.encode() + picture[: len(picture) // 2])
            time.sleep(rest_s)

    def picture(self) -> bytes:
        """Neither compressed nor filtered, so that the marker stands in file and pixels alike, byte for byte."""
        width, height = self._random.randint(48, 128), self._random.randint(48, 128)
        rows = [bytearray(b"\0" + self._random.randbytes(width * 3)) for _ in range(height)]
        rows[3][1 : 1 + len(self.marker)] = self.marker
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"tEXt", b"Comment\0" + self.secret),
            (b"IDAT", zlib.compress(b"".join(rows), level=0)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

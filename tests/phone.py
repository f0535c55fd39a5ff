"""A phone that never gives up: every request is repeated until it is answered, as clients of an idempotent API do."""

import asyncio
import random
import secrets
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import msgspec

from providers.calls import trust

NOT_NOW = frozenset({429, 500, 502, 503})
AGAIN = frozenset({"upload_superseded", "upload_incomplete", "operation_unavailable"})
"""Refusals after which nothing was taken in, and a phone sends again: also when every worker died a moment ago."""
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
RETRY_S = 0.15

Body = Callable[[], AsyncIterator[bytes]]
Json = dict[str, Any]


class Marks:
    """What nobody may find again: one word in an upload's pixels, another in its metadata."""

    def __init__(self) -> None:
        mark = secrets.token_hex(12)
        self.marker = f"pixels{mark}".encode()
        self.secret = f"meta{mark}".encode()
        self._mark = mark.encode()

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What both have in common, as it is and in hex."""
        return self._mark, self._mark.hex().encode()

    def picture(self, width: int, height: int, *, seed: random.Random) -> bytes:
        """Neither compressed nor filtered, so that both stand in the file byte for byte."""
        rows = [bytearray(b"\0" + seed.randbytes(width * 3)) for _ in range(height)]
        rows[3][1 : 1 + len(self.marker)] = self.marker
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"tEXt", b"Comment\0" + self.secret),
            (b"IDAT", zlib.compress(b"".join(rows), level=0)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when, and whether it was answered with anything but a server error."""

    began_s: float
    ended_s: float
    is_answered: bool


class Phone:
    """One user at one or several brokers; whichever answers is as good."""

    def __init__(self, urls: Sequence[str], *, seed: int) -> None:
        self.urls = urls
        self.faults: list[str] = []
        self.asked: list[Asked] = []
        self.token = ""
        self.random = random.Random(seed)
        self._http = httpx.AsyncClient(timeout=30, verify=trust())

    async def open(self) -> None:
        """Become a user."""
        minted = await self.ask("POST", "/v1/users")
        self.token = minted.json()["token"]
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    async def aclose(self) -> None:
        """Hang up."""
        await self._http.aclose()

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Read something."""
        return await self.ask("GET", path, headers=headers)

    async def send(self, job_id: UUID, picture: bytes, query: str, **headers: str) -> httpx.Response:
        """Send a picture under one id until it is in, or refused."""

        async def slowly() -> AsyncIterator[bytes]:
            for start in range(0, len(picture), 16_384):
                yield picture[start : start + 16_384]
                await asyncio.sleep(0)

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            answer = await self.ask("PUT", f"/v1/jobs/{job_id}?operation={query}", headers=named, body=slowly)
            if _code(answer) not in AGAIN:
                return answer
            await asyncio.sleep(RETRY_S)

    async def follow(self, job_id: UUID, *, wait_s: int = 10) -> Json:
        """Wait for the final state; what is shown last, or nothing where the job is not known."""
        while True:
            answer = await self.get(f"/v1/jobs/{job_id}", Prefer=f"wait={wait_s}")
            if answer.status_code != 200:
                self.faults.append(f"{job_id}: GET {answer.status_code} {answer.text[:200]}")
                return {}
            if answer.json()["status"] in FINAL:
                return answer.json()

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: Body | None = None
    ) -> httpx.Response:
        """Repeat one request until it is answered."""
        while True:
            answer = await self._once(method, path, headers, body() if body else None)
            if answer is not None:
                return answer
            await asyncio.sleep(RETRY_S)

    async def _once(
        self, method: str, path: str, headers: dict[str, str] | None, content: AsyncIterator[bytes] | None
    ) -> httpx.Response | None:
        began_s, is_answered = time.monotonic(), False
        try:
            with suppress(httpx.TransportError):
                url = self.random.choice(self.urls) + path
                answer = await self._http.request(method, url, headers=headers, content=content)
                if answer.status_code == 500:
                    self.faults.append(f"{method} 500 {answer.text[:200]}")
                is_answered = answer.status_code < 500
                return None if answer.status_code in NOT_NOW else answer
        finally:
            self.asked.append(Asked(began_s=began_s, ended_s=time.monotonic(), is_answered=is_answered))
        return None


def _code(answer: httpx.Response) -> str:
    return answer.json().get("code", "") if answer.is_client_error else ""


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

"""Many phones at once for the soak: good and bad pictures, cancels, broken-off and doubled uploads, everywhere."""

import asyncio
import json
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec

from tests.phone import Marks, Phone

OPERATIONS = ("noop", "noop", "restyle", "restyle", "upscale&scale=2", "edit", "remove_background")
PICTURES = OPERATIONS[2:5]
"""Those that open the picture, and find that half of it is missing."""


class Sent(msgspec.Struct, kw_only=True):
    """One job id and what became of it, as the phone saw it."""

    id: UUID
    kind: str
    status: str = ""
    began_s: float
    ended_s: float = 0.0


class Load(Phone):
    """Sends until told to stop; every upload carries the same marks."""

    def __init__(self, urls: Sequence[str], *, seed: int) -> None:
        super().__init__(urls, seed=seed)
        self.marks = Marks()
        self.sent: list[Sent] = []

    async def run(self, *, phones: int, for_s: float) -> None:
        """Let so many phones send for so long, and follow what they sent to its end."""
        ends_s = time.monotonic() + for_s
        async with asyncio.TaskGroup() as tasks:
            for n in range(phones):
                tasks.create_task(self._phone(n, ends_s))

    def picture(self) -> bytes:
        """A small picture like no other."""
        side = self.random.randint(48, 96)
        return self.marks.picture(side, side, seed=self.random)

    async def _phone(self, n: int, ends_s: float) -> None:
        acts = (self._plain, self._bad, self._canceled, self._cut_off, self._doubled, self._plain, self._plain)
        await acts[n % len(acts)]()
        while time.monotonic() < ends_s:
            await self.random.choice(acts)()

    async def _plain(self) -> None:
        sent = self._begin("plain")
        await self._put(sent, self.picture(), self.random.choice(OPERATIONS))
        await self._end(sent)

    async def _bad(self) -> None:
        sent = self._begin("bad")
        picture = self.picture()
        await self._put(sent, picture[: len(picture) // 2], self.random.choice(PICTURES))
        await self._end(sent)
        if sent.status == "succeeded":
            self.faults.append(f"half a picture succeeded: {sent}")

    async def _canceled(self) -> None:
        sent = self._begin("canceled")
        await self._put(sent, self.picture(), self.random.choice(OPERATIONS))
        await asyncio.sleep(self.random.uniform(0, 0.3))
        await self.ask("DELETE", f"/v1/jobs/{sent.id}")
        await self._end(sent)

    async def _cut_off(self) -> None:
        sent = self._begin("cut_off")
        await asyncio.to_thread(self._half_a_request, sent.id, self.picture(), self.random.uniform(0, 0.5))

    async def _doubled(self) -> None:
        sent = self._begin("doubled")
        picture, operation = self.picture(), self.random.choice(OPERATIONS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._put(sent, picture, operation))
            tasks.create_task(self._put(sent, picture, operation))
        await self._end(sent)

    def _begin(self, kind: str) -> Sent:
        self.sent.append(Sent(id=uuid4(), kind=kind, began_s=time.monotonic()))
        return self.sent[-1]

    async def _put(self, sent: Sent, picture: bytes, operation: str) -> None:
        words = json.dumps({"prompt": f"a heron, {self.marks.secret.decode()}"}).encode()
        named = {"Lethe_Parameters": urlsafe_b64encode(words).decode()} if operation == "edit" else {}
        answer = await self.send(sent.id, picture, operation, **named)
        if answer.status_code not in {200, 202}:
            self.faults.append(f"{sent.kind} got {answer.status_code} {answer.text[:200]}")

    async def _end(self, sent: Sent) -> None:
        shown = await self.follow(sent.id)
        sent.status = str(shown.get("status", "lost"))
        sent.ended_s = time.monotonic()

    def _half_a_request(self, job_id: UUID, picture: bytes, rest_s: float) -> None:
        address = urlsplit(self.random.choice(self.urls))
        head = (
            f"PUT /v1/jobs/{job_id}?operation=noop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Length: {len(picture)}\r\n\r\n"
        )
        with suppress(OSError), socket.create_connection((address.hostname, address.port), timeout=5) as phone:
            phone.sendall(head.encode() + picture[: len(picture) // 2])
            time.sleep(rest_s)

"""Orders jobs as a phone does, over the public API alone; each carries markers wherever an upload can."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import httpx
import msgspec

from broker.client import Client, JobView, ServerRefused, ServerUnreachable, User
from broker.forensics.markers import Place, Planted
from providers.calls import trust

_BOUNDARY: Final = "lethe-forensics"
_AGAIN_S: Final = 0.1
_NOT_FOUND: Final = 404


class Ordered(msgspec.Struct, kw_only=True):
    """A job, its markers, and what became of it as its user saw it."""

    name: str
    planted: Planted
    operation: str
    user: User
    id: str = ""
    status: str = ""

    @property
    def marker(self) -> bytes:
        """By what it is known at the provider."""
        return self.planted.markers[Place.PROMPT]


class Phones:
    """Users of one broker, one for each job."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=60, verify=trust(), trust_env=False)

    async def aclose(self) -> None:
        """Hang up."""
        await self._http.aclose()

    async def new_user(self) -> User:
        """Get an anonymous user."""
        async with Client(self.url) as client:
            return await client.mint_user()

    async def order(self, ordered: Ordered, *, finish_within_s: int = 0) -> None:
        """Send a form with what was typed and the picture."""
        body = _form(ordered, finish_within_s=finish_within_s)
        answer = await self._http.post("/v1/jobs", headers=_headers(ordered.user), content=body)
        if answer.is_error:
            raise ServerRefused(answer.status_code, "not_taken", answer.text[:200])
        ordered.id = msgspec.json.decode(answer.content, type=JobView).id

    @asynccontextmanager
    async def half_ordered(self, ordered: Ordered) -> AsyncGenerator[None]:
        """Inside the block half of the form is sent, and the rest never will be."""
        body = _form(ordered)
        half = body[: len(body) // 2]

        async def send() -> AsyncGenerator[bytes]:
            yield half
            await asyncio.Event().wait()

        headers = {**_headers(ordered.user), "Content-Length": str(len(body))}
        task = asyncio.create_task(self._http.post("/v1/jobs", headers=headers, content=send()))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def cancel(self, ordered: Ordered) -> None:
        """Take the job back."""
        async with Client(self.url, token=ordered.user.token) as client:
            await client.delete(ordered.id)

    async def follow(self, ordered: Ordered, *, within_s: float) -> None:
        """Wait for its end, whatever dies meanwhile; where it is not final by then its status says so."""
        ends_s = time.monotonic() + within_s
        while time.monotonic() < ends_s:
            try:
                async with Client(self.url, token=ordered.user.token) as client:
                    job = await client.job(ordered.id)
            except (ServerUnreachable, ServerRefused):
                await asyncio.sleep(_AGAIN_S)
                continue
            ordered.status = job.status
            if job.is_final:
                return
            await asyncio.sleep(_AGAIN_S)

    async def ask_around(self, ordered: Ordered) -> None:
        """Ask everything that can be asked of a job that is over."""
        headers = {"Authorization": f"Bearer {ordered.user.token}"}
        for path in (f"/v1/jobs/{ordered.id}", f"/v1/jobs/{ordered.id}/receipt", "/v1/jobs", "/v1/me/export"):
            await self._http.get(path, headers=headers)

    async def receipt(self, ordered: Ordered) -> str:
        """Fetch its receipt; empty where there is none."""
        async with Client(self.url, token=ordered.user.token) as client:
            answer = await client.answer("GET", f"/v1/jobs/{ordered.id}/receipt")
        return "" if answer.status_code == _NOT_FOUND else answer.text

    async def receipt_keys(self) -> str:
        """Fetch what receipts are verified with."""
        async with Client(self.url) as client:
            return await client.receipt_keys()


def _headers(user: User) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {user.token}",
        "Idempotency-Key": f'"{uuid4()}"',
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
    }


def _form(ordered: Ordered, *, finish_within_s: int = 0) -> bytes:
    job: dict[str, object] = {"operation": ordered.operation, "parameters": {}}
    if ordered.operation == "edit":
        job["parameters"] = {"prompt": ordered.planted.prompt}
    if finish_within_s:
        job |= {"start_within_s": finish_within_s, "finish_within_s": finish_within_s}
    head = b'Content-Disposition: form-data; name="'
    parts = (
        head + b'job"\r\nContent-Type: application/json\r\n\r\n' + msgspec.json.encode(job),
        head
        + b'picture"; filename="'
        + ordered.planted.file_name
        + b'"\r\nContent-Type: image/png\r\n\r\n'
        + ordered.planted.picture(),
    )
    delimiter = b"--" + _BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"

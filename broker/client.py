"""A small client of the public API, for `submit`, `demo` and `doctor`; it knows nothing of the server's inside."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec

from providers.calls import trust

WAIT_S: Final = 25
_CHUNK_BYTES: Final = 64 * 1024
_TIMEOUT: Final = httpx.Timeout(10.0, read=WAIT_S + 15.0, write=60.0)
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_TRIES: Final = 5
_NOT_MODIFIED: Final = 304

T = TypeVar("T")
File = tuple[str, tuple[str | None, bytes, str]]
"""One part of a form: its name, then file name, content and media type."""
OnBytes = Callable[[int], None]
"""Told how many bytes more have gone."""


class ClientError(Exception):
    """The main job could not be done over the API."""


class ServerUnreachable(ClientError):
    """Nothing answers there."""


class ServerRefused(ClientError):
    """The server answered with a problem; `code` is stable, the text is for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"the server answered {status} {code}: {detail}")
        self.status = status
        self.code = code


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An anonymous user, as minted."""

    user_id: str
    token: str

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"User({self.user_id})"


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What a job object says that a client needs; statuses are an open set."""

    id: str
    status: str
    operation: str = ""
    progress: float = 0.0
    error_code: str = ""
    error_detail: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing can change any more; an unknown status is waited through."""
        return self.status in {"succeeded", "failed", "canceled", "expired"}


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str = "unknown"
    detail: str = ""
    title: str = ""


class _Operation(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class _Operations(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[_Operation, ...]


class Client:
    """One server, and one user once there is a token."""

    def __init__(self, url: str, *, token: str = "", headers: Mapping[str, str] | None = None) -> None:
        # What the environment says, of a proxy or of authorities, is for the world outside, never for this machine.
        is_local = urlsplit(url).hostname in LOOPBACK
        self._http = httpx.AsyncClient(
            base_url=url, timeout=_TIMEOUT, verify=trust() if is_local else True, trust_env=not is_local
        )
        self._headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def use(self, token: str) -> None:
        """Be this user from now on."""
        self._headers = {"Authorization": f"Bearer {token}"}

    async def is_ready(self) -> bool:
        """Whether the server says that it takes jobs."""
        return (await self.answer("GET", "/health/ready")).is_success

    async def mint_user(self) -> User:
        """Get an anonymous user and be it."""
        user = msgspec.json.decode((await self._request("POST", "/v1/users")).content, type=User)
        self.use(user.token)
        return user

    async def operations(self) -> tuple[str, ...]:
        """Return the operations that can run right now."""
        response = await self._request("GET", "/v1/operations")
        return tuple(operation.name for operation in msgspec.json.decode(response.content, type=_Operations).items)

    async def put(
        self,
        job_id: str,
        operation: str,
        parameters: Mapping[str, str],
        body: BinaryIO,
        *,
        size: int,
        sent: OnBytes,
        texts: Mapping[str, str] | None = None,
    ) -> JobView:
        """Send the picture as the body of one request, read piece by piece; what a user typed stands in no URL."""
        response = await self._request(
            "PUT",
            f"/v1/jobs/{job_id}",
            params={"operation": operation, **parameters},
            headers={"Content-Length": str(size), **_typed(texts or {})},
            content=_pieces(body, sent),
        )
        return _job(response)

    async def post(self, order: Mapping[str, object], pictures: Sequence[bytes] = ()) -> JobView:
        """Send a job as JSON, or as a form with its pictures behind it."""
        headers, job = {"Idempotency-Key": str(uuid4())}, msgspec.json.encode(order)
        if not pictures:
            headers["Content-Type"] = "application/json"
            return _job(await self._request("POST", "/v1/jobs", headers=headers, content=job))
        shots: list[File] = [
            ("picture", (f"IMG_{n:04}.jpg", picture, "image/jpeg")) for n, picture in enumerate(pictures, 1)
        ]
        form: list[File] = [("job", (None, job, "application/json")), *shots]
        return _job(await self._request("POST", "/v1/jobs", headers=headers, files=form))

    async def job(self, job_id: str) -> JobView:
        """Look at a job without waiting."""
        return _job(await self._request("GET", f"/v1/jobs/{job_id}"))

    async def follow(self, job_id: str) -> AsyncGenerator[JobView, None]:
        """Long-poll: yield the job at each change until it is final; a lost connection is made again."""
        etag, failures = "", 0
        while True:
            headers = {"Prefer": f"wait={WAIT_S}"} | ({"If-None-Match": etag} if etag else {})
            try:
                response = await self._request("GET", f"/v1/jobs/{job_id}", headers=headers)
            except ServerUnreachable:
                failures += 1
                if failures == _TRIES:
                    raise
                await asyncio.sleep(failures)
                continue
            failures = 0
            if response.status_code == _NOT_MODIFIED:
                continue
            etag = response.headers.get("ETag", "")
            job = _job(response)
            yield job
            if job.is_final:
                return

    async def download(self, job_id: str, n: int, to: Path) -> int:
        """Save an output; return its size in bytes."""
        size = 0
        try:
            async with self._http.stream("GET", f"/v1/jobs/{job_id}/outputs/{n}", headers=self._headers) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                with to.open("wb") as file:
                    async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                        size += file.write(chunk)
        except httpx.TransportError as exc:
            raise _unreachable(self._http, exc) from exc
        return size

    async def output(self, job_id: str, n: int) -> bytes:
        """Return an output as it is served: a picture, a film, or ciphertext."""
        return (await self._request("GET", f"/v1/jobs/{job_id}/outputs/{n}")).content

    async def receipt(self, job_id: str) -> str:
        """Return the signed receipt."""
        return (await self._request("GET", f"/v1/jobs/{job_id}/receipt")).content.decode()

    async def receipt_keys(self) -> str:
        """Return what the server publishes as its receipt keys."""
        return (await self._request("GET", "/v1/privacy/keys")).text

    async def delete(self, job_id: str) -> None:
        """Cancel the job if it lives, and have its outputs destroyed."""
        await self._request("DELETE", f"/v1/jobs/{job_id}")

    async def ask(self, method: str, path: str, given: object = None) -> Any:
        """Do one exchange in JSON, and return what the answer holds; None where it is empty."""
        headers = {"Content-Type": "application/json"} if given is not None else None
        content = msgspec.json.encode(given) if given is not None else None
        answer = (await self._request(method, path, headers=headers, content=content)).content
        return msgspec.json.decode(answer) if answer else None

    async def answer(self, method: str, path: str) -> httpx.Response:
        """Return whatever the server answers, good or bad."""
        try:
            return await self._http.request(method, path, headers=self._headers)
        except httpx.TransportError as exc:
            raise _unreachable(self._http, exc) from exc

    @asynccontextmanager
    async def part_sent(self, job_id: str, operation: str, part: bytes, *, size: int) -> AsyncGenerator[None, None]:
        """Inside the block `part` of a body of `size` bytes is sent and the rest is not; leaving breaks it off."""
        request = self._http.request(
            "PUT",
            f"/v1/jobs/{job_id}",
            params={"operation": operation},
            headers={**self._headers, "Content-Length": str(size)},
            content=_and_no_more(part),
        )
        task = asyncio.create_task(request)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
        files: Sequence[File] | None = None,
    ) -> httpx.Response:
        merged = {**self._headers, **(headers or {})}
        try:
            response = await self._http.request(
                method, path, params=params, headers=merged, content=content, files=files
            )
        except httpx.TransportError as exc:
            raise _unreachable(self._http, exc) from exc
        if response.is_error:
            raise _refusal(response)
        return response


async def _pieces(body: BinaryIO, sent: OnBytes) -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(body.read, _CHUNK_BYTES):
        yield chunk
        sent(len(chunk))


def _typed(texts: Mapping[str, str]) -> dict[str, str]:
    return {"Lethe-Parameters": urlsafe_b64encode(msgspec.json.encode(texts)).decode()} if texts else {}


async def _and_no_more(part: bytes) -> AsyncGenerator[bytes, None]:
    yield part
    await asyncio.Event().wait()


def _job(response: httpx.Response) -> JobView:
    return msgspec.json.decode(response.content, type=JobView)


def _refusal(response: httpx.Response) -> ServerRefused:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem(detail="not an answer of Lethe")
    return ServerRefused(response.status_code, problem.code, problem.detail or problem.title)


def _unreachable(http: httpx.AsyncClient, exc: httpx.TransportError) -> ServerUnreachable:
    return ServerUnreachable(f"{http.base_url} does not answer ({type(exc).__name__})")

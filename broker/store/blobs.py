"""Ciphertext under random names, in a directory or a bucket (obstore); nothing here can be opened without a key."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count, takewhile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from broker.errors import BlobStillHeld, BlobsUnavailable

CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 10.0
# Google's store answers every write with a generation, versioned or not.
TELLS_VERSIONS = frozenset({"s3", "s3a", "az", "azure", "abfs", "abfss"})
DESTROY_S = 2.5
"""Settle has other things to do in its time: a store that hangs longer is silent, and its blob unreadable."""


def new_name() -> str:
    """Return a name that says nothing: 128 random bits."""
    return secrets.token_hex(16)


class BlobStore:
    """Puts, reads and destroys blobs; every failure of the store raises BlobsUnavailable."""

    def __init__(self, url: str) -> None:
        self._scheme = urlsplit(url).scheme
        self._directory = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store: ObjectStore = LocalStore(self._directory)
        else:
            self._store = from_url(url)

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a blob while its ciphertext is made; when `chunks` raises, nothing is left under the name."""
        async with _mapped():
            first, is_all = await _first_of(chunks)
            if is_all:
                # One request instead of a bucket's three, and no call from thread to loop for every chunk.
                await obstore.put_async(self._store, name, first, use_multipart=False)
                return
            await obstore.put_async(
                self._store,
                name,
                _followed(first, chunks),
                use_multipart=True,
                chunk_size=CHUNK_BYTES,
                max_concurrency=1,
            )

    async def size(self, name: str) -> int | None:
        """Return a blob's length in bytes, None when it is absent."""
        async with _mapped(), asyncio.timeout(TIMEOUT_S):
            try:
                return (await obstore.head_async(self._store, name))["size"]
            except FileNotFoundError:
                return None

    async def read(self, name: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the ciphertext from `start` to `stop` in chunks."""
        async with _mapped():
            if stop is None:
                result = await obstore.get_async(self._store, name)
            else:
                result = await obstore.get_async(self._store, name, options={"range": (start, stop)})
            if result.range[1] - result.range[0] <= CHUNK_BYTES:
                yield bytes(await result.bytes_async())
                return
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def destroy(self, name: str) -> None:
        """Delete a blob and see that it is absent; raise BlobStillHeld when the store still shows it."""
        async with _mapped(), asyncio.timeout(DESTROY_S):
            await self._delete(name)
            size = await self.size(name)
        if size is not None or self._unfinished(name):
            raise BlobStillHeld(f"blob {name}")

    async def mark(self, name: str) -> None:
        """Keep a name without content, for what has to survive the loss of Postgres; idempotent."""
        async with _mapped(), asyncio.timeout(TIMEOUT_S):
            # A single byte: some stores take nothing empty.
            await obstore.put_async(self._store, name, b"\0", use_multipart=False)

    async def marks(self, folder: str) -> dict[str, datetime]:
        """Return the names in a folder, without it, and when each was written."""
        async with _mapped():
            found: dict[str, datetime] = {}
            async for page in obstore.list(self._store, prefix=folder):  # pyright: ignore[reportUnknownMemberType]
                found |= {meta["path"].rpartition("/")[2]: meta["last_modified"] for meta in page}
            return found

    async def unmark(self, name: str) -> None:
        """Let go of a name."""
        async with _mapped(), asyncio.timeout(TIMEOUT_S):
            await self._delete(name)

    async def ping(self) -> None:
        """Raise BlobsUnavailable when the store does not answer."""
        await self.size("ping")

    async def keeps_versions(self) -> bool | None:
        """Say whether what is deleted stays as an older version; None where the store does not tell."""
        if self._directory is not None:
            return False
        name = f"posture-{secrets.token_hex(8)}"
        async with _mapped(), asyncio.timeout(TIMEOUT_S):
            await obstore.put_async(self._store, name, b"\0", use_multipart=False)
            try:
                version = (await obstore.head_async(self._store, name)).get("version")
            finally:
                await obstore.delete_async(self._store, name)
        return versioned(self._scheme, version)

    async def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):  # a directory raises where a bucket does not
            await obstore.delete_async(self._store, name)
        for path in self._unfinished(name):
            path.unlink(missing_ok=True)

    def _unfinished(self, name: str) -> list[Path]:
        # A writer killed in the middle leaves `name#1`, which the store's own listing hides; a second one, `name#2`.
        if self._directory is None:
            return []
        drafts = (self._directory / f"{name}#{number}" for number in count(1))
        return list(takewhile(Path.exists, drafts))


def versioned(scheme: str, version: str | None) -> bool | None:
    """Read from what a store says of a fresh blob whether it keeps versions; None where it does not tell."""
    return version not in (None, "", "null") if scheme in TELLS_VERSIONS else None


async def _first_of(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """Return what comes first, and whether that is all."""
    first = bytearray()
    async for chunk in chunks:
        first += chunk
        if len(first) > CHUNK_BYTES:
            return bytes(first), False
    return bytes(first), True


async def _followed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


@asynccontextmanager
async def _mapped() -> AsyncGenerator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError, TimeoutError) as exc:
        raise BlobsUnavailable from exc

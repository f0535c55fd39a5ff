"""
The one place where outputs are fetched: without credentials, from named hosts, at public addresses only.

A URL comes from a provider and is not believed. Its name is resolved once, every address that it has is checked, and
the connection goes to the address that was checked, so that no second answer can lead elsewhere.
"""

import asyncio
import os
import re
import ssl
import traceback
from http import HTTPStatus
from typing import Final

import httpx
import msgspec

from providers.addresses import is_public
from providers.base import Output
from providers.failures import FailureKind, ProviderFailure
from providers.kinds import HEAD_BYTES, media_type_of
from providers.memory import append, output_memory
from providers.pinned import MAX_ADDRESSES, Resolve, pinned, port_of, resolve, unpooled_transport

MAX_BYTES: Final = 128 << 20
MAX_REDIRECTS: Final = 3
EXPIRED: Final = "output_expired"
"""The detail of a failure that a fresh URL may mend."""

_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PATTERN: Final = re.compile(rf"(\*\.(?=[^.]+\.))?{_NAME.pattern}")
_GONE: Final = frozenset({401, 403, 404, 410})
_AGAIN: Final = frozenset({408, 425, 429})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class DownloadRules(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where one provider's outputs may come from, and how much may.

    `hosts` are exact names and "*.suffix"; the host of `base_url` is always among them. With `is_local` (exposure
    local, or a base URL on loopback) what has exactly the scheme, host and port of `base_url` may be plain HTTP, and at
    a private address.
    """

    base_url: str
    hosts: tuple[str, ...] = ()
    is_local: bool = False
    max_bytes: int = MAX_BYTES
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what would match more, or less, than it says."""
        for host in self.hosts:
            if not _PATTERN.fullmatch(host):
                msg = f"no host name, nor *. before one, in lower-case ASCII: {host}"
                raise ValueError(msg)

    def allows(self, url: httpx.URL) -> bool:
        """Whether a URL leads to a host that is named, by a scheme and a port that are right there."""
        if url.userinfo or not url.raw_host:
            return False
        if self.is_own(url):
            return True
        if url.scheme != "https":
            return False
        base, host = httpx.URL(self.base_url), url.raw_host.decode()
        if host == base.raw_host.decode():
            return port_of(url) in {443, port_of(base)}
        return port_of(url) == 443 and any(_matches(host, pattern) for pattern in self.hosts)

    def is_own(self, url: httpx.URL) -> bool:
        """Whether a URL leads to the provider's own server, which is among our machines."""
        base = httpx.URL(self.base_url)
        return self.is_local and (url.scheme, url.raw_host, port_of(url)) == (base.scheme, base.raw_host, port_of(base))


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An output in shared memory, whose descriptor the caller closes; `media_type` is what its first bytes say."""

    fd: int
    size_bytes: int
    media_type: str


class Downloader:
    """Fetches the outputs of one provider; holds no credentials, no cookies, no proxy and no connection."""

    def __init__(
        self,
        rules: DownloadRules,
        *,
        resolve: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._transport = transport or unpooled_transport(tls)

    async def fetch(self, output: Output) -> Fetched:
        """
        Bring an output that is bytes or a URL into shared memory.

        Raises BAD_OUTPUT where it must not or cannot be had, NETWORK where it did not come, TIMEOUT where it came too
        slowly; what had come is overwritten then.
        """
        with output_memory() as fd:
            if output.data is not None:
                self._append(fd, output.data)
            elif output.url:
                await self._in_time(output.url, fd)
            else:
                raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
            return _fetched(fd)

    async def aclose(self) -> None:
        """Let go of everything; may be called twice."""
        await self._transport.aclose()

    async def _in_time(self, text: str, fd: int) -> None:
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                await self._follow(text, fd)
        except TimeoutError:
            raise ProviderFailure(FailureKind.TIMEOUT, "output_timeout") from None

    async def _follow(self, text: str, fd: int) -> None:
        """Follow redirects by hand, each of them checked like the first URL."""
        url = self._checked(_url(text), "output_host")
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._open(url)
            try:
                if response.status_code not in _REDIRECTS:
                    return await self._read(response, fd)
                url = self._checked(_location(url, response), "output_redirect")
            finally:
                await response.aclose()
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_redirect")

    def _checked(self, url: httpx.URL, code: str) -> httpx.URL:
        if not self._rules.allows(url):
            raise ProviderFailure(FailureKind.BAD_OUTPUT, code)
        return url

    async def _open(self, url: httpx.URL) -> httpx.Response:
        """Ask the first address that can be reached."""
        failure = ProviderFailure(FailureKind.NETWORK, "unresolved")
        for address in await self._addresses(url):
            try:
                return await self._transport.handle_async_request(pinned("GET", url, address, headers={}))
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = _lost(exc)
            except httpx.HTTPError as exc:
                raise _lost(exc) from None
        raise failure

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Resolve a name, once; one private address among the answers condemns them all."""
        try:
            found = await self._resolve(url.raw_host.decode(), port_of(url))
        except (OSError, UnicodeError) as exc:
            raise _lost(exc) from None
        if not self._rules.is_own(url) and not all(is_public(address) for address in found):
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_address")
        return found[:MAX_ADDRESSES]

    async def _read(self, response: httpx.Response, fd: int) -> None:
        _check_status(response.status_code)
        # None was asked for, and unpacking would make more of it than was counted.
        if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_encoding")
        declared = response.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._rules.max_bytes:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_too_large")
        try:
            async for chunk in response.aiter_raw():
                self._append(fd, chunk)
        except httpx.HTTPError as exc:
            raise _lost(exc) from None

    def _append(self, fd: int, data: bytes) -> None:
        if os.fstat(fd).st_size + len(data) > self._rules.max_bytes:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_too_large")
        append(fd, data)


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_host") from None


def _location(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    try:
        return url.join(response.headers["location"])
    except (KeyError, httpx.InvalidURL, UnicodeError):
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_redirect") from None


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and _NAME.fullmatch(host) is not None
    return host == pattern


def _check_status(status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if status in _GONE:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, EXPIRED)
    is_passing = status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = FailureKind.NETWORK if is_passing else FailureKind.BAD_OUTPUT
    raise ProviderFailure(kind, f"output_status_{status}")


def _lost(exc: BaseException) -> ProviderFailure:
    # A kept exception would keep the URL: in its request, and in its frames.
    traceback.clear_frames(exc.__traceback__)
    exc.__dict__.pop("_request", None)
    return ProviderFailure(FailureKind.NETWORK, type(exc).__name__)


def _fetched(fd: int) -> Fetched:
    media_type = media_type_of(os.pread(fd, HEAD_BYTES, 0))
    if media_type is None:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_kind")
    return Fetched(fd=fd, size_bytes=os.fstat(fd).st_size, media_type=media_type)

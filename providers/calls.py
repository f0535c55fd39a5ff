"""
One HTTP request to a provider, and what its end means; every adapter speaks through here.

Nothing is retried: the route's loop is the only one. Nothing of a body stands in an error.
"""

import asyncio
import email.utils
import functools
import ssl
import time
import traceback
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec

from providers.base import Setup
from providers.failures import FailureKind, ProviderFailure
from providers.lanes import ONE, Lanes

T = TypeVar("T")

CONNECT_S = 5.0
MAX_REPLY_BYTES = 64 << 20
"""An answer may hold several pictures in base64."""
CODINGS = frozenset({"identity", "gzip", "deflate"})
MAX_AFTER_S = 3600.0

_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last: brackets without end
"""What reading an answer raises that is none; whoever reads one by itself expects all of it."""

KINDS: dict[int, FailureKind] = {
    400: FailureKind.INVALID_INPUT,
    401: FailureKind.AUTH,
    402: FailureKind.PAYMENT,
    403: FailureKind.AUTH,
    404: FailureKind.LOST,
    408: FailureKind.TIMEOUT,
    409: FailureKind.OVERLOADED,
    410: FailureKind.LOST,
    413: FailureKind.UNSUPPORTED,
    415: FailureKind.UNSUPPORTED,
    422: FailureKind.INVALID_INPUT,
    425: FailureKind.RATE_LIMITED,
    429: FailureKind.RATE_LIMITED,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMEOUT,
    529: FailureKind.OVERLOADED,
}
"""What a status means where an adapter does not know better; other 4xx are UNSUPPORTED, other 5xx PROVIDER_ERROR."""

ORDER_KINDS: dict[int, FailureKind] = {
    303: FailureKind.UNCERTAIN,  # it was taken, and its answer lies elsewhere
    404: FailureKind.UNSUPPORTED,  # no such model, or no such call: nothing was looked up yet
    # What stands in front gave up on an order that may have arrived, or lost the connection that it went through.
    **dict.fromkeys((502, 504, 520, 524), FailureKind.UNCERTAIN),
}
"""What a status means as the answer to an order, where that differs from KINDS; each adapter asks for it itself."""

OF_ORDER = frozenset({FailureKind.LOST, FailureKind.INVALID_INPUT, FailureKind.CONTENT_REJECTED})
"""What an error answer to a question may say of the order itself; any other is about the question."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def json(self) -> Any:
        """Decode the body; None where it is no JSON. For errors: whoever needs the content uses `decoded`."""
        try:
            return msgspec.json.decode(self.body)
        except UNREADABLE:
            return None

    def after_s(self) -> float | None:
        """Read Retry-After (RFC 9110 10.2.3: seconds or a date) or retry-after-ms; None where there is none."""
        return _after_s(self.headers)


@functools.cache
def trust() -> ssl.SSLContext:
    """Return the authorities that are trusted; all clients share them, since reading them takes 50 ms."""
    return httpx.create_ssl_context(trust_env=False)


def make_client(setup: Setup, *, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """Make the client of one provider: its own credentials, no redirects, no proxy and no .netrc of this machine."""
    return httpx.AsyncClient(
        base_url=setup.base_url,
        transport=Lanes(lambda: httpx.AsyncHTTPTransport(verify=trust(), limits=ONE, trust_env=False)),
        headers={"User-Agent": "lethe", **(headers or {})},
        timeout=httpx.Timeout(setup.timeout_s, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,
    )


async def order(client: httpx.AsyncClient, method: str, url: str, *, within_s: float = 0.0, **content: Any) -> Reply:
    """
    Send a request that makes the provider work, once.

    Raises NETWORK with `is_unsent` where no connection was made, UNCERTAIN where the request may have arrived and no
    whole answer came back, BAD_OUTPUT where the answer is too long. `within_s` bounds the wait; 0 leaves the client's
    own time.
    """
    try:
        return await _exchange(client, method, url, within_s, content)
    except _UNSENT as exc:
        raise _failure(exc, FailureKind.NETWORK, is_unsent=True) from None
    except (httpx.HTTPError, TimeoutError, OSError) as exc:
        raise _failure(exc, FailureKind.UNCERTAIN) from None


async def ask(client: httpx.AsyncClient, method: str, url: str, *, within_s: float = 0.0, **content: Any) -> Reply:
    """Send a request that may be repeated (poll, cancel, delete, health); raise NETWORK where no answer came."""
    try:
        return await _exchange(client, method, url, within_s, content)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as exc:
        raise _failure(exc, FailureKind.NETWORK, is_unsent=isinstance(exc, _UNSENT)) from None


def decoded(reply: Reply, into: type[T], *, is_order: bool = False) -> T:
    """Read an answer; one that cannot be read is UNCERTAIN after an order, else PROVIDER_ERROR."""
    try:
        return msgspec.json.decode(reply.body, type=into)
    except UNREADABLE:
        kind = FailureKind.UNCERTAIN if is_order else FailureKind.PROVIDER_ERROR
        raise ProviderFailure(kind, "unreadable_answer", is_unanswered=not is_order) from None


def refused(
    reply: Reply,
    kind: FailureKind | None = None,
    *,
    detail: str = "",
    believed: Collection[FailureKind] | None = None,
) -> ProviderFailure:
    """
    Make the failure of an answer that is no success: by its status, unless the adapter knows its kind.

    `believed` are the kinds that end the order which was asked about; unless given, the one that the adapter knows, and
    by its status OF_ORDER.
    """
    if believed is None:
        believed = OF_ORDER if kind is None else {kind}
    kind = kind or kind_of(reply.status)
    return ProviderFailure(
        kind,
        detail or f"status_{reply.status}",
        after_s=reply.after_s(),
        is_unanswered=kind not in believed,
    )


def kind_of(status: int) -> FailureKind:
    """Say what a status means where the provider's own words say nothing."""
    if status in KINDS:
        return KINDS[status]
    # A redirect is an answer that no API of these gives: it is not followed, since it would take the picture along.
    if status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FailureKind.PROVIDER_ERROR
    return FailureKind.UNSUPPORTED


def same_host(url: str, base_url: str) -> bool:
    """Whether a URL that a provider gave leads to the provider's own API: only there may our credentials go."""
    try:
        given, own = httpx.URL(url), httpx.URL(base_url)
    except httpx.InvalidURL:
        return False
    return (given.scheme, given.raw_host, given.port) == (own.scheme, own.raw_host, own.port) and not given.userinfo


async def _exchange(
    client: httpx.AsyncClient, method: str, url: str, within_s: float, content: Mapping[str, Any]
) -> Reply:
    given: dict[str, Any] = dict(content)
    if within_s:
        # Who is not reached is found out before the time is over: then nothing was sent, and that is known.
        given["timeout"] = httpx.Timeout(within_s, connect=min(CONNECT_S, within_s / 2))
    async with asyncio.timeout(within_s or None), client.stream(method, url, **given) as answer:
        return await _whole(answer)


async def _whole(answer: httpx.Response) -> Reply:
    try:
        return Reply(status=answer.status_code, headers=answer.headers, body=await _read(answer))
    finally:
        try:
            await answer.aclose()
        finally:
            # Else it and its stream hold each other, and the request with the picture, until the collector comes by.
            answer.stream = httpx.ByteStream(b"")


async def _read(answer: httpx.Response) -> bytes:
    # httpx undoes as many codings as are named, without a bound: each makes a thousand bytes of one.
    if answer.headers.get("content-encoding", "identity").strip().lower() not in CODINGS:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "answer_encoded")
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            # Neither lost nor uncertain: asked again, it would be as long.
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "answer_too_long")
    return bytes(body)


def _failure(exc: BaseException, kind: FailureKind, *, is_unsent: bool = False) -> ProviderFailure:
    # The frames of a kept exception keep the request, and that keeps the picture.
    traceback.clear_frames(exc.__traceback__)
    if isinstance(exc, httpx.HTTPError):
        # Its request holds the body.
        exc.__dict__.pop("_request", None)
    return ProviderFailure(kind, type(exc).__name__, is_unsent=is_unsent)


def _after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after-ms")
    if value is not None and value.strip().isdecimal():
        return min(float(value) / 1000, MAX_AFTER_S)
    value = (headers.get("retry-after") or "").strip()
    if value.isdecimal():
        return min(float(value), MAX_AFTER_S)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, at.timestamp() - time.time()), MAX_AFTER_S)

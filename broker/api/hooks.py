"""Hints from providers over HTTP: a random token says which attempt has news; nothing else of a hint is believed."""

import asyncio
import re

from litestar import Response, post
from litestar.exceptions import InternalServerException, NotFoundException
from litestar.params import FromPath

from broker.api.deps import HttpRequest, Wired
from broker.attempts import hook_hash

MAX_BODY_BYTES = 1 << 20
READ_WITHIN_S = 5.0

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@post("/v1/hooks/{token:str}")
async def take_hint(token: FromPath[str], request: HttpRequest, services: Wired) -> Response[None]:
    """
    Wake whoever waits for the attempt; the body is read past and looked at by nobody.

    The answer is the same for every token, so that providers stop repeating, and nobody learns which ones are known.
    """
    if not _TOKEN.fullmatch(token):
        raise NotFoundException
    attempt_id = await services.stores.attempts.find_by_hook(hook_hash(token))
    if attempt_id is not None:
        await services.hints.publish(attempt_id)
    is_read = await _read_past(request)
    return Response(None, status_code=204, headers={} if is_read else {"Connection": "close"})


async def _read_past(request: HttpRequest) -> bool:
    """Let the body go by; False where it is too long, too slow or broken off, and the connection has to end."""
    seen_bytes = 0
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            async for chunk in request.stream():
                seen_bytes += len(chunk)
                if seen_bytes > MAX_BODY_BYTES:
                    return False
    except (TimeoutError, InternalServerException):
        return False
    return True

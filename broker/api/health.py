"""Whether this process lives, and whether the parts that it needs answer."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from litestar import Response, get

from broker.api.deps import Closing, Wired
from broker.api.problems import Fault, respond
from broker.errors import BrokerError, Unavailable
from broker.errors import Closing as ServerClosing
from broker.services import Services

ANSWER_WITHIN_S = 2.0
PARTS = ("postgres", "redis", "keyholder", "blobs")


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """The process lives."""

    status: str


class ReadyView(msgspec.Struct, frozen=True, kw_only=True):
    """Every part answers."""

    status: str
    postgres: str
    redis: str
    keyholder: str
    blobs: str


@get("/health/live")
async def get_live() -> LiveView:
    """Say that the process lives."""
    return LiveView(status="live")


@get("/health/ready")
async def get_ready(services: Wired, closing: Closing) -> Response[ReadyView] | Response[bytes]:
    """Say whether work can be taken in; 503 names the parts that do not answer."""
    if closing.is_set():
        raise ServerClosing
    down = await parts_down(services)
    if not down:
        return Response(ReadyView(status="ready", postgres="ok", redis="ok", keyholder="ok", blobs="ok"))
    faults = [Fault(pointer=f"#/{part}", detail=f"{part} does not answer") for part in down]
    error = Unavailable(f"{', '.join(down)}: no answer")
    return respond(error, headers={"Retry-After": str(error.retry_after_s)}, faults=faults)


async def parts_down(services: Services) -> list[str]:
    """Ask every part at once, and name those that do not answer."""
    stores = services.stores
    asked: tuple[Callable[[], Awaitable[object]], ...] = (
        stores.processes.alive,
        services.bell.ping,
        stores.keys.hello,
        stores.blobs.ping,
    )
    answers = await asyncio.gather(*(_answers(part) for part in asked))
    return [name for name, answered in zip(PARTS, answers, strict=True) if not answered]


async def _answers(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await ask()
    except (BrokerError, TimeoutError):
        return False
    return True

"""Redis for what only helps: an answer soon, or none; nobody waits long, and each outage is said once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()

TIMEOUT_S = 1.0
AGAIN_S = 1.0
"""While it is away it is asked this often; in between the answer is None at once."""


class RedisLink:
    """Asks Redis on behalf of one part, which goes on without an answer; `lost` names the event of an outage."""

    def __init__(self, redis: Any, *, lost: str) -> None:
        self.redis = redis  # Any: redis-py's types leave most of this open
        self._lost = lost
        self._lost_s: float | None = None

    async def ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer; None where there is none."""
        if self._lost_s is not None and time.monotonic() - self._lost_s < AGAIN_S:
            return None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await command()
        except (RedisError, OSError, TimeoutError) as exc:
            self._note_loss(exc)
            return None
        self._lost_s = None
        return answer

    def _note_loss(self, exc: Exception) -> None:
        if self._lost_s is None:
            log.warning(self._lost, code=type(exc).__name__)
        self._lost_s = time.monotonic()

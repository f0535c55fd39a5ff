"""How often somebody asked within ten minutes: counted in Redis alone, under a salted hash, and gone with them."""

import hmac
import secrets
from typing import Any

from redis.exceptions import RedisError

from broker.errors import QueueUnavailable

WINDOW_S = 600
SALT = "lethe:limit:salt"


class Limiter:
    """Counts requests of one kind; who asks is neither kept nor logged. In `keys`, a name, `*` stands for the hash."""

    def __init__(self, redis: Any, *, keys: str) -> None:
        self._redis = redis  # Any: redis-py's types leave most of this open
        self._keys = keys

    async def count(self, who: str) -> int:
        """Count once more, and return how often it was within the window; raise QueueUnavailable without Redis."""
        try:
            key = self._keys.replace("*", hmac.digest(await self._salt(), who.encode(), "sha256")[:16].hex())
            # SET NX gives the key its end before anything counts in it: INCR alone would make one that stays.
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(key, 0, ex=WINDOW_S, nx=True)
                pipeline.incr(key)
                return int((await pipeline.execute())[1])
        except (RedisError, OSError, TimeoutError) as exc:
            raise QueueUnavailable from exc

    async def _salt(self) -> bytes:
        await self._redis.set(SALT, secrets.token_bytes(32), ex=WINDOW_S, nx=True)
        return bytes(await self._redis.get(SALT) or b"")

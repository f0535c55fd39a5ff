"""How many attempts may run at a provider at once, counted for all processes together in Redis."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from broker.store.files import script
from broker.store.redis_link import RedisLink

LIFETIME_S = 30.0


class Slots:
    """
    The slots of every provider; a process that dies lets go of its own within their lifetime.

    Without Redis everybody may go on: a provider's own refusal is the net, and nothing private hangs on it.
    """

    def __init__(self, redis: Any) -> None:
        self._link = RedisLink(redis, lost="slots_unavailable")
        self._take = redis.register_script(script("take_slots"))
        self._count = redis.register_script(script("count_slots"))

    async def acquire(self, provider: str, attempt_id: UUID, *, limit: int, lifetime_s: float = LIFETIME_S) -> bool:
        """Take a slot, or keep the one that the attempt has; False while all are taken. A limit of 0 is none."""
        taken = await self._put(provider, [attempt_id], limit=limit, lifetime_s=lifetime_s)
        return taken is None or bool(taken)

    async def renew(self, provider: str, attempt_ids: Iterable[UUID], *, lifetime_s: float = LIFETIME_S) -> None:
        """Keep slots for longer; those that Redis has lost are taken anew, whatever the limit: they are in use."""
        ids = list(attempt_ids)
        if ids:
            await self._put(provider, ids, limit=0, lifetime_s=lifetime_s)

    async def release(self, provider: str, attempt_id: UUID) -> None:
        """Let go of a slot; nothing happens where there is none."""
        await self._link.ask(lambda: self._link.redis.zrem(_key(provider), str(attempt_id)))

    async def in_use(self, providers: Sequence[str]) -> dict[str, int]:
        """Count the slots that are taken, in one round trip; 0 while Redis is away."""
        keys = [_key(provider) for provider in providers]
        counts = await self._link.ask(lambda: self._count(keys=keys)) if keys else None
        return dict(zip(providers, counts or [0] * len(providers), strict=True))

    async def _put(self, provider: str, ids: Sequence[UUID], *, limit: int, lifetime_s: float) -> int | None:
        arguments = [limit, int(lifetime_s * 1000), *map(str, ids)]
        return await self._link.ask(lambda: self._take(keys=[_key(provider)], args=arguments))


def _key(provider: str) -> str:
    return f"lethe:slots:{provider}"

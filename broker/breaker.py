"""What all processes together know of a provider's health, kept in Redis; `circuits.py` decides what follows."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from broker.circuits import ALARMING, Circuit, CircuitState, Standing
from broker.store.files import script
from broker.store.redis_link import RedisLink
from providers.failures import FailureKind

log = structlog.get_logger()

FRESH_S = 0.5
PROBE_S = 30
FORGET_S = 900.0
"""Nothing is remembered for longer after the last outcome, or after the time for which a provider is left alone."""
TRIES = 100

Change = Callable[[Circuit, float], Circuit]


class Breaker:
    """
    Hears how attempts end, and says how providers stand; without Redis all of them take work.

    What is remembered is replaced only where nobody has changed it meanwhile, so that no outcome is lost.
    """

    def __init__(self, redis: Any) -> None:
        self._link = RedisLink(redis, lost="breaker_unavailable")
        self._swap = redis.register_script(script("swap_circuit"))
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._seen: dict[str, tuple[float, Circuit]] = {}
        self._ahead_s = 0.0
        """Redis' clock less ours."""

    async def report(self, provider: str, kind: FailureKind | None, *, after_s: float | None = None) -> None:
        """Hear how an attempt ended: None is success; `after_s` is when the provider wants to be asked again."""
        await self._change(provider, lambda circuit, now_s: circuit.after(kind, now_s=now_s, after_s=after_s))

    async def checked(self, provider: str, kind: FailureKind | None) -> None:
        """Hear whether a provider said that it would take work: None is yes."""
        await self._change(provider, lambda circuit, now_s: circuit.checked(kind, now_s=now_s))

    async def standings(self, providers: Sequence[str]) -> dict[str, Standing]:
        """Say how providers stand, as of the last half second."""
        stale = [name for name in providers if not self._is_fresh(name)]
        if stale:
            await self._look(stale)
        return {name: self._standing(name) for name in providers}

    async def may_try(self, provider: str) -> bool:
        """Say whether an attempt may go there; where it is to find out whether a provider has mended, one may."""
        standing = (await self.standings([provider]))[provider]
        if standing.state is CircuitState.HALF_OPEN:
            await self._look([provider])  # the probe before may have failed within the last half second
            standing = self._standing(provider)
        if standing.state is CircuitState.HALF_OPEN:
            return await self._first(_probe_key(provider), within_s=PROBE_S, else_=True)
        return standing.state is CircuitState.CLOSED

    async def may_check(self, provider: str, *, within_s: float) -> bool:
        """Say whether this process is to check a provider; one is, within this time, and none while Redis is away."""
        return await self._first(f"lethe:check:{provider}", within_s=within_s, else_=False)

    async def _first(self, key: str, *, within_s: float, else_: bool) -> bool:
        lifetime_ms = int(within_s * 1000)
        # None is Redis' own word for "somebody else was first".
        answer = await self._link.ask(lambda: _worded(self._link.redis.set(key, 1, px=lifetime_ms, nx=True)))
        return else_ if answer is None else answer == "first"

    async def _change(self, provider: str, change: Change) -> None:
        # One at a time here, so that only processes compete.
        async with self._turns[provider]:
            for _ in range(TRIES):
                if await self._changed(provider, change):
                    return
        log.error("outcome_lost", provider=provider)

    async def _changed(self, provider: str, change: Change) -> bool:
        """Do it once; False where another process was faster."""
        found = await self._read([provider])
        if found is None:
            return True
        now_s, (known,) = found
        before = _circuit(known)
        after = change(before, now_s)
        if after == before and before.state(now_s) is not CircuitState.HALF_OPEN:
            return True
        lifetime_ms = int((max(after.until_s - now_s, 0.0) + FORGET_S) * 1000)
        keys, arguments = [_key(provider), _probe_key(provider)], [known, msgspec.json.encode(after), lifetime_ms]
        swapped = await self._link.ask(lambda: self._swap(keys=keys, args=arguments))
        if swapped:
            self._seen[provider] = time.monotonic(), after
            _tell(provider, before, after, now_s)
        return swapped is None or bool(swapped)

    def _standing(self, provider: str) -> Standing:
        return self._seen[provider][1].standing(time.monotonic() + self._ahead_s)

    def _is_fresh(self, provider: str) -> bool:
        return provider in self._seen and time.monotonic() - self._seen[provider][0] < FRESH_S

    async def _look(self, providers: Sequence[str]) -> None:
        found = await self._read(providers)
        circuits = [_circuit(known) for known in found[1]] if found else [Circuit()] * len(providers)
        seen_s = time.monotonic()
        self._seen |= {name: (seen_s, circuit) for name, circuit in zip(providers, circuits, strict=True)}

    async def _read(self, providers: Sequence[str]) -> tuple[float, list[bytes]] | None:
        answer = await self._link.ask(lambda: self._time_and(providers))
        if answer is None:
            return None
        (seconds, microseconds), known = answer
        now_s = seconds + microseconds / 1e6
        self._ahead_s = now_s - time.monotonic()
        return now_s, [value or b"" for value in known]

    async def _time_and(self, providers: Sequence[str]) -> Any:
        async with self._link.redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.mget([_key(provider) for provider in providers])
            return await pipeline.execute()


async def _worded(answer: Any) -> str:
    return "first" if await answer else "later"


def _circuit(known: bytes) -> Circuit:
    if not known:
        return Circuit()
    try:
        return msgspec.json.decode(known, type=Circuit)
    except msgspec.DecodeError:
        return Circuit()  # written by another release: begin anew


def _tell(provider: str, before: Circuit, after: Circuit, now_s: float) -> None:
    """Log what an operator has to know; whoever made the change does, so that each is told once."""
    was, is_now = before.state(now_s), after.state(now_s)
    if is_now is CircuitState.OPEN and (was is not CircuitState.OPEN or before.reason is not after.reason):
        if after.reason in ALARMING:
            log.error("provider_tripped", provider=provider, code=after.reason)
        else:
            log.warning("provider_opened", provider=provider, code=after.reason, count=after.in_a_row)
    elif is_now is CircuitState.CLOSED and was is not CircuitState.CLOSED:
        log.info("provider_closed", provider=provider)


def _key(provider: str) -> str:
    return f"lethe:breaker:{provider}"


def _probe_key(provider: str) -> str:
    return f"lethe:breaker:{provider}:probe"

"""Asks providers whether they would take work, so that a user's job is not what finds out that they would not."""

import asyncio
import random
from collections.abc import Callable, Mapping

import structlog

from broker.breaker import Breaker
from providers.base import Provider
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline

log = structlog.get_logger()

EVERY_S = 30.0
ANSWER_WITHIN_S = 10.0


class HealthChecks:
    """Checks every provider of this worker, in turns with the other workers; `providers` is asked before each pass."""

    def __init__(self, breaker: Breaker, providers: Callable[[], Mapping[str, Provider]]) -> None:
        self._breaker = breaker
        self._providers = providers

    async def run(self) -> None:
        """Pass after pass until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes

    async def once(self) -> None:
        """Check all that can be asked without an order, side by side: one that is slow holds up no other."""
        async with asyncio.TaskGroup() as checks:
            for name, provider in self._providers().items():
                if _can_be_asked(provider):
                    checks.create_task(self._check(name, provider))

    async def _check(self, name: str, provider: Provider) -> None:
        # Short of the shortest pause between two passes: a worker that is alone has every turn.
        if not await self._breaker.may_check(name, within_s=EVERY_S * 0.75):
            return
        try:
            kind = await _asked(provider)
        except Exception:
            # An adapter that breaks, or was closed meanwhile, must not end the checks of the others.
            log.exception("check_broke", provider=name)
            return
        if kind is not None:
            log.info("check_failed", provider=name, code=kind)
        await self._breaker.checked(name, kind)


def _can_be_asked(provider: Provider) -> bool:
    """Whether it has a question that costs nothing; silence would say that all is well."""
    return type(provider).healthy is not Inline.healthy


async def _asked(provider: Provider) -> FailureKind | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await provider.healthy()
    except ProviderFailure as exc:
        return exc.kind
    except TimeoutError:
        return FailureKind.TIMEOUT
    return None

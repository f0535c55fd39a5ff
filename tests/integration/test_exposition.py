"""A worker's own figures: who looks is answered, and the loop is never held up by it."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from providers.calls import trust
from workers.exposition import metrics_served


async def test_figures_are_served_until_the_end() -> None:
    """Inside the block they are shown, and nothing is printed; afterwards nobody answers."""
    registry = CollectorRegistry()
    Counter("canaries", "Birds.", registry=registry).inc(3)
    async with (
        metrics_served("127.0.0.1:0", registry) as url,
        httpx.AsyncClient(verify=trust(), trust_env=False) as client,
    ):
        assert "canaries_total 3.0" in (await client.get(f"{url}/metrics")).text
    async with httpx.AsyncClient(verify=trust(), trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/metrics")


async def test_the_loop_goes_on_while_they_end() -> None:
    """A worker that stops renews its lease to the last: the thread is waited for beside the loop, not in it."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    async with metrics_served("127.0.0.1:0", CollectorRegistry()):
        await asyncio.sleep(0)
        before = turns
    assert turns > before + 1
    turning.cancel()

"""Brokers that run as processes of their own, for tests."""

import asyncio

from broker.services import Services
from broker.store.processes import Facts
from tests.processes import LetheProcess


async def address_of(services: Services, process: LetheProcess) -> Facts:
    """What a broker tells the others of itself; the port was free when it started."""
    async with asyncio.timeout(15):
        while True:
            assert process.running.poll() is None, process.log
            for other in await services.stores.processes.alive():
                if other.role == "broker" and other.facts.address:
                    return other.facts
            await asyncio.sleep(0.02)

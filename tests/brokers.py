"""Brokers for tests: processes of their own, and one in this process under other settings than the fixture's."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import httpx
import msgspec

from broker import app
from broker.app import bound, listening, url_of
from broker.services import Services
from broker.settings import Settings
from broker.store.processes import Facts
from providers.calls import trust
from tests.api_client import Api
from tests.processes import LetheProcess, lethe_process
from tests.prompt_server import PromptServer
from tests.stack import pretend_worker, running_services

MEMORY_BYTES = 200_000_000
"""What a broker may take at most, whatever its clients do."""


async def address_of(services: Services, process: LetheProcess) -> Facts:
    """What a broker tells the others of itself; the port was free when it started."""
    async with asyncio.timeout(15):
        while True:
            assert process.running.poll() is None, process.log
            for other in await services.stores.processes.alive():
                if other.role == "broker" and other.facts.address:
                    return other.facts
            await asyncio.sleep(0.02)


@asynccontextmanager
async def broker_process(
    services: Services, settings: Settings, folder: Path
) -> AsyncGenerator[tuple[LetheProcess, Api]]:
    """Start a broker of its own, as an operator does, and mint one user; a busy machine costs it no lease."""
    patient = msgspec.structs.replace(settings, lease_s=30.0)
    with lethe_process(["broker"], patient, folder) as process:
        facts = await address_of(services, process)
        async with httpx.AsyncClient(base_url=facts.address, timeout=30, verify=trust()) as http:
            token = (await http.post("/v1/users")).json()["token"]
            yield process, Api(http, services, url=facts.address, operator_url=facts.operator_address, token=token)


@asynccontextmanager
async def served(services: Services, closing: asyncio.Event | None = None) -> AsyncGenerator[Api]:
    """Let these services listen, and mint one user."""
    with (
        bound("127.0.0.1:0") as client,
        bound("127.0.0.1:0") as operator,
        patch.object(app, "_Server", PromptServer),
    ):
        async with (
            listening(services, client, operator, closing=closing or asyncio.Event()),
            httpx.AsyncClient(base_url=url_of(client), timeout=30, verify=trust()) as http,
        ):
            token = (await http.post("/v1/users")).json()["token"]
            yield Api(http, services, url=url_of(client), operator_url=url_of(operator), token=token)


@asynccontextmanager
async def broker_with(settings: Settings) -> AsyncGenerator[Api]:
    """Run a broker in this process, with a user and a row that says that a worker lives."""
    async with running_services(settings) as services:
        await pretend_worker(services)
        async with served(services) as api:
            yield api

"""A broker that really listens, in this process; tests play the worker themselves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest

from broker.app import bound, listening, url_of
from broker.services import Services
from tests.api_client import Api


@pytest.fixture
def closing() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def api(services: Services, closing: asyncio.Event) -> AsyncGenerator[Api]:
    async with served(services, closing) as made:
        yield made


@asynccontextmanager
async def served(services: Services, closing: asyncio.Event | None = None) -> AsyncGenerator[Api]:
    """Let these services listen, and mint one user."""
    with bound("127.0.0.1:0") as client_socket, bound("127.0.0.1:0") as operator_socket:
        url, operator_url = url_of(client_socket), url_of(operator_socket)
        async with (
            listening(services, client_socket, operator_socket, closing=closing or asyncio.Event()),
            httpx.AsyncClient(base_url=url, timeout=30) as http,
        ):
            minted = (await http.post("/v1/users")).json()
            yield Api(http, services, url=url, operator_url=operator_url, token=minted["token"])

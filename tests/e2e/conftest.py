"""A broker that really listens, in this process; tests play the worker themselves."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from broker.services import Services
from tests.api_client import Api
from tests.brokers import served


@pytest.fixture
def closing() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def api(services: Services, closing: asyncio.Event) -> AsyncGenerator[Api]:
    async with served(services, closing) as made:
        yield made

"""Fixtures on real servers, and the checks that every test passes through."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from broker.services import Services
from broker.settings import Settings
from tests.stack import Servers, own_database, pretend_worker, running_services, settings_for


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.stop()


@pytest.fixture
async def dsn(servers: Servers) -> AsyncGenerator[str]:
    async with own_database(servers) as dsn:
        yield dsn


@pytest.fixture
def settings(servers: Servers, dsn: str, tmp_path: Path) -> Settings:
    return settings_for(servers, dsn, tmp_path)


@pytest.fixture
async def services(settings: Settings) -> AsyncGenerator[Services]:
    """A broker's services, and a row that says that a worker lives."""
    async with running_services(settings) as services:
        await pretend_worker(services)
        yield services

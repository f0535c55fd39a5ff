"""Fixtures on real servers, and the checks that every test passes through."""

import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings as limits

from broker.log import capture_log, configure_log
from broker.services import Services
from broker.settings import Settings
from tests.checks import blob_faults, forget_planted, leaks, redis_faults
from tests.stack import Servers, as_if_hardened, own_database, pretend_worker, running_services, settings_for

pytest_plugins = ["tests.filewatch.plugin"]
# How long an example takes says how busy the machine is, and nothing of what is tested.
limits.register_profile("suite", deadline=None)
limits.load_profile("suite")
# The machine of use cases, which is slow, takes half.
limits.register_profile("long", deadline=None, max_examples=20_000)


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Generator[None]:
    """
    No planted secret in a log line or in Redis, no key or blob that the retention registry does not list, no key older
    than it says; own_database() looks into Postgres.
    """
    forget_planted()
    configure_log(is_console=False)
    folder: Path | None = request.getfixturevalue("tmp_path") if "settings" in request.fixturenames else None
    with capture_log() as lines:
        yield
    faults = [f"log: {line}" for line in leaks(lines)]
    if "servers" in request.fixturenames:
        started: Servers = request.getfixturevalue("servers")
        faults += redis_faults(started.embedded.redis_url)
    if folder is not None:
        faults += blob_faults(folder / "blobs")
    assert not faults


@pytest.fixture(autouse=True, scope="session")
def short_names_go(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """A stack that was killed leaves its short name for its next start, and stacks of tests have none."""
    yield
    for name in Path("/tmp").glob(f"lethe-{os.geteuid()}-*/s"):
        if name.is_symlink() and name.readlink().is_relative_to(tmp_path_factory.getbasetemp()):
            shutil.rmtree(name.parent)


@pytest.fixture(autouse=True)
def pretends_to_be_hardened(request: pytest.FixtureRequest) -> Generator[None]:
    """But for tests of what a process says of itself."""
    with nullcontext() if "as_it_is" in request.keywords else as_if_hardened():
        yield


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

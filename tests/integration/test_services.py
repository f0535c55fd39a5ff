"""Brokers and workers each run rescue and sweep, so that either side alone suffices."""

import asyncio
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from broker.fleet import JUST_NOW_S
from broker.routing import Needs
from broker.services import Services
from broker.settings import Settings
from broker.store.job_values import NewJob
from broker.submission import Place, first_copies, new_key_id
from tests.keyholder_process import wait_until
from tests.rows import ADMISSION
from tests.stack import pretend_worker, running_services

ROLES = ["broker", "worker"]


async def left_behind(services: Services) -> NewJob:
    """Rows of an upload whose broker is no more."""
    user = await services.stores.users.mint()
    dead = uuid4()
    new = NewJob(
        id=uuid4(),
        public_id=uuid4(),
        user_id=user.user_id,
        operation="noop",
        parameters={},
        profile="minimal",
        pool="gpu",
        owner=dead,
        within_s=60,
    )
    place = Place(n=0, blob=uuid4().hex, key_id=new_key_id(), kept_at=await services.stores.keys.pick())
    assert await services.stores.jobs.receive(new, first_copies([place], dead)) is not None
    return new


@pytest.mark.parametrize("role", ROLES)
async def test_either_side_alone_rescues(settings: Settings, role: str, tmp_path: Path) -> None:
    """A queued job past its time to start expires although the other side is not there."""
    async with running_services(settings, role=role) as services:
        new = await left_behind(services)
        job = await services.stores.jobs.get(new.id)
        assert job is not None
        admission = msgspec.structs.replace(ADMISSION, start_within_s=0.2, finish_within_s=60)
        await services.stores.jobs.admit(job, admission)

        async def is_final() -> bool:
            now = await services.stores.jobs.get(new.id)
            return now is not None and now.is_final

        await wait_until(is_final, within_s=10)
        final = await services.stores.jobs.get(new.id)
        assert final is not None
        assert (final.state, final.code, final.open_copies) == ("expired", "not_started_in_time", 0)


@pytest.mark.parametrize("role", ROLES)
async def test_either_side_alone_sweeps(settings: Settings, role: str) -> None:
    """An upload whose broker is no more is destroyed, and its id is free again."""
    async with running_services(settings, role=role) as services:
        new = await left_behind(services)

        async def is_gone() -> bool:
            return await services.stores.jobs.get(new.id) is None

        await wait_until(is_gone, within_s=10)


async def test_nobody_is_turned_away_by_what_was_true_a_second_ago(settings: Settings) -> None:
    """A worker that has just come is seen, though the broker has looked a moment before."""
    async with running_services(settings) as services:
        assert await services.fleet.operations() == frozenset()
        await pretend_worker(services)
        await asyncio.sleep(2 * JUST_NOW_S)

        assert await services.fleet.candidates(Needs.any_of("noop"), job_id=uuid4()) == ["noop"]

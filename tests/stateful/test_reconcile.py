"""The comparison of rows, blobs and keys, and the figures of the soak: each of them names what it is there to name."""

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import msgspec
import pytest

from broker.jobs import Job, Outcome
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import new_name
from tests.emulators.cog import ANSWERS
from tests.emulators.openai_images import SECRET
from tests.keyholder_process import new_key, own_keyholder
from tests.lifecycle import run_sql
from tests.reconcile import Stores
from tests.soak import attempts_failed_in, broken_in, recovery
from tests.stack import keyholder_of, pretend_worker, queued_job, running_services
from tests.third_parties import running_third_parties


@pytest.fixture
async def alone(settings: Settings, tmp_path: Path) -> AsyncGenerator[Services]:
    """A broker's services whose keyholder nobody else uses."""
    (tmp_path / "k").mkdir()
    async with (
        own_keyholder(tmp_path / "k") as (process, _),
        running_services(msgspec.structs.replace(settings, keyholder_socket=process.socket_path)) as services,
    ):
        await pretend_worker(services)
        yield services


def stores_of(services: Services) -> Stores:
    settings = services.settings
    return Stores(settings.postgres_dsn, settings.keyholder_socket, Path(settings.blobs_url.removeprefix("file://")))


async def canceled(services: Services, job: Job) -> None:
    settling = await services.stores.jobs.begin_settling(job, Outcome.CANCELED, owner=services.lease.process.id)
    await services.settler.settle(settling)


async def test_what_does_not_fit_is_named(alone: Services, tmp_path: Path) -> None:
    """Nothing of a job that is over; of one that is not, its row and its upload; strays by their class."""
    stores = stores_of(alone)
    await canceled(alone, await queued_job(alone))
    assert (await stores.reconcile()).violations == []
    assert set((await stores.states()).values()) == {"canceled"}

    job = await queued_job(alone)
    key_id, key = new_key()
    await keyholder_of(alone).put(key_id, key, ttl_s=60)
    stray = new_name()
    (tmp_path / "blobs" / stray).write_bytes(b"x")
    found = await stores.reconcile()
    assert found.row_without_end == [str(job.public_id)]
    assert set(found.upload_alive) == {str(job.public_id)}
    assert found.blob_without_row == [stray]
    assert found.key_without_row == ["2 held, 1 known"]

    (upload,) = await alone.stores.custody.uploads(job.id)
    (tmp_path / "blobs" / upload.blob).unlink()
    await keyholder_of(alone).shred(upload.key_id, ttl_s=60)
    found = await stores.reconcile()
    assert found.row_without_blob == [upload.blob]
    assert found.row_without_key == [upload.key_id.hex()]
    assert len(found.violations) == 6

    await run_sql(alone.settings, "DELETE FROM receipts")
    assert len((await stores.reconcile()).not_one_receipt) == 1


async def test_receipts_are_verified(alone: Services) -> None:
    """All of them, by the keys that are published."""
    await canceled(alone, await queued_job(alone))
    assert await stores_of(alone).receipts_verify(alone.signer.vkey) == 1


async def test_a_picture_that_is_ordered_twice_is_named() -> None:
    """At a provider that knows no ids of ours every order is paid; under one id of ours it is one, if it was taken."""
    with running_third_parties() as third_parties:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {SECRET}"}) as http:
            for picture in (b"one", b"two", b"two"):
                url = f"{third_parties.openai.url}/v1/images/edits"
                await http.post(url, data={"prompt": "x"}, files={"image": ("image", picture, "image/png")})
            orders = [(n, f"picture {n}") for n in (1, 1, 2)]
            for n, image in orders:
                await http.put(f"{third_parties.cog.url}/predictions/{n}", json={"input": {"image": image}})
            assert third_parties.doubles() == ["ordered 2 times at openai"]
            third_parties.cog.next("order", ANSWERS["overloaded"])
            for n in (3, 4, 5):
                await http.put(f"{third_parties.cog.url}/predictions/{n}", json={"input": {"image": "picture 3"}})
        assert third_parties.doubles() == ["ordered 2 times at openai", "ordered 2 times at cog"]


def test_recovery_is_the_first_success_begun_after_a_blow() -> None:
    """What was under way when the blow came says nothing; one blow without any later success is not counted."""
    successes = [(0.5, 1.5), (1.2, 1.4), (5.0, 9.0)]
    assert recovery([1.0], successes).p50_s == 0.4
    assert recovery([2.0], successes).p99_s == 7.0
    assert recovery([6.0], successes).p50_s == 0.0


def test_what_broke_is_named(tmp_path: Path) -> None:
    """Errors that processes logged, each counted under its words; warnings and other lines are not."""
    line = '{"event":"request_failed","level":"error","exception":"KeyError","exception_at":"a.py:7","cause":"OSError"}'
    (tmp_path / "broker.log").write_text(f'{line}\n{{"event":"job_queued","level":"info"}}\n{line}\n')
    (tmp_path / "worker.log").write_text("Traceback\n" + line.replace("error", "warning"))
    assert broken_in(tmp_path.iterdir()) == {"request_failed KeyError a.py:7 OSError": 2}


def test_attempts_that_failed_are_counted(tmp_path: Path) -> None:
    """From the lines of workers, by provider and kind."""
    line = '{"attempt":"a","provider":"replicate","code":"uncertain","event":"provider_failed","level":"info"}\n'
    (tmp_path / "relay-1.log").write_text(line * 2 + '{"event":"attempt_failed","code":"uncertain"}\n')
    assert attempts_failed_in(tmp_path.iterdir()) == {"replicate uncertain": 2}

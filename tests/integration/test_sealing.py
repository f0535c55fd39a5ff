"""Sealed outputs in rows, blobs and keys: nothing of ours opens them, and Postgres refuses what would not be sealed."""

from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest

from broker.crypto.chunked import ciphertext_bytes
from broker.crypto.sealed import key_info, output_context, thumbnail_context
from broker.device_errors import DeviceKeyRequired, TooManyDevices
from broker.devices import MOST_DEVICES, Device, Kem
from broker.errors import Unavailable
from broker.jobs import Job
from broker.secret_memory import random_into
from broker.services import Services
from broker.settings import Settings
from tests.fakes import SilentBlobStore
from tests.lifecycle import blobs, count, eventually, keys_held, rows_of, run_sql, settled
from tests.profiles import GALLERY, with_profile
from tests.sealed import KeyPair, new_pair, python_opener
from tests.stack import Servers, body_of, pretend_worker, running_services, settings_for, submission, upload_bytes
from workers.outcomes import Stopped
from workers.outputs import Made, keep_output
from workers.sealing import seal_output

MADE = Made(data=memoryview(b"a picture"), media_type="image/png", width=2, height=3)
THUMBNAIL = memoryview(b"a small picture")
OPENER = python_opener()


@pytest.fixture
def settings(servers: Servers, dsn: str, tmp_path: Path) -> Settings:
    return with_profile(settings_for(servers, dsn, tmp_path), tmp_path, GALLERY)


async def device(services: Services, user_id: str, kem: Kem = Kem.X25519) -> tuple[Device, KeyPair]:
    pair = new_pair(kem)
    added, is_new = await services.stores.devices.add(user_id, kem, pair.public_key)
    assert is_new
    return added, pair


async def claimed(services: Services, kem: Kem = Kem.X25519) -> tuple[Job, Device, KeyPair]:
    """A job that runs in a pretended worker, and a device of its user."""
    new = await submission(services)
    added, pair = await device(services, new.user_id, kem)
    job, _ = await services.intake.submit(new, body_of(upload_bytes()))
    running = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert running is not None
    return running, added, pair


async def blob(services: Services, name: str) -> bytes:
    return b"".join([chunk async for chunk in services.stores.blobs.read(name)])


@pytest.mark.parametrize("kem", list(Kem))
async def test_only_a_device_opens_what_is_sealed(services: Services, settings: Settings, kem: Kem) -> None:
    """The keyholder has no key of it, no row has; picture and thumbnail open with the device's private key."""
    before = await keys_held(services)
    job, added, pair = await claimed(services, kem)
    output = await seal_output(services.stores, job, MADE, n=0, thumbnail=THUMBNAIL)
    final = await settled(services, job, outputs=[output])

    assert final.is_sealed
    assert final.outputs_until is None
    assert await keys_held(services) == before
    [row] = await services.stores.custody.outputs(job.id)
    assert (row.is_sealed, row.key_id, row.keyholder) == (True, b"", "")
    assert sorted(blobs(settings)) == sorted([output.blob, output.thumbnail])
    [wrapped] = await services.stores.outputs.keys(job.id, 0)
    info = key_info(job.public_id, 0, added.id, kem)
    key = OPENER.open_key(kem.value, pair.private_key, wrapped.wrapped, info)
    for name, context, expected in (
        (output.blob, output_context(job.public_id, 0), MADE.data),
        (output.thumbnail, thumbnail_context(job.public_id, 0), THUMBNAIL),
    ):
        ciphertext = await blob(services, name)
        assert len(ciphertext) == ciphertext_bytes(len(expected))
        assert OPENER.open_sealed(key, ciphertext, context) == bytes(expected)
    kinds = [(copy.holder, copy.is_open) for copy in await services.stores.custody.copies(job.id) if copy.is_served]
    assert kinds == [("blob", True), ("blob", True)]


def broken(key: bytearray, device: Device, *, job: UUID, n: int) -> float:
    return 1 / 0


async def test_the_key_is_wiped_once_it_is_wrapped(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer in which it was is zeros, also where sealing fails on the way."""
    buffers: list[bytearray] = []

    def remembered(buffer: bytearray) -> None:
        buffers.append(buffer)
        random_into(buffer)

    monkeypatch.setattr("workers.sealing.random_into", remembered)
    job, _, _ = await claimed(services)
    await seal_output(services.stores, job, MADE, n=0, thumbnail=None)
    monkeypatch.setattr("workers.sealing.wrap_key", broken)
    with pytest.raises(ZeroDivisionError):
        await seal_output(services.stores, job, MADE, n=1, thumbnail=None)
    assert buffers == [bytearray(32), bytearray(32)]


async def test_a_sealed_output_is_destroyed_like_any_other(services: Services, settings: Settings) -> None:
    """Both blobs are seen absent, and what was wrapped is deleted."""
    job, _, _ = await claimed(services)
    await settled(services, job, outputs=[await seal_output(services.stores, job, MADE, n=0, thumbnail=THUMBNAIL)])
    assert await services.gallery.destroy(job.id, 0)
    assert blobs(settings) == []
    assert await count(settings, "output_keys") == 0
    words = [c.evidence for c in await services.stores.custody.copies(job.id) if c.what == "output"]
    assert words == ["absent", "absent"]


@pytest.fixture
async def silenced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Services, Job]]:
    """A job with a sealed output, whose blob store answers no more."""
    monkeypatch.setattr("broker.services.BlobStore", SilentBlobStore)
    monkeypatch.setattr(SilentBlobStore, "is_silent", False)
    async with running_services(settings) as services:
        await pretend_worker(services)
        job, _, _ = await claimed(services)
        await settled(services, job, outputs=[await seal_output(services.stores, job, MADE, n=0, thumbnail=THUMBNAIL)])
        SilentBlobStore.is_silent = True
        yield services, job


async def outputs_of(services: Services, job: Job) -> list[tuple[str | None, bool]]:
    return [(c.evidence, c.is_open) for c in await services.stores.custody.copies(job.id) if c.what == "output"]


async def test_a_silent_store_makes_no_sealed_output_unreadable(
    silenced: tuple[Services, Job], settings: Settings
) -> None:
    """A device has the key: the row stays open until the blob was seen absent, and the sweep sees to it."""
    services, job = silenced
    with pytest.raises(Unavailable):
        await services.settler.destroy_outputs(job.id)
    assert await outputs_of(services, job) == [(None, True), (None, True)]
    assert await count(settings, "output_keys") == 0, "but nobody is given what opens it"

    SilentBlobStore.is_silent = False
    await eventually(lambda: count(settings, "outputs", "destroyed_at IS NOT NULL"))
    assert await outputs_of(services, job) == [("absent", False), ("absent", False)]


async def test_a_silent_store_keeps_the_user_whose_device_can_open(
    silenced: tuple[Services, Job], settings: Settings
) -> None:
    """An erasure calls no sealed output unreadable either: it stays open, and its user there, until it is absent."""
    services, job = silenced
    erased = await services.erasure.ask("a token", job.user_id)
    assert erased.request.user_id == job.user_id
    assert await outputs_of(services, job) == [(None, True), (None, True)]

    SilentBlobStore.is_silent = False
    await eventually(lambda: count(settings, "requests", "status = 'completed'"))
    assert await count(settings, "users") == 0
    assert blobs(settings) == []


async def test_a_gallery_ends_with_its_user(services: Services, settings: Settings) -> None:
    """Nothing is kept for ever: an output without an end goes when its user was not seen for `idle_user_for_s`."""
    job, _, _ = await claimed(services)
    await settled(services, job, outputs=[await seal_output(services.stores, job, MADE, n=0, thumbnail=None)])
    await run_sql(settings, "UPDATE users SET last_seen_on = last_seen_on - 29")
    await services.sweep.once()
    assert len(blobs(settings)) == 1
    assert await services.stores.jobs.forget(records_for_s=0) == 0, "a record stays as long as something is left"

    await run_sql(settings, "UPDATE users SET last_seen_on = last_seen_on - 2")
    await eventually(lambda: count(settings, "outputs", "destroyed_at IS NOT NULL"))
    assert blobs(settings) == []
    assert await services.stores.jobs.forget(records_for_s=0) == 1
    await services.sweep.records()
    assert await count(settings, "users") + await count(settings, "devices") == 0


async def test_a_job_that_could_not_be_sealed_does_not_enter(services: Services, settings: Settings) -> None:
    """Nothing is read or kept of it."""
    with pytest.raises(DeviceKeyRequired):
        await services.intake.submit(await submission(services), body_of(upload_bytes()))
    assert await count(settings, "jobs") + len(blobs(settings)) == 0


async def test_a_device_that_is_gone_when_the_work_is_done_fails_the_job(
    services: Services, settings: Settings
) -> None:
    """Rather no output than one that is not sealed."""
    job, added, _ = await claimed(services)
    assert await services.stores.devices.delete(str(job.user_id), added.id)
    with pytest.raises(Stopped) as caught:
        await seal_output(services.stores, job, MADE, n=0, thumbnail=None)
    assert (caught.value.ending.outcome, caught.value.ending.code) == ("failed", "device_key_required")
    assert len(blobs(settings)) == 1, "the upload, which settle destroys"


async def test_a_device_that_goes_while_it_is_sealed_to_takes_its_key_along(services: Services) -> None:
    """The write of the outcome passes over it, and keeps what is for the others."""
    job, added, _ = await claimed(services)
    other, _ = await device(services, str(job.user_id), Kem.P256)
    output = await seal_output(services.stores, job, MADE, n=0, thumbnail=None)
    assert len(output.wrapped) == 2
    await services.stores.devices.delete(str(job.user_id), added.id)
    await settled(services, job, outputs=[output])
    assert [key.device_id for key in await services.stores.outputs.keys(job.id, 0)] == [other.id]


async def test_postgres_refuses_an_output_that_is_not_sealed(services: Services) -> None:
    """Should a worker forget to seal: the outcome cannot be written."""
    job, _, _ = await claimed(services)
    output = await keep_output(services.stores, job, MADE, n=0, lifetime_s=60)
    with pytest.raises(asyncpg.CheckViolationError, match="an output of a sealed job is sealed"):
        await settled(services, job, outputs=[output])


async def test_postgres_refuses_a_sealed_output_with_a_key_of_ours(services: Services) -> None:
    """Sealed means that nobody but a device has the key."""
    job, _, _ = await claimed(services)
    output = await keep_output(services.stores, job, MADE, n=0, lifetime_s=60)
    with pytest.raises(asyncpg.CheckViolationError, match="sealed_means_no_key_of_ours"):
        await settled(services, job, outputs=[msgspec.structs.replace(output, is_sealed=True)])


async def test_postgres_refuses_an_open_output_without_an_end(services: Services, settings: Settings) -> None:
    """What we can open lives a day at most, whoever writes."""
    job, _, _ = await claimed(services)
    await settled(services, job, outputs=[await seal_output(services.stores, job, MADE, n=0, thumbnail=None)])
    for until in ("NULL", "finalized_at + interval '25 hours'"):
        with pytest.raises(asyncpg.CheckViolationError, match="what_we_can_open_lives_a_day"):
            await run_sql(settings, f"UPDATE jobs SET is_sealed = false, outputs_until = {until}")


async def test_a_job_stays_what_it_was_under_another_profile(
    settings: Settings, tmp_path: Path, servers: Servers
) -> None:
    """Admitted sealed, it is sealed; admitted open, it ends within a day, whatever the profile says by then."""
    plain = settings_for(servers, settings.postgres_dsn, tmp_path)
    async with running_services(plain) as before:
        await pretend_worker(before)
        job, _, _ = await claimed(before)
        assert not job.is_sealed
        async with running_services(settings) as after:
            final = await settled(after, job, outputs=[await keep_output(after.stores, job, MADE, n=0, lifetime_s=60)])
            assert final.outputs_until is not None
            assert final.finalized_at is not None
            assert (final.outputs_until - final.finalized_at).total_seconds() == 86_400


async def test_a_user_has_so_many_devices(services: Services) -> None:
    """The same key is the same device, also of those that are one too many."""
    user = (await services.stores.users.mint()).user_id
    made = [await device(services, user) for _ in range(MOST_DEVICES)]
    pair = new_pair(Kem.X25519)
    with pytest.raises(TooManyDevices):
        await services.stores.devices.add(user, Kem.X25519, pair.public_key)
    first, its_pair = made[0]
    assert await services.stores.devices.add(user, Kem.X25519, its_pair.public_key) == (first, False)
    await services.stores.devices.delete(user, first.id)
    await services.stores.devices.add(user, Kem.X25519, pair.public_key)


async def test_a_devices_rows_go_with_it(services: Services, settings: Settings) -> None:
    """What was wrapped to it too; and with an idle user the devices."""
    job, added, _ = await claimed(services)
    await device(services, str(job.user_id))
    await settled(services, job, outputs=[await seal_output(services.stores, job, MADE, n=0, thumbnail=None)])
    await services.stores.devices.delete(str(job.user_id), added.id)
    assert [len(await rows_of(settings, f"SELECT * FROM {t}")) for t in ("devices", "output_keys")] == [1, 1]
    await services.gallery.destroy_all(str(job.user_id))
    assert await count(settings, "output_keys") == 0

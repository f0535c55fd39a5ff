"""Backup and restore: what was there comes back, and no upload, no key and nobody who was erased meanwhile."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest
from click.testing import CliRunner, Result

from broker import backup
from broker.backup import Place, back_up, restore
from broker.cli import main
from broker.consents import Wish
from broker.crypto.chunked import KEY_BYTES
from broker.dumping import DumpError, find_program, run_program
from broker.errors import BlobsUnavailable
from broker.rights import ERASED
from broker.sealing import check_record
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore
from broker.store.keys import OpenAnswer
from broker.store.users import NewUser
from tests.erasing import finished, minted, queued
from tests.integration.test_holds import held
from tests.lifecycle import blobs, count, eventually, rows_of, run_sql, settled
from tests.stack import DATA, Servers, keyholder_of, pretend_worker, running_services


@pytest.fixture
async def empty(servers: Servers) -> AsyncGenerator[str]:
    """The DSN of a database with nothing in it."""
    name = f"t_{secrets.token_hex(6)}"
    await servers.databases.run_sql(f"CREATE DATABASE {name}")
    yield servers.databases.dsn(name)
    await servers.databases.drop(name)


def place(settings: Settings, *, dsn: str = "") -> Place:
    return Place(dsn=dsn or settings.postgres_dsn, blobs_url=settings.blobs_url, data_directory=DATA)


def silent(_: str) -> None:
    pass


async def test_nothing_comes_back_that_was_erased(settings: Settings, empty: str, tmp_path: Path) -> None:
    """xpictures-13: who stayed is there with job and receipt; who was erased since is erased again, and is nobody."""
    file, after = tmp_path / "lethe.dump", msgspec.structs.replace(settings, postgres_dsn=empty)
    async with running_services(settings) as services:
        await pretend_worker(services)
        stays, goes = await minted(services), await minted(services)
        notice = (await services.noticeboard.shown()).current.version
        await services.stores.consents.record(stays.user_id, Wish(notice=notice, give=("marketing", "push")))
        kept, _ = await finished(services, stays), await finished(services, goes)
        await services.sealing.once()
        digest = await back_up(place(settings), file, silent)
        await services.erasure.ask(goes.token, goes.user_id)
        assert await _is_gone(settings, goes)

    assert await restore(place(settings, dsn=empty), file, silent) == 1
    assert not await _is_gone(after, goes)  # whoever runs next erases
    async with running_services(after) as services:
        assert await services.stores.users.find(goes.token) is None  # from the first moment on
        assert await services.stores.users.find(stays.token) == stays.user_id
        await eventually(lambda: _is_gone(after, goes))
        assert await services.stores.receipts.latest(kept.id)
        assert not (await services.stores.consents.standing(stays.user_id)).purposes  # asked again
        assert await services.stores.jobs.find(stays.user_id, kept.public_id) is not None
        assert await count(after, "custody", f"job_id <> '{kept.id}'") == 0
        await services.sealing.once()
        await check_record(services.stores.audit, [services.signer.vkey])
        await services.settler.destroy_outputs(kept.id)
    (restored,) = await rows_of(after, "SELECT detail FROM audit_events WHERE event = 'backup_restored'")
    assert restored["detail"] == digest


async def _is_gone(settings: Settings, user: NewUser) -> bool:
    jobs = await count(settings, "jobs", "user_id IS NULL")
    return await count(settings, "users", f"id = '{user.user_id}'") + jobs == 0


async def test_no_upload_and_no_key_comes_back(settings: Settings, empty: str, tmp_path: Path) -> None:
    """xpictures-13: a job that waited when the backup was made and ended since is a row that nothing opens."""
    file, after = tmp_path / "lethe.dump", msgspec.structs.replace(settings, postgres_dsn=empty)
    async with running_services(settings) as services:
        await pretend_worker(services)
        user = await minted(services)
        job = await queued(services, user)
        made = await finished(services, user)
        await back_up(place(settings), file, silent)
        claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
        assert claimed is not None
        await settled(services, claimed)
        await services.gallery.destroy(made.id, 0)
        assert blobs(settings) == []

    assert await restore(place(settings, dsn=empty), file, silent) == 0
    async with running_services(after) as services:
        for upload in await services.stores.custody.uploads(job.id):
            answer = await keyholder_of(services).open_into(upload.key_id, bytearray(KEY_BYTES), fence=99)
            assert answer is OpenAnswer.GONE
        (output,) = await services.stores.custody.outputs(made.id)
        assert await keyholder_of(services).open_into(output.key_id, bytearray(KEY_BYTES), fence=99) is OpenAnswer.GONE
        assert blobs(settings) == []
        assert await services.stores.processes.alive() == [
            one for one in await services.stores.processes.alive() if one.role == "broker"
        ]
        await services.erasure.ask(user.token, user.user_id)
        assert await count(after, "jobs") == 0


async def test_a_hold_that_ended_before_an_erasure_does_not_come_back(
    settings: Settings, empty: str, tmp_path: Path
) -> None:
    """Held when the backup was made, released and erased since: erased again all the same."""
    file, after = tmp_path / "lethe.dump", msgspec.structs.replace(settings, postgres_dsn=empty)
    async with running_services(settings) as services:
        await pretend_worker(services)
        user = await minted(services)
        await finished(services, user)
        hold = await held(services, user)
        await back_up(place(settings), file, silent)
        await services.stores.holds.end(hold.id, operator="alice")
        await services.erasure.ask(user.token, user.user_id)
    assert await restore(place(settings, dsn=empty), file, silent) == 1
    async with running_services(after):
        await eventually(lambda: _is_gone(after, user))


async def test_a_restore_without_the_list_of_erasures_is_refused(
    services: Services, settings: Settings, empty: str, tmp_path: Path
) -> None:
    """Another blob store, a file that was changed, and a mark that is too old: nothing is loaded."""
    file = tmp_path / "lethe.dump"
    await back_up(place(settings), file, silent)
    elsewhere = msgspec.structs.replace(place(settings, dsn=empty), blobs_url=f"file://{tmp_path}/elsewhere")
    with pytest.raises(DumpError, match="does not know"):
        await restore(elsewhere, file, silent)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DumpError, match="does not know"):
        await restore(place(settings, dsn=empty), file, silent)
    assert await count(msgspec.structs.replace(settings, postgres_dsn=empty), "pg_tables", "schemaname = 'public'") == 0


async def test_a_restore_into_what_is_there_is_refused(services: Services, settings: Settings, tmp_path: Path) -> None:
    """Only an empty database is loaded; the one that runs stays as it is."""
    file = tmp_path / "lethe.dump"
    await back_up(place(settings), file, silent)
    with pytest.raises(DumpError, match="not empty"):
        await restore(place(settings), file, silent)


async def test_a_file_that_is_there_is_not_written_over(services: Services, settings: Settings, tmp_path: Path) -> None:
    """Another name, please; and nothing half made is left."""
    file = tmp_path / "lethe.dump"
    file.write_bytes(b"mine")
    with pytest.raises(DumpError, match="exists"):
        await back_up(place(settings), file, silent)
    assert file.read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError):
        await back_up(place(settings), tmp_path / "nowhere" / "lethe.dump", silent)
    nowhere = msgspec.structs.replace(place(settings), dsn=settings.postgres_dsn.replace("@/", "@/no_such_"))
    with pytest.raises((asyncpg.InvalidCatalogNameError, DumpError)):
        await back_up(nowhere, tmp_path / "other.dump", silent)
    assert list(tmp_path.glob("*.part")) == []


async def test_a_program_that_is_too_old_is_not_used() -> None:
    """Said with the version that is needed."""
    with pytest.raises(DumpError, match="no pg_dump of PostgreSQL 99 or newer"):
        await find_program("pg_dump", major=99, data_directory=DATA)


async def test_an_erasure_waits_for_its_mark(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user goes when it is remembered that the user went, and not before."""
    user = await minted(services)

    async def down(store: BlobStore, name: str) -> None:
        raise BlobsUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "mark", down)
        await services.erasure.ask(user.token, user.user_id)
        assert await count(settings, "users", f"id = '{user.user_id}'") == 1
    await services.erasure.ask(user.token, user.user_id)
    assert await count(settings, "users", f"id = '{user.user_id}'") == 0


async def test_marks_end_with_the_backups_that_need_them(
    services: Services, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 400 days the next backup forgets both, backups first; later ones stay."""
    user = await minted(services)
    await services.erasure.ask(user.token, user.user_id)
    await back_up(place(settings), tmp_path / "first.dump", silent)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=401)

    assert len(await services.stores.blobs.marks(ERASED)) == 1
    monkeypatch.setattr(backup, "datetime", Later)
    digest = await back_up(place(settings), tmp_path / "second.dump", silent)
    assert await services.stores.blobs.marks(ERASED) == {}
    assert set(await services.stores.blobs.marks(backup.BACKUPS)) == {digest}


def lethe(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


async def test_the_commands_do_the_same(services: Services, settings: Settings, empty: str, tmp_path: Path) -> None:
    """`lethe backup FILE`, `lethe restore FILE`; a refusal is one sentence and exit code 1."""
    file = str(tmp_path / "lethe.dump")
    where = ("--blobs-url", settings.blobs_url, "--data-dir", str(DATA))
    made = await asyncio.to_thread(lethe, "backup", file, "--dsn", settings.postgres_dsn, *where)
    assert (made.exit_code, "known to the blob store" in made.output) == (0, True)
    refused = await asyncio.to_thread(lethe, "backup", file, "--dsn", settings.postgres_dsn, *where)
    assert (refused.exit_code, "exists" in refused.output) == (1, True)
    back = await asyncio.to_thread(lethe, "restore", file, "--dsn", empty, *where)
    assert (back.exit_code, "0 users were erased since" in back.output) == (0, True)
    down = await asyncio.to_thread(lethe, "backup", f"{file}2", "--dsn", "postgresql://lethe@/x?host=/nowhere", *where)
    assert down.exit_code == 1


async def test_a_password_is_on_no_command_line(tmp_path: Path) -> None:
    """Other users of the machine can read arguments: the password goes by the environment."""
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "$@ with $PGPASSWORD" >&2\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(DumpError) as told:
        await run_program(program, "postgresql://me:s%40cret@db/x", watched=None, report=silent)
    assert str(told.value) == "pg_dump failed: --dbname=postgresql://me@db/x with s@cret"


async def test_who_was_erased_is_remembered_by_a_digest_alone(services: Services, settings: Settings) -> None:
    """No name in the blob store says who it was."""
    user = await minted(services)
    await services.erasure.ask(user.token, user.user_id)
    (name,) = await services.stores.blobs.marks(ERASED)
    assert len(name) == 64
    assert user.user_id not in name


async def test_where_somebody_is_told_is_in_no_backup(settings: Settings, empty: str, tmp_path: Path) -> None:
    """No URL or push token: nobody is told twice, and no token outlives its job in a file."""
    file, after = tmp_path / "lethe.dump", msgspec.structs.replace(settings, postgres_dsn=empty)
    async with running_services(settings) as services:
        await pretend_worker(services)
        await queued(services, await minted(services))
        await run_sql(settings, "INSERT INTO notifications (job_id, channel, target) SELECT id, 'fcm', 'tok' FROM jobs")
        await back_up(place(settings), file, silent)
    await restore(place(settings, dsn=empty), file, silent)
    assert (await count(after, "jobs"), await count(after, "notifications")) == (1, 0)

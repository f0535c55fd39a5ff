"""Keyholders that are reached over a network, and more than one of them."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from broker.custody import KeptAt
from broker.errors import KeyholderUnavailable
from broker.frames import KEY_BYTES, Memory
from broker.jobs import JobState, Outcome
from broker.settings import Settings, SettingsInvalid
from broker.store.keyholders import Keyholders
from broker.store.keys import Keyholder, OpenAnswer, PutAnswer
from broker.wire import TlsFiles, client_context
from tests.certificates import Authority
from tests.keyholder_process import KeyholderProcess, new_key, wait_until
from tests.lifecycle import final, held, refs
from tests.needles import Needles, halves
from tests.process_memory import needs_root, readable_memory
from tests.stack import pretend_worker, queued_job, running_services

FENCE = 1


class Remote:
    """A keyholder that listens with TLS, and the authority that brokers and workers have in common with it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ca")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        own = self.authority.issue("keyholder", roles=("keyholder",))
        options = ("--ca-file", own.ca, "--certificate-file", own.certificate, "--key-file", own.key)
        self.process = KeyholderProcess(folder / "k.sock", "--listen", self.address, *options, "--memory", Memory.MLOCK)

    @property
    def log(self) -> str:
        return self.process.log_path.read_text()

    @asynccontextmanager
    async def as_role(self, *roles: str) -> AsyncGenerator[Keyholder]:
        files = self.authority.issue("-".join(roles) or "none", roles=roles)
        async with spoken_to(self.address, files) as keyholder:
            yield keyholder


@asynccontextmanager
async def spoken_to(address: str, files: TlsFiles | None) -> AsyncGenerator[Keyholder]:
    client = Keyholder(address, files)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    started = Remote(tmp_path_factory.mktemp("remote"))
    yield started
    started.process.stop()


async def test_brokers_open_what_workers_made_and_workers_what_brokers_took_in(remote: Remote) -> None:
    """A role gets nothing back that it gave: a broker can open no upload, a worker no output; either may shred both."""
    upload, output = new_key(), new_key()
    async with remote.as_role("broker") as broker, remote.as_role("worker") as worker:
        assert await broker.put(*upload, ttl_s=60) is PutAnswer.OK
        assert await worker.put(*output, ttl_s=60) is PutAnswer.OK
        for keyholder, own, others in ((broker, upload, output), (worker, output, upload)):
            opened = bytearray(KEY_BYTES)
            with pytest.raises(KeyholderUnavailable):
                await keyholder.open_into(own[0], opened, fence=FENCE)
            assert not any(opened)
            assert await keyholder.open_into(others[0], opened, fence=FENCE) is OpenAnswer.OK
            assert opened == others[1]
        await worker.shred(upload[0], ttl_s=60)
        await broker.shred(output[0], ttl_s=60)
        assert not await broker.has(upload[0])
        assert not await worker.has(output[0])
    assert '"role":"broker"' in remote.log
    assert '"event":"keyholder_role_refused"' in remote.log


async def test_the_socket_of_the_same_keyholder_may_do_everything(remote: Remote) -> None:
    """Who may open the socket is the user that runs Lethe on that machine."""
    key_id, key = new_key()
    opened = bytearray(KEY_BYTES)
    async with remote.as_role("broker") as broker, spoken_to(remote.process.socket_path, None) as local:
        await broker.put(key_id, key, ttl_s=60)
        assert await local.open_into(key_id, opened, fence=FENCE) is OpenAnswer.OK
        await local.shred(key_id, ttl_s=60)
    assert opened == key


@pytest.mark.parametrize(
    ("roles", "days", "is_ours", "logged"),
    [
        ((), 1, True, "no_role"),
        (("keyholder",), 1, True, "no_role"),
        (("broker", "worker"), 1, True, "no_role"),
        (("broker",), -1, True, "CERTIFICATE_VERIFY_FAILED"),
        (("broker",), 1, False, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_a_wrong_certificate_gets_nothing(
    remote: Remote, tmp_path: Path, roles: tuple[str, ...], days: int, *, is_ours: bool, logged: str
) -> None:
    """No role, two roles, ended, or signed by somebody else: cut off, and the keyholder's log says why."""
    authority = remote.authority if is_ours else Authority(tmp_path / "other")
    files = authority.issue("wrong", roles=roles, days=days)
    before = remote.log.count(logged)
    async with spoken_to(remote.address, files._replace(ca=remote.authority.file)) as client:
        with pytest.raises(KeyholderUnavailable):
            await client.hello()

    async def is_logged() -> bool:
        return remote.log.count(logged) > before

    await wait_until(is_logged)


async def test_without_a_certificate_or_in_the_open_nobody_is_heard(remote: Remote) -> None:
    """TLS without a client certificate, and frames without TLS, get no answer."""
    host, port = "127.0.0.1", int(remote.address.rpartition(":")[2])
    bare = ssl.create_default_context(cafile=remote.authority.file)
    frame = b"LK\x01\x05" + bytes(60)
    for context in (bare, None):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(frame)
        async with asyncio.timeout(10):
            try:
                answer = await reader.read()
            except (ssl.SSLError, ConnectionError):
                answer = b""
        # Frames in the open are answered by an alert of TLS, which is no frame.
        assert not answer.startswith(b"LK")
        writer.transport.abort()
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in remote.log


async def test_a_broker_s_certificate_makes_no_keyholder(tmp_path: Path) -> None:
    """Clients give their keys to nobody but a keyholder, though the same CA has signed."""
    authority = Authority(tmp_path / "ca")
    for name, roles in (("impostor", ("broker",)), ("true", ("keyholder",))):
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = authority.issue(name, roles=roles)
        served.load_cert_chain(files.certificate, files.key)
        heard = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: asyncio.Event) -> None:
            if await reader.read(1):
                seen.set()
            writer.close()

        server = await asyncio.start_server(
            lambda reader, writer, seen=heard: listen(reader, writer, seen), "127.0.0.1", 0, ssl=served
        )
        port = server.sockets[0].getsockname()[1]
        async with spoken_to(f"127.0.0.1:{port}", authority.issue("broker", roles=("broker",))) as client:
            with pytest.raises(KeyholderUnavailable):
                await client.hello()
        server.close()
        assert heard.is_set() is (name == "true")


async def test_only_the_newest_tls_is_spoken(remote: Remote) -> None:
    """Older versions let whoever records the network today read it with a key stolen tomorrow."""
    context = client_context(remote.authority.issue("broker", roles=("broker",)))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = "127.0.0.1", int(remote.address.rpartition(":")[2])
    with socket.create_connection((host, port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname=host)

    async def is_logged() -> bool:
        return "UNSUPPORTED_PROTOCOL" in remote.log

    await wait_until(is_logged)


@needs_root
async def test_tls_keeps_no_copy_of_a_key(remote: Remote) -> None:
    """What passes through TLS is wiped like what passes through a socket; while it is held the keyholder has it."""
    pairs = [new_key() for _ in range(100)]
    needles = Needles(halves(bytes(key) for _, key in pairs))
    async with remote.as_role("broker") as broker, remote.as_role("worker") as worker:
        for key_id, key in pairs:
            assert await broker.put(key_id, key, ttl_s=60) is PutAnswer.OK
            assert await worker.open_into(key_id, bytearray(KEY_BYTES), fence=FENCE) is OpenAnswer.OK
        assert len(needles.found_in(readable_memory(remote.process.running.pid))) == 2 * len(pairs)
        for key_id, _ in pairs:
            await broker.shred(key_id, ttl_s=60)
        assert not needles.found_in(readable_memory(remote.process.running.pid))


def test_a_network_address_needs_certificates(settings: Settings) -> None:
    """A setting that would send keys in the open is refused at start."""
    with pytest.raises(SettingsInvalid, match="CERTIFICATE"):
        Keyholders.of(msgspec.structs.replace(settings, keyholder_socket="10.0.0.1:8443"))
    with pytest.raises(SettingsInvalid, match="no keyholder"):
        Keyholders.of(msgspec.structs.replace(settings, keyholder_socket=" , "))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[KeyholderProcess, KeyholderProcess]]:
    first, second = (KeyholderProcess(tmp_path / f"{name}.sock") for name in ("one", "two"))
    yield first, second
    for process in (first, second):
        process.stop()


def drain(process: KeyholderProcess) -> None:
    command = [sys.executable, "-m", "broker.cli", "keyholder", "--socket", process.socket_path, "--drain"]
    assert b"ends when the last one has" in subprocess.run(command, capture_output=True, timeout=30, check=True).stdout


async def test_new_keys_go_to_any_that_is_well(two: tuple[KeyholderProcess, KeyholderProcess]) -> None:
    """In turns; past one that is dead; with none there is no admission, and one that comes back is used again."""
    first, second = two
    keys = Keyholders([first.socket_path, second.socket_path])
    await keys.hello()
    assert {(await keys.pick()).keyholder for _ in range(2)} == {first.socket_path, second.socket_path}
    first.stop()

    async def only_the_second() -> bool:
        return {(await keys.pick()).keyholder for _ in range(2)} == {second.socket_path}

    await wait_until(only_the_second)
    second.stop()
    with pytest.raises(KeyholderUnavailable):
        await keys.hello()
    first.start()
    assert (await keys.pick()).keyholder == first.socket_path
    await keys.aclose()


async def test_a_row_leads_to_its_keyholder(two: tuple[KeyholderProcess, KeyholderProcess]) -> None:
    """A key is asked for where its row says, and a keyholder that nobody names any more is not called empty."""
    first, second = two
    keys = Keyholders([first.socket_path, second.socket_path])
    key_id, key = new_key()
    kept = await keys.pick()
    await keys.at(kept.keyholder).put(key_id, key, ttl_s=60, incarnation=kept.incarnation)
    known = KeptAt.read(kept.detail)
    other = next(one for one in keys if one.address != kept.keyholder)
    assert known == kept
    assert await keys.at(known.keyholder).has(key_id)
    assert not await other.has(key_id)
    alone = Keyholders([other.address])
    with pytest.raises(KeyholderUnavailable, match="does not name"):
        alone.at(known.keyholder)
    await keys.aclose()
    await alone.aclose()


async def test_one_is_drained_while_the_other_admits(
    settings: Settings, two: tuple[KeyholderProcess, KeyholderProcess]
) -> None:
    """
    An upgrade: the old one gets no new key, goes on serving what it has, and ends by itself when nothing is left.

    Jobs on either side of it end as ever.
    """
    first, second = two
    both = msgspec.structs.replace(settings, keyholder_socket=f"{first.socket_path},{second.socket_path}")
    async with running_services(both) as services:
        await pretend_worker(services)
        jobs = [await queued_job(services) for _ in range(4)]
        kept = [
            KeptAt.read(copy.detail).keyholder
            for job in jobs
            for copy in await services.stores.custody.copies(job.id)
            if copy.holder == "key"
        ]
        assert set(kept) == {first.socket_path, second.socket_path}
        drain(first)
        await services.stores.keys.hello()
        later = [await queued_job(services) for _ in range(3)]
        for job in later:
            copies = await services.stores.custody.copies(job.id)
            assert {KeptAt.read(c.detail).keyholder for c in copies if c.holder == "key"} == {second.socket_path}
        for job in (*jobs, *later):
            upload = (await services.stores.custody.uploads(job.id))[0]
            assert await services.stores.keys.at(upload.keyholder).has(upload.key_id)
            assert first.running.poll() is None
            claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
            assert claimed is not None
            owner = services.lease.process.id
            settling = await services.stores.jobs.begin_settling(claimed, Outcome.FAILED, owner=owner, code="tested")
            await services.settler.settle(settling, let_go=held(claimed))
            assert (await final(services, job)).state is JobState.FAILED
            assert await refs(services, job.id, "key") == [upload.key_id.hex()]


async def test_a_drained_keyholder_ends_when_nothing_is_left(two: tuple[KeyholderProcess, KeyholderProcess]) -> None:
    """Neither a key nor a tombstone, so that late questions have got their answers; and it leaves cleanly."""
    first, _ = two
    async with spoken_to(first.socket_path, None) as keyholder:
        key_id, key = new_key()
        await keyholder.put(key_id, key, ttl_s=60)
        os.kill(first.running.pid, signal.SIGUSR1)
        assert await keyholder.open_into(key_id, bytearray(KEY_BYTES), fence=FENCE) is OpenAnswer.OK

        async def takes_none() -> bool:
            await keyholder.hello()
            return not keyholder.takes_keys

        await wait_until(takes_none)
        shredded_s = time.monotonic()
        await keyholder.shred(key_id, ttl_s=2)
        assert not await keyholder.has(key_id)
    assert await asyncio.to_thread(first.running.wait, 15) == 0
    assert time.monotonic() - shredded_s >= 2, "the tombstone had its time"
    assert not Path(first.socket_path).exists()


async def test_one_that_was_told_to_drain_alone_admits_nothing(tmp_path: Path) -> None:
    """There is nowhere else to go: an error that says so, rather than a key where nobody will be."""
    process = KeyholderProcess(tmp_path / "k.sock")
    async with AsyncExitStack() as exits:
        exits.callback(process.stop)
        keys = Keyholders([process.socket_path])
        exits.push_async_callback(keys.aclose)
        key_id, key = new_key()
        await keys.at(process.socket_path).put(key_id, key, ttl_s=60)
        drain(process)
        with pytest.raises(KeyholderUnavailable, match="no keyholder takes keys"):
            await keys.hello()
        with pytest.raises(KeyholderUnavailable, match="no keyholder takes keys"):
            await keys.pick()

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.errors import KeyholderUnavailable
from broker.frames import FRAME_BYTES, KEY_BYTES, Answer, Memory, Verb, read_head, write_head
from broker.store.keys import Keyholder, OpenAnswer, PutAnswer
from tests.keyholder_process import KeyholderProcess, new_key, own_keyholder, wait_until

FENCE = 1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyholderProcess]:
    """One keyholder for the tests that leave it as it was: every test uses ids of its own."""
    process = KeyholderProcess(tmp_path_factory.mktemp("shared") / "k.sock", "--max-ttl-s", "3600")
    yield process
    process.stop()


@pytest.fixture
async def keys(shared: KeyholderProcess) -> AsyncIterator[Keyholder]:
    client = Keyholder(shared.socket_path)
    yield client
    await client.aclose()


async def test_a_key_is_kept_opened_and_shredded(keys: Keyholder) -> None:
    """PUT once, OPEN as often as needed, SHRED for good."""
    key_id, key = new_key()
    opened = bytearray(KEY_BYTES)
    assert await keys.put(key_id, key, ttl_s=60) is PutAnswer.OK
    assert await keys.put(key_id, key, ttl_s=60) is PutAnswer.EXISTS
    assert await keys.has(key_id)
    for _ in range(2):
        assert await keys.open_into(key_id, opened, fence=FENCE) is OpenAnswer.OK
        assert opened == key
    await keys.shred(key_id, ttl_s=60)
    await keys.shred(key_id, ttl_s=60)
    assert not await keys.has(key_id)
    assert await keys.open_into(key_id, opened, fence=FENCE) is OpenAnswer.GONE
    assert await keys.put(key_id, key, ttl_s=60) is PutAnswer.GONE


async def test_a_put_after_the_shred_of_an_unknown_key_is_refused(keys: Keyholder) -> None:
    """A PUT that is overtaken by its own SHRED leaves no key."""
    key_id, key = new_key()
    await keys.shred(key_id, ttl_s=60)
    assert await keys.put(key_id, key, ttl_s=60) is PutAnswer.GONE
    assert not await keys.has(key_id)


async def test_a_lower_fence_is_stale_and_gets_nothing(keys: Keyholder) -> None:
    """A worker that was overtaken does not get the key again."""
    key_id, key = new_key()
    opened = bytearray(KEY_BYTES)
    await keys.put(key_id, key, ttl_s=60)
    await keys.open_into(key_id, bytearray(KEY_BYTES), fence=2)
    assert await keys.open_into(key_id, opened, fence=1) is OpenAnswer.STALE
    assert not any(opened)


async def test_keys_end_by_themselves(tmp_path: Path) -> None:
    """A key is overwritten at its time, capped by the keyholder, though nobody asks for it."""
    async with own_keyholder(tmp_path, "--max-ttl-s", "1") as (process, keys):
        key_id, key = new_key()
        await keys.put(key_id, key, ttl_s=3600)
        started_s = time.monotonic()

        async def is_swept() -> bool:
            return "keyholder_keys_ended" in process.log_path.read_text()

        await wait_until(is_swept)
        assert 0.9 <= time.monotonic() - started_s <= 2.5
        assert await keys.open_into(key_id, bytearray(KEY_BYTES), fence=FENCE) is OpenAnswer.GONE


async def test_a_full_keyholder_says_so(tmp_path: Path) -> None:
    """Beyond its capacity a keyholder takes no key, until one leaves."""
    async with own_keyholder(tmp_path, "--capacity", "2") as (_, keys):
        ids = [os.urandom(16) for _ in range(3)]
        answers = [await keys.put(key_id, bytearray(KEY_BYTES), ttl_s=60) for key_id in ids]
        assert answers == [PutAnswer.OK, PutAnswer.OK, PutAnswer.FULL]
        await keys.shred(ids[0], ttl_s=60)
        assert await keys.put(ids[2], bytearray(KEY_BYTES), ttl_s=60) is PutAnswer.OK
        stats = await keys.stats()
        assert (stats.held, stats.capacity, stats.tombstones) == (2, 2, 1)


async def test_many_callers_get_their_own_answers(keys: Keyholder) -> None:
    """Requests of many callers share one connection; each gets the key it asked for."""
    pairs = [new_key() for _ in range(1000)]
    assert set(await asyncio.gather(*(keys.put(*pair, ttl_s=60) for pair in pairs))) == {PutAnswer.OK}
    buffers = [bytearray(KEY_BYTES) for _ in pairs]
    opens = (keys.open_into(pair[0], buffer, fence=FENCE) for pair, buffer in zip(pairs, buffers, strict=True))
    assert set(await asyncio.gather(*opens)) == {OpenAnswer.OK}
    assert buffers == [key for _, key in pairs]
    await asyncio.gather(*(keys.shred(key_id, ttl_s=60) for key_id, _ in pairs))
    assert not any(await asyncio.gather(*(keys.has(key_id) for key_id, _ in pairs)))


async def test_who_gives_up_gets_no_key_and_shifts_no_answer(keys: Keyholder) -> None:
    """A cancelled OPEN writes nothing into its buffer, and the next answer goes to the next caller."""
    (key_id, key), (other_id, other_key) = new_key(), new_key()
    await keys.put(key_id, key, ttl_s=60)
    await keys.put(other_id, other_key, ttl_s=60)
    abandoned, wanted = bytearray(KEY_BYTES), bytearray(KEY_BYTES)
    given_up = asyncio.create_task(keys.open_into(key_id, abandoned, fence=FENCE))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await keys.open_into(other_id, wanted, fence=FENCE) is OpenAnswer.OK
    assert given_up.cancelled()
    assert wanted == other_key
    assert not any(abandoned)


async def test_a_kill_makes_every_key_unreadable_at_once(tmp_path: Path) -> None:
    """After kill -9 callers hear `unavailable`; after a restart there is a new incarnation and no key."""
    async with own_keyholder(tmp_path) as (process, keys):
        key_id, key = new_key()
        first = await keys.hello()
        assert await keys.hello() == first
        await keys.put(key_id, key, ttl_s=60, incarnation=first)
        process.stop(signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(KeyholderUnavailable):
                await keys.hello()
        with pytest.raises(KeyholderUnavailable):
            await keys.has(key_id)
        process.start()
        assert await keys.hello() != first
        assert not await keys.has(key_id)
        with pytest.raises(KeyholderUnavailable, match="incarnation"):
            await keys.put(key_id, key, ttl_s=60, incarnation=first)
        assert await keys.put(key_id, key, ttl_s=60) is PutAnswer.OK


async def test_a_silent_keyholder_is_unavailable(tmp_path: Path) -> None:
    """A keyholder that does not answer within the time limit holds nobody up, and is back once it answers."""
    async with own_keyholder(tmp_path) as (process, keys):
        first = await keys.hello()
        process.running.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        with pytest.raises(KeyholderUnavailable):
            await keys.hello()
        assert time.monotonic() - started_s < 4
        process.running.send_signal(signal.SIGCONT)
        assert await keys.hello() == first


async def test_only_the_owner_may_connect_and_sigterm_leaves_nothing(tmp_path: Path) -> None:
    """The socket is 0600, and a keyholder that is told to go goes cleanly and takes its socket along."""
    async with own_keyholder(tmp_path) as (process, keys):
        assert stat.S_IMODE(Path(process.socket_path).stat().st_mode) == 0o600
        await keys.hello()
        assert process.stop(signal.SIGTERM) == 0
        assert not Path(process.socket_path).exists()


async def test_a_living_keyholder_keeps_its_socket(shared: KeyholderProcess, keys: Keyholder) -> None:
    """A second keyholder may not take the place of one that lives: it would say `no` of keys the first one holds."""
    incarnation = await keys.hello()
    command = [sys.executable, "-m", "broker.keyholder", "--socket", shared.socket_path]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=10, check=False)
    assert second.returncode == 1
    assert b"another keyholder" in second.stderr
    assert await keys.hello() == incarnation


@pytest.mark.parametrize("code", [0, 7, Answer.OK])
async def test_garbage_closes_its_own_connection_only(shared: KeyholderProcess, keys: Keyholder, code: int) -> None:
    """Who speaks no frames is cut off; nobody else notices."""
    await keys.hello()
    reader, writer = await asyncio.open_unix_connection(shared.socket_path)
    frame = bytearray(FRAME_BYTES)
    if code:
        write_head(memoryview(frame), Answer.OK)
        frame[3] = code
    writer.write(frame)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    assert await keys.hello()


async def test_who_does_not_read_is_cut_off(shared: KeyholderProcess, keys: Keyholder) -> None:
    """Answers that nobody takes are not piled up, since they may hold keys."""
    _, writer = await asyncio.open_unix_connection(shared.socket_path, limit=FRAME_BYTES)
    frame = bytearray(FRAME_BYTES)
    write_head(memoryview(frame), Verb.HELLO)

    async def ask_for_ever() -> None:
        while True:
            writer.write(frame * 1000)
            await writer.drain()

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(10):
            await ask_for_ever()
    writer.close()
    assert await keys.hello()


class Relay:
    """Stands between a client and a keyholder and notes which verbs came over which connection."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.verbs: list[set[int]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen: set[int] = set()
        self.verbs.append(seen)
        answers, requests = await asyncio.open_unix_connection(self._upstream)
        try:
            while True:
                frame = await reader.readexactly(FRAME_BYTES)
                seen.add(read_head(memoryview(frame)).code)
                requests.write(frame)
                writer.write(await answers.readexactly(FRAME_BYTES))
        except asyncio.IncompleteReadError:
            requests.close()
            writer.close()


async def test_has_is_asked_over_another_connection(shared: KeyholderProcess, tmp_path: Path) -> None:
    """What one connection shredded, another one sees gone."""
    relay = Relay(shared.socket_path)
    server = await asyncio.start_unix_server(relay, tmp_path / "r.sock")
    keys = Keyholder(str(tmp_path / "r.sock"))
    key_id, key = new_key()
    await keys.put(key_id, key, ttl_s=60)
    await keys.shred(key_id, ttl_s=60)
    assert not await keys.has(key_id)
    assert relay.verbs == [{Verb.HELLO, Verb.PUT, Verb.SHRED}, {Verb.HELLO, Verb.HAS}]
    await keys.aclose()
    server.close()


@pytest.mark.parametrize("answer", [b"x" * FRAME_BYTES, bytes(10)])
async def test_a_server_that_is_no_keyholder_is_unavailable(tmp_path: Path, answer: bytes) -> None:
    """Garbage from the other side is never taken for an answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(FRAME_BYTES)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(talk, tmp_path / "r.sock")
    keys = Keyholder(str(tmp_path / "r.sock"))
    with pytest.raises(KeyholderUnavailable):
        await keys.has(os.urandom(16))
    await keys.aclose()
    server.close()


async def test_a_missing_keyholder_is_unavailable(tmp_path: Path) -> None:
    """No socket, no answer: the caller hears it at once."""
    keys = Keyholder(str(tmp_path / "none.sock"))
    with pytest.raises(KeyholderUnavailable):
        await keys.stats()
    await keys.aclose()


@pytest.mark.parametrize(("key_id", "key_bytes", "ttl_s"), [(b"short", 32, 1), (bytes(16), 31, 1), (bytes(16), 32, 0)])
async def test_wrong_sizes_are_the_callers_mistake(keys: Keyholder, key_id: bytes, key_bytes: int, ttl_s: int) -> None:
    """An id, key or ttl that fits no frame is refused before anything is sent."""
    with pytest.raises(ValueError, match="key id"):
        await keys.put(key_id, bytearray(key_bytes), ttl_s=ttl_s)


async def test_it_is_fast_enough(keys: Keyholder) -> None:
    """500 questions one after the other take well under a second each hundred; bench/keyholder.py has the figures."""
    key_id, _ = new_key()
    started_s = time.monotonic()
    for _ in range(500):
        await keys.has(key_id)
    assert time.monotonic() - started_s < 2


@pytest.mark.parametrize("memory", [Memory.MLOCK, Memory.PLAIN])
async def test_the_kind_of_memory_is_told(tmp_path: Path, memory: Memory) -> None:
    """STATS labels weaker memory as what it is."""
    async with own_keyholder(tmp_path, "--memory", memory, "--capacity", "64") as (_, keys):
        assert (await keys.stats()).memory is memory

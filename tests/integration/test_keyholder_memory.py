import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.frames import KEY_BYTES, Memory
from broker.secret_memory import SecretPages, random_into, wipe
from tests.keyholder_process import own_keyholder
from tests.process_memory import needs_root, readable_memory

KEYS = 200
MARKER_BYTES = 8


def kernel_hides_pages() -> bool:
    pages = SecretPages(KEY_BYTES)
    pages.close()
    return pages.memory is Memory.MEMFD_SECRET


needs_hidden_pages = pytest.mark.skipif(not kernel_hides_pages(), reason="this kernel has no memfd_secret")

# Reads ids and keys from stdin into buffers that it can overwrite, then does one step for each line it is sent.
CLIENT = """
import asyncio, os, sys
from broker.crypto.chunked import Decryptor, Encryptor
from broker.secret_memory import harden, wipe
from broker.store.keys import Keyholder

harden()
COUNT = int(sys.argv[2])

async def main():
    keys = Keyholder(sys.argv[1])
    given = bytearray(48 * COUNT)
    filled = 0
    while filled < len(given):
        filled += os.readv(0, [memoryview(given)[filled:]])
    ids = [bytes(given[at : at + 16]) for at in range(0, 16 * COUNT, 16)]
    held = memoryview(given)[16 * COUNT :]
    opened = [bytearray(32) for _ in ids]
    for number, buffer in enumerate(opened):
        memoryview(buffer)[:] = held[32 * number : 32 * number + 32]
    wipe(given)
    await asyncio.gather(*(keys.put(i, buffer, ttl_s=60) for i, buffer in zip(ids, opened)))
    for buffer in opened:
        wipe(buffer)
    await asyncio.gather(*(keys.open_into(i, buffer, fence=1) for i, buffer in zip(ids, opened)))
    for buffer in opened:
        encryptor = Encryptor(buffer, context=b"test")
        sealed = encryptor.update(bytes(20000)) + encryptor.finish()
        out = memoryview(bytearray(40000))
        decryptor = Decryptor(buffer, context=b"test")
        at = decryptor.update(sealed, out)
        decryptor.finish(out[at:])
    print("held", flush=True)
    os.read(0, 1)
    for buffer in opened:
        wipe(buffer)
    for key_id in ids:
        await keys.shred(key_id, ttl_s=60)
    assert not any([await keys.has(key_id) for key_id in ids])
    print("shredded", flush=True)
    os.read(0, 1)
    await keys.aclose()

asyncio.run(main())
"""


class MarkedKeys:
    """Keys that share two markers, so that any copy of either half of any of them is found by one search."""

    def __init__(self) -> None:
        self._markers = os.urandom(MARKER_BYTES), os.urandom(MARKER_BYTES)
        first, second = self._markers
        self.ids = os.urandom(16 * KEYS)
        self.keys = b"".join(first + os.urandom(8) + second + os.urandom(8) for _ in range(KEYS))

    def found_in(self, pid: int) -> int:
        return max(sum(part.count(marker) for part in readable_memory(pid)) for marker in self._markers)


@asynccontextmanager
async def client_with(marked: MarkedKeys, socket_path: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    command = [sys.executable, "-c", CLIENT, socket_path, str(KEYS)]
    pipe = subprocess.PIPE
    client = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert client.stdin is not None
    client.stdin.write(marked.ids + marked.keys)
    await client.stdin.drain()
    try:
        yield client
        await step(client)
        assert await client.wait() == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()


async def step(client: asyncio.subprocess.Process) -> None:
    assert client.stdin is not None
    client.stdin.write(b"\n")
    await client.stdin.drain()


async def said(client: asyncio.subprocess.Process) -> bytes:
    assert client.stdout is not None
    async with asyncio.timeout(20):
        return await client.stdout.readline()


@needs_root
@pytest.mark.parametrize("memory", [pytest.param(Memory.MEMFD_SECRET, marks=needs_hidden_pages), Memory.MLOCK])
async def test_no_copy_of_a_shredded_key_is_left(tmp_path: Path, memory: Memory) -> None:
    """After SHRED neither keyholder nor client holds a copy; before it they do, so that the search is known to find."""
    marked = MarkedKeys()
    async with (
        own_keyholder(tmp_path, "--memory", memory) as (keyholder, _),
        client_with(marked, keyholder.socket_path) as client,
    ):
        assert await said(client) == b"held\n"
        # Pages of memfd_secret are the exception: root finds nothing there even while the keys are held.
        assert marked.found_in(keyholder.running.pid) == (0 if memory is Memory.MEMFD_SECRET else KEYS)
        assert marked.found_in(client.pid) == KEYS
        await step(client)
        assert await said(client) == b"shredded\n"
        assert marked.found_in(keyholder.running.pid) == 0
        assert marked.found_in(client.pid) == 0


async def test_the_process_is_hardened(tmp_path: Path) -> None:
    """xpictures-2: a keyholder dumps no core and overwrites what it frees."""
    async with own_keyholder(tmp_path) as (keyholder, _):
        limits = Path(f"/proc/{keyholder.running.pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
        assert '"perturbed":true' in keyholder.log_path.read_text()


async def run_python(code: str) -> str:
    """Run code in a fresh interpreter that inherits no tunables, and return what it printed."""
    environment = {"PYTHONPATH": str(Path.cwd())}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE, env=environment)
    printed, _ = await child.communicate()
    assert child.returncode == 0
    return printed.decode().strip()


async def test_harden_switches_on_what_was_off() -> None:
    """A process starts itself again with the tunables, once, keeps its arguments, and cannot be traced or dumped."""
    code = """
import ctypes, sys
from broker.secret_memory import harden, heap_is_perturbed
print(heap_is_perturbed(), flush=True)
harden()
harden()
print(ctypes.CDLL(None).prctl(3), sys.argv)
"""
    assert (await run_python(code)).splitlines() == ["False", "True", "0 ['-c']"]


@needs_hidden_pages
async def test_pages_shrink_to_what_the_machine_hides() -> None:
    """Where not all fits into hidden pages there are fewer of them; where nothing fits, weaker ones say so."""
    code = """
import os, resource
from broker.secret_memory import SecretPages
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
for limit in (65536, 0):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    pages = SecretPages(1 << 20)
    print(pages.memory, len(pages.view))
    pages.close()
"""
    assert (await run_python(code)).splitlines() == ["memfd_secret 65536", "plain 1048576"]


def test_missing_memory_is_refused() -> None:
    """Who insists on a kind of memory gets that or nothing."""
    with pytest.raises(OSError, match="no memory"):
        SecretPages(KEY_BYTES, kinds=[])


def test_wipe_and_random_fill_whole_buffers() -> None:
    """Every byte is overwritten, in large buffers and in views of other element sizes."""
    buffer = bytearray(200_001)
    random_into(buffer)
    assert len(set(buffer)) == 256
    with memoryview(buffer)[:8].cast("I") as words:
        wipe(words)
    assert not any(buffer[:8])
    wipe(buffer)
    assert not any(buffer)

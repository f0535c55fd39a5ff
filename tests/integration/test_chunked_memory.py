import asyncio
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.crypto.chunked import HEADER_BYTES
from tests.process_memory import needs_root, readable_memory

BLOCKS = 4000  # of 256 bytes: 62 chunks and a rest
MARKER_BYTES = 16

# Takes key and plaintext into buffers of its own, encrypts, opens whole and in part, and forgets, one step per line.
CHILD = """
import mmap, os, sys
from broker.crypto.chunked import *
from broker.secret_memory import harden, wipe

if sys.argv[2] == "perturbed":
    harden()

def received(size_bytes):
    buffer = bytearray(size_bytes)
    filled = 0
    while filled < size_bytes:
        filled += os.readv(0, [memoryview(buffer)[filled:]])
    return buffer

key, plaintext = received(32), received(int(sys.argv[1]))
encryptor = Encryptor(key, context=b"test")
view = memoryview(plaintext)
sealed = b"".join([encryptor.update(view[at : at + 70_000]) for at in range(0, len(view), 70_000)])
os.write(1, sealed[:HEADER_BYTES])
os.read(0, 1)
sealed += encryptor.finish()
opened = mmap.mmap(-1, len(plaintext) + CHUNK_BYTES)
decryptor = Decryptor(key, context=b"test")
at = decryptor.update(sealed, memoryview(opened))
decryptor.finish(memoryview(opened)[at:])
assert memoryview(opened)[: len(plaintext)] == plaintext
some = RangeDecryptor(key, context=b"test", header=sealed[:HEADER_BYTES], ciphertext_length=len(sealed))
part = bytearray(50_000)
begin, end = ciphertext_range(1000, 51_000, len(sealed))
some.open_into(sealed[begin:end], memoryview(part), start=1000, stop=51_000)
some.wipe()
for buffer in (key, plaintext, opened, part):
    wipe(buffer)
os.write(1, b"!")
os.read(0, 1)
"""


def derived_key(key: bytes, salt: bytes) -> bytes:
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + b"test"
    return HKDFExpand(hashes.SHA512(), 76, info).derive(key)[:32]


@needs_root
@pytest.mark.parametrize("heap", ["perturbed", "ordinary"])
async def test_encryption_leaves_neither_keys_nor_plaintext(heap: str) -> None:
    """Once buffers are wiped no copy of plaintext, key or derived key is left; while they are in use all are found."""
    key, marker = os.urandom(32), os.urandom(MARKER_BYTES)
    plaintext = b"".join(marker + os.urandom(256 - MARKER_BYTES) for _ in range(BLOCKS))
    command = [sys.executable, "-c", CHILD, str(len(plaintext)), heap]
    child = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    def found(pattern: bytes) -> int:
        return sum(part.count(pattern) for part in readable_memory(child.pid))

    async with asyncio.timeout(20):
        child.stdin.write(key + plaintext)
        header = await child.stdout.readexactly(HEADER_BYTES)
        derived = derived_key(key, header[:24])
        assert found(marker) >= BLOCKS
        assert found(key) >= 1
        assert found(derived) >= 1
        child.stdin.write(b"\n")
        assert await child.stdout.readexactly(1) == b"!"
        assert [found(pattern) for pattern in (marker, key, derived)] == [0, 0, 0]
        child.stdin.write(b"\n")
        assert await child.wait() == 0

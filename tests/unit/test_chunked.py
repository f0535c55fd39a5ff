import base64
import hashlib
import zlib
from pathlib import Path

import msgspec
import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.crypto.chunked import (
    CHUNK_BYTES,
    HEADER_BYTES,
    KEY_BYTES,
    SEALED_CHUNK_BYTES,
    TAG_BYTES,
    CiphertextInvalid,
    Decryptor,
    Encryptor,
    RangeDecryptor,
    ciphertext_bytes,
    ciphertext_range,
    plaintext_bytes,
)

CONTEXT = b"lethe/test"
EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
KEY = bytearray(range(KEY_BYTES))


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    expect: str
    key: str
    context: str
    ciphertext: str | None
    compressed: bool = False
    payload_sha256: str | None = None
    payload_length: int | None = None

    def sealed(self) -> bytes:
        packed = base64.b64decode(self.ciphertext or "")
        return zlib.decompress(packed) if self.compressed else packed


class Vectors(msgspec.Struct, frozen=True):
    vectors: list[Vector]


VECTORS = msgspec.json.decode(
    (Path(__file__).parent / "data" / "chunked_encryption_aes_256_gcm.json").read_bytes(), type=Vectors
).vectors


def plaintext_of(length: int) -> bytes:
    return hashlib.shake_128(b"plaintext").digest(length)


def encrypted(plaintext: bytes, *, step: int = 10_000) -> bytes:
    encryptor = Encryptor(KEY, context=CONTEXT)
    parts = [encryptor.update(plaintext[at : at + step]) for at in range(0, len(plaintext), step)]
    return b"".join([*parts, encryptor.finish()])


def decrypted(sealed: bytes, *, step: int = 10_000, key: bytearray = KEY, context: bytes = CONTEXT) -> bytes:
    decryptor = Decryptor(key, context=context)
    out = memoryview(bytearray(len(sealed) + CHUNK_BYTES))
    written = 0
    for at in range(0, len(sealed), step):
        written += decryptor.update(sealed[at : at + step], out[written:])
    written += decryptor.finish(out[written:])
    return bytes(out[:written])


@pytest.mark.parametrize("step", [997, SEALED_CHUNK_BYTES, 1 << 20])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_published_vectors(vector: Vector, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every published message opens to its plaintext, and every spoiled one is refused, however it arrives in parts."""
    monkeypatch.setattr("broker.crypto.chunked._HASH", hashes.SHA256())
    key, context = bytearray.fromhex(vector.key), vector.context.encode()
    if vector.expect == "success":
        plaintext = decrypted(vector.sealed(), step=step, key=key, context=context)
        assert hashlib.sha256(plaintext).hexdigest() == vector.payload_sha256
        assert len(plaintext) == vector.payload_length
    else:
        with pytest.raises(ValueError if len(key) != KEY_BYTES else CiphertextInvalid):
            decrypted(vector.sealed(), step=step, key=key, context=context)


@pytest.mark.parametrize("length", EDGES)
def test_the_library_opens_what_we_seal(length: int) -> None:
    """Our ciphertext is Cobblestone-256 as the library knows it."""
    oracle = Cobblestone256Decryptor(KEY, CONTEXT)
    assert oracle.update(encrypted(plaintext_of(length))) + oracle.finalize() == plaintext_of(length)


@pytest.mark.parametrize("length", EDGES)
def test_we_open_what_the_library_seals(length: int) -> None:
    """The library's Cobblestone-256 ciphertext opens here."""
    oracle = Cobblestone256Encryptor(KEY, CONTEXT)
    assert decrypted(oracle.update(plaintext_of(length)) + oracle.finalize()) == plaintext_of(length)


@settings(deadline=None)  # a busy machine is no failure
@given(
    length=st.one_of(st.sampled_from(EDGES), st.integers(0, 4 * CHUNK_BYTES)),
    seal_step=st.integers(1, 3 * CHUNK_BYTES),
    open_step=st.integers(1, 3 * CHUNK_BYTES),
)
def test_round_trip(length: int, seal_step: int, open_step: int) -> None:
    """What goes in comes out, whatever the sizes of the parts, and lengths are as announced."""
    plaintext = plaintext_of(length)
    # Very small steps over a long message only cost time: a few hundred parts show the same.
    sealed = encrypted(plaintext, step=max(seal_step, length // 300))
    assert len(sealed) == ciphertext_bytes(length)
    assert plaintext_bytes(len(sealed)) == length
    assert decrypted(sealed, step=max(open_step, length // 300)) == plaintext


@settings(deadline=None)
@given(data=st.data())
def test_one_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """No bit of salt, commitment, body or tag can change unnoticed."""
    sealed = bytearray(encrypted(plaintext_of(CHUNK_BYTES + 100)))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CiphertextInvalid):
        decrypted(bytes(sealed))


@pytest.mark.parametrize("length", EDGES)
def test_a_cut_message_is_refused(length: int) -> None:
    """Wherever a message is cut, also exactly between two chunks, finish() refuses it."""
    sealed = encrypted(plaintext_of(length))
    between = range(HEADER_BYTES, len(sealed), SEALED_CHUNK_BYTES)
    for end in {0, 1, HEADER_BYTES - 1, len(sealed) - 1, len(sealed) - TAG_BYTES, *between}:
        with pytest.raises(CiphertextInvalid):
            decrypted(sealed[:end])


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 0, 1, 2], [0, 2], [0, 1, 2, 2]])
def test_chunks_keep_their_places(order: list[int]) -> None:
    """Swapped, doubled, dropped or appended chunks are refused."""
    sealed = encrypted(plaintext_of(2 * CHUNK_BYTES + 50))
    chunks = [sealed[at : at + SEALED_CHUNK_BYTES] for at in range(HEADER_BYTES, len(sealed), SEALED_CHUNK_BYTES)]
    with pytest.raises(CiphertextInvalid):
        decrypted(sealed[:HEADER_BYTES] + b"".join(chunks[number] for number in order))


def test_another_context_or_key_is_refused() -> None:
    """A blob opens only as what it was sealed as."""
    sealed = encrypted(b"photo")
    with pytest.raises(CiphertextInvalid):
        decrypted(sealed, context=b"lethe/other")
    with pytest.raises(CiphertextInvalid):
        decrypted(sealed, key=bytearray(KEY_BYTES))


def test_a_refused_message_stays_refused_and_leaves_no_plaintext_of_the_spoiled_chunk() -> None:
    """After the first refusal nothing more is opened, and what was not authentic is not left in the buffer."""
    sealed = bytearray(encrypted(plaintext_of(CHUNK_BYTES + 5)))
    sealed[HEADER_BYTES] ^= 1
    decryptor = Decryptor(KEY, context=CONTEXT)
    out = bytearray(2 * CHUNK_BYTES)
    with pytest.raises(CiphertextInvalid):
        decryptor.update(bytes(sealed), memoryview(out))
    assert not any(out)
    with pytest.raises(CiphertextInvalid):
        decryptor.update(b"", memoryview(out))
    with pytest.raises(CiphertextInvalid):
        decryptor.finish(memoryview(out))


def test_a_buffer_that_is_too_small_is_refused() -> None:
    """Plaintext is never cut to fit."""
    with pytest.raises(ValueError, match="do not fit"):
        Decryptor(KEY, context=CONTEXT).update(encrypted(plaintext_of(CHUNK_BYTES)), memoryview(bytearray(100)))


def test_two_messages_under_one_key_differ() -> None:
    """Each message has its own salt, so that equal plaintexts give different ciphertexts."""
    assert encrypted(b"photo") != encrypted(b"photo")


def test_the_header_comes_first_and_chunks_as_soon_as_they_are_full() -> None:
    """Ciphertext streams: what is complete leaves with the call that completed it."""
    encryptor = Encryptor(KEY, context=CONTEXT)
    assert len(encryptor.update(b"")) == HEADER_BYTES
    assert encryptor.update(bytes(CHUNK_BYTES - 1)) == b""
    assert len(encryptor.update(bytes(1))) == SEALED_CHUNK_BYTES
    assert len(encryptor.finish()) == TAG_BYTES


def test_a_wiped_encryptor_takes_nothing_more() -> None:
    """Nothing can be encrypted, nor buffered, once the key is dropped."""
    encryptor = Encryptor(KEY, context=CONTEXT)
    encryptor.update(b"abc")
    encryptor.wipe()
    encryptor.wipe()
    with pytest.raises(ValueError, match="wiped"):
        encryptor.update(b"d")
    with pytest.raises(ValueError, match="wiped"):
        encryptor.finish()


@settings(deadline=None)
@given(length=st.sampled_from(EDGES[1:]), data=st.data())
def test_a_range_equals_the_slice(length: int, data: st.DataObject) -> None:
    """Any range opens from the ciphertext that ciphertext_range() names, and equals the slice of the whole."""
    plaintext = plaintext_of(length)
    sealed = encrypted(plaintext)
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    begin, end = ciphertext_range(start, stop, len(sealed))
    out = bytearray(stop - start)
    decryptor = RangeDecryptor(KEY, context=CONTEXT, header=sealed[:HEADER_BYTES], ciphertext_length=len(sealed))
    assert decryptor.open_into(sealed[begin:end], memoryview(out), start=start, stop=stop) == stop - start
    assert out == plaintext[start:stop]


def test_a_range_of_a_changed_or_misplaced_chunk_is_refused() -> None:
    """Random access checks the commitment, the tag and the place of each chunk."""
    sealed = encrypted(plaintext_of(3 * CHUNK_BYTES))
    header = sealed[:HEADER_BYTES]
    decryptor = RangeDecryptor(KEY, context=CONTEXT, header=header, ciphertext_length=len(sealed))
    out = memoryview(bytearray(CHUNK_BYTES))
    first = sealed[HEADER_BYTES : HEADER_BYTES + SEALED_CHUNK_BYTES]
    with pytest.raises(CiphertextInvalid):
        decryptor.open_into(first, out, start=CHUNK_BYTES, stop=2 * CHUNK_BYTES)
    with pytest.raises(CiphertextInvalid):
        decryptor.open_into(first[:-1], out, start=0, stop=10)
    with pytest.raises(CiphertextInvalid):
        RangeDecryptor(KEY, context=b"other", header=header, ciphertext_length=len(sealed))
    assert not any(out)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 4), (-1, 3), (0, 101)])
def test_a_range_that_is_not_there_is_refused(start: int, stop: int) -> None:
    """An empty, reversed or overlong range is the caller's mistake."""
    with pytest.raises(ValueError, match="no range"):
        ciphertext_range(start, stop, ciphertext_bytes(100))


@pytest.mark.parametrize("length", [0, HEADER_BYTES, HEADER_BYTES + TAG_BYTES - 1, HEADER_BYTES + SEALED_CHUNK_BYTES])
def test_impossible_lengths_are_refused(length: int) -> None:
    """A length that no message has is known as cut before anything is opened."""
    with pytest.raises(CiphertextInvalid):
        plaintext_bytes(length)


def test_inputs_of_wrong_size_are_refused() -> None:
    """A key of another size opens and seals nothing."""
    for make in (Encryptor, Decryptor):
        with pytest.raises(ValueError, match="32 bytes"):
            make(bytearray(16), context=CONTEXT)

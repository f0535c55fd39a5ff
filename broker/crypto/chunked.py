"""
Streaming authenticated encryption of blobs: C2SP chunked-encryption in its AES-256-GCM instantiation, Cobblestone-256.

Keys and plaintext live only in buffers that are overwritten; a `bytes` object never holds either.
"""

import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.secret_memory import wipe

KEY_BYTES: Final = 32
HEADER_BYTES: Final = 56
CHUNK_BYTES: Final = 16 * 1024
TAG_BYTES: Final = 16
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES

_SALT_BYTES = 24
_NONCE_BYTES = 12
_COMMITMENT_BYTES = 32
_MAX_CHUNKS = 2**38
_HASH = hashes.SHA512()
_LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


class CiphertextInvalid(Exception):
    """The ciphertext was changed, cut, or made with another key or context; whatever was opened of it is void."""


def ciphertext_bytes(plaintext_bytes: int) -> int:
    """Return how long the ciphertext of so much plaintext is."""
    return HEADER_BYTES + plaintext_bytes + TAG_BYTES * (plaintext_bytes // CHUNK_BYTES + 1)


def plaintext_bytes(ciphertext_length: int) -> int:
    """Return how long the plaintext of so much ciphertext is; raise CiphertextInvalid for an impossible length."""
    full_chunks, rest = divmod(ciphertext_length - HEADER_BYTES, SEALED_CHUNK_BYTES)
    if full_chunks < 0 or rest < TAG_BYTES:
        raise CiphertextInvalid
    return full_chunks * CHUNK_BYTES + rest - TAG_BYTES


def ciphertext_range(start: int, stop: int, ciphertext_length: int) -> tuple[int, int]:
    """Return start and stop of the ciphertext that holds plaintext[start:stop], in whole chunks, without the header."""
    if not 0 <= start < stop <= plaintext_bytes(ciphertext_length):
        msg = f"no range {start}-{stop} in {ciphertext_length} bytes of ciphertext"
        raise ValueError(msg)
    first, last = start // CHUNK_BYTES, (stop - 1) // CHUNK_BYTES
    end = HEADER_BYTES + (last + 1) * SEALED_CHUNK_BYTES
    return HEADER_BYTES + first * SEALED_CHUNK_BYTES, min(end, ciphertext_length)


class _Chunks:
    """The key of one message: seals and opens its chunks by number."""

    def __init__(self, key: bytearray | memoryview, *, salt: bytes, context: bytes) -> None:
        if len(key) != KEY_BYTES:
            msg = f"a key has {KEY_BYTES} bytes"
            raise ValueError(msg)
        derived = bytearray(KEY_BYTES + _NONCE_BYTES + _COMMITMENT_BYTES)
        with memoryview(derived) as view:
            HKDFExpand(_HASH, len(derived), _LABEL + salt + context).derive_into(key, view)
            self._aead: AESGCM | None = AESGCM(view[:KEY_BYTES])
            self._nonce = int.from_bytes(view[KEY_BYTES : KEY_BYTES + _NONCE_BYTES])
            self.commitment = bytes(view[-_COMMITMENT_BYTES:])
        wipe(derived)

    def seal(self, number: int, plaintext: memoryview, out: memoryview) -> None:
        self.cipher().encrypt_into(self._nonce_of(number), plaintext, None, out)

    def open(self, number: int, sealed: memoryview, out: memoryview) -> None:
        try:
            self.cipher().decrypt_into(self._nonce_of(number), sealed, None, out)
        except InvalidTag:
            # What was written before the tag was checked is not to be seen by anybody.
            wipe(out)
            raise CiphertextInvalid from None

    def forget(self) -> None:
        """Drop the cipher, which overwrites its key when it goes."""
        self._aead = None
        self._nonce = 0

    def cipher(self) -> AESGCM:
        """Return the cipher; raise ValueError once it is forgotten."""
        if self._aead is None:
            msg = "the key of this message is wiped"
            raise ValueError(msg)
        return self._aead

    def _nonce_of(self, number: int) -> bytes:
        if number >= _MAX_CHUNKS:
            msg = "a message has at most 4 PiB"
            raise ValueError(msg)
        return (self._nonce ^ number).to_bytes(_NONCE_BYTES)


def _opened_chunks(key: bytearray | memoryview, *, header: bytes, context: bytes) -> _Chunks:
    if len(header) != HEADER_BYTES:
        raise CiphertextInvalid
    chunks = _Chunks(key, salt=header[:_SALT_BYTES], context=context)
    if not constant_time.bytes_eq(chunks.commitment, header[_SALT_BYTES:]):
        chunks.forget()
        raise CiphertextInvalid
    return chunks


class Encryptor:
    """Encrypts one message as it arrives, and holds at most one chunk of it."""

    def __init__(self, key: bytearray | memoryview, *, context: bytes) -> None:
        salt = os.urandom(_SALT_BYTES)
        self._chunks = _Chunks(key, salt=salt, context=context)
        self._header = salt + self._chunks.commitment
        self._pending = memoryview(bytearray(CHUNK_BYTES))
        self._pending_bytes = 0
        self._number = 0

    def update(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Return the ciphertext that is ready, which may be none; the header comes first."""
        self._chunks.cipher()
        with memoryview(plaintext) as view, view.cast("B") as source:
            ready = (self._pending_bytes + len(source)) // CHUNK_BYTES
            out = bytearray(len(self._header) + ready * SEALED_CHUNK_BYTES)
            with memoryview(out) as target:
                self._seal_ready(source, target[self._take_header(target) :])
        return bytes(out)

    def finish(self) -> bytes:
        """Return the last ciphertext, without which the message counts as cut, and wipe."""
        out = bytearray(len(self._header) + self._pending_bytes + TAG_BYTES)
        with memoryview(out) as target:
            at = self._take_header(target)
            self._chunks.seal(self._number, self._pending[: self._pending_bytes], target[at:])
        self.wipe()
        return bytes(out)

    def wipe(self) -> None:
        """Overwrite the plaintext and drop the key; calling it again does no harm."""
        self._chunks.forget()
        wipe(self._pending)
        self._pending_bytes = 0

    def _take_header(self, target: memoryview) -> int:
        header, self._header = self._header, b""
        target[: len(header)] = header
        return len(header)

    def _seal_ready(self, source: memoryview, target: memoryview) -> None:
        at = 0
        for begin in range(0, len(target), SEALED_CHUNK_BYTES):
            out = target[begin : begin + SEALED_CHUNK_BYTES]
            # Only the first chunk can have begun in an earlier call; the others are sealed where they lie.
            end = at + CHUNK_BYTES - self._pending_bytes
            self._chunks.seal(self._number, self._completed(source[at:end]), out)
            self._number += 1
            at = end
        self._keep(source[at:])

    def _completed(self, piece: memoryview) -> memoryview:
        if not self._pending_bytes:
            return piece
        self._keep(piece)
        self._pending_bytes = 0
        return self._pending

    def _keep(self, piece: memoryview) -> None:
        end = self._pending_bytes + len(piece)
        self._pending[self._pending_bytes : end] = piece
        self._pending_bytes = end


class Decryptor:
    """Decrypts one message as it arrives, into buffers of the caller; nothing of it counts before finish() returns."""

    def __init__(self, key: bytearray | memoryview, *, context: bytes) -> None:
        if len(key) != KEY_BYTES:
            msg = f"a key has {KEY_BYTES} bytes"
            raise ValueError(msg)
        # The header that the key needs comes with the ciphertext, when the caller's key may already be wiped.
        self._key = memoryview(bytearray(KEY_BYTES))
        self._key[:] = key
        self._context = context
        self._chunks: _Chunks | None = None
        self._held = bytearray()
        self._number = 0
        self._is_void = False

    def update(self, ciphertext: bytes | bytearray | memoryview, out: memoryview) -> int:
        """Write the plaintext of every chunk that is now whole; `out` may have to take one chunk more than came in."""
        self._held += ciphertext
        return self._guarded(self._open_whole, out)

    def finish(self, out: memoryview) -> int:
        """Write the rest, vouch for the end of the message, and wipe."""
        written = self._guarded(self._open_last, out)
        self.wipe()
        return written

    def wipe(self) -> None:
        """Drop the key; what was written to the caller's buffers is the caller's to wipe."""
        wipe(self._key)
        if self._chunks:
            self._chunks.forget()
        self._is_void = True

    def _guarded(self, step: Callable[[memoryview], int], out: memoryview) -> int:
        if self._is_void:
            raise CiphertextInvalid
        try:
            return step(out)
        except CiphertextInvalid:
            self.wipe()
            raise

    def _open_whole(self, out: memoryview) -> int:
        if self._chunks is None:
            if len(self._held) < HEADER_BYTES:
                return 0
            header = bytes(self._held[:HEADER_BYTES])
            self._chunks = _opened_chunks(self._key, header=header, context=self._context)
            wipe(self._key)
            del self._held[:HEADER_BYTES]
        count = len(self._held) // SEALED_CHUNK_BYTES
        with memoryview(self._held) as held:
            _open_run(self._chunks, self._number, held[: count * SEALED_CHUNK_BYTES], out)
        del self._held[: count * SEALED_CHUNK_BYTES]
        self._number += count
        return count * CHUNK_BYTES

    def _open_last(self, out: memoryview) -> int:
        # A whole chunk never waits here, so what is left is short, as the last chunk must be.
        if self._chunks is None or len(self._held) < TAG_BYTES:
            raise CiphertextInvalid
        length = len(self._held) - TAG_BYTES
        with memoryview(self._held) as held:
            self._chunks.open(self._number, held, _room(out, length))
        return length


class RangeDecryptor:
    """
    Decrypts parts of one message, each from the whole chunks around it.

    It vouches for the bytes it writes, not for `ciphertext_length`: take that from a record of one's own.
    """

    def __init__(self, key: bytearray | memoryview, *, context: bytes, header: bytes, ciphertext_length: int) -> None:
        self._chunks = _opened_chunks(key, header=header, context=context)
        self._length = ciphertext_length
        self._scratch = memoryview(bytearray(CHUNK_BYTES))

    def open_into(self, sealed: bytes | memoryview, out: memoryview, *, start: int, stop: int) -> int:
        """Write plaintext[start:stop], given the ciphertext that ciphertext_range() names for it."""
        begin, end = ciphertext_range(start, stop, self._length)
        if len(sealed) != end - begin:
            raise CiphertextInvalid
        target = _room(out, stop - start)
        number = start // CHUNK_BYTES
        with memoryview(sealed) as view:
            for at in range(0, len(view), SEALED_CHUNK_BYTES):
                plain = self._open_chunk(number, view[at : at + SEALED_CHUNK_BYTES])
                base = number * CHUNK_BYTES
                piece = plain[max(start - base, 0) : stop - base]
                target[: len(piece)] = piece
                target = target[len(piece) :]
                number += 1
        wipe(self._scratch)
        return stop - start

    def wipe(self) -> None:
        """Overwrite the plaintext and drop the key; calling it again does no harm."""
        self._chunks.forget()
        wipe(self._scratch)

    def _open_chunk(self, number: int, sealed: memoryview) -> memoryview:
        plain = self._scratch[: len(sealed) - TAG_BYTES]
        self._chunks.open(number, sealed, plain)
        return plain


def _open_run(chunks: _Chunks, number: int, sealed: memoryview, out: memoryview) -> None:
    count = len(sealed) // SEALED_CHUNK_BYTES
    target = _room(out, count * CHUNK_BYTES)
    for index in range(count):
        piece = sealed[index * SEALED_CHUNK_BYTES : (index + 1) * SEALED_CHUNK_BYTES]
        chunks.open(number + index, piece, target[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])


def _room(out: memoryview, length: int) -> memoryview:
    if len(out) < length:
        msg = f"{length} bytes of plaintext do not fit into {len(out)}"
        raise ValueError(msg)
    return out[:length]

"""Stand-ins for the ciphers: what comes in goes out as it is, in the same pieces; their keys are not looked at."""

from broker.jobs import Job, Output
from broker.services import Services


class PlainEncryptor:
    """Takes the place of Encryptor."""

    def __init__(self, key: bytearray | memoryview, *, context: bytes) -> None:
        del key, context

    def update(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Return it."""
        return bytes(plaintext)

    def finish(self) -> bytes:
        """Nothing is held back."""
        return b""

    def wipe(self) -> None:
        """Nothing is held."""


class PlainDecryptor:
    """Takes the place of Decryptor."""

    def __init__(self, key: bytearray | memoryview, *, context: bytes) -> None:
        del key, context

    def update(self, ciphertext: bytes | bytearray | memoryview, out: memoryview) -> int:
        """Write it where it belongs."""
        out[: len(ciphertext)] = ciphertext
        return len(ciphertext)

    def finish(self, out: memoryview) -> int:
        """Nothing vouches for the end."""
        del out
        return 0

    def wipe(self) -> None:
        """Nothing is held."""


class PlainRangeDecryptor:
    """Takes the place of RangeDecryptor."""

    def __init__(self, key: bytearray | memoryview, *, context: bytes, header: bytes, ciphertext_length: int) -> None:
        del key, context, header, ciphertext_length

    def open_into(self, sealed: bytes | memoryview, out: memoryview, *, start: int, stop: int) -> int:
        """Write what plain_range() names."""
        out[: stop - start] = sealed
        return stop - start

    def wipe(self) -> None:
        """Nothing is held."""


def plain_bytes(plaintext_bytes: int) -> int:
    """A blob is as long as what it holds."""
    return plaintext_bytes


def plain_range(start: int, stop: int, length: int) -> tuple[int, int]:
    """A part lies where it is."""
    del length
    return start, stop


async def no_header(services: Services, job: Job, output: Output) -> bytes:
    """A blob has no header."""
    del services, job, output
    return b""

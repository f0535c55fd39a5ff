"""Stand-in for the keyholder's client: it answers at once, and no process is behind it."""

from broker.frames import INCARNATION_BYTES, KeyholderStats, Memory
from broker.store.keys import Keyholder, OpenAnswer, PutAnswer

INCARNATION = bytes(INCARNATION_BYTES)
STATS = KeyholderStats(held=0, capacity=1, tombstones=0, max_ttl_s=1, memory=Memory.PLAIN)


class NoKeyholder(Keyholder):
    """Every key is zeros, in every process: what one encrypts another can open."""

    @property
    def takes_keys(self) -> bool:
        """Always."""
        return True

    async def put(self, key_id: bytes, key: bytearray, *, ttl_s: int, incarnation: bytes = b"") -> PutAnswer:
        """Keep nothing."""
        return PutAnswer.OK

    async def open_into(self, key_id: bytes, buffer: bytearray, *, fence: int) -> OpenAnswer:
        """Leave the buffer as it is made: zeros."""
        return OpenAnswer.OK

    async def shred(self, key_id: bytes, *, ttl_s: int) -> None:
        """There is nothing to destroy."""

    async def has(self, key_id: bytes) -> bool:
        """There is nothing to be seen."""
        return False

    async def incarnation(self) -> bytes:
        """One for ever."""
        return INCARNATION

    async def hello(self) -> bytes:
        """One for ever."""
        return INCARNATION

    async def stats(self) -> KeyholderStats:
        """Say as little as can be said."""
        return STATS


def leave_zeros(buffer: bytearray | memoryview) -> None:
    """Take the place of random_into where keys are made."""
    del buffer

"""The vocabulary of a submission: what a client asks for, and where its upload will lie."""

from uuid import UUID

import msgspec

from broker.custody import Holder, NewCopy, What
from broker.secret_memory import random_into


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, apart from the body."""

    user_id: str
    token: str
    public_id: UUID
    operation: str
    parameters: dict[str, str | int]
    content_length: int | None
    start_within_s: float | None
    finish_within_s: float | None

    def __repr__(self) -> str:
        """Never show the token."""
        return f"Submission({self.public_id})"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one upload will lie: its blob, its key, and the keyholder that has the key."""

    blob: str
    key_id: bytes
    incarnation: bytes

    def copies(self, process: UUID) -> list[NewCopy]:
        """The custody rows that come before the first byte."""
        return [
            NewCopy(holder=Holder.BLOB, what=What.UPLOAD, ref=self.blob),
            NewCopy(holder=Holder.KEY, what=What.UPLOAD, ref=self.key_id.hex(), detail=self.incarnation.hex()),
            NewCopy(holder=Holder.PROCESS, what=What.UPLOAD, ref=str(process), detail="broker"),
        ]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a body may stand still, and how long it may take in all."""

    idle_s: float
    within_s: float


def new_key_id() -> bytes:
    """Return 16 random bytes: a key's address, which says nothing."""
    identifier = bytearray(16)
    random_into(identifier)
    return bytes(identifier)

"""The vocabulary of a submission: what a client asks for, and where what it sends will lie."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from broker.custody import Holder, KeptAt, NewCopy, What
from broker.jobs import StoredUpload
from broker.notifications import Kind, Target
from broker.secret_memory import random_into

TEXTS_N = -1
"""The number of what a user typed among a job's uploads; pictures count from 0."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client asks for, apart from its pictures.

    `parameters` may stand in a row; `texts` is what a user typed, as JSON, and is overwritten by whoever takes it in.
    """

    user_id: str
    token: str
    public_id: UUID
    operation: str
    parameters: dict[str, str | int]
    content_length: int | None
    start_within_s: float | None
    finish_within_s: float | None
    texts: bytearray = msgspec.field(default_factory=bytearray)
    targets: tuple[Target, ...] = ()
    """Where somebody is told that it has ended."""

    def __repr__(self) -> str:
        """Never show the token, nor what was typed."""
        return f"Submission({self.public_id})"

    @property
    def wants_push(self) -> bool:
        """Whether a phone is to be told."""
        return any(target.channel.kind is Kind.PUSH for target in self.targets)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one upload will lie: its number, its blob, its key, and the keyholder that has the key."""

    n: int
    blob: str
    key_id: bytes
    kept_at: KeptAt

    @property
    def what(self) -> What:
        """What lies there."""
        return What.PARAMETERS if self.n == TEXTS_N else What.UPLOAD

    def copies(self) -> list[NewCopy]:
        """The custody rows that come before its first byte."""
        return [
            NewCopy(holder=Holder.BLOB, what=self.what, ref=self.blob),
            NewCopy(holder=Holder.KEY, what=self.what, ref=self.key_id.hex(), detail=self.kept_at.detail),
        ]

    def stored(self, *, media_type: str, size_bytes: int) -> StoredUpload:
        """Say what lies there, once it is whole."""
        return StoredUpload(
            n=self.n,
            what=self.what,
            blob=self.blob,
            key_id=self.key_id,
            keyholder=self.kept_at.keyholder,
            incarnation=self.kept_at.incarnation,
            media_type=media_type,
            size_bytes=size_bytes,
        )


def first_copies(places: Iterable[Place], process: UUID) -> list[NewCopy]:
    """The custody rows with which a job begins: of what comes first, and of the process that reads it."""
    copies = [copy for place in places for copy in place.copies()]
    what = What.UPLOAD if any(copy.what is What.UPLOAD for copy in copies) else What.PARAMETERS
    return [*copies, NewCopy(holder=Holder.PROCESS, what=what, ref=str(process), detail="broker")]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a body may stand still, and how long it may take in all."""

    idle_s: float
    within_s: float


def new_key_id() -> bytes:
    """Return 16 random bytes: a key's address, which says nothing."""
    identifier = bytearray(16)
    random_into(identifier)
    return bytes(identifier)

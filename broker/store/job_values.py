"""What goes into the store of jobs and comes out of it, apart from jobs themselves."""

from uuid import UUID

import msgspec

from broker.custody import What
from broker.jobs import StoredUpload
from broker.notifications import Target


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is about to be received."""

    id: UUID
    public_id: UUID
    user_id: str
    operation: str
    parameters: dict[str, str | int]
    profile: str
    pool: str
    owner: UUID
    within_s: float
    price: int = 0
    """In credits."""
    is_sealed: bool = False


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job's uploads once the last byte is in."""

    uploads: tuple[StoredUpload, ...]
    fingerprint: bytes
    targets: tuple[Target, ...] = ()
    start_within_s: float
    finish_within_s: float

    @property
    def pictures(self) -> list[StoredUpload]:
        """The uploads that are pictures, in order."""
        return [upload for upload in self.uploads if upload.what is What.UPLOAD]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one user has going on."""

    live: int
    last_minute: int
    credits: int
    """What it may still spend."""
    devices: int
    """How many devices it has registered, to which outputs can be sealed."""
    is_restricted: bool
    is_erasing: bool


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A queued job, as far as the bell needs it."""

    id: UUID
    fence: int
    pool: str
    operation: str
    parameters: dict[str, str | int]
    pictures: int
    has_texts: bool
    """Whether its user typed something, which only a worker can read."""
    was_tried: bool
    """Whether a provider has had it before."""

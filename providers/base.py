"""
What a provider is: the Provider protocol and its structs; the one exception that it may raise is in failures.py.

A provider knows nothing of jobs, users, keys or stores.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Protocol

import msgspec

Value = str | int
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Exposure(StrEnum):
    """Who may keep or see the picture, from least to most."""

    LOCAL = "local"
    EPHEMERAL = "ephemeral"
    LOGGED = "logged"
    PUBLIC = "public"

    @property
    def rank(self) -> int:
        """Order: local < ephemeral < logged < public."""
        return list(Exposure).index(self)


class Deletes(StrEnum):
    """How what a provider has of an attempt goes away."""

    NONE = "none"  # kept as long as its terms say, whatever is called
    TTL = "ttl"  # by itself, `retention_s` after the attempt
    API = "api"  # when it is told to


class Part(StrEnum):
    """What a provider may have of an attempt; the words are those of custody."""

    UPLOAD = "upload"  # the pictures that it was given
    OUTPUT = "output"  # what it made
    RECORD = "record"  # what it wrote down: parameters, texts, logs, ids


class Takes(StrEnum):
    """The form in which a provider wants pictures."""

    PIXELS = "pixels"  # decoded sRGB rows in shared memory; in-house models
    UPLOAD = "upload"  # the decrypted file itself, never decoded; in-house only
    FILE = "file"  # a clean file, rebuilt from pixels: the only form that leaves our processes


class Pixels(msgspec.Struct, frozen=True, kw_only=True):
    """A picture in shared memory: `height` rows of `width` × `channels` bytes (sRGB; 3 = RGB, 4 = RGBA), no padding."""

    fd: int
    width: int
    height: int
    channels: int

    @property
    def size_bytes(self) -> int:
        """Length of the pixel data, bytes."""
        return self.width * self.height * self.channels


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """The decrypted file itself in shared memory, `size_bytes` long."""

    fd: int
    size_bytes: int


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A clean picture file in shared memory: rebuilt from pixels, upright, sRGB, without metadata."""

    fd: int
    size_bytes: int
    media_type: str
    width: int
    height: int


Picture = Pixels | Upload | File


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt at one operation.

    `attempt` (a UUID, lowercase with hyphens) is the only id that a provider may see. `hook_url`, where there is one,
    holds nothing but a random token; a provider may call it to say that there is news.
    """

    attempt: str
    operation: str
    parameters: Mapping[str, Value]
    pictures: tuple[Picture, ...]
    deadline_s: float
    hook_url: str = ""


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """Enough to poll, cancel and purge an attempt after a crash; stored, so that it holds ids and addresses only."""

    id: str
    operation: str
    data: dict[str, str] = {}
    uploads: tuple[str, ...] = ()
    """Ids of files that were uploaded before the order, to be deleted."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that a provider made, in one of three forms.

    Pixels to be encoded by the worker; the bytes of a file; or the URL of one, which the worker downloads with a bare
    client. `media_type` is what the provider says, and is not believed.
    """

    pixels: Pixels | None = None
    data: bytes | None = None
    url: str = ""
    media_type: str = ""


class Progress(StrEnum):
    """Where an attempt stands that has not failed; a failed one raises ProviderFailure."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an attempt: `share` done from 0 to 1, when to look again, what it cost as far as it is told."""

    progress: Progress
    outputs: tuple[Output, ...] = ()
    share: float | None = None
    poll_after_s: float = 1.0
    cost_usd: float | None = None
    model_s: float = 0.0
    """Seconds that the model worked, where it is told."""


class Purge(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of a deletion: parts that it deleted, and parts that it was found still serving."""

    deleted: frozenset[Part] = frozenset()
    still_served: frozenset[Part] = frozenset()


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a task would cost: output size in pixels, and expected seconds of model time on this machine."""

    output_pixels: int
    model_s: float


Share = Callable[[float], Awaitable[None]]
"""Is told how far a task is, 0.0 to 1.0."""


class Reporter(Protocol):
    """What a provider tells while it works; the worker listens."""

    async def accepted(self, handle: Handle) -> None:
        """Store what exists at the provider from now on; awaited before anything else is done, and may be repeated."""
        ...

    async def progressed(self, share: float) -> None:
        """Hear how far the task is, 0.0 to 1.0."""
        ...


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """
    What holds for everything that an adapter does, readable without credentials; configuration may only be stricter.

    `exposure` and `retention_s` are the documented floor: who may see or keep what it is given, and for how long.
    `deletes` is what its API can do about that. `operations` are those that it can be configured for.
    """

    takes: Takes
    operations: frozenset[str]
    exposure: Exposure
    retention_s: int = 0
    deletes: Deletes = Deletes.NONE
    media_types: frozenset[str] = frozenset({"image/jpeg", "image/png"})
    max_pictures: int = 1
    max_picture_bytes: int = 20_000_000
    base_url: str = ""
    """Where its API answers unless configuration says otherwise; empty where there is no usual place."""
    needs_secret: bool = False
    has_client_ids: bool = False
    """The provider knows the attempt by our id: it can be looked up, and sent again, without being done twice."""
    takes_hooks: bool = False
    sends_pictures: bool = False
    """Pictures go along whether a model's `input` names them or not."""
    gives_urls: bool = False
    """Outputs may come as URLs, so that the hosts they may point to have to be named."""


MOST_OF_ANYTHING = 1e12
"""Seconds or tokens: who tells more tells nothing."""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How one operation maps onto one model: `[provider.NAME.operation.OPERATION]` in lethe.toml.

    In `input`, "$name" stands for a parameter and "$name:default" for one with a default (JSON); "$image" is the first
    picture, "$images" the list of all, "$attempt" the attempt's id. `output` is the JSON pointer (RFC 6901) to a URL, a
    data URI, base64, or a list of them. `values` narrows what a parameter may be.
    """

    model: str = ""
    input: dict[str, Any] = {}
    output: str = ""
    values: dict[str, Annotated[tuple[Value, ...], msgspec.Meta(min_length=1)]] = {}
    max_pictures: AtLeastOne | None = None
    max_outputs: AtLeastOne = 1
    max_pixels: AtLeastOne | None = None
    media_types: tuple[str, ...] = ()
    cost_usd: NotNegative = 0.0
    """What one attempt is expected to cost, for the route's price cap and where the provider does not say."""
    usd_per_s: NotNegative | None = None
    """Price of a second of model time, where the provider tells seconds."""
    usd_per_million_tokens: NotNegative | None = None
    options: dict[str, Any] = {}
    """What one adapter alone understands; it decodes and checks them."""


def cost_of(amount: float, usd_each: float | None) -> float | None:
    """Say what so much of something costs; None where no price is known, or the amount is none that can be."""
    return amount * usd_each if usd_each is not None and 0 < amount < MOST_OF_ANYTHING else None


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is made from; the worker has resolved the secret."""

    base_url: str
    models: Mapping[str, Model]
    secret: str = ""
    options: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    timeout_s: float = 30.0
    """How long one request may take that is no synchronous order."""

    def __repr__(self) -> str:
        """Never show the secret."""
        return f"Setup({self.base_url})"


class Provider(Protocol):
    """
    Whatever runs an operation: an in-house model, or an adapter to a third party.

    Every verb raises ProviderFailure only. When the awaiting task is cancelled, a verb stops as soon as it can, and
    leaves nothing of the picture behind before it re-raises. `cancel` and `purge` are idempotent.
    """

    terms: ClassVar[Terms]

    async def warm(self) -> None:
        """Get ready: load models, or check what can be checked without a call; raise with what to mend."""
        ...

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """
        Order the task, once, and return where it stands: done already, or under the handle that was reported.

        `reporter.accepted` is awaited as soon as anything exists at the provider (an uploaded file, an id). Where the
        order was sent and its answer is lost, UNCERTAIN is raised.
        """
        ...

    async def poll(self, handle: Handle) -> Snapshot:
        """Ask where an attempt stands; raise LOST when the provider does not know it."""
        ...

    async def cancel(self, handle: Handle) -> bool:
        """Have an attempt stopped; True when it surely does not go on."""
        ...

    async def purge(self, handle: Handle) -> Purge:
        """Delete what can be deleted of an attempt, look whether it is gone where that can be seen, and say so."""
        ...

    async def healthy(self) -> None:
        """Return when the provider would take work; raise ProviderFailure when not. Costs nothing."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; may be called twice."""
        ...

"""
What an adapter is: the Provider protocol, its structs, and the one exception it may raise.

* ProviderError
  x ProviderFailure (kind: FailureKind)

An adapter knows nothing of jobs, users, keys or stores.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import ClassVar, Protocol

import msgspec


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


class Takes(StrEnum):
    """The form in which a provider wants the picture."""

    PIXELS = "pixels"  # decoded sRGB rows in shared memory; in-house models
    UPLOAD = "upload"  # the decrypted file itself, never decoded; in-house only


class FailureKind(StrEnum):
    """Why a provider did not deliver; the retry loop decides on this alone."""

    INVALID_INPUT = "invalid_input"
    UNSUPPORTED = "unsupported"
    BAD_OUTPUT = "bad_output"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    PROVIDER_ERROR = "provider_error"


class ProviderError(Exception):
    """Root of what adapters raise."""


class ProviderFailure(ProviderError):
    """A provider could not do the task; `detail` holds ids and codes, never content."""

    def __init__(self, kind: FailureKind, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        self.detail = detail


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


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one operation; `attempt` is the only id a provider may see."""

    attempt: str
    operation: str
    parameters: Mapping[str, str | int]
    picture: Pixels | Upload
    deadline_s: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider made: pixels to be encoded by the worker, or a small finished document."""

    pixels: Pixels | None = None
    document: bytes | None = None
    media_type: str = ""
    model_s: float = 0.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a task would cost: output size in pixels, and expected seconds of model time on this machine."""

    output_pixels: int
    model_s: float


Report = Callable[[float], Awaitable[None]]
"""Tells the worker how far the task is, 0.0 to 1.0."""


class Provider(Protocol):
    """
    Whatever runs an operation.

    Terms are class attributes, readable without credentials. `run` raises ProviderFailure only; when the awaiting task
    is cancelled it stops as soon as it can, and leaves nothing of the picture behind before it re-raises.
    """

    name: ClassVar[str]
    exposure: ClassVar[Exposure]
    retention_s: ClassVar[int]
    takes: ClassVar[Takes]
    operations: ClassVar[frozenset[str]]

    async def warm(self) -> None:
        """Load and try the models once; raise ProviderFailure with a message that says what to mend."""
        ...

    async def run(self, task: Task, report: Report) -> Result:
        """Do the task."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...

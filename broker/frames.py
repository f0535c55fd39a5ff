"""The words that pass between the keyholder and its clients: frames of one size, in both directions."""

import struct
from enum import IntEnum, IntFlag, StrEnum
from typing import NamedTuple

import msgspec

FRAME_BYTES = 64
KEY_ID_BYTES = 16
KEY_BYTES = 32
INCARNATION_BYTES = 16

_MAGIC = b"LK"
_VERSION = 1
# The body, which may be a key, is no field: unpacking it would leave a copy that nobody can overwrite.
_HEAD = struct.Struct(">2sBB4xQ16s")
_STATS = struct.Struct(">IIIQBB")
_BODY = slice(FRAME_BYTES - KEY_BYTES, FRAME_BYTES)


class FrameInvalid(Exception):
    """The bytes are no frame of this protocol; the connection they came on cannot be trusted any more."""


class Verb(IntEnum):
    """What a client may ask."""

    PUT = 1
    OPEN = 2
    SHRED = 3
    HAS = 4
    HELLO = 5
    STATS = 6


class Answer(IntEnum):
    """What the keyholder may answer."""

    OK = 65
    EXISTS = 66
    GONE = 67
    FULL = 68
    KEY = 69
    STALE = 70
    YES = 71
    NO = 72
    INCARNATION = 73
    STATS = 74
    DENIED = 75


TAKES_NO_KEYS = 1
"""The `number` of every answer of a keyholder that is full, or is being drained; 0 of any other."""


class Role(StrEnum):
    """Who speaks: by certificate, or on this machine, where whoever may open the socket may do everything."""

    BROKER = "broker"
    WORKER = "worker"
    KEYHOLDER = "keyholder"
    LOCAL = "local"


class Memory(StrEnum):
    """How well the pages that hold keys are kept, best first."""

    MEMFD_SECRET = "memfd_secret"  # noqa: S105 - a system call: pages gone from the kernel's map, hidden even from root
    MLOCK = "mlock"  # never swapped, never dumped; root can read them
    PLAIN = "plain"  # never dumped, as far as the kernel obeys; may be swapped


_MEMORIES = tuple(Memory)


class Hardening(IntFlag):
    """What is true of a process."""

    NONE = 0
    UNDUMPABLE = 1  # not to be traced or dumped by others of the same user
    NO_CORE_DUMPS = 2  # its core limit is zero, for good
    HEAP_OVERWRITTEN = 4  # the C library overwrites what it frees
    NO_SWAP = 8  # no swap on a disk, or none for this process


class Head(NamedTuple):
    """Everything of a frame but its body; `number` is a ttl in seconds or a fence."""

    code: int
    number: int
    key_id: bytes


class KeyholderStats(msgspec.Struct, frozen=True, kw_only=True):
    """How full a keyholder is, how well its memory is kept, and what is true of its process."""

    held: int
    capacity: int
    tombstones: int
    max_ttl_s: int
    memory: Memory
    hardening: Hardening = Hardening.NONE


def write_head(frame: memoryview, code: Verb | Answer, *, number: int = 0, key_id: bytes = b"") -> None:
    """Write everything but the body, which stays what it was."""
    _HEAD.pack_into(frame, 0, _MAGIC, _VERSION, code, number, key_id)


def read_head(frame: memoryview) -> Head:
    """Read everything but the body; raise FrameInvalid for what is no frame."""
    magic, version, code, number, key_id = _HEAD.unpack_from(frame)
    if magic != _MAGIC or version != _VERSION:
        raise FrameInvalid
    return Head(code, number, key_id)


def body(frame: memoryview) -> memoryview:
    """Return the place of the body: 32 bytes, a key or what an answer carries."""
    return frame[_BODY]


def write_stats(into: memoryview, stats: KeyholderStats) -> None:
    """Write the figures into a body."""
    memory = _MEMORIES.index(stats.memory)
    _STATS.pack_into(into, 0, stats.held, stats.capacity, stats.tombstones, stats.max_ttl_s, memory, stats.hardening)


def read_stats(source: memoryview) -> KeyholderStats:
    """Read the figures from a body; raise FrameInvalid for memory that has no name."""
    figures: tuple[int, ...] = _STATS.unpack_from(source)
    held, capacity, tombstones, max_ttl_s, memory, hardening = figures
    if memory >= len(_MEMORIES):
        raise FrameInvalid
    return KeyholderStats(
        held=held,
        capacity=capacity,
        tombstones=tombstones,
        max_ttl_s=max_ttl_s,
        memory=_MEMORIES[memory],
        hardening=Hardening(hardening),
    )

"""What must be true of a deployment while it takes work in; the broker looks, this names what it has to find."""

from enum import StrEnum

import msgspec


class Demand(StrEnum):
    """What a profile may demand; each is a fact that GET /v1/privacy/posture states."""

    NO_CORE_DUMPS = "no_core_dumps"
    UNDUMPABLE = "undumpable"
    FREED_HEAP_OVERWRITTEN = "freed_heap_overwritten"
    NO_SWAP = "no_swap"
    GUARDED = "guarded"
    LOG_ALLOW_LIST = "log_allow_list"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    NO_VIDEO_MEMORY = "no_video_memory"
    KEYS_LOCKED = "keys_locked"
    KEYS_HIDDEN = "keys_hidden"
    BLOBS_UNVERSIONED = "blobs_unversioned"
    PRIVATE_LINKS = "private_links"


class Demands(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is demanded; while any of it is not true, nothing new is admitted, and jobs in flight go on."""

    demands: tuple[Demand, ...] = ()

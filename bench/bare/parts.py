"""The parts of the guarantee that a bare deployment does without, and how its processes are started."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from broker.prctl import FORGETFUL_HEAP


class Part(StrEnum):
    """What can be left out by itself; the product knows none of these words."""

    ENCRYPTION = "encryption"  # blobs are what came in and what was made, byte for byte
    KEYHOLDER = "keyholder"  # every key is zeros, and nobody is asked for it
    SANDBOX = "sandbox"  # pictures are decoded and encoded in threads of the worker
    CUSTODY = "custody"  # no row says where copies are, nothing is destroyed, one write finishes a job, no receipt
    FORGETTING = "forgetting"  # freed heap and buffers keep what they held, no guard kills anybody


WHOLE: Final[frozenset[Part]] = frozenset()
BARE: Final = frozenset(Part)


def is_guarded(without: Collection[Part]) -> bool:
    """Say whether a process has a guard as its parent."""
    return Part.FORGETTING not in without


def module_arguments(role: str, *arguments: str, without: Collection[Part]) -> list[str]:
    """Return what the interpreter is told: the product's own entry point, or that of a deployment without parts."""
    if not without:
        return ["-m", {"broker": "broker", "worker": "workers"}[role], *arguments]
    return ["-m", "bench.bare", role, *arguments, *(f"--without={part}" for part in sorted(without))]


def environment_without(environment: Mapping[str, str], without: Collection[Part]) -> dict[str, str]:
    """Return the environment that a process starts in; one that does not forget gets the C library's usual heap."""
    if is_guarded(without):
        return dict(environment)
    return {name: value for name, value in environment.items() if name not in FORGETFUL_HEAP}

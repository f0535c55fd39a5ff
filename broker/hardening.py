"""What this process and its machine do against copies of memory on a disk, as it is and not as it was asked for."""

import resource
from pathlib import Path

from broker.frames import Hardening
from broker.prctl import is_dumpable
from broker.secret_memory import heap_is_perturbed

SWAPS = Path("/proc/swaps")
# In a container: as much as its memory limit leaves for swap. compose.yaml leaves none.
SWAP_LIMIT = Path("/sys/fs/cgroup/memory.swap.max")


def observed() -> Hardening:
    """Look at everything; what is not seen to be so counts as not so."""
    found = {
        Hardening.UNDUMPABLE: not is_dumpable(),
        Hardening.NO_CORE_DUMPS: resource.getrlimit(resource.RLIMIT_CORE)[1] == 0,
        Hardening.HEAP_OVERWRITTEN: heap_is_perturbed(),
        Hardening.NO_SWAP: never_swaps(),
    }
    return Hardening(sum(flag for flag, is_so in found.items() if is_so))


def never_swaps() -> bool:
    """Say whether nothing of this process can be written to a swap device on a disk."""
    table = _text(SWAPS)
    return _text(SWAP_LIMIT) == "0" or (bool(table) and not disks_in(table))


def disks_in(table: str) -> list[str]:
    """Name the swap devices of /proc/swaps that are on a disk: zram is memory."""
    devices = [line.split()[0] for line in table.splitlines()[1:] if line.split()]
    return [device for device in devices if "zram" not in device]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

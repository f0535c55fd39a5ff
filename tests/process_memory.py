"""Look into the memory of another process, as only root can."""

import os
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of a hardened process")


def readable_memory(pid: int) -> list[bytes]:
    """Read everything of a process that root can read."""
    parts: list[bytes] = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            limits, rights, *_ = line.split()
            if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, stop = (int(limit, 16) for limit in limits.split("-"))
            try:
                memory.seek(start)
                parts.append(memory.read(stop - start))
            except OSError:
                continue
    return parts

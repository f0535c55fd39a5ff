"""
Where what was uploaded may have stayed: every file of a folder, and the memory of every process.

Looked through hundreds of times: hence only what changed since then, and only pages that a process has of its own.
"""

import os
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

LARGE_BYTES = 256 << 20
AROUND_BYTES = 160


def files_with(needles: Iterable[bytes], folder: Path, *, since_s: float = 0.0, is_deep: bool = True) -> list[str]:
    """Name the files that hold a needle, of those that were written since then; `is_deep`: in folders below, too."""
    words = tuple(needles)
    # What goes while it is walked through, as much of Postgres does, is no fault.
    walk = os.walk(folder) if is_deep else [next(os.walk(folder))]
    paths = (Path(parent) / name for parent, _, names in walk for name in names)
    return [str(path.relative_to(folder)) for path in paths if _holds(path, words, since_s)]


def seen_in_memory() -> str:
    """Say whether memory is looked into at all, for whoever reads a zero."""
    return "looked into" if os.geteuid() == 0 else "not scanned: only root may read it"


def memory_with(needles: Iterable[bytes], pids: Iterable[int]) -> list[str]:
    """Name the processes whose memory holds a needle; none where we are not root, who alone may read it."""
    words = tuple(needles)
    if os.geteuid() != 0:
        return []
    found = ((pid, _around(pid, words)) for pid in pids)
    return [f"{pid} {_command(pid)}: {around!r}" for pid, around in found if around]


def _holds(path: Path, words: tuple[bytes, ...], since_s: float) -> bool:
    try:
        if not path.is_file() or path.stat().st_mtime < since_s or path.stat().st_size > LARGE_BYTES:
            return False
        content = path.read_bytes()
    except OSError:  # it went meanwhile
        return False
    return any(word in content for word in words)


def _around(pid: int, words: tuple[bytes, ...]) -> bytes:
    """Return what stands around the first needle in a process: it tells whose it is, and whether it was freed."""
    try:
        found = (
            part[max(0, at - AROUND_BYTES) : at + AROUND_BYTES] for part in _own_pages(pid) for at in _at(part, words)
        )
        return next(found, b"")
    except OSError:  # it ended meanwhile
        return b""


def _at(part: bytes, words: tuple[bytes, ...]) -> list[int]:
    return [at for word in words if (at := part.find(word)) >= 0]


def _own_pages(pid: int) -> Iterator[bytes]:
    """Read what a process has in memory, but for what lies in files that it only reads: no upload can be there."""
    start = stop = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                is_own = "r" in words[1] and ("w" in words[1] or len(words) < 6)
                start, stop = (int(limit, 16) for limit in words[0].split("-")) if is_own else (0, 0)
            elif words[0] == "Rss:" and words[1] != "0" and stop:
                yield _read(memory, start, stop)


def _read(memory: FileIO, start: int, stop: int) -> bytes:
    try:
        memory.seek(start)
        return memory.read(stop - start)
    except OSError:  # pages that even root may not read
        return b""


def _command(pid: int) -> str:
    try:
        interpreter, *words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
        )
    except OSError:
        return "ended"
    return " ".join([Path(interpreter).name, *words])  # figures name no path of the machine that measured

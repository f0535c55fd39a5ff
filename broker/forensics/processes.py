"""Which processes belong to the stack that is looked at, and what their memory and their open files hold."""

import os
import signal
import stat
import sys
import tempfile
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

from broker.forensics.surfaces import BLOCK_BYTES, Leaks, NotScanned, Part, Surface, file_blocks
from broker.guard import hardened
from broker.prctl import die_with_parent
from broker.secret_memory import harden
from broker.settings import inherited_environment

Pids = Callable[[], Iterable[int]]

_OF_THE_KERNEL: Final = ("[vvar]", "[vsyscall]", "[vvar_vclock]")
_HIDDEN: Final = "secretmem"
_DELETED: Final = " (deleted)"


def descendants(pid: int) -> set[int]:
    """Return every live process below one, which is left out itself: it is who looks."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(file.parent.name)] = int(parent)
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def name_of(pid: int) -> str:
    """Say what a process is: the module of a Python that runs one, else its program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return f"process {pid}"
    modules = [after for word, after in pairwise(words) if word == "-m"]
    guards = "guard of " if modules[:1] == ["broker.guard"] else ""
    return f"{guards}{modules[-1] if modules else Path(words[0]).name} (pid {pid})"


class _HeldByProcesses(Surface):
    """What some processes hold."""

    def __init__(self, name: str, pids: Pids) -> None:
        super().__init__(name)
        self._pids = pids

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Have a process that is hardened like ours hold it, in its heap and in a file without a name."""
        async with decoy(leaks):
            yield


class Memory(_HeldByProcesses):
    """
    Everything that can be read of the memory of some processes.

    What lies in memfd_secret is hidden from root too, and is counted as hidden: nobody who comes later can read it.
    """

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each process; what several of them share is read once."""
        self.hidden_bytes = 0
        seen: set[str] = set()
        for pid in sorted(self._pids()):
            yield Part(name_of(pid), self._blocks(pid, seen))

    def _blocks(self, pid: int, seen: set[str]) -> Iterator[bytes]:
        try:
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                for start, stop in _regions(pid, seen):
                    yield from self._region(memory.fileno(), start, stop)
        except (FileNotFoundError, ProcessLookupError):
            return
        except PermissionError as exc:
            raise NotScanned("only root may read the memory of hardened processes") from exc

    def _region(self, fd: int, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, BLOCK_BYTES):
            try:
                yield os.pread(fd, min(BLOCK_BYTES, stop - at), at)
            except ProcessLookupError:
                return
            except OSError:
                self.hidden_bytes += min(BLOCK_BYTES, stop - at)


class DeletedFiles(_HeldByProcesses):
    """Files without a name that processes have open, in memory or on a disk."""

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each of them."""
        self.hidden_bytes = 0
        for pid in sorted(self._pids()):
            try:
                descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError as exc:
                raise NotScanned("only root may list the open files of hardened processes") from exc
            for path in descriptors:
                if not _is_deleted(path):
                    continue
                if path.readlink().name.startswith(_HIDDEN):
                    self.hidden_bytes += path.stat().st_size
                else:
                    yield Part(f"descriptor {path.name} of {name_of(pid)}", file_blocks(path))


@asynccontextmanager
async def decoy(leaks: Leaks) -> AsyncGenerator[None]:
    """Inside the block a process holds these bytes: in its heap, and in a file that has no name any more."""
    with_us = die_with_parent(signal.SIGKILL)
    child = await create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=PIPE,
        stdout=PIPE,
        preexec_fn=with_us,
        env=hardened(inherited_environment()),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(b"\n".join(leaks.values()))
        child.stdin.write_eof()
        await child.stdout.readline()
        yield
    finally:
        child.kill()
        await child.wait()


def hold() -> None:
    """Be the decoy: hold what comes on stdin until killed."""
    harden()
    held = sys.stdin.buffer.read()
    with tempfile.TemporaryFile() as file:
        file.write(held)
        file.flush()
        sys.stdout.write("held\n")
        sys.stdout.flush()
        signal.pause()


def _regions(pid: int, seen: set[str]) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        limits, rights, offset, device, inode, *names = line.split(maxsplit=5)
        if "r" not in rights or (names and names[0] in _OF_THE_KERNEL):
            continue
        if names and names[0].startswith("/") and "w" not in rights and not names[0].endswith(_DELETED):
            continue  # a program or a library, as it lies on the disk
        shared = f"{device} {inode} {offset}" if "s" in rights and inode != "0" else ""
        if shared in seen:
            continue
        seen.update({shared} - {""})
        start, _, stop = limits.partition("-")
        yield int(start, 16), int(stop, 16)


def _is_deleted(path: Path) -> bool:
    with suppress(OSError):
        return path.readlink().name.endswith(_DELETED) and stat.S_ISREG(path.stat().st_mode)
    return False


if __name__ == "__main__":
    hold()

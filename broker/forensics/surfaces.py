"""Where something may be left: how each place is read, and how a leak is planted there to see that it is found."""

import asyncio
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from broker.forensics.encodings import Encoding

BLOCK_BYTES: Final = 4 * 1024 * 1024
Leaks = Mapping[Encoding, bytes]
"""The same thing written down in every encoding, each with a marker of its own."""


class NotScanned(Exception):
    """A place could not be looked at, or not all of it; the message says why."""


class Part(msgspec.Struct, frozen=True):
    """One piece of a place, such as a file or a process, and its bytes."""

    name: str
    blocks: Iterable[bytes]


class Surface(ABC):
    """One kind of place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hidden_bytes = 0
        """What lay there at the last look and cannot be read by anybody."""

    @abstractmethod
    def parts(self) -> AsyncGenerator[Part]:
        """Yield everything that is there now; this, or reading a part, raises NotScanned where it cannot be read."""

    @abstractmethod
    def planted(self, leaks: Leaks) -> AbstractAsyncContextManager[None]:
        """Leak these bytes there; inside the block they are there."""

    async def begin(self) -> None:  # noqa: B027 -- most places hold still
        """Start to watch, where what is to be seen passes by."""

    async def forget(self) -> None:  # noqa: B027
        """Let go of what has passed by so far."""

    async def end(self) -> None:  # noqa: B027
        """Watch no longer."""


class Files(Surface):
    """Regular files below some directories."""

    def __init__(
        self,
        name: str,
        *directories: Path,
        wanted: Callable[[Path], bool] = lambda _: True,
        since_s: float = 0.0,
        log: str = "",
    ) -> None:
        super().__init__(name)
        self._directories = directories
        self._wanted = wanted
        self._since_s = since_s
        self._log = log

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each file that is wanted, and that has changed since then."""
        for directory in self._directories:
            for path in await asyncio.to_thread(list, _files(directory, since_s=self._since_s)):
                if self._wanted(path):
                    yield Part(str(path), file_blocks(path))

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Leave a file in the first directory; where that has a log, write lines into it instead."""
        content = b"\n".join([b"", *leaks.values(), b""])
        if self._log:
            with (self._directories[0] / self._log).open("ab") as file:
                file.write(content)
            yield
            return
        descriptor, name = tempfile.mkstemp(prefix="lethe-planted-", dir=self._directories[0])
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            yield
        finally:
            Path(name).unlink(missing_ok=True)


def file_blocks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece; one that has gone meanwhile, or whose process has, holds nothing."""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except (FileNotFoundError, ProcessLookupError):
        return
    except OSError as exc:
        raise NotScanned(f"{path} cannot be read ({type(exc).__name__})") from exc


def _files(top: Path, *, since_s: float) -> Iterator[Path]:
    folders = [str(top)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif _is_wanted(entry, since_s):
                        yield Path(entry.path)
        except FileNotFoundError:
            continue
        except PermissionError as exc:
            if Path(folder).stat().st_uid == os.geteuid():
                raise NotScanned(f"{folder} cannot be listed") from exc


def _is_wanted(entry: os.DirEntry[str], since_s: float) -> bool:
    """Whether it is a regular file of whoever runs this stack: of this user, or of whomever root chose."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    is_ours = os.geteuid() in {0, found.st_uid}
    return is_ours and stat.S_ISREG(found.st_mode) and max(found.st_mtime, found.st_ctime) >= since_s

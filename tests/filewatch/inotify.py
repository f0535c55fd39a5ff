"""Names that appear in directories for temporary files: inotify(7), for everybody, which tells no process."""

import ctypes
import os
import re
import select
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_CLOSE_WRITE, _MOVED_TO, _CREATE, _OVERFLOW, _IS_DIRECTORY = 0x8, 0x80, 0x100, 0x4000, 0x40000000
_HEAD = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 65_536

OF_TEMPFILE: Final = re.compile(r"tmp[a-z0-9_]{8}")
"""What Python's `tempfile` calls a file that has a name; the kernel calls others # and a number."""

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Watches some directories, and below them those that `tempfile` makes meanwhile."""

    def __init__(self, directories: Iterable[str]) -> None:
        self.fd = _libc.inotify_init1(_CLOEXEC | _NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "no inotify")
        self._names: dict[int, Path] = {}
        for directory in directories:
            self._watch(Path(directory))

    def close(self) -> None:
        """Watch no longer."""
        os.close(self.fd)

    def written(self, *, within_ms: int | None) -> Iterator[Path]:
        """Wait for some, and yield every file that was made or written, as long as there are more."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        while poller.poll(within_ms):
            yield from self._read(os.read(self.fd, _READ_BYTES))
            within_ms = 0

    def _read(self, data: bytes) -> Iterator[Path]:
        at = 0
        while at < len(data):
            number, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            if mask & _OVERFLOW:
                raise OSError("the kernel dropped events")
            if name and number in self._names:
                yield from self._seen(self._names[number] / os.fsdecode(name), is_directory=bool(mask & _IS_DIRECTORY))

    def _seen(self, path: Path, *, is_directory: bool) -> Iterator[Path]:
        if not is_directory:
            yield path
        elif OF_TEMPFILE.fullmatch(path.name):
            self._watch(path)
            with suppress(OSError):  # what was made before it was watched
                yield from (found for found in path.iterdir() if found.is_file())

    def _watch(self, directory: Path) -> None:
        number = _libc.inotify_add_watch(self.fd, os.fsencode(directory), _CLOSE_WRITE | _MOVED_TO | _CREATE)
        if number >= 0:
            self._names[number] = directory

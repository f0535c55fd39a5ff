"""
Every file that is closed after writing, on the whole machine, and every program that begins: fanotify(7), for root.

Events carry a process id and an open descriptor, which leads to the path also of a file that has lost its name.
"""

import ctypes
import os
import select
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE, _UNLIMITED_MARKS = 0x1, 0x2, 0x10, 0x20
_MARK_ADD, _MARK_MOUNT, _MARK_FILESYSTEM = 0x1, 0x10, 0x100
_CLOSE_WRITE, _OPEN_EXEC, _QUEUE_OVERFLOW = 0x8, 0x1000, 0x4000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")  # length, version, reserved, length of this head, mask, descriptor, process
_EVENTS_AT_ONCE = 128  # each comes with an open descriptor
_KINDS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
_DEVICES = Path("/dev")  # holds no file, though its file system may be a tmpfs

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was closed after writing, or a program that is about to run in a process."""

    pid: int
    is_program: bool
    fd: int
    """The file, to be read while the event is looked at: it may have no name any more."""

    @property
    def path(self) -> str:
        """Its name; ` (deleted)` stands behind it where it has none any more."""
        return str(Path(f"/proc/self/fd/{self.fd}").readlink())


class Fanotify:
    """Watches whole file systems; OSError where the kernel or a missing CAP_SYS_ADMIN forbids it."""

    def __init__(self) -> None:
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE | _UNLIMITED_MARKS
        self.fd = _checked(_libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        self.mounts = [mount for mount in _mounts() if self._mark(mount)]

    def close(self) -> None:
        """Watch no longer."""
        os.close(self.fd)

    def events(self, *, within_ms: int | None) -> Iterator[Event]:
        """Wait for some, and yield them as long as there are more."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        while poller.poll(within_ms):
            data = os.read(self.fd, _EVENT.size * _EVENTS_AT_ONCE)
            for _, _, _, _, mask, fd, pid in _EVENT.iter_unpack(data):
                if mask & _QUEUE_OVERFLOW:
                    raise OSError("the kernel dropped events")
                yield from _read(mask, fd, pid)
            within_ms = 0

    def _mark(self, mount: Path) -> bool:
        """Watch a file system, or where that cannot be, this mount of it."""
        mask, name = _CLOSE_WRITE | _OPEN_EXEC, os.fsencode(mount)
        return any(
            _libc.fanotify_mark(self.fd, _MARK_ADD | kind, mask, _AT_FDCWD, name) == 0
            for kind in (_MARK_FILESYSTEM, _MARK_MOUNT)
        )


def _read(mask: int, fd: int, pid: int) -> Iterator[Event]:
    if fd < 0:
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            yield Event(pid=pid, is_program=bool(mask & _OPEN_EXEC), fd=fd)
    finally:
        os.close(fd)


def _mounts() -> list[Path]:
    """Where file systems that hold files are mounted."""
    found: list[Path] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        path = Path(place.encode().decode("unicode_escape"))
        if kind in _KINDS and path not in {*found, _DEVICES} and "ro" not in options.split(","):
            found.append(path)
    return found


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

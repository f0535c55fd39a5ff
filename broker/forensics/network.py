"""A loopback interface of our own, where that is allowed: what others send on this machine is not searched."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_INTERFACE: Final = struct.Struct("16sH14x")
_HERE: Final = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Generator[bool]:
    """
    Inside the block this thread, and whatever it starts, is alone on a network; False where that is not allowed.

    Sockets that are open already stay where they are.
    """
    with _HERE.open("rb") as before:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            yield False
            return
        try:
            _bring_up()
            yield True
        finally:
            if _libc.setns(before.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _bring_up() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        name, flags = _INTERFACE.unpack(asked)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))

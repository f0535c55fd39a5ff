"""A zygote whose PNG codec is hostile: what stands in the picture is the attack that it tries. For tests only."""

import ctypes
import os
from typing import IO, Final

import msgspec
from PIL import Image

from tests.attacks import VERDICT_FD, run
from workers.images import nursery
from workers.images.orders import Verdict

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MARK: Final = b"ATTACK:"
HARMLESS_WIDTH: Final = 7
BREACHED_WIDTH: Final = 42
LIES: Final = {
    "lie_garbage": b"\xc1 no verdict",
    "lie_no_text": b"\x81\xa8obstacle\xa2\xff\xfe",
    "lie_larger": msgspec.msgpack.encode(Verdict(width=1_000_000, height=1_000_000, channels=3)),
    "lie_negative": msgspec.msgpack.encode(Verdict(width=-10, height=-10, channels=3)),
    "lie_channels": msgspec.msgpack.encode(Verdict(width=10, height=10, channels=400)),
    "lie_number": msgspec.msgpack.encode(Verdict(number=1, obstacle="none of yours")),
}


def hostile_picture(attack: str) -> bytes:
    """Make the picture that has this attack tried."""
    return SIGNATURE + MARK + attack.encode()


def _overwrite(upload: IO[bytes]) -> bool:
    """Make the mapped upload writable and change it, as it would stay changed for a second attempt."""
    view = ctypes.create_string_buffer(256)
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(upload), view, 0)
    address = ctypes.c_void_p.from_buffer(view)
    if ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(1), 3) != 0:
        return False
    ctypes.memset(address, 0, 1)
    return True


def _open(fp: IO[bytes], _: str | bytes) -> Image.Image:
    data = fp.read(200)
    if not data.startswith(SIGNATURE + MARK):
        raise OSError("not mine")
    attack = data.removeprefix(SIGNATURE + MARK).decode()
    while attack == "hang":
        pass
    if attack == "crash":
        ctypes.string_at(0)
    if attack in LIES:
        os.write(VERDICT_FD, LIES[attack])
    is_breached = _overwrite(fp) if attack == "overwrite" else attack != "harmless" and run(attack)
    return Image.new("RGB", (BREACHED_WIDTH if is_breached else HARMLESS_WIDTH, 1))


if __name__ == "__main__":
    Image.init()
    Image.register_open("PNG", _open, lambda prefix: prefix.startswith(SIGNATURE))  # pyright: ignore[reportArgumentType] - any opener that gives a picture
    nursery.main()

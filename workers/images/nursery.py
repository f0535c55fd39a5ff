"""
The zygote process: loads the codecs, then forks one fenced-in child per picture.

Run as `python -m workers.images.nursery SOCKET_FD PARENT_PID` with an empty environment. It never reads what it passes
on: descriptors arrive, go to a child, and are closed.
"""

import array
import contextlib
import gc
import io
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec
import pi_heif  # pyright: ignore[reportMissingTypeStubs] - ships none
from PIL import Image, ImageCms

from broker.sniff import ImageKind, sniff
from workers.images.decode import decode
from workers.images.encode import encode
from workers.images.errors import EncodingFailed, ImageFault, ImagesError, InvalidImage
from workers.images.orders import CleanOrder, EncodeOrder, ImageLimits, Order, StopOrder, Verdict, Work
from workers.images.sandbox import Fence, die_with_parent, enter
from workers.images.videos import clean

_VERDICT_FD: Final = 3
_VERDICT_BYTES: Final = 512
_ORDER_BYTES: Final = 4096
_NOBODY: Final = 65_534

# What decoders and encoders hold per pixel (WebP: four canvases of 4 bytes), and what they need for any picture at
# all (a thread's heap reserves 128 MiB of addresses).
_WORK_BYTES_PER_PIXEL: Final = 20
_WORK_BYTES: Final = 320 << 20

_orders: Final = msgspec.msgpack.Decoder(Order)
_verdicts: Final = msgspec.msgpack.Decoder(Verdict)
_encoder: Final = msgspec.msgpack.Encoder()


class _Child(msgspec.Struct, frozen=True, kw_only=True):
    """One picture at work."""

    number: int
    pid: int
    deadline: float


class Nursery:
    """Takes orders from one socket, forks, watches, reaps, answers."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, _Child] = {}  # by the descriptor that the verdict comes from
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Serve until the worker goes away."""
        while True:
            for fd, _ in self._poll.poll(self._next_deadline_ms()):
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._take_order():
                    return
            for fd, child in list(self._children.items()):
                if child.deadline <= time.monotonic():
                    self._reap(fd, ImageFault.TIMEOUT)

    def _next_deadline_ms(self) -> int | None:
        if not self._children:
            return None
        earliest = min(child.deadline for child in self._children.values())
        return max(0, int((earliest - time.monotonic()) * 1000) + 1)

    def _take_order(self) -> bool:
        data, fds = _receive(self._control)
        if not data:
            return False
        order = _orders.decode(data)
        if isinstance(order, StopOrder):
            self._stop(order.number)
        else:
            self._start(order, fds)
        for fd in fds:
            os.close(fd)
        return True

    def _start(self, order: Work, fds: list[int]) -> None:
        reader, writer = os.pipe()
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(order, fds, writer, zygote_pid)
        os.close(writer)
        deadline = time.monotonic() + order.limits.timeout_s
        self._children[reader] = _Child(number=order.number, pid=pid, deadline=deadline)
        self._poll.register(reader, select.POLLIN)

    def _stop(self, number: int) -> None:
        for fd, child in list(self._children.items()):
            if child.number == number:
                self._reap(fd, ImageFault.DECODER_KILLED)

    def _reap(self, fd: int, fault: ImageFault | None = None) -> None:
        """Take the verdict, make sure that the child is gone, and only then answer."""
        child = self._children.pop(fd, None)
        if child is None:
            return
        data = b"" if fault else os.read(fd, _VERDICT_BYTES)
        self._poll.unregister(fd)
        os.close(fd)
        os.kill(child.pid, signal.SIGKILL)  # it said all that it has to say
        os.waitpid(child.pid, 0)
        verdict = Verdict(fault=fault) if fault else _read_verdict(data)
        self._control.send(_encoder.encode(msgspec.structs.replace(verdict, number=child.number, obstacle="")))


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _, _ = control.recvmsg(_ORDER_BYTES, socket.CMSG_SPACE(2 * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for _, _, content in ancillary:
        fds.frombytes(content)
    return data, list(fds)


def _read_verdict(data: bytes) -> Verdict:
    """Believe the form only: a child that was taken over can say anything."""
    try:
        return _verdicts.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Verdict(fault=ImageFault.DECODER_KILLED)


def _live(order: Work, fds: list[int], writer: int, zygote_pid: int) -> NoReturn:
    """Be the child: map both memories, let go of every descriptor but the verdict's, fence in, work, end."""
    try:
        die_with_parent(zygote_pid)
        work, kind = _prepare(order, fds)
        _keep_only(writer)
        memory_bytes = order.limits.max_pixels * _WORK_BYTES_PER_PIXEL + _WORK_BYTES
        cpu_s = int(order.limits.timeout_s) + 1
        has_threads = kind is ImageKind.HEIC
        enter(Fence(memory_bytes=memory_bytes, cpu_s=cpu_s, verdict_fd=_VERDICT_FD, has_threads=has_threads))
        os.write(_VERDICT_FD, _encoder.encode(_verdict(work)))
    finally:
        os._exit(0)


def _prepare(order: Work, fds: list[int]) -> tuple[Callable[[], Verdict], ImageKind | None]:
    given_fd, made_fd = fds
    if isinstance(order, CleanOrder):
        return _prepare_clean(order, given_fd, made_fd), None
    made = mmap.mmap(made_fd, order.capacity_bytes)
    if isinstance(order, EncodeOrder):
        rows = mmap.mmap(given_fd, order.width * order.height * order.channels, prot=mmap.PROT_READ)
        return lambda: Verdict(size_bytes=encode(rows, made, order)), order.kind
    source = mmap.mmap(given_fd, order.size_bytes, prot=mmap.PROT_READ)

    def work() -> Verdict:
        width, height, channels = decode(source, made, order.limits)
        return Verdict(width=width, height=height, channels=channels)

    return work, sniff(source[:64])


def _prepare_clean(order: CleanOrder, given_fd: int, made_fd: int) -> Callable[[], Verdict]:
    video = mmap.mmap(given_fd, order.size_bytes, prot=mmap.PROT_READ)
    made = mmap.mmap(made_fd, order.size_bytes)

    def work() -> Verdict:
        width, height = clean(video, made)
        return Verdict(width=width, height=height, size_bytes=order.size_bytes)

    return work


def _keep_only(writer: int) -> None:
    os.dup2(writer, _VERDICT_FD)
    os.closerange(0, _VERDICT_FD)
    os.closerange(_VERDICT_FD + 1, os.sysconf("SC_OPEN_MAX"))


def _verdict(work: Callable[[], Verdict]) -> Verdict:
    try:
        return work()
    except (InvalidImage, EncodingFailed) as exc:
        return Verdict(fault=exc.code)
    except BaseException:  # noqa: BLE001 - whatever it is, its words may quote the picture
        return Verdict(fault=ImageFault.DECODER_FAILED)


def warm() -> None:
    """Load every codec and use it once, so that no child has to import anything."""
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=0)  # pyright: ignore[reportUnknownMemberType]
    Image.init()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    limits = ImageLimits()
    for mode in ("RGB", "RGBA", "P", "L"):
        for name in ("JPEG", "PNG", "WEBP"):
            with contextlib.suppress(OSError, ImagesError), mmap.mmap(-1, 1 << 16) as source:
                file = io.BytesIO()
                Image.new(mode, (16, 16)).save(file, name, exif=_upright(), icc_profile=profile.tobytes())
                source[: file.tell()] = file.getvalue()
                with mmap.mmap(-1, 1 << 16) as rows:
                    decode(source, rows, limits)


def _upright() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _give_up_root() -> None:
    """Become nobody, where that user can be had: a hole in the fence then opens less."""
    with contextlib.suppress(OSError):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _obstacle() -> str:
    """Try the fence in a child; say what stands in the way, or nothing."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            _keep_only(writer)
            enter(Fence(memory_bytes=1 << 28, cpu_s=1, verdict_fd=_VERDICT_FD))
            os.write(_VERDICT_FD, b"ok")
        except ImagesError as exc:
            os.write(_VERDICT_FD, str(exc).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        answer = said.read(_VERDICT_BYTES).decode()
    os.waitpid(pid, 0)
    return "" if answer == "ok" else answer or "the sandbox kills whatever enters it"


def main() -> None:
    """Be the zygote of the worker whose socket and process id stand on the command line."""
    control, parent_pid = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the worker, which closes the socket when it is done
    die_with_parent(parent_pid)
    warm()
    os.chdir("/")
    _give_up_root()
    die_with_parent(parent_pid)  # the kernel forgot when the user changed
    gc.collect()
    gc.freeze()
    control.send(_encoder.encode(Verdict(obstacle=_obstacle())))
    Nursery(control).run()


if __name__ == "__main__":
    main()

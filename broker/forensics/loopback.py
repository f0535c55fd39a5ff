"""What goes over the wire on this machine: every packet on the loopback interface, captured in memory alone."""

import asyncio
import contextlib
import secrets
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from broker.forensics.surfaces import Leaks, NotScanned, Part, Surface

_HOST: Final = "127.0.0.1"
_EVERYTHING: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 64 * 1024 * 1024
_MOST_BYTES: Final = 512 * 1024 * 1024
_LONGEST_PACKET: Final = 128 * 1024
_LOOK_AGAIN_S: Final = 0.2
_CATCH_UP_WITHIN_S: Final = 10.0
_TCP, _UDP = 6, 17

Flow = tuple[bytes, bytes, int]


class Loopback(Surface):
    """Every TCP and UDP payload on the loopback interface since the last look, connection by connection."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._capture: Capture | None = None
        self._why = "not begun"

    async def begin(self) -> None:
        """Capture from now on, where that is allowed."""
        try:
            self._capture = Capture()
        except PermissionError:
            self._why = "only root, or who has CAP_NET_RAW, may capture packets"

    async def forget(self) -> None:
        """Drop what was captured so far."""
        if self._capture:
            await asyncio.to_thread(self._capture.take)

    async def end(self) -> None:
        """Capture no more."""
        if self._capture:
            await asyncio.to_thread(self._capture.close)
            self._capture = None

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each connection, and begin anew."""
        if self._capture is None:
            raise NotScanned(self._why)
        for (source, target, protocol), payload in (await asyncio.to_thread(self._capture.take)).items():
            ends = f"{int.from_bytes(source[-2:])} to {int.from_bytes(target[-2:])}"
            yield Part(f"{'TCP' if protocol == _TCP else 'UDP'} from port {ends}", [bytes(payload)])

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Send it, each form in a packet of its own, to a port of ours."""
        with socket.socket(type=socket.SOCK_DGRAM) as ear, socket.socket(type=socket.SOCK_DGRAM) as mouth:
            ear.bind((_HOST, 0))
            for leak in leaks.values():
                mouth.sendto(leak, ear.getsockname())
            yield


class Capture:
    """A thread that writes down payloads; in memory alone."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(_LOOK_AGAIN_S)
        self._flows: defaultdict[Flow, bytearray] = defaultdict(bytearray)
        self._bytes = 0
        self._lock = threading.Lock()
        self._last = secrets.token_bytes(32)
        self._arrived = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> dict[Flow, bytearray]:
        """Return what has been captured since the last time; raise NotScanned when anything was lost."""
        self._catch_up()
        with self._lock:
            flows, self._flows = self._flows, defaultdict(bytearray)
            taken, self._bytes = self._bytes, 0
        lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        if lost or taken > _MOST_BYTES:
            raise NotScanned("more went over the loopback interface than could be captured")
        return flows

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _catch_up(self) -> None:
        """Send a packet and wait until it is written down: so is then whatever went before it."""
        self._arrived.clear()
        with socket.socket(type=socket.SOCK_DGRAM) as ear, socket.socket(type=socket.SOCK_DGRAM) as mouth:
            ear.bind((_HOST, 0))
            mouth.sendto(self._last, ear.getsockname())
            if not self._arrived.wait(_CATCH_UP_WITHIN_S):
                raise NotScanned("packets on the loopback interface are not captured in time")

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(_LONGEST_PACKET)
            except TimeoutError:
                continue
            # Each packet passes twice on this interface: on its way out, and on its way in.
            if kind != socket.PACKET_OUTGOING:
                self._note(packet)

    def _note(self, packet: bytes) -> None:
        found = payload_of(packet)
        if found is None:
            return
        flow, payload = found
        if payload == self._last:
            self._arrived.set()
            return
        with self._lock:
            self._bytes += len(payload)
            if self._bytes <= _MOST_BYTES:
                self._flows[flow] += payload


def payload_of(frame: bytes) -> tuple[Flow, bytes] | None:
    """Take an Ethernet frame apart; None where it carries neither TCP nor UDP, or nothing."""
    (kind,) = struct.unpack_from(">H", frame, 12)
    packet = frame[14:]
    if kind == 0x0800:
        head, protocol, ends = (packet[0] & 15) * 4, packet[9], packet[12:20]
        packet = packet[: struct.unpack_from(">H", packet, 2)[0] or None]
    elif kind == 0x86DD:
        head, protocol, ends = 40, packet[6], packet[8:40]
    else:
        return None
    if protocol not in {_TCP, _UDP}:
        return None
    segment = packet[head:]
    payload = segment[(segment[12] >> 4) * 4 :] if protocol == _TCP else segment[8:]
    half = len(ends) // 2
    flow = (ends[:half] + segment[:2], ends[half:] + segment[2:4], protocol)
    return (flow, payload) if payload else None

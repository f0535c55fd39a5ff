"""How frames travel: by unix socket, or by TLS with certificates on both sides; no copy of a frame stays behind."""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import structlog

from broker.frames import Role

SEND_BUFFER_BYTES: Final = 1024 * 1024
HANDSHAKE_WITHIN_S: Final = 5.0

_ROLE_URIS: Final = {f"urn:lethe:{role.value}": role for role in (Role.BROKER, Role.WORKER, Role.KEYHOLDER)}

log = structlog.get_logger()


class TlsFiles(NamedTuple):
    """Who signs certificates here, and our own with its key: PEM files."""

    ca: str
    certificate: str
    key: str


class _Witnessed(ssl.SSLObject):
    """The keyholder's side of a connection; a handshake that fails is told, since asyncio keeps silent."""

    def do_handshake(self) -> None:
        """Go on with the handshake; asyncio calls it whenever something has come."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            log.warning("keyholder_client_refused", code=exc.reason)
            raise


def is_path(address: str) -> bool:
    """Whether an address is that of a unix socket; another one is host:port."""
    return "/" in address or ":" not in address


def host_and_port(address: str) -> tuple[str, int]:
    """Split host:port, where an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Let in whoever shows a certificate of our CA."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a ticket would keep what a recorded connection can be resumed with
    context.sslobject_class = _Witnessed
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Speak to whoever shows a certificate of our CA for the host that was called."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def role_of(transport: asyncio.BaseTransport) -> Role | None:
    """Say who is at the other side; None where its certificate names no role of ours."""
    if transport.get_extra_info("ssl_object") is None:
        return Role.LOCAL
    certificate = cast("Mapping[str, Any]", transport.get_extra_info("peercert") or {})
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    roles = {_ROLE_URIS[value] for kind, value in names if kind == "URI" and value in _ROLE_URIS}
    return roles.pop() if len(roles) == 1 else None


def widen(transport: asyncio.BaseTransport) -> None:
    """Let a unix socket take a whole batch of frames at once."""
    if transport.get_extra_info("ssl_object") is None:
        sock = cast("socket.socket", transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def send(transport: asyncio.Transport, frames: memoryview) -> bool:
    """Send all of it at once and keep no copy, so that it may be wiped; False where the other side does not read."""
    if transport.get_extra_info("ssl_object") is not None:
        # Encrypted before this returns; what waits is ciphertext.
        transport.write(frames)
        return transport.get_write_buffer_size() <= SEND_BUFFER_BYTES
    sock = cast("socket.socket", transport.get_extra_info("socket"))
    try:
        # Past the transport, which would copy what it cannot send at once.
        return os.write(sock.fileno(), frames) == len(frames)
    except OSError:
        return False


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    # Not create_default_context(): it writes session secrets to a file where SSLKEYLOGFILE names one.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context

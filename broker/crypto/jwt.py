"""Signed tokens for services that want one (RFC 7519, in the compact form of RFC 7515)."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping

import msgspec


def jwt_of(header: Mapping[str, str], claims: Mapping[str, str | int], *, sign: Callable[[bytes], bytes]) -> str:
    """Write a token; `sign` returns the raw signature that its algorithm asks for (RFC 7518)."""
    signed = b".".join(_encoded(msgspec.json.encode(part)) for part in (header, claims))
    return (signed + b"." + _encoded(sign(signed))).decode()


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")

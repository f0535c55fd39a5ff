"""What the contract suite needs to know of one adapter; each emulator's module has its `CASE`."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from providers.base import Exposure, Provider
from providers.failures import FailureKind
from tests.emulators.base import Emulator

FAULTS: dict[str, FailureKind | None] = {
    "rate_limited": FailureKind.RATE_LIMITED,  # 429 with Retry-After: 1 to the order
    "overloaded": FailureKind.OVERLOADED,  # the provider has no room for the order
    "server_error": FailureKind.PROVIDER_ERROR,  # 500 to the order
    "auth": FailureKind.AUTH,  # our credentials are refused
    "payment": FailureKind.PAYMENT,  # our account is empty
    "moderated": FailureKind.CONTENT_REJECTED,
    "invalid": FailureKind.INVALID_INPUT,  # the provider's schema refuses an input
    "lost_order": FailureKind.UNCERTAIN,  # the order is carried out, the connection closes without an answer
    "malformed_order": FailureKind.UNCERTAIN,  # 2xx to the order, and the answer cannot be read
    "gateway_timeout": FailureKind.UNCERTAIN,  # 504 or 524: what stands in front gave up on an order that may be there
    "no_such_model": FailureKind.UNSUPPORTED,  # 404 to the order: nothing was looked up yet, and another may have it
    "malformed_poll": FailureKind.PROVIDER_ERROR,
    "unknown_state": None,  # a state that nobody knows counts as running, until the attempt goes on to its end
    "failed": FailureKind.PROVIDER_ERROR,  # the attempt runs and fails over there
    "canceled_there": FailureKind.CANCELED,  # somebody stops the attempt over there
    "no_output": FailureKind.BAD_OUTPUT,  # success without an output
    "forgotten": FailureKind.LOST,  # a poll finds that the provider does not know the attempt
}
"""Every fault that an emulator may know, and the kind of failure that an adapter makes of it; None: it succeeds."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """
    One adapter, its emulator, and an order that it can carry out.

    `script(emulator, fault)` lets a fault of FAULTS happen to the next attempt, and returns False where there is none;
    `lacks` says why.
    """

    name: str
    emulator: Callable[[], Emulator]
    make: Callable[[str], Provider]
    """From the emulator's URL to an adapter that is ready."""
    operation: str
    parameters: dict[str, Any] = {}
    pictures: int = 1
    script: Callable[[Any, str], bool]
    lacks: Mapping[str, str] = {}
    """The faults that this provider cannot have, and why."""
    kinds: Mapping[str, FailureKind] = {}
    """What a fault is here, where it is another kind than at the others."""
    secret: str = ""
    exposure: Exposure
    is_inline: bool = False
    """submit() ends with the result."""

"""The vocabulary of notifications: where somebody is told that a job is final, of what, and when it is tried again."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from broker.notify_errors import InvalidPushToken, InvalidWebhook

MAX_AGE_S: Final = 345_600
"""However a job and its notifications fare, where they were to go is destroyed four days after the job came in."""

_WEBHOOK_AGAIN_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""As Standard Webhooks recommends: ten tries within 76 hours."""
_PUSH_AGAIN_S: Final = (5, 30, 300, 1_800)
"""A push that comes an hour later tells nobody anything."""
_MAX_WEBHOOK_CHARS: Final = 2_000
_WEBHOOK: Final = re.compile(r"[\x21-\x7e]+")
_APNS_TOKEN: Final = re.compile(r"[0-9a-f]{64,200}")
_PUSH: Final = re.compile(r"([a-z]{1,16}):([A-Za-z0-9_:.\-]{1,1024})")


class Kind(StrEnum):
    """What a user can switch off."""

    WEBHOOK = "webhook"  # the app's own server is told
    PUSH = "push"  # the phone is told, through whoever makes it


class Channel(StrEnum):
    """By what somebody is told."""

    WEBHOOK = "webhook"  # Standard Webhooks
    FCM = "fcm"  # Firebase Cloud Messaging, which reaches Android, iOS and browsers
    APNS = "apns"  # Apple's own service

    @property
    def kind(self) -> Kind:
        """What a user calls it."""
        return Kind.WEBHOOK if self is Channel.WEBHOOK else Kind.PUSH


_PUSHING: Final = tuple(channel.value for channel in Channel if channel.kind is Kind.PUSH)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client wants to be told; `pointer` says where in its request it said so."""

    channel: Channel
    address: str
    pointer: str = ""

    def __repr__(self) -> str:
        """Show no address."""
        return f"Target({self.channel})"


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One notification of a final job; `id` is the same each time that it is tried, `tries` counts this one."""

    id: UUID
    job_id: UUID
    channel: Channel
    target: str
    tries: int
    public_id: UUID
    state: str
    finalized_at: datetime
    user_id: str | None
    muted: tuple[Kind, ...]
    """What its user has switched off; all of it where the user is erased."""

    def __repr__(self) -> str:
        """Show no address."""
        return f"Notification({self.id})"

    @property
    def type(self) -> str:
        """What happened, and no more than that."""
        return f"job.{self.state}"

    @property
    def is_muted(self) -> bool:
        """Whether its user wants none of this kind."""
        return self.channel.kind in self.muted

    @property
    def happened_at(self) -> str:
        """When the job became final: whole seconds, UTC."""
        return f"{self.finalized_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def again_s(self) -> float | None:
        """How long to wait after this try has failed; None when it was the last."""
        waits = _WEBHOOK_AGAIN_S if self.channel is Channel.WEBHOOK else _PUSH_AGAIN_S
        return waits[self.tries - 1] if self.tries <= len(waits) else None


class Told(StrEnum):
    """How one try ended; only after FAILED there is another."""

    DELIVERED = "delivered"  # whoever was told said so
    GONE = "gone"  # nobody lives there any more
    REFUSED = "refused"  # it must not go there, or will never be taken there
    FAILED = "failed"  # silence, or trouble that may pass
    GIVEN_UP = "given_up"  # failed, for the last time
    SWITCHED_OFF = "switched_off"  # not sent, at its user's word


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How one try ended, and how long at least they asked us to wait."""

    told: Told
    after_s: float = 0.0


def read_webhook(text: str, *, pointer: str) -> Target:
    """Read a URL; whether it may be called is for the sender to say. Raises InvalidWebhook."""
    if len(text) > _MAX_WEBHOOK_CHARS or not _WEBHOOK.fullmatch(text):
        raise InvalidWebhook(f"a webhook is a URL of at most {_MAX_WEBHOOK_CHARS} ASCII characters", pointer=pointer)
    return Target(channel=Channel.WEBHOOK, address=text, pointer=pointer)


def read_push(text: str, *, pointer: str) -> Target:
    """Read `service:token`; raise InvalidPushToken."""
    found = _PUSH.fullmatch(text)
    if found is None or found[1] not in _PUSHING:
        raise InvalidPushToken(f"expected {' or '.join(_PUSHING)}, a colon and a token", pointer=pointer)
    if found[1] == Channel.APNS and not _APNS_TOKEN.fullmatch(found[2]):
        raise InvalidPushToken("a token of Apple's service is in lower-case hex", pointer=pointer)
    return Target(channel=Channel(found[1]), address=found[2], pointer=pointer)


def channels_for(kind: Kind) -> list[Channel]:
    """Return the channels that a user switches off together."""
    return [channel for channel in Channel if channel.kind is kind]

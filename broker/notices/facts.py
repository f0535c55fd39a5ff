"""What a notice is made of: facts in no language, read from the profile, the providers and the place of the blobs."""

import hashlib
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from broker.notifications import MAX_AGE_S, Channel, Kind
from broker.operations import OPERATIONS, OutputKind
from broker.routes import Config, OutsideProvider
from policies.consent import Purpose
from policies.publisher import Publisher
from policies.registry import Policies
from policies.retention import Outputs
from providers.base import Deletes, Exposure

COUNTER_S = 600
"""How long a network's count of new users stays; the retention registry says the same of lethe:mint:*."""


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """A provider outside that may get pictures under this profile, and the terms that hold there."""

    name: str
    host: str
    exposure: Exposure
    retention_s: int
    deletes: Deletes
    operations: tuple[str, ...]
    region: str = ""


class NoticeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that the texts depend on; times in seconds. Stored with each notice, so that an old one can still be shown.

    `upload_within_s` is when an upload can no longer be opened, whatever happens; it is destroyed with its job.
    """

    profile: str
    publisher: Publisher
    operations: tuple[str, ...]
    has_pictures: bool
    has_texts: bool
    has_videos: bool
    upload_within_s: int
    outputs: str
    outputs_for_s: int
    records_for_s: int
    idle_user_for_s: int
    recipients: tuple[Recipient, ...] = ()
    blob_store: str = "file"
    """The scheme of the blob store's URL; anything but `file` is storage that somebody else runs."""
    required: tuple[Purpose, ...] = ()
    optional: tuple[Purpose, ...] = ()
    min_age: int = 0
    announce_days: int = 0
    has_credits: bool = False
    """Whether anything has a price, so that there is an account."""
    answer_within_days: int = 30
    counter_s: int = COUNTER_S
    are_outputs_sealed: bool = False
    """Whether only devices of the user can open results."""
    grace_s: int = 0
    """How long results stay after they were delivered, where that ends them."""
    regions: tuple[str, ...] = ()
    """Where alone pictures may be; empty: anywhere."""
    has_sign_in: bool = False
    """Whether a sign-in of the app may be linked to a user."""
    channels: tuple[Channel, ...] = ()
    """By what somebody can be told that a job has ended."""
    notifications_s: int = MAX_AGE_S

    @property
    def digest(self) -> bytes:
        """SHA-256 of the facts: the same for processes with the same settings, and another one where any differs."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).digest()

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """Everything that users are asked for."""
        return (*self.required, *self.optional)

    @property
    def has_push(self) -> bool:
        """Whether phones are told that a job has ended."""
        return any(channel.kind is Kind.PUSH for channel in self.channels)

    @property
    def are_outputs_kept(self) -> bool:
        """Whether results have no end but their user's word."""
        return self.outputs == "until_deleted"

    @property
    def longest_s(self) -> int:
        """After so many seconds without use nothing of a user is left."""
        return max(self.outputs_for_s, self.records_for_s, self.idle_user_for_s)


def facts_of(
    policies: Policies,
    config: Config,
    *,
    blobs_url: str = "file:///",
    channels: Sequence[Channel] = (),
    has_sign_in: bool = False,
) -> NoticeFacts:
    """Read the facts; an operation counts when its route leads to somebody whom the profile allows."""
    profile = policies.profile
    offered = tuple(name for name in config.operations if _allowed(policies, config, name))
    known = [OPERATIONS[name] for name in offered]
    return NoticeFacts(
        profile=profile.name,
        publisher=profile.publisher,
        operations=offered,
        has_pictures=any(operation.pictures.max for operation in known),
        has_texts=any(operation.texts for operation in known),
        has_videos=any(operation.outputs.kind is OutputKind.VIDEO for operation in known),
        upload_within_s=profile.deadlines.finish_within_s,
        outputs=str(profile.retention.outputs),
        outputs_for_s=profile.retention.outputs_for_s,
        records_for_s=profile.retention.records_for_s,
        idle_user_for_s=profile.retention.idle_user_for_s,
        recipients=_recipients(policies, config, offered),
        blob_store=urlsplit(blobs_url).scheme or "file",
        required=profile.consent.required,
        optional=profile.consent.optional,
        min_age=profile.consent.min_age or 0,
        announce_days=profile.consent.announce_days,
        answer_within_days=profile.rights.answer_within_days,
        has_credits=any(profile.credits.price(name) for name in offered),
        are_outputs_sealed=profile.retention.sealed,
        grace_s=profile.retention.grace_s if profile.retention.outputs is Outputs.UNTIL_DELIVERED else 0,
        regions=profile.disclosure.regions,
        has_sign_in=has_sign_in,
        channels=tuple(channels),
    )


def _allowed(policies: Policies, config: Config, operation: str) -> bool:
    return any(policies.disclose_clean(provider.terms) is None for provider in config.routed(operation))


def _recipients(policies: Policies, config: Config, offered: tuple[str, ...]) -> tuple[Recipient, ...]:
    """Everybody outside to whom a route leads and the profile lets a picture go; servers in our own hands are not."""
    found = [
        _recipient(name, provider, tuple(o for o in offered if name in config.routes[o].providers))
        for name, provider in sorted(config.outside.items())
        if provider.exposure is not Exposure.LOCAL and policies.disclose_clean(provider.terms) is None
    ]
    return tuple(recipient for recipient in found if recipient.operations)


def _recipient(name: str, provider: OutsideProvider, operations: tuple[str, ...]) -> Recipient:
    return Recipient(
        name=name,
        host=urlsplit(provider.base_url).hostname or "",
        region=provider.region,
        exposure=provider.exposure,
        retention_s=provider.retention_s,
        deletes=provider.deletes,
        operations=operations,
    )

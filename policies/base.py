"""What a policy is: four gates (admit, disclose, settle, retain), facts in, decision out; refusal is a value."""

from enum import StrEnum
from typing import Protocol

import msgspec

from providers.base import Exposure


class RefusalCode(StrEnum):
    """Why a gate stays shut; the words are the broker's stable error codes."""

    UPLOAD_TOO_LARGE = "upload_too_large"
    UNSUPPORTED_IMAGE = "unsupported_image"
    OUTPUT_TOO_LARGE = "output_too_large"
    DEADLINE_TOO_SHORT = "deadline_too_short"
    TOO_MANY_REQUESTS = "too_many_requests"
    CONSENT_REQUIRED = "consent_required"
    CREDITS_REQUIRED = "credits_required"
    DEVICE_KEY_REQUIRED = "device_key_required"
    RESTRICTED = "restricted"
    ERASING = "erasing"
    REFUSED = "refused"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a job when a gate is asked; None is "not known yet", and a gate says nothing about it.

    Admission asks again when more is known. `live_jobs` and `jobs_last_minute` are this user's, the job itself aside;
    `start_within_s` and `finish_within_s` are what the client asked for.
    """

    operation: str
    media_type: str = ""
    upload_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    output_pixels: int | None = None
    expected_s: float | None = None
    live_jobs: int = 0
    jobs_last_minute: int = 0
    start_within_s: float | None = None
    finish_within_s: float | None = None
    consents: frozenset[str] | None = None
    """The purposes to which its user agrees under the notice in force; `notice` is the version of that."""
    notice: str = ""
    stated_age: int = 0
    """How many years old its user has stated to be at least; 0 where nothing was stated."""
    wants_push: bool = False
    """Whether its user is to be told by a push notification that it has ended."""
    credits: int | None = None
    """What the user may still spend."""
    is_restricted: bool = False
    is_erasing: bool = False
    """What its user asked for by right: that nothing new is processed; that everything goes."""
    is_clean: bool = False
    """Whether the picture was rebuilt from pixels, so that nothing else of the file is left in it."""
    device_keys: int | None = None
    """How many devices its user has registered, to which outputs can be sealed."""
    is_sealed: bool | None = None
    """Whether its outputs are sealed to devices, as was promised when it was taken in."""


class ProviderTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Who may keep or see the picture at a provider, for how long a copy stays there, and where that is."""

    exposure: Exposure
    retention_s: int
    region: str | None = None
    """Empty where nobody has said; None for our own workers, who stand where we do."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: the name of its outcome."""

    outcome: str


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """The job may enter, and has this long to start and to finish."""

    start_within_s: float
    finish_within_s: float


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """The gate stays shut; `reason` is for the client and holds limits and numbers, never content."""

    code: RefusalCode
    reason: str
    retry_after_s: int = 0
    pointer: str = ""
    notice: str = ""
    """Where consent is missing: under which notice, and to what."""
    purposes: tuple[str, ...] = ()


class Destroy(msgspec.Struct, frozen=True, kw_only=True):
    """What settle has to destroy before the job may be final."""

    uploads: bool = False
    parameters: bool = False
    outputs: bool = False

    def also(self, other: "Destroy") -> "Destroy":
        """Destroy what either of two policies wants destroyed."""
        return Destroy(
            uploads=self.uploads or other.uploads,
            parameters=self.parameters or other.parameters,
            outputs=self.outputs or other.outputs,
        )


class Retain(msgspec.Struct, frozen=True, kw_only=True):
    """
    How long outputs live after the final state, and how long the record of the job is kept.

    A lifetime of None lasts until its user deletes the output; a grace of None says that delivery ends nothing.
    """

    lifetime_s: int | None
    records_for_s: int
    grace_s: int | None = None

    def at_most(self, other: "Retain") -> "Retain":
        """Keep only as long as both of two policies allow."""
        return Retain(
            lifetime_s=_shorter(self.lifetime_s, other.lifetime_s),
            records_for_s=min(self.records_for_s, other.records_for_s),
            grace_s=_shorter(self.grace_s, other.grace_s),
        )


def _shorter(one_s: int | None, other_s: int | None) -> int | None:
    return min((time_s for time_s in (one_s, other_s) if time_s is not None), default=None)


class Policy(Protocol):
    """
    One concern with a word at some of the gates; a pure function of its settings and the facts.

    None is "no objection". No policy can undo what another refuses, destroys or shortens.
    """

    def admit(self, facts: Facts) -> Refuse | None:
        """Say whether the job may enter; asked again as more of the upload is known."""
        ...

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Say whether the picture may go to a provider under these terms."""
        ...

    def settle(self, ending: Ending) -> Destroy:
        """Say what has to be destroyed before the final state."""
        ...

    def retain(self, facts: Facts) -> Retain | None:
        """Say how long outputs and records stay after the final state."""
        ...


class NoObjection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy with nothing to say; each real one overrides the gates at which it has, its fields are its settings."""

    def admit(self, facts: Facts) -> Refuse | None:
        """Say nothing."""
        del facts

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Say nothing."""
        del facts, terms

    def settle(self, ending: Ending) -> Destroy:
        """Ask for nothing."""
        del ending
        return Destroy()

    def retain(self, facts: Facts) -> Retain | None:
        """Say nothing."""
        del facts

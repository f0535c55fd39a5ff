"""What a user has to agree to before work is taken in, and how old at least a user has to be."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from policies.base import Facts, NoObjection, RefusalCode, Refuse


class Purpose(StrEnum):
    """What consent may be asked for; the notices have words for each, in every language."""

    PROCESSING = "processing"  # what the app is for: pictures, and what is typed, are worked on
    PROVIDERS = "providers"  # they may go to the providers outside that the notice names
    TRANSFER = "transfer"  # they may go to another country
    RETENTION = "retention"  # results stay longer than their making needs
    PUSH = "push"  # push notifications
    MARKETING = "marketing"  # messages that advertise
    ANALYTICS = "analytics"  # how the app is used is counted


class Consent(NoObjection, frozen=True, kw_only=True):
    """
    Without consent to every `required` purpose, under the notice in force, no job enters; `optional` ones open nothing.

    With `min_age` a user has to have stated to be at least so many years old. A changed notice takes effect
    `announce_days` after it was announced.
    """

    required: tuple[Purpose, ...] = ()
    optional: tuple[Purpose, ...] = ()
    min_age: Literal[13, 16] | None = None
    announce_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 0

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """Everything that users are asked for, what is required first."""
        return (*self.required, *self.optional)

    @property
    def is_asked(self) -> bool:
        """Whether a job needs anything of its user, so that the broker has to look it up."""
        return bool(self.required) or self.min_age is not None

    @property
    def is_push_asked(self) -> bool:
        """Whether a push notification needs its user's consent."""
        return Purpose.PUSH in self.purposes

    def allows_push(self, consents: frozenset[str]) -> bool:
        """Whether a user who agrees to these purposes may be sent one."""
        return not self.is_push_asked or Purpose.PUSH in consents

    @property
    def fault(self) -> tuple[str, str]:
        """The setting that contradicts another, and why; empty where none does."""
        if set(self.required) & set(self.optional):
            return "optional", "names a purpose that is required already"
        if self.min_age is not None and not self.required:
            return "min_age", "needs a required purpose: an age is stated together with a consent"
        return "", ""

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse while consent to a required purpose, to push where it is wanted, or an age's statement, is missing."""
        if facts.consents is None:
            return None
        asked = dict.fromkeys([*self.required, *([Purpose.PUSH] if facts.wants_push and self.is_push_asked else [])])
        missing = tuple(str(purpose) for purpose in asked if purpose not in facts.consents)
        is_age_missing = self.min_age is not None and facts.stated_age < self.min_age
        if not missing and not is_age_missing:
            return None
        wanted = [*missing, *([f"an age of at least {self.min_age}"] if is_age_missing else [])]
        return Refuse(
            code=RefusalCode.CONSENT_REQUIRED,
            reason=f"consent is missing to {', '.join(wanted)}, under the notice {facts.notice}; PUT /v1/me/consents",
            notice=facts.notice,
            purposes=missing,
        )

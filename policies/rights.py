"""What a user's rights do to new jobs, and within how many days a request has to be answered at the outside."""

from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, RefusalCode, Refuse


class Rights(NoObjection, frozen=True, kw_only=True):
    """A request takes seconds, or as long as a provider; when one is open after `answer_within_days` an alarm rings."""

    answer_within_days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 30

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse a job of a user who is being erased, or who restricted processing."""
        if facts.is_erasing:
            return Refuse(code=RefusalCode.ERASING, reason="the user is being erased")
        if facts.is_restricted:
            reason = "processing is restricted at the user's word; PUT /v1/me/restriction lifts it"
            return Refuse(code=RefusalCode.RESTRICTED, reason=reason)
        return None

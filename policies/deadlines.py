"""How long a job may take to start and to finish; a client can only shorten it."""

from typing import Annotated

import msgspec

from policies.base import Admit, Facts, NoObjection, RefusalCode, Refuse

Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Deadlines(NoObjection, frozen=True, kw_only=True):
    """The profile's own deadlines, counted from the moment the upload is whole."""

    start_within_s: Seconds = 300
    finish_within_s: Seconds = 600

    def within(self, facts: Facts) -> Admit:
        """Return the deadlines that hold for a job: the profile's, or what the client asked for where shorter."""
        finish_s = min(float(self.finish_within_s), _asked(facts.finish_within_s))
        start_s = min(float(self.start_within_s), _asked(facts.start_within_s), finish_s)
        return Admit(start_within_s=start_s, finish_within_s=finish_s)

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse a job that cannot end in time, rather than let it run into its deadline."""
        allowed = self.within(facts)
        if allowed.start_within_s <= 0:
            return self._refuse("a deadline has to be longer than 0 s", facts)
        if facts.expected_s is None or facts.expected_s <= allowed.finish_within_s:
            return None
        return self._refuse(
            f"the work would take about {facts.expected_s:.0f} s, "
            f"and the job has to end within {allowed.finish_within_s:.0f} s",
            facts,
        )

    def _refuse(self, reason: str, facts: Facts) -> Refuse:
        is_asked = facts.finish_within_s is not None and facts.finish_within_s < self.finish_within_s
        return Refuse(
            code=RefusalCode.DEADLINE_TOO_SHORT,
            reason=reason,
            pointer="#/headers/Lethe-Finish-Within" if is_asked else "",
        )


def _asked(within_s: float | None) -> float:
    return float("inf") if within_s is None else within_s

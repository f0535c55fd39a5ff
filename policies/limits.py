"""How much one user may send, and how big a picture may be or become."""

from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, RefusalCode, Refuse

Positive = Annotated[int, msgspec.Meta(ge=1)]

RETRY_LIVE_S = 5
RETRY_RATE_S = 10
RETRY_MINT_S = 600


class Limits(NoObjection, frozen=True, kw_only=True):
    """Upper bounds; the broker counts, this decides."""

    max_upload_bytes: Positive = 25_000_000
    max_input_pixels: Positive = 50_000_000
    max_output_pixels: Positive = 64_000_000
    jobs_at_once: Positive = 8
    jobs_per_minute: Positive = 60
    users_per_prefix_per_10_min: Positive = 30

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse what is over a limit: first who sends too much, then what is too big."""
        return self._too_many(facts) or self._too_big(facts)

    def admit_user(self, minted_lately: int) -> Refuse | None:
        """Refuse another anonymous user from an address prefix that made enough of them within ten minutes."""
        if minted_lately < self.users_per_prefix_per_10_min:
            return None
        return Refuse(
            code=RefusalCode.TOO_MANY_REQUESTS,
            reason=f"at most {self.users_per_prefix_per_10_min} users in ten minutes from one network",
            retry_after_s=RETRY_MINT_S,
        )

    def _too_many(self, facts: Facts) -> Refuse | None:
        if facts.live_jobs >= self.jobs_at_once:
            return Refuse(
                code=RefusalCode.TOO_MANY_REQUESTS,
                reason=f"at most {self.jobs_at_once} jobs at once; wait for one to end",
                retry_after_s=RETRY_LIVE_S,
            )
        if facts.jobs_last_minute >= self.jobs_per_minute:
            return Refuse(
                code=RefusalCode.TOO_MANY_REQUESTS,
                reason=f"at most {self.jobs_per_minute} jobs a minute",
                retry_after_s=RETRY_RATE_S,
            )
        return None

    def _too_big(self, facts: Facts) -> Refuse | None:
        if facts.upload_bytes is not None and facts.upload_bytes > self.max_upload_bytes:
            return Refuse(
                code=RefusalCode.UPLOAD_TOO_LARGE,
                reason=f"the body is larger than {self.max_upload_bytes} bytes",
            )
        pixels = (facts.width or 0) * (facts.height or 0)
        if pixels > self.max_input_pixels:
            return Refuse(
                code=RefusalCode.UNSUPPORTED_IMAGE,
                reason=f"the picture has {pixels} pixels, this server takes {self.max_input_pixels}",
            )
        if facts.output_pixels is not None and facts.output_pixels > self.max_output_pixels:
            return Refuse(
                code=RefusalCode.OUTPUT_TOO_LARGE,
                reason=f"the output would have {facts.output_pixels} pixels, this server makes "
                f"{self.max_output_pixels}",
            )
        return None

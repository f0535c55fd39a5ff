"""Who outside may see or keep a picture, and for how long: hard limits that no failover widens."""

from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, ProviderTerms, RefusalCode, Refuse
from providers.base import Exposure


class Disclosure(NoObjection, frozen=True, kw_only=True):
    """The widest exposure and the longest stay at a provider that this profile allows."""

    exposure: Exposure = Exposure.LOCAL
    max_provider_retention_s: Annotated[int, msgspec.Meta(ge=0)] = 0

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Refuse a provider that shows the picture to more people, or keeps it longer, than allowed."""
        del facts
        if terms.exposure.rank > self.exposure.rank:
            return self._refuse(f"the provider's exposure is {terms.exposure}, this server allows {self.exposure}")
        if terms.retention_s > self.max_provider_retention_s:
            return self._refuse(
                f"the provider keeps pictures for {terms.retention_s} s, "
                f"this server allows {self.max_provider_retention_s} s"
            )
        return None

    def _refuse(self, reason: str) -> Refuse:
        return Refuse(code=RefusalCode.REFUSED, reason=reason)

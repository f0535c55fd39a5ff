"""Who outside may see or keep a picture, and for how long: hard limits that no failover widens."""

from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, ProviderTerms, RefusalCode, Refuse
from providers.base import Exposure


class Disclosure(NoObjection, frozen=True, kw_only=True):
    """
    The widest exposure and the longest stay at a provider that this profile allows, and where one may stand.

    That a provider deletes when it is told to makes its stay no shorter: it may be down then, and may delete less than
    all. Without `regions` a provider may stand anywhere.
    """

    exposure: Exposure = Exposure.LOCAL
    max_provider_retention_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    regions: tuple[str, ...] = ()

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Refuse a provider that shows the picture to more people, keeps it longer or stands elsewhere than allowed."""
        del facts
        return self._exposed(terms) or self._elsewhere(terms)

    def _elsewhere(self, terms: ProviderTerms) -> Refuse | None:
        if not self.regions or terms.region is None or terms.region in self.regions:
            return None
        place = terms.region or "an unknown region"
        return self._refuse(f"the provider stands in {place}, this server allows {', '.join(self.regions)}")

    def _exposed(self, terms: ProviderTerms) -> Refuse | None:
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

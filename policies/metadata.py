"""What is left of a file: its pixels and nothing else, in both directions."""

from enum import StrEnum
from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, ProviderTerms, RefusalCode, Refuse
from providers.base import Exposure

Quality = Annotated[int, msgspec.Meta(ge=50, le=100)]


class Strip(StrEnum):
    """What is dropped from a picture; there is no weaker word."""

    EVERYTHING = "everything"


class Metadata(NoObjection, frozen=True, kw_only=True):
    """Pictures are rebuilt from pixels (no EXIF, GPS, XMP, thumbnail, comment); outputs are encoded this well."""

    strip: Strip = Strip.EVERYTHING
    jpeg_quality: Quality = 92
    webp_quality: Quality = 90

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Refuse to let a file out of our hands before it was rebuilt from pixels."""
        if facts.is_clean or terms.exposure is Exposure.LOCAL:
            return None
        return Refuse(code=RefusalCode.REFUSED, reason="only a picture rebuilt from its pixels may leave this server")

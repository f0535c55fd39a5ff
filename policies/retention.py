"""How long outputs, records and idle users stay; uploads are not its business, they never stay."""

from enum import StrEnum
from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, Retain

DAY_S = 86_400


class Outputs(StrEnum):
    """What ends the life of an output."""

    FOR = "for"  # its time is up, or its user deletes it


class Retention(NoObjection, frozen=True, kw_only=True):
    """
    Outputs live `outputs_for_s`, a job's record `records_for_s`, a user that nobody uses `idle_user_for_s`.

    Outputs that the broker can open live a day at most.
    """

    outputs: Outputs = Outputs.FOR
    outputs_for_s: Annotated[int, msgspec.Meta(ge=1, le=DAY_S)] = 3_600
    records_for_s: Annotated[int, msgspec.Meta(ge=60)] = 7 * DAY_S
    idle_user_for_s: Annotated[int, msgspec.Meta(ge=DAY_S)] = 30 * DAY_S

    def retain(self, facts: Facts) -> Retain | None:
        """Give every job of this profile the same times."""
        del facts
        return Retain(lifetime_s=self.outputs_for_s, records_for_s=self.records_for_s)

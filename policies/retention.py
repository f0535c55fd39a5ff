"""How long outputs, records and idle users stay; uploads are not its business, they never stay."""

from enum import StrEnum
from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, RefusalCode, Refuse, Retain

DAY_S = 86_400


class Outputs(StrEnum):
    """What ends the life of an output; its user may delete it before in every case."""

    FOR = "for"  # its time is up
    UNTIL_DELIVERED = "until_delivered"  # it was served to its end and the grace is over, or its time is up
    UNTIL_DELETED = "until_deleted"  # its user deletes it, or is not seen for `idle_user_for_s`


class Retention(NoObjection, frozen=True, kw_only=True):
    """
    Outputs live `outputs_for_s` at most, or until they are deleted; a job's record lives `records_for_s`, a user that
    nobody uses `idle_user_for_s`.

    Outputs that the broker can open live a day at most, whatever is said here; `sealed` ones only a device can open.
    """

    outputs: Outputs = Outputs.FOR
    outputs_for_s: Annotated[int, msgspec.Meta(ge=1)] = 3_600
    grace_s: Annotated[int, msgspec.Meta(ge=1)] = 300
    """From the end of the first complete download: for a phone whose connection broke off in the last moment."""
    sealed: bool = False
    records_for_s: Annotated[int, msgspec.Meta(ge=60)] = 7 * DAY_S
    idle_user_for_s: Annotated[int, msgspec.Meta(ge=DAY_S)] = 30 * DAY_S

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse, where outputs are sealed, the job of a user for whom nothing could be sealed."""
        if not self.sealed or facts.device_keys is None or facts.device_keys > 0:
            return None
        return Refuse(
            code=RefusalCode.DEVICE_KEY_REQUIRED,
            reason="outputs are sealed to devices here, and this user has registered none; POST /v1/me/devices",
        )

    def retain(self, facts: Facts) -> Retain | None:
        """Give every job of this profile the same times; a job that is not sealed never more than a day."""
        lifetime_s = None if self.outputs is Outputs.UNTIL_DELETED else self.outputs_for_s
        if not (self.sealed if facts.is_sealed is None else facts.is_sealed):
            lifetime_s = min(lifetime_s or DAY_S, DAY_S)
        grace_s = self.grace_s if self.outputs is Outputs.UNTIL_DELIVERED else None
        return Retain(lifetime_s=lifetime_s, records_for_s=self.records_for_s, grace_s=grace_s)

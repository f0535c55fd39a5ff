"""Uploads die with their job: whatever the outcome, whatever the profile."""

from policies.base import Destroy, Ending, NoObjection


class Ephemeral(NoObjection, frozen=True, kw_only=True):
    """Destroys every copy of the upload and of what the user typed; it has no settings, so none can weaken it."""

    def settle(self, ending: Ending) -> Destroy:
        """Destroy uploads and parameters always, and outputs unless the job succeeded."""
        return Destroy(uploads=True, parameters=True, outputs=ending.outcome != "succeeded")

"""What a provider that answers at once has nothing to do for: every verb but submit()."""

from providers.base import Handle, Purge, Snapshot
from providers.failures import FailureKind, ProviderFailure


class Inline:
    """Base of providers whose submit() always ends with the result: nothing stays behind that could be asked for."""

    async def warm(self) -> None:
        """Nothing to load."""

    async def poll(self, handle: Handle) -> Snapshot:
        """There is nothing to ask."""
        del handle
        raise ProviderFailure(FailureKind.LOST, "answers at once or never")

    async def cancel(self, handle: Handle) -> bool:
        """Nothing runs on: its order ended with our connection, or its outcome is not known."""
        del handle
        return False

    async def purge(self, handle: Handle) -> Purge:
        """Nothing can be deleted."""
        del handle
        return Purge()

    async def healthy(self) -> None:
        """Nothing can be asked without an order."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

"""Listeners for providers under test."""

from providers.base import Handle, Pixels, Snapshot


class Unheard:
    """Listens to nothing."""

    async def accepted(self, handle: Handle) -> None:
        """Forget it."""

    async def progressed(self, share: float) -> None:
        """Forget it."""


class Heard:
    """Writes down what a provider tells."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.shares: list[float] = []

    async def accepted(self, handle: Handle) -> None:
        """Keep the handle."""
        self.handles.append(handle)

    async def progressed(self, share: float) -> None:
        """Keep the share."""
        self.shares.append(share)

    @property
    def handle(self) -> Handle:
        """The last one."""
        return self.handles[-1]


def pixels_of(snapshot: Snapshot) -> Pixels:
    """The one picture that an in-house model made."""
    assert len(snapshot.outputs) == 1
    pixels = snapshot.outputs[0].pixels
    assert pixels is not None
    return pixels

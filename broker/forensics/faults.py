"""What can happen to a job: the ways in which it ends by itself, and what is killed under it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from broker.forensics.orders import Ordered, Phones
from broker.forensics.provider import HeldProvider, Reply
from broker.forensics.stage import Stage

_SOON_S: Final = 2


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever takes part."""

    stage: Stage
    phones: Phones
    provider: HeldProvider


Cause = Callable[[Scene, Sequence[Ordered]], Awaitable[None]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens to jobs while a provider has them."""

    name: str
    words: str
    cause: Cause
    ends_as: frozenset[str]
    operation: str = "edit"
    finish_within_s: int = 0
    is_strike: bool = False
    """Whether it hits every job that runs, so that it is caused by itself."""
    is_half: bool = False
    """Whether the upload never becomes whole."""

    @property
    def is_held(self) -> bool:
        """Whether a provider keeps the order until this happens."""
        return self.operation == "edit" and not self.finish_within_s and not self.is_half


def answering(reply: Reply) -> Cause:
    """Have the provider answer."""

    async def cause(scene: Scene, jobs: Sequence[Ordered]) -> None:
        for job in jobs:
            scene.provider.end(job.marker, reply)

    return cause


def killing(name: str) -> Cause:
    """Kill -9 a part, and have the provider answer whoever is still there to hear it."""

    async def cause(scene: Scene, jobs: Sequence[Ordered]) -> None:
        await scene.stage.kill(name)
        await answering(Reply.DONE)(scene, jobs)

    return cause


async def cancel(scene: Scene, jobs: Sequence[Ordered]) -> None:
    """Have users take their jobs back."""
    for job in jobs:
        await scene.phones.cancel(job)


async def lose_redis(scene: Scene, jobs: Sequence[Ordered]) -> None:
    """Kill -9 Redis, and with it the stack, which starts again on what it left."""
    await scene.stage.lose_redis()
    await answering(Reply.DONE)(scene, jobs)


async def wait(scene: Scene, jobs: Sequence[Ordered]) -> None:
    """Do nothing: time, or a model, does it."""


_ANY: Final = frozenset({"succeeded", "failed", "canceled", "expired"})

FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault(
            name="success",
            words="the provider answers",
            cause=answering(Reply.DONE),
            ends_as=frozenset({"succeeded"}),
        ),
        Fault(
            name="in-house",
            words="a model of ours answers",
            cause=wait,
            ends_as=frozenset({"succeeded"}),
            operation="upscale",
        ),
        Fault(
            name="failure",
            words="the provider refuses the order",
            cause=answering(Reply.REFUSED),
            ends_as=frozenset({"failed"}),
        ),
        Fault(name="cancel", words="its user takes it back", cause=cancel, ends_as=frozenset({"canceled"})),
        Fault(
            name="deadline",
            words="its deadline passes",
            cause=wait,
            ends_as=frozenset({"expired"}),
            finish_within_s=_SOON_S,
        ),
        Fault(
            name="worker",
            words="kill -9 of the worker that has it",
            cause=killing("relay-worker"),
            ends_as=_ANY,
            is_strike=True,
        ),
        Fault(
            name="broker",
            words="kill -9 of the broker while half of the upload is in",
            cause=killing("broker"),
            ends_as=frozenset({"never taken in"}),
            is_strike=True,
            is_half=True,
        ),
        Fault(
            name="keyholder",
            words="kill -9 of the keyholder",
            cause=killing("keyholder"),
            ends_as=_ANY,
            is_strike=True,
        ),
        Fault(
            name="redis",
            words="kill -9 of Redis, and the stack starts again",
            cause=lose_redis,
            ends_as=_ANY,
            is_strike=True,
        ),
    )
}
"""What `lethe forensics --fault` takes."""

QUICK: Final = ("success", "failure", "cancel")

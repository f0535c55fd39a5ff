"""What this process sees of itself, told to the others with its lease; the judging is done by whoever admits."""

import asyncio
from collections.abc import Sequence

from broker.frames import Hardening
from broker.guard import Guard
from broker.hardening import observed
from broker.lease import Lease
from broker.log import is_allow_listed
from broker.posture import Fact, fact
from policies.posture import Demand

EVERY_S = 15.0

HARDENED = {
    Hardening.NO_CORE_DUMPS: Demand.NO_CORE_DUMPS,
    Hardening.UNDUMPABLE: Demand.UNDUMPABLE,
    Hardening.HEAP_OVERWRITTEN: Demand.FREED_HEAP_OVERWRITTEN,
    Hardening.NO_SWAP: Demand.NO_SWAP,
}


def facts_of(guard: Guard) -> tuple[Fact, ...]:
    """Look at this process."""
    return (
        *hardening_facts(observed()),
        fact(Demand.GUARDED, is_so=guard.is_there),
        fact(Demand.LOG_ALLOW_LIST, is_so=is_allow_listed()),
    )


def hardening_facts(found: Hardening) -> tuple[Fact, ...]:
    """Put into facts what was found of a process."""
    return tuple(fact(name, is_so=flag in found) for flag, name in HARDENED.items())


async def tell_of_itself(lease: Lease, guard: Guard, more: Sequence[Fact]) -> None:
    """Look again and again, and let the next renewal tell; `more` is what only this kind of process knows."""
    while True:
        await asyncio.sleep(EVERY_S)  # what was told at the start still holds
        lease.tell(posture=(*facts_of(guard), *more))

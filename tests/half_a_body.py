"""A broker that reads half a body and waits for the rest: `python -m broker.guard python -m tests.half_a_body`."""

import asyncio
from collections.abc import AsyncIterator

from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden
from broker.services import open_services
from broker.settings import load_settings
from broker.store.processes import Facts
from tests.stack import pretend_worker, submission, upload_bytes


async def main(guard: Guard) -> None:
    async with open_services(load_settings(), role="broker", facts=Facts(), guard=guard) as services:
        await pretend_worker(services)
        await services.intake.submit(await submission(services), _half())


async def _half() -> AsyncIterator[bytes]:
    for _ in range(40):  # more than the blob store keeps in memory before it writes
        yield upload_bytes(100_000)
    await asyncio.Event().wait()


if __name__ == "__main__":
    harden()
    configure_log()
    report_crashes()
    asyncio.run(main(Guard.from_environment()))

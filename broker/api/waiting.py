"""ETags, `Prefer: wait`, and how a request waits for a job to change."""

import asyncio
import re
from collections.abc import Callable

from broker.errors import JobNotFound
from broker.jobs import Job
from broker.services import Services

MAX_WAIT_S = 25

_VERSION = re.compile(r'"v([0-9]{1,9})"')
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})\"?", re.IGNORECASE)


def etag(job: Job) -> str:
    """Name the version of a job."""
    return f'"v{job.version}"'


def known_versions(if_none_match: str) -> frozenset[int]:
    """Read the versions that a client has."""
    return frozenset(int(version) for version in _VERSION.findall(if_none_match))


def preferred_wait_s(prefer: str) -> int | None:
    """Read how long a client would wait (RFC 7240), cut to what proxies and phones bear; None where it does not say."""
    found = _WAIT.search(prefer)
    return None if found is None else min(int(found[1]), MAX_WAIT_S)


async def reread(services: Services, job: Job) -> Job:
    """Return the job as it is now; raise JobNotFound when it is no more."""
    found = await services.stores.jobs.get(job.id)
    if found is None:
        raise JobNotFound
    return found


async def wait_for(
    services: Services, job: Job, enough: Callable[[Job], bool], *, wait_s: float, closing: asyncio.Event
) -> Job:
    """Return the job once it is enough, the time is up, or this server closes; nothing is held meanwhile."""
    with services.changes.watch(job.id) as changed:
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    changed.clear()
                    job = await reread(services, job)
                    if enough(job) or closing.is_set():
                        return job
                    await changed.wait()
        except TimeoutError:
            return await reread(services, job)

"""`python -m workers POOL`: one worker, guarded; `lethe work` starts it."""

import asyncio

import click

from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden
from broker.settings import load_settings
from broker.starting import in_words
from policies.registry import load_profile
from providers.failures import ProviderFailure
from workers.images.errors import SandboxUnavailable
from workers.main import work


@click.command()
@click.argument("pool")
def main(pool: str) -> None:
    """Run one worker of POOL until SIGTERM."""
    harden()
    configure_log()
    report_crashes()
    with in_words(ProviderFailure, SandboxUnavailable):
        guard = Guard.from_environment()
        settings = load_settings()
        asyncio.run(work(settings, pool, guard=guard, profile=load_profile(settings.profile)))


if __name__ == "__main__":
    main()

"""`python -m workers POOL`: one worker, guarded; `lethe work` starts it."""

import asyncio
from pathlib import Path

import click

from broker.config import load_config
from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden
from broker.settings import load_settings
from broker.starting import in_words
from policies.registry import load_profile
from providers.base import ProviderFailure
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
        config = load_config(Path(settings.config_file) if settings.config_file else None)
        asyncio.run(work(settings, pool, guard=guard, config=config, profile=load_profile(settings.profile)))


if __name__ == "__main__":
    main()

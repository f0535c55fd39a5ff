"""Examines what lethe.toml leads to: whether profile, workers, secrets and hints are there for its providers."""

import secrets
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from broker.client import Client, ClientError
from broker.config import load_config
from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.errors import BrokerError
from broker.pools import judged, pools
from broker.routes import Config, OutsideProvider, is_loopback
from broker.routing import Verdict
from broker.settings import Settings, resolve_secret
from broker.store.database import Database
from broker.store.processes import Process, ProcessStore
from policies.registry import Profile, load_profile
from policies.toml_file import ConfigInvalid

_MOUNTED: Final = "/run/secrets/"  # a container's own; who may read it there is the runtime's business
_NO_CONTENT: Final = 204


async def providers(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Look at everything that providers need; wrong files were named before, and silent stores are named elsewhere."""
    try:
        config = load_config(settings.config_path)
        profile = load_profile(settings.profile)
    except (ConfigInvalid, OSError):
        return
    for finding in routes(config, profile):
        yield finding
    alive = await _alive(settings)
    if alive is not None:
        for finding in workers(config, alive):
            yield finding
    here = pools_here()
    for finding in secret_files(config, here=here, live=_live(alive or [])):
        yield finding
    async for finding in hints(config, settings.public_url):
        yield finding


def routes(config: Config, profile: Profile) -> Iterator[Finding]:
    """Whether what never changes by itself (profile, models, prices) leaves somebody to run each operation."""
    for operation, verdicts in judged(config, profile).items():
        able = [verdict.provider for verdict in verdicts if not verdict.reason]
        refused = [verdict for verdict in verdicts if verdict.reason]
        if not able:
            why = "; ".join(f"{verdict.provider}: {verdict.reason}" for verdict in refused)
            yield problem(f"nobody may or can run {operation}: {why}", _remedy(config, profile, refused))
            continue
        yield ok(f"{operation} goes to {', '.join(able)}")
        for verdict in refused:
            yield note(f"{operation} never goes to {verdict.provider}: {verdict.reason}")


def _remedy(config: Config, profile: Profile, verdicts: Sequence[Verdict]) -> str:
    terms = [config.providers[verdict.provider].terms for verdict in verdicts if verdict.is_refused]
    if not terms:
        return "correct the route in lethe.toml; `lethe config explain` judges one job at a time"
    least = min(terms, key=lambda found: (found.exposure.rank, found.retention_s))
    return (
        f'if users were told, allow it in [disclosure] of a profile of your own: exposure = "{least.exposure}", '
        f"max_provider_retention_s = {least.retention_s} (in {profile.name}: {profile.disclosure.exposure}, "
        f"{profile.disclosure.max_provider_retention_s}), and name that file in LETHE_PROFILE; or route elsewhere"
    )


def workers(config: Config, alive: Sequence[Process]) -> Iterator[Finding]:
    """Whether each pool has a live worker, and whether that runs every provider of its pool."""
    live = _live(alive)
    for pool in pools(config):
        there = [process for process in alive if process.role == "worker" and process.facts.pool == pool]
        wanted = sorted(config.of_pool(pool))
        if not there:
            yield problem(
                f"no worker of the pool {pool} is alive, for {', '.join(wanted)}", f"start `lethe work {pool}`"
            )
            continue
        yield ok(f"pool {pool}: {_counted(len(there))}")
        for name in sorted(set(wanted) - live):
            yield problem(
                f"no worker of the pool {pool} runs {name}",
                "read the worker's log: it refused the newest lethe.toml (config_refused), or has to be started again "
                "to load a model that is new to it",
            )


def _live(alive: Sequence[Process]) -> frozenset[str]:
    return frozenset(name for process in alive for name in process.facts.providers)


def _counted(count: int) -> str:
    return "1 live worker" if count == 1 else f"{count} live workers"


def secret_files(config: Config, *, here: frozenset[str], live: frozenset[str]) -> Iterator[Finding]:
    """Whether the secrets of routed providers can be read; only a machine with workers of their pool needs them."""
    for pool in pools(config):
        for name, provider in sorted(config.of_pool(pool).items()):
            if isinstance(provider, OutsideProvider) and provider.secret:
                yield _secret(name, provider, is_needed=pool in here, is_live=name in live)


def _secret(name: str, provider: OutsideProvider, *, is_needed: bool, is_live: bool) -> Finding:
    reference = provider.secret or ""
    if resolve_secret(reference) is not None:
        return _guarded(name, reference)
    if is_live:
        return note(f"the secret of {name} ({reference}) is not readable here; a live worker has it, which is enough")
    if is_needed:
        return problem(
            f"the secret of {name} ({reference}) is not there, and a worker of the pool {provider.pool} runs here",
            "set it where that worker starts, readable for its user",
        )
    return warning(
        f"the secret of {name} ({reference}) is not readable here, and no live worker has it",
        f"set it where workers of the pool {provider.pool} run; nothing to mend on a machine without them",
    )


def _guarded(name: str, reference: str) -> Finding:
    kind, _, where = reference.partition(":")
    if kind == "file" and not where.startswith(_MOUNTED) and Path(where).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return problem(f"the secret of {name} can be read by others ({where})", f"chmod 600 {where}")
    return ok(f"the secret of {name} is there")


async def hints(config: Config, public_url: str) -> AsyncGenerator[Finding, None]:
    """Whether providers that can tell that they are done are able to reach the broker."""
    routed = config.routed_names
    telling = sorted(
        name for name, found in config.outside.items() if name in routed and found.adapter_terms.takes_hooks
    )
    if not telling:
        return
    if not public_url:
        yield note(
            f"{', '.join(telling)} cannot tell when they are done, so that they are asked again and again",
            "set LETHE_PUBLIC_URL to the https address at which clients reach the broker",
        )
    elif not public_url.startswith("https://") and not is_loopback(urlsplit(public_url).hostname or ""):
        yield problem("LETHE_PUBLIC_URL is not https: hints would travel in the open", "give it an https address")
    else:
        async with Client(public_url.rstrip("/")) as client:
            yield await hints_arrive(client)


async def hints_arrive(client: Client) -> Finding:
    """Send a hint that is about nothing: the broker answers each the same way, whatever stands in front does not."""
    try:
        answer = await client.answer("POST", f"/v1/hooks/{secrets.token_urlsafe(32)}")
    except ClientError as exc:
        return problem(f"hints of providers do not arrive: {exc}", "correct LETHE_PUBLIC_URL, or start the broker")
    if answer.status_code == _NO_CONTENT:
        return ok("hints of providers reach the broker")
    return problem(
        f"hints of providers do not arrive: /v1/hooks/ answers {answer.status_code}",
        "have the proxy pass POST /v1/hooks/ on to the broker, without a login or a challenge",
    )


async def _alive(settings: Settings) -> list[Process] | None:
    database = Database(settings.postgres_dsn, connections=1)
    try:
        await database.open()
        return await ProcessStore(database).alive()
    except (OSError, TimeoutError, ValueError, BrokerError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        await database.aclose()


def pools_here(proc: Path = Path("/proc")) -> frozenset[str]:
    """Name the pools of which a worker runs on this machine, by the commands of all processes."""
    found: set[str] = set()
    for file in proc.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"workers" in words[:-2] and words[words.index(b"workers") - 1] == b"-m":
            found.add(words[words.index(b"workers") + 1].decode(errors="replace"))
    return frozenset(found)

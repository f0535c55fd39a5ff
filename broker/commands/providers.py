"""`lethe providers`: what lethe.toml says of each provider, and what all processes know of it at this moment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec
from msgspec import UNSET, UnsetType
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from broker.breaker import Breaker
from broker.circuits import CircuitState, Standing
from broker.commands.endings import EXISTING, checked, run, say
from broker.config import load_config
from broker.errors import QueueUnavailable
from broker.queue import Bell, connect
from broker.routes import Config
from broker.slots import Slots
from providers.base import Deletes, Exposure

config_option = click.option(
    "--config", "file", envvar="LETHE_CONFIG_FILE", type=EXISTING, help="Which lethe.toml; else the one that ships."
)
redis_option = click.option("--redis-url", envvar="LETHE_REDIS_URL", default="", help="Where processes share it.")

_STATES = {CircuitState.CLOSED: "green", CircuitState.HALF_OPEN: "yellow", CircuitState.OPEN: "bold red"}


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One provider; what nobody knows is absent: Redis does not answer, or the provider is a model of ours."""

    provider: str
    adapter: str
    pool: str
    exposure: Exposure
    retention_s: int
    deletes: Deletes
    operations: tuple[str, ...]
    slots: int | UnsetType = UNSET
    in_use: int | UnsetType = UNSET
    state: CircuitState | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    retry_in_s: float | UnsetType = UNSET


@click.command("providers")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON array instead of a table.")
@config_option
@redis_option
def providers_command(file: Path | None, *, redis_url: str, is_json: bool) -> None:
    """Show every provider: who sees and keeps what it is given, whether it gets work, and what runs there.

    Needs lethe.toml and Redis, and no secret.

    \b
    Example:  LETHE_REDIS_URL=redis://redis lethe providers
    """
    config = checked(load_config, file)
    shared = run(look(config, redis_url))
    rows = rows_of(config, shared)
    if is_json:
        click.echo(msgspec.json.encode(rows))
        return
    console = Console(highlight=False)
    # A file or a pipe has no width to fit into.
    console = console if console.is_terminal else Console(highlight=False, width=240)
    console.print(table_of(rows))
    if shared is None:
        say(unknown_because(redis_url))


Shared = tuple[Mapping[str, Standing], Mapping[str, int]]
"""How providers stand, and how many attempts run there."""


async def look(config: Config, redis_url: str) -> Shared | None:
    """Ask Redis; None where there is none that answers."""
    if not redis_url:
        return None
    try:
        redis = connect(redis_url)
    except (ValueError, RedisError):
        raise click.BadParameter("is no URL of a Redis server", param_hint="--redis-url") from None
    try:
        await Bell(redis).ping()
        names = list(config.outside)
        return await Breaker(redis).standings(names), await Slots(redis).in_use(names)
    except QueueUnavailable:
        return None
    finally:
        await redis.aclose(close_connection_pool=True)


def unknown_because(redis_url: str) -> str:
    """Say why nothing is known of how providers stand."""
    why = "Redis does not answer" if redis_url else "LETHE_REDIS_URL is not set"
    return f"{why}: how providers stand, and what runs there, is not known."


def rows_of(config: Config, shared: Shared | None) -> list[ProviderRow]:
    """Put together what is configured and what is known."""
    rows: list[ProviderRow] = []
    for name, provider in config.providers.items():
        row = ProviderRow(
            provider=name,
            adapter=provider.adapter,
            pool=provider.pool,
            exposure=provider.exposure,
            retention_s=provider.retention_s,
            deletes=provider.deletes,
            operations=tuple(sorted(provider.operations)),
        )
        if name in config.outside:
            row = msgspec.structs.replace(row, slots=provider.concurrency, **_known(name, shared))
        rows.append(row)
    return rows


def _known(name: str, shared: Shared | None) -> dict[str, object]:
    if shared is None:
        return {}
    standing, in_use = shared[0][name], shared[1][name]
    known: dict[str, object] = {"state": standing.state, "in_use": in_use}
    if standing.state is not CircuitState.CLOSED:
        known |= {"reason": standing.reason, "retry_in_s": round(standing.retry_in_s, 1)}
    return known


def table_of(rows: Sequence[ProviderRow]) -> Table:
    """Lay rows out for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("provider", "adapter", "pool", "state", "running", "exposure", "keeps", "deletes", "operations"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row.provider,
            row.adapter,
            row.pool,
            _state(row),
            _running(row),
            row.exposure,
            in_words(row.retention_s),
            row.deletes,
            ", ".join(row.operations),
        )
    return table


def _state(row: ProviderRow) -> str:
    if isinstance(row.state, UnsetType):
        return "unknown" if row.slots is not UNSET else "-"
    return f"[{_STATES[row.state]}]{state_in_words(row.state, row.reason, row.retry_in_s)}[/]"


def state_in_words(state: CircuitState, reason: str | UnsetType, retry_in_s: float | UnsetType) -> str:
    """Say whether a provider gets work, and else why not and until when."""
    if state is CircuitState.OPEN and not isinstance(retry_in_s, UnsetType):
        return f"open: {reason}, again in {in_words(retry_in_s)}"
    return f"half-open: {reason}, one attempt finds out" if state is CircuitState.HALF_OPEN else str(state)


def _running(row: ProviderRow) -> str:
    if row.slots is UNSET:
        return "-"
    return f"{'?' if row.in_use is UNSET else row.in_use}/{row.slots}"


def in_words(seconds: float) -> str:
    """Say a length of time as people do, in its largest whole unit."""
    for length_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length_s or seconds == length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds else "no time"

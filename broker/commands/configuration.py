"""`lethe config check | explain`: what lethe.toml means, before anything runs by it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from broker.adapter_setup import made_ready, setup_of
from broker.circuits import CircuitState
from broker.commands.endings import EXISTING, checked, pairs_of, run, say
from broker.commands.providers import Shared, config_option, look, redis_option, state_in_words, unknown_because
from broker.config import DEFAULT_FILE, load_config
from broker.operations import OPERATIONS
from broker.parameters import Text, Value, read_mapping, read_pairs
from broker.routes import Config
from broker.routing import Needs, Standing, Verdict, explain
from policies.registry import Policies, load_profile
from policies.toml_file import ConfigInvalid

_UNSEEN = "not-there"


@click.group("config")
def config_group() -> None:
    """Check lethe.toml, or have it explained.

    \b
    Example:  lethe config check lethe.toml --secrets
    """


@config_group.command("check")
@click.argument("file", type=EXISTING, required=False, envvar="LETHE_CONFIG_FILE")
@click.option("--secrets", is_flag=True, help="Also look whether every secret is there.")
def check_command(file: Path | None, *, secrets: bool) -> None:
    """Check FILE whole: its words, its routes, and what each adapter says of its own part. Nothing is sent anywhere.

    The exit code is 1 when anything is wrong. A reload of the same file then changes nothing.

    \b
    Example:  lethe config check lethe.toml --secrets
    """
    config = checked(load_config, file)
    faults = run(faults_of(config, with_secrets=secrets))
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    if faults:
        sys.exit(1)
    found = f"{len(config.providers)} providers, {len(config.routes)} routes"
    say(f"{file or DEFAULT_FILE.name} is valid: {found}{', every secret is there' if secrets else ''}.")
    for name in sorted(config.outside.keys() - config.routed_names):
        say(f"No route names {name}: nothing goes there.")


async def faults_of(config: Config, *, with_secrets: bool) -> list[ConfigInvalid]:
    """Make every adapter, as a worker does when it starts, and return what they find wrong."""
    found = [await _fault_of(config, name, with_secrets=with_secrets) for name in config.outside]
    return [fault for fault in found if fault is not None]


async def _fault_of(config: Config, name: str, *, with_secrets: bool) -> ConfigInvalid | None:
    try:
        setup = setup_of(config, name)
    except ConfigInvalid as exc:
        if with_secrets:
            return exc
        setup = setup_of(config, name, _UNSEEN)
    try:
        adapter = await made_ready(config, name, setup)
    except ConfigInvalid as exc:
        # Without its secret an adapter can judge its options and operations, and nothing else.
        is_sure = exc.reason.startswith((f"provider.{name}.options", f"provider.{name}.operation"))
        return exc if is_sure or setup.secret != _UNSEEN else None
    await adapter.aclose()
    return None


@config_group.command("explain")
@click.argument("operation", type=click.Choice(list(OPERATIONS)))
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the operation.")
@click.option("--pictures", type=click.IntRange(0), help="How many pictures; the fewest that the operation takes.")
@click.option("--megapixels", type=click.FloatRange(0, min_open=True), help="How large the largest picture is.")
@click.option("--profile", envvar="LETHE_PROFILE", default="minimal", show_default=True, help="Under which policies.")
@config_option
@redis_option
def explain_command(
    operation: str,
    *,
    parameters: tuple[str, ...],
    pictures: int | None,
    megapixels: float | None,
    profile: str,
    file: Path | None,
    redis_url: str,
) -> None:
    """Say which providers would be tried for a job, in which order, and why the others would not.

    Whether a worker is up is not looked at. The exit code is 1 when nobody could do the job.

    \b
    Example:  lethe config explain upscale -p scale=4 --megapixels 12
    """
    config = checked(load_config, file)
    needs = checked(needs_of, operation, pairs_of(parameters), pictures=pictures, megapixels=megapixels)
    policies = Policies(checked(load_profile, profile))
    shared = run(look(config, redis_url))
    verdicts = explain(
        config,
        needs,
        disclose=policies.disclose_clean,
        standings=standings_of(shared),
    )
    for line in lines_of(verdicts, shared):
        say(line)
    if shared is None:
        say(unknown_because(redis_url))
    if all(verdict.reason for verdict in verdicts):
        raise click.ClickException(f"nobody can run {operation} like this" if verdicts else f"{operation} has no route")


def needs_of(operation: str, words: Mapping[str, str], *, pictures: int | None, megapixels: float | None) -> Needs:
    """Read what a job would ask for; raise BadRequest. A text that is not given stands there empty."""
    known, plainest = OPERATIONS[operation], Needs.any_of(operation)
    texts = {name for name, parameter in known.parameters.items() if isinstance(parameter, Text)}
    given = read_pairs(known.parameters, [(name, word) for name, word in words.items() if name not in texts])
    given |= read_mapping(known.parameters, {name: word for name, word in words.items() if name in texts})
    count = plainest.pictures if pictures is None else pictures
    known.require_pictures(count)
    whole: dict[str, Value] = {**plainest.parameters, **given}
    pixels = None if megapixels is None else int(megapixels * 1_000_000)
    return Needs(operation=operation, parameters=whole, pictures=count, pixels=pixels)


def standings_of(shared: Shared | None) -> dict[str, Standing]:
    """Say what routing has to know of each provider's breaker."""
    if shared is None:
        return {}
    return {name: Standing(is_open=standing.state is CircuitState.OPEN) for name, standing in shared[0].items()}


def lines_of(verdicts: Sequence[Verdict], shared: Shared | None) -> list[str]:
    """Say in words what was judged: those that are tried with their number, then the others with the reason."""
    able = [verdict for verdict in verdicts if not verdict.reason]
    # A job draws the order within a tier by weight; here the heavier one stands first.
    able.sort(key=lambda verdict: (verdict.turn, verdict.tier, -verdict.weight))
    lines = [f"{n}. {_tried(verdict, shared)}" for n, verdict in enumerate(able, start=1)]
    return lines + [f"-  {v.provider}: {v.reason}" for v in verdicts if v.reason]


def _tried(verdict: Verdict, shared: Shared | None) -> str:
    words = f"{verdict.provider} (tier {verdict.tier + 1}, weight {verdict.weight})"
    standing = shared[0].get(verdict.provider) if shared else None
    if standing is None or standing.state is CircuitState.CLOSED:
        return words
    return f"{words} - {state_in_words(standing.state, standing.reason, standing.retry_in_s)}"

"""`lethe up | demo | broker | work | keyholder`: what runs until it is stopped."""

import shutil
import sys
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from broker.commands.endings import EXISTING, FOLDER, OUTPUT, become, check_settings, checked, run, say
from broker.config import load_config
from broker.crew import guarded_argv
from broker.demo.by_hand import curl_lines
from broker.demo.emulated import PROVIDERS
from broker.demo.journeys import JOURNEYS
from broker.demo.stage import PHOTO
from broker.demo.story import MAIN, Plan, demo
from broker.frames import Memory
from broker.keyholder import drain as drain_keyholder
from broker.pools import pools
from broker.up import DEFAULT_DIRECTORY, Stack, Stopped, up


@click.command("up")
@click.option("--directory", type=FOLDER, default=DEFAULT_DIRECTORY, show_default=True, help="Where it keeps its data.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Where to listen; any free port if not given.")
@click.option(
    "--config",
    "config_file",
    type=EXISTING,
    envvar="LETHE_CONFIG_FILE",
    help="Which lethe.toml; else the one that ships.  [env: LETHE_CONFIG_FILE]",
)
@click.option(
    "--profile",
    envvar="LETHE_PROFILE",
    help="Which policies: a shipped profile, or a path ending in .toml; else minimal.  [env: LETHE_PROFILE]",
)
def up_command(directory: Path, port: int, config_file: Path | None, profile: str | None) -> None:
    """Run everything on this machine until Ctrl-C: Postgres, Redis, keyholder, broker, and a worker for each pool.

    Providers in lethe.toml decide which pools there are: gpu for in-house models, relay for providers outside. A
    lethe.toml that changes is taken into use while it runs. Prints the curl lines that do the main job by hand. Data
    stays in the directory for the next start.

    \b
    Example:  lethe up --port 8080
              lethe up --config lethe.toml --profile profile.toml
    """
    given = {"LETHE_CONFIG_FILE": str(config_file.absolute())} if config_file else {}
    given |= {"LETHE_PROFILE": profile} if profile else {}
    run(up(directory, port=port, report=say, ready=_teach, given=given))


@click.command("demo")
@click.option("--directory", type=FOLDER, help="Where the stack keeps its data; a fresh one if not given.")
@click.option(
    "--output", type=OUTPUT, default=Path("lethe-demo-output.jpg"), show_default=True, help="Where the result goes."
)
@click.option(
    "--provider",
    type=click.Choice(sorted(PROVIDERS)),
    help="Have an emulated provider outside do it, and show what it was sent and what it keeps; in a checkout.",
)
@click.option(
    "--profile",
    type=click.Choice(sorted([MAIN, *JOURNEYS])),
    default=MAIN,
    show_default=True,
    help="Play what the user of this app does, under the app's profile; in a checkout.",
)
def demo_command(directory: Path | None, output: Path, provider: str | None, profile: str) -> None:
    """Start everything, upscale a photo, show that it is gone, verify the receipt, stop. Needs no key and no network.

    The exit code is 1 when anything that it checks does not hold.

    \b
    Example:  lethe demo --output cat.jpg
              lethe demo --provider replicate
              lethe demo --profile m2r
    """
    if provider and profile != MAIN:
        raise click.UsageError("--provider has the main job done outside, --profile plays another one: choose one")
    played = "" if profile == MAIN else profile
    plan = Plan(directory=directory, output=output.absolute(), provider=provider or "", profile=played)
    try:
        run(demo(plan, Console(highlight=False)))
    except Stopped:
        raise click.ClickException("stopped before the demo was done; nothing is left running") from None


@click.command("broker")
def broker_command() -> NoReturn:
    """Run the broker: the client API, and the operator's listener. Set up by LETHE_* variables (docs/settings.md).

    \b
    Example:  LETHE_POSTGRES_DSN=… LETHE_REDIS_URL=… LETHE_BLOBS_URL=s3://… lethe broker
    """
    check_settings()
    become(guarded_argv("-m", "broker"))


@click.command("work")
@click.argument("pool")
def work_command(pool: str) -> NoReturn:
    """Run one worker of POOL: gpu for in-house models, relay for providers outside.

    \b
    Example:  LETHE_SLOTS=2 lethe work gpu
    """
    file = check_settings().config_path
    known = pools(checked(load_config, file))
    if pool not in known:
        raise click.ClickException(
            f"no route of {file or 'the shipped lethe.toml'} leads to a provider in the pool {pool!r}; there is "
            f"{', '.join(known) or 'none'}. A provider outside runs in the pool relay where its table names no other; "
            "LETHE_CONFIG_FILE says which lethe.toml is read"
        )
    become(guarded_argv("-m", "workers", pool))


@click.command("keyholder")
@click.option("--socket", envvar="LETHE_KEYHOLDER_SOCKET", help="A path.  [env: LETHE_KEYHOLDER_SOCKET]")
@click.option("--listen", metavar="HOST:PORT", help="Where brokers and workers of other machines connect, with TLS.")
@click.option("--ca-file", envvar="LETHE_KEYHOLDER_CA_FILE", help="[env: LETHE_KEYHOLDER_CA_FILE]")
@click.option("--certificate-file", envvar="LETHE_KEYHOLDER_CERTIFICATE_FILE")
@click.option("--key-file", envvar="LETHE_KEYHOLDER_KEY_FILE")
@click.option("--capacity", type=click.IntRange(1), help="How many keys at most.")
@click.option("--max-ttl-s", type=click.IntRange(1), help="No key lives longer.")
@click.option("--memory", type=click.Choice([kind.value for kind in Memory]), help="Use this kind of memory or fail.")
@click.option("--drain", is_flag=True, help="Tell the one at --socket to take no new keys, and end when none is left.")
def keyholder_command(*, drain: bool, **given: str | int | None) -> None:
    """Run a keyholder: the one kind of process that holds keys, in memory alone. Losing it loses what it opens.

    To replace one, start a second, name both in LETHE_KEYHOLDER_SOCKET, and drain the first.

    \b
    Example:  lethe keyholder --socket /run/lethe/keyholder.sock
              lethe keyholder --listen 10.0.0.5:8443 --ca-file ca.pem --certificate-file keyholder.pem --key-file k.pem
              lethe keyholder --socket /run/lethe/keyholder.sock --drain
    """
    if drain:
        _drain(str(given["socket"] or ""))
        return
    if not given["socket"] and not given["listen"]:
        raise click.UsageError("say where it listens: --socket, or --listen")
    options = [
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    become((sys.executable, "-m", "broker.keyholder", *options))


def _drain(socket_path: str) -> None:
    try:
        drain_keyholder(socket_path)
    except OSError as exc:
        raise click.ClickException(f"no keyholder answers at {socket_path or 'no path'}: {exc.strerror}") from None
    say("It takes no new keys, and ends when the last one has.")


def _teach(stack: Stack) -> None:
    say(f"\nLethe is up at {stack.url} (metrics: {stack.operator_url}/metrics; logs: {stack.directory}/logs).")
    say("The main job by hand:\n")
    for what, line in curl_lines(stack.url, PHOTO):
        say(f"# {what}\n{line}")
    lethe = "lethe" if shutil.which("lethe") else f"{sys.executable} -m broker.cli"
    say(f"# verify the receipt, offline\n{lethe} verify receipt.txt --keys keys.json\n\nCtrl-C stops everything.")

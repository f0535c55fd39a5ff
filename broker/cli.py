"""The command line: what can be said, and in which words it is refused. What is done stands in other modules."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final, NoReturn, ParamSpec, TypeVar

import click
from asyncpg import InterfaceError, PostgresError
from rich.console import Console

from broker.children import StackError
from broker.client import Client, ClientError
from broker.config import load_config
from broker.demo.by_hand import curl_lines
from broker.demo.story import PHOTO, DemoFailed, Plan, demo
from broker.doctor.visit import examine, show
from broker.frames import Memory
from broker.guard import hardened
from broker.migrate import DatabaseTooOld, migrate
from broker.receipts import ReceiptInvalid
from broker.settings import Settings, SettingsInvalid, inherited_environment, load_settings
from broker.submit import Order, submit_as
from broker.up import DEFAULT_DIRECTORY, Stack, Stopped, guarded_argv, up
from broker.verify import KeysInvalid, check, read_keys, sentences
from broker.wheels import DataError
from policies.toml_file import ConfigInvalid

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_EXPECTED: Final = (
    ClientError,
    ConfigInvalid,
    DataError,
    DatabaseTooOld,
    DemoFailed,
    InterfaceError,
    KeysInvalid,
    OSError,
    PostgresError,
    SettingsInvalid,
    StackError,
)

_url = click.option(
    "--url", envvar="LETHE_URL", default=DEFAULT_URL, show_default=True, help="Where the broker answers."
)
_output = click.Path(dir_okay=False, path_type=Path)
_existing = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(file_okay=False, path_type=Path)

P = ParamSpec("P")
T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Lethe takes photos in, has them worked on, and forgets them: no upload outlives its job.

    \b
    Try it:          lethe demo
    Leave it up:     lethe up
    Something wrong: lethe doctor
    """


@main.command("up")
@click.option(
    "--directory", type=_folder, default=DEFAULT_DIRECTORY, show_default=True, help="Where it keeps its data."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Where to listen; any free port if not given.")
def up_command(directory: Path, port: int) -> None:
    """Run everything on this machine until Ctrl-C: Postgres, Redis, keyholder, broker and gpu worker.

    Prints the curl lines that do the main job by hand. Data stays in the directory for the next start.

    \b
    Example:  lethe up --port 8080
    """
    _run(up(directory, port=port, report=_say, ready=_teach))


@main.command("demo")
@click.option("--directory", type=_folder, help="Where the stack keeps its data; a fresh one if not given.")
@click.option(
    "--output", type=_output, default=Path("lethe-demo-output.jpg"), show_default=True, help="Where the result goes."
)
def demo_command(directory: Path | None, output: Path) -> None:
    """Start everything, upscale a photo, show that it is gone, verify the receipt, stop.

    The exit code is 1 when anything that it checks does not hold.

    \b
    Example:  lethe demo --output cat.jpg
    """
    try:
        _run(demo(Plan(directory=directory, output=output.absolute()), Console(highlight=False)))
    except Stopped:
        raise click.ClickException("stopped before the demo was done; nothing is left running") from None


@main.command("broker")
def broker_command() -> NoReturn:
    """Run the broker: the client API, and the operator's listener. Set up by LETHE_* variables (docs/settings.md).

    \b
    Example:  LETHE_POSTGRES_DSN=… LETHE_REDIS_URL=… LETHE_BLOBS_URL=s3://… lethe broker
    """
    _check_settings()
    _become(guarded_argv("-m", "broker"))


@main.command("work")
@click.argument("pool")
def work_command(pool: str) -> NoReturn:
    """Run one worker of POOL: gpu for in-house models, relay for providers outside.

    \b
    Example:  LETHE_SLOTS=2 lethe work gpu
    """
    file = _check_settings().config_file
    pools = sorted({found.pool for found in _checked(load_config, Path(file) if file else None).providers.values()})
    if pool not in pools:
        raise click.ClickException(f"no provider in lethe.toml runs in the pool {pool!r}; there is {', '.join(pools)}")
    _become(guarded_argv("-m", "workers", pool))


@main.command("keyholder")
@click.option(
    "--socket",
    envvar="LETHE_KEYHOLDER_SOCKET",
    required=True,
    help="Where clients connect.  [env: LETHE_KEYHOLDER_SOCKET]",
)
@click.option("--capacity", type=click.IntRange(1), help="How many keys at most.")
@click.option("--max-ttl-s", type=click.IntRange(1), help="No key lives longer.")
@click.option("--memory", type=click.Choice([kind.value for kind in Memory]), help="Use this kind of memory or fail.")
def keyholder_command(socket: str, capacity: int | None, max_ttl_s: int | None, memory: str | None) -> NoReturn:
    """Run the keyholder: the one process that holds keys, in memory alone. Losing it loses every upload under way.

    \b
    Example:  lethe keyholder --socket /run/lethe/keyholder.sock
    """
    given = {"--capacity": capacity, "--max-ttl-s": max_ttl_s, "--memory": memory}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    _become((sys.executable, "-m", "broker.keyholder", "--socket", socket, *options))


@main.command("submit")
@click.argument("file", type=_existing)
@click.option("--operation", default="upscale", show_default=True, help="What to do with it.")
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the operation.")
@click.option("--output", type=_output, required=True, help="Where the result goes.")
@click.option("--receipt", type=_output, help="Where the receipt goes.")
@click.option("--keep", is_flag=True, help="Leave the result on the server until its time is up.")
@click.option(
    "--token", envvar="LETHE_TOKEN", default="", help="Be this user; a new one if not given.  [env: LETHE_TOKEN]"
)
@_url
def submit_command(
    file: Path,
    *,
    operation: str,
    parameters: tuple[str, ...],
    output: Path,
    receipt: Path | None,
    keep: bool,
    token: str,
    url: str,
) -> None:
    """Send one picture, wait, save the result, and have it deleted on the server.

    \b
    Example:  lethe submit photo.jpg --operation upscale -p scale=2 --output large.jpg --receipt receipt.txt
    """
    order = Order(file=file, operation=operation, parameters=_pairs(parameters), output=output, receipt=receipt)
    _run(submit_as(order, url=url, token=token, keep=keep, console=Console(highlight=False)))


@main.command("verify")
@click.argument("file", type=_existing)
@click.option("--keys", type=_existing, help="A saved answer of GET /v1/privacy/keys.")
@click.option("--url", envvar="LETHE_URL", help="Ask this broker for its keys instead; the receipt is not sent.")
def verify_command(file: Path, keys: Path | None, url: str | None) -> None:
    """Check a receipt, offline where there is a file with keys, and say in words what it states.

    The exit code is 1 when the receipt is not valid.

    \b
    Example:  lethe verify receipt.txt --keys keys.json
    """
    if keys is None and url is None:
        raise click.UsageError("name the keys: --keys FILE (offline), or --url of the broker that signed")
    known = _checked(read_keys, keys.read_text() if keys else _run(_ask_for_keys(url or "")))
    try:
        receipt = check(file.read_text(), known)
    except (ReceiptInvalid, UnicodeDecodeError) as exc:
        click.echo(f"NOT VALID: {exc}", err=True)
        sys.exit(1)
    click.echo("Valid. The server that holds the signing key states:")
    for sentence in sentences(receipt):
        click.echo(sentence)


@main.command("migrate")
@click.option("--dsn", envvar="LETHE_POSTGRES_DSN", required=True, help="Which database.  [env: LETHE_POSTGRES_DSN]")
def migrate_command(dsn: str) -> None:
    """Bring the database to the newest version; safe to run again, and while the previous release works.

    \b
    Example:  LETHE_POSTGRES_DSN=postgresql://lethe@db/lethe lethe migrate
    """
    _say("Looking at the database …")
    applied = _run(migrate(dsn))
    for number in applied:
        _say(f"applied migration {number:04}")
    _say(
        "The database is at its newest version." if applied else "Nothing to do: the database is at its newest version."
    )


@main.command("doctor")
@click.option("--url", help="Examine a deployment from outside, as a phone sees it.")
@click.option("--token", envvar="LETHE_TOKEN", default="", help="With --url: be this user; a new one if not given.")
def doctor_command(url: str | None, token: str) -> None:
    """Say what is wrong with this machine, its settings and its stores, and how to mend it.

    With --url it looks at a running deployment from outside instead, and finds a proxy that holds bodies back.
    The exit code is 1 when there is a problem.

    \b
    Example:  lethe doctor --url https://lethe.example.org
    """
    findings = _run(examine(url=url, token=token))
    problems = show(findings, Console(highlight=False))
    _say("No problem found." if not problems else f"{problems} to mend.")
    sys.exit(1 if problems else 0)


def _teach(stack: Stack) -> None:
    _say(f"\nLethe is up at {stack.url} (metrics: {stack.operator_url}/metrics; logs: {stack.directory}/logs).")
    _say("The main job by hand:\n")
    for what, line in curl_lines(stack.url, PHOTO):
        _say(f"# {what}\n{line}")
    lethe = "lethe" if shutil.which("lethe") else f"{sys.executable} -m broker.cli"
    _say(f"# verify the receipt, offline\n{lethe} verify receipt.txt --keys keys.json\n\nCtrl-C stops everything.")


async def _ask_for_keys(url: str) -> str:
    async with Client(url) as client:
        return await client.receipt_keys()


def _become(argv: Sequence[str]) -> NoReturn:
    """Go on as that process: same pid, hardened from its first byte on."""
    os.execve(argv[0], list(argv), hardened(inherited_environment()))  # noqa: S606 -- every argv is ours


def _check_settings() -> Settings:
    return _checked(load_settings)


def _checked(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it; what an operator can mend becomes one sentence instead of a traceback."""
    try:
        return step(*args, **kwargs)
    except ExceptionGroup as group:
        first = group.exceptions[0]
        if isinstance(first, _EXPECTED):
            raise click.ClickException(str(first)) from None
        raise
    except _EXPECTED as exc:
        raise click.ClickException(str(exc)) from None


def _run(work: Coroutine[object, object, T]) -> T:
    return _checked(asyncio.run, work)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter("a parameter is NAME=VALUE, for example -p scale=2")
    return {name: value for name, _, value in pairs}


def _say(words: str) -> None:
    click.echo(words)


if __name__ == "__main__":
    main()

"""What commands share: how they run, what their arguments are, and how what an operator can mend is said."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final, NoReturn, ParamSpec, TypeVar

import click
from asyncpg import InterfaceError, PostgresError

from broker.children import StackError
from broker.client import ClientError
from broker.demo.story import DemoFailed
from broker.dumping import DumpError
from broker.errors import BadRequest, Unavailable
from broker.guard import hardened
from broker.migrate import DatabaseTooOld
from broker.settings import Settings, SettingsInvalid, inherited_environment, load_settings
from broker.verify import KeysInvalid
from broker.wheels import DataError
from policies.toml_file import ConfigInvalid

_EXPECTED: Final = (
    BadRequest,
    ClientError,
    ConfigInvalid,
    DataError,
    DatabaseTooOld,
    DemoFailed,
    DumpError,
    InterfaceError,
    KeysInvalid,
    OSError,
    PostgresError,
    SettingsInvalid,
    StackError,
    Unavailable,
)

OUTPUT: Final = click.Path(dir_okay=False, path_type=Path)
EXISTING: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER: Final = click.Path(file_okay=False, path_type=Path)

P = ParamSpec("P")
T = TypeVar("T")


def check_settings() -> Settings:
    """Read the settings."""
    return checked(load_settings)


def checked(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
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


def run(work: Coroutine[object, object, T]) -> T:
    """Run it to its end."""
    return checked(asyncio.run, work)


def become(argv: Sequence[str]) -> NoReturn:
    """Go on as that process: same pid, hardened from its first byte on."""
    os.execve(argv[0], list(argv), hardened(inherited_environment()))  # noqa: S606 -- every argv is ours


def pairs_of(words: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE words."""
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter("a parameter is NAME=VALUE, for example -p scale=2")
    return {name: value for name, _, value in pairs}


def say(words: str) -> None:
    """Print a line."""
    click.echo(words)

"""`lethe profile show | diff | check`: what a profile sets, and whether it can be used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from broker.agreement import require_agreement
from broker.commands.endings import checked, say
from broker.commands.providers import config_option
from broker.config import load_config
from policies.registry import Policies, Profile, load_profile, profile_names

NAME: Final = "NAME|FILE.toml"
NOT_THERE: Final = "–"


@click.group("profile")
def profile_group() -> None:
    """Show, compare and check profiles: the named sets of policies that a deployment keeps.

    \b
    Example:  lethe profile show
              lethe profile diff minimal ours.toml
              lethe profile check ours.toml
    """


@profile_group.command("show")
@click.argument("name", metavar=NAME, required=False)
def show_command(name: str | None) -> None:
    """Show every setting of a profile, those that its file leaves out too; without a name, which profiles there are.

    \b
    Example:  lethe profile show minimal
    """
    if name is None:
        for known in profile_names():
            say(known)
        return
    table = Table("setting", "value", box=None)
    for setting, value in settings_of(checked(load_profile, name)).items():
        table.add_row(setting, value)
    Console(highlight=False).print(table)


@profile_group.command("diff")
@click.argument("one", metavar=NAME)
@click.argument("other", metavar=NAME)
def diff_command(one: str, other: str) -> None:
    """Show the settings in which two profiles differ. The exit code is 0 either way.

    \b
    Example:  lethe profile diff minimal ours.toml
    """
    ours, theirs = settings_of(checked(load_profile, one)), settings_of(checked(load_profile, other))
    table = Table("setting", one, other, box=None)
    for setting in [*ours, *(name for name in theirs if name not in ours)]:
        pair = ours.get(setting, NOT_THERE), theirs.get(setting, NOT_THERE)
        if pair[0] != pair[1]:
            table.add_row(setting, *pair)
    if table.row_count:
        Console(highlight=False).print(table)
    else:
        say(f"{one} and {other} set the same.")


@profile_group.command("check")
@click.argument("name", metavar=NAME)
@config_option
def check_command(name: str, file: Path | None) -> None:
    """Check a profile whole, and that lethe.toml leads every operation to a provider that the profile allows.

    Brokers and workers check the same when they start, and refuse to.

    \b
    Example:  lethe profile check ours.toml --config lethe.toml
    """
    profile = checked(load_profile, name)
    config = checked(load_config, file)
    checked(require_agreement, config, Policies(profile))
    say(f"{name} is valid, and every operation of lethe.toml has a provider that it allows.")


def settings_of(profile: Profile) -> dict[str, str]:
    """Name every setting by its place in the file, with its value as TOML has it."""
    return dict(_flat(msgspec.to_builtins(profile), ""))


def _flat(tree: object, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for name, value in msgspec.convert(tree, dict[str, object]).items():
            yield from _flat(value, f"{at}.{name}" if at else name)
    else:
        yield at, msgspec.json.encode(tree).decode()

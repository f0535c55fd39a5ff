"""`lethe backup | restore`: Postgres in a file and back, without anything that was erased meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from broker.backup import Place, back_up, restore
from broker.commands.endings import EXISTING, FOLDER, OUTPUT, run, say

F = TypeVar("F", bound=Callable[..., object])


def _place_options(command: F) -> F:
    dsn = click.option("--dsn", envvar="LETHE_POSTGRES_DSN", required=True, help="[env: LETHE_POSTGRES_DSN]")
    blobs_url = click.option("--blobs-url", envvar="LETHE_BLOBS_URL", required=True, help="[env: LETHE_BLOBS_URL]")
    data_dir = click.option(
        "--data-dir",
        type=FOLDER,
        envvar="LETHE_DATA_DIR",
        default=Path(".lethe/data"),
        help="Where the embedded programs lie.  [env: LETHE_DATA_DIR]",
    )
    return dsn(blobs_url(data_dir(command)))


@click.command("backup")
@click.argument("file", type=OUTPUT)
@_place_options
def backup_command(file: Path, *, dsn: str, blobs_url: str, data_dir: Path) -> None:
    """Write everything that Postgres holds to FILE, while Lethe runs. No upload, output or key is in it.

    \b
    Example:  lethe backup lethe-$(date +%F).dump
    """
    digest = run(back_up(Place(dsn=dsn, blobs_url=blobs_url, data_directory=data_dir), file, say))
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}, known to the blob store.")


@click.command("restore")
@click.argument("file", type=EXISTING)
@_place_options
def restore_command(file: Path, *, dsn: str, blobs_url: str, data_dir: Path) -> None:
    """Load FILE into an empty database; stop brokers and workers before. Who was erased since is erased again.

    \b
    Example:  lethe restore lethe-2026-11-26.dump
    """
    erased = run(restore(Place(dsn=dsn, blobs_url=blobs_url, data_directory=data_dir), file, say))
    say(f"Restored. {erased} users were erased since: their tokens open nothing, and brokers erase what came back.")

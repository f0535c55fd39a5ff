"""Runs pg_dump and pg_restore: those on PATH, or from the wheel, whichever are new enough for the server."""

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from broker.settings import inherited_environment
from broker.wheels import DataMissing, postgres_programs

LOOK_EVERY_S = 1.0
_PASSED_ON = ("PATH", "HOME", "PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY")

Report = Callable[[str], None]


class DumpError(Exception):
    """A backup cannot be made or restored; the message says what to do."""


async def find_program(name: str, *, major: int, data_directory: Path) -> Path:
    """Return a program that fits a server of this major version; raise DumpError."""
    for path in _candidates(name, data_directory):
        process = await asyncio.create_subprocess_exec(path, "--version", stdout=PIPE, stderr=DEVNULL)
        said, _ = await process.communicate()
        version = re.search(rb"\s(\d+)", said)
        if version and int(version[1]) >= major:
            return path
    raise DumpError(
        f"no {name} of PostgreSQL {major} or newer is on PATH or in {data_directory}; install the client programs of "
        "that version, or run `make data`"
    )


async def run_program(program: Path, dsn: str, *arguments: str, watched: Path | None, report: Report) -> None:
    """Run it on a database to its end, telling how large the watched file is; raise DumpError with its first words."""
    place, environment = _without_password(dsn)
    process = await asyncio.create_subprocess_exec(
        program, f"--dbname={place}", *arguments, stdout=DEVNULL, stderr=PIPE, env=environment
    )
    telling = asyncio.create_task(_tell(watched, report))
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    finally:
        telling.cancel()
    if process.returncode != 0:
        first = errors.decode(errors="replace").strip().splitlines()[:1]
        raise DumpError(f"{program.name} failed: {first[0] if first else f'exit code {process.returncode}'}")


async def _tell(watched: Path | None, report: Report) -> None:
    while watched is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        if watched.exists():
            report(f"  {watched.stat().st_size / 1e6:.1f} MB …")


def _candidates(name: str, data_directory: Path) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    try:
        ours = postgres_programs(data_directory) / name
    except DataMissing:
        return
    if ours.exists():
        yield ours


def _without_password(dsn: str) -> tuple[str, dict[str, str]]:
    """Take the password out of what other users of this machine can read: the command line."""
    environment = {name: value for name, value in inherited_environment().items() if name in _PASSED_ON}
    parts = urlsplit(dsn)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if colon:
        environment["PGPASSWORD"] = unquote(password)
    return urlunsplit(parts._replace(netloc=f"{name}{at}{host}")), environment

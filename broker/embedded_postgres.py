"""Starts a private Postgres on a unix socket from the binaries of a wheel; never on a port, never with `trust`.

The server's whole world is its working directory (`-D /proc/self/cwd`, relative socket): as root it runs as an
unprivileged user who need not be able to walk down to the data, so no parent directory is opened up for it.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from broker.children import Child, Identity, StackError, open_log, spawn
from broker.prctl import die_with_parent

ROLE: Final = "lethe"
SOCKET_NAME: Final = ".s.PGSQL.5432"
_UNPRIVILEGED: Final = "nobody"
_CACHE: Final = Path("/var/cache/lethe")
# The server gets nothing of our environment: neither secrets nor a locale that this machine may lack.
_ENVIRONMENT: Final = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
_HERE: Final = "/proc/self/cwd"

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "io_method": "sync",  # no extra I/O processes for a database that fits in memory
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "jit": "off",
    # What users typed must not reach a log: no statement, no parameter, no DETAIL, no ERROR line.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}

_CREATE: Final = """\
CREATE ROLE {role} LOGIN CREATEDB;
CREATE DATABASE {role} OWNER {role};
COPY (SELECT 'local all {role} peer map=lethe') TO '{here}/pg_hba.conf';
COPY (SELECT 'lethe "{client}" {role}') TO '{here}/pg_ident.conf';
"""


class PostgresUnusable(StackError):
    """Postgres cannot run here; the message says what to do."""


class Postgres:
    """One data directory and, once started, the server on it."""

    def __init__(self, directory: Path, *, programs: Path, log: Path) -> None:
        self._directory = directory
        self._programs = programs
        self._log = log
        self._identity: Identity | None = None

    def start(self, *, pass_fds: tuple[int, ...]) -> Child:
        """Create the database at first start, then run the server; is_ready() says when it answers."""
        self._identity = _identity(self._directory)
        self._programs = _reachable(self._programs) if self._identity else self._programs
        if not self._directory.exists():
            self._create()
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return spawn(
            [self._programs / "postgres", "-D", _HERE, *settings],
            name="postgres",
            env=_ENVIRONMENT,
            log=self._log,
            cwd=self._directory,
            # An immediate shutdown: backends end and the socket goes, the write-ahead log does the rest at next start.
            death_signal=signal.SIGQUIT,
            identity=self._identity,
            pass_fds=pass_fds,
        )

    def is_ready(self, child: Child) -> bool:
        """Tell by the server's own word in its pid file, of which line 1 is its pid and line 8 its state."""
        try:
            lines = (self._directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(child.pid) and lines[7].strip() == "ready"

    def _create(self) -> None:
        """Make the cluster beside its place, then rename it: a start cut short leaves nothing that looks whole."""
        client = _own_name()
        fresh = self._directory.with_name(f"{self._directory.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._identity:
            os.chown(fresh, self._identity.uid, self._identity.gid)
        # Synced once at the end: file by file it takes twice as long, and many times that on a busy disk.
        self._run(fresh, ["initdb", "-D", _HERE, "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=reject", "-N"])
        # Written by the server itself: root writes no file in a directory of the unprivileged user.
        sql = _CREATE.format(role=ROLE, here=_HERE, client=client.replace('"', ""))
        self._run(fresh, ["postgres", "--single", "-F", "-D", _HERE, "-c", "log_checkpoints=off", "postgres"], sql)
        self._run(fresh, ["initdb", "-D", _HERE, "--sync-only", "--sync-method=syncfs"])
        fresh.rename(self._directory)
        _sync(self._directory.parent)

    def _run(self, directory: Path, command: list[str], text: str = "") -> None:
        with open_log(self._log) as log:
            result = subprocess.run(  # noqa: S603 -- every argv is ours
                [self._programs / command[0], *command[1:]],
                check=False,
                cwd=directory,
                env=_ENVIRONMENT,
                input=text.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(signal.SIGKILL),
                user=self._identity.uid if self._identity else None,
                group=self._identity.gid if self._identity else None,
                extra_groups=[] if self._identity else None,
            )
        if result.returncode != 0:
            raise PostgresUnusable(f"{command[0]} failed with exit code {result.returncode}; see {self._log}")


def _identity(directory: Path) -> Identity | None:
    """Return as whom the server runs when we are root (it refuses to be root): the owner of its data, else nobody."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwuid(directory.stat().st_uid) if directory.exists() else pwd.getpwnam(_UNPRIVILEGED)
    except KeyError as error:
        raise PostgresUnusable(f"no user for Postgres: {error}; run Lethe as an ordinary user") from error
    return Identity(uid=user.pw_uid, gid=user.pw_gid)


def _sync(directory: Path) -> None:
    """Make a rename in the directory survive a crash of the machine."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _own_name() -> str:
    """Return the name by which the server knows us: peer authentication goes by names."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise PostgresUnusable(f"user id {os.geteuid()} has no name on this machine; Postgres needs one") from error


def _reachable(programs: Path) -> Path:
    """Return the programs where an unprivileged user can run them: here, or copied once to a cache that root owns."""
    if all(parent.stat().st_mode & 0o001 for parent in [programs.resolve(), *programs.resolve().parents]):
        return programs
    root = programs.parents[2]
    with (programs / "postgres").open("rb") as binary:
        copy = _CACHE / f"postgres-{hashlib.file_digest(binary, 'sha256').hexdigest()[:16]}"
    if not copy.exists():
        _copy(root, copy)
    return copy / programs.relative_to(root)


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="copy-", dir=target.parent))
        shutil.copytree(source, scratch / "postgres")
        (scratch / "postgres").rename(target)
        scratch.rmdir()
    except OSError as error:
        raise PostgresUnusable(
            f"user {_UNPRIVILEGED} cannot reach {source}, nor can it be copied to {target.parent} ({error}): "
            "let LETHE_DATA_DIR name a folder that every user can enter"
        ) from error

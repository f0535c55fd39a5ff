"""Every surface of one embedded stack, by the names that the report uses."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from broker.forensics.loopback import Loopback
from broker.forensics.metrics import Metrics
from broker.forensics.processes import DeletedFiles, Memory, descendants
from broker.forensics.stage import Stage
from broker.forensics.stores import (
    BY_THE_LOG,
    PAST_THE_LOG,
    PostgresFiles,
    PostgresRows,
    PostgresWal,
    RedisHeap,
    RedisValues,
)
from broker.forensics.surfaces import Files, Surface

MEMORY: Final = "process memory"
LOOPBACK: Final = "loopback capture"

LEFT_OUT: Final = [
    "the process that looks: it is the phone and the provider as well, and holds every marker",
    "files outside the stack's directory and the temporary directories",
    "files in the temporary directories that have not changed since the run began",
    "free blocks of the file system, swap, kernel memory and video memory",
    "compressed streams beyond their first 4 MiB, and encodings inside encodings other than PNG in base64",
]
"""What no surface covers; printed with every report."""


def surfaces_of(stage: Stage, *, since_s: float) -> list[Surface]:
    """Make them all."""
    top = stage.directory

    def dsn() -> str:
        return stage.stack.settings.postgres_dsn

    def url() -> str:
        return stage.stack.settings.redis_url

    def redis() -> Iterable[int]:
        return [stage.stack.pids["redis"]]

    def others() -> Iterable[int]:
        return descendants(os.getpid()) - set(redis())

    postgres, wal = top / "postgres", top / "postgres" / "pg_wal"
    return [
        Files("Redis directory", top / "run"),
        RedisValues("Redis values", url),
        RedisHeap("Redis heap", redis, url),
        PostgresFiles(
            "Postgres data", postgres, wanted=lambda path: wal not in path.parents, dsn=dsn, way=PAST_THE_LOG
        ),
        PostgresWal("Postgres WAL", wal, wanted=lambda _: True, dsn=dsn, way=BY_THE_LOG),
        PostgresRows("Postgres rows", dsn),
        Files("server logs", top / "logs", wanted=_is_servers_log, log="postgres.log"),
        Files("blob store", top / "blobs"),
        Files("other files of the stack", top, wanted=lambda path: _is_other(path, top)),
        Files("temporary directories", *_temporary(), since_s=since_s, wanted=lambda path: top not in path.parents),
        Memory(MEMORY, others),
        DeletedFiles("deleted files that are open", others),
        Files("app logs", top / "logs", wanted=lambda path: not _is_servers_log(path), log="broker.log"),
        Metrics("metrics", stage.metrics_urls),
        Loopback(LOOPBACK),
    ]


def _is_servers_log(path: Path) -> bool:
    return path.name in {"postgres.log", "redis.log"}


def _is_other(path: Path, top: Path) -> bool:
    return path.relative_to(top).parts[0] not in {"postgres", "run", "logs", "blobs"}


def _temporary() -> list[Path]:
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]  # noqa: S108 -- read
    found: list[Path] = []
    for path in (one.resolve() for one in candidates if one.is_dir()):
        if path not in found and not any(other in path.parents for other in found):
            found.append(path)
    return found

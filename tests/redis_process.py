"""Redis with everything written down that Redis can write down, and replicas of it."""

import socket
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import redis

from broker.wheels import redis_server
from tests.stack import DATA


class RedisProcess:
    """Append-only file on every write, snapshots, and, where it follows another, the same again."""

    def __init__(self, folder: Path, *, follows: "RedisProcess | None" = None) -> None:
        folder.mkdir()
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--save", "1 1", "--rdbcompression", "no"]
        leader = ["--replicaof", "127.0.0.1", str(follows.port)] if follows else []
        command = [redis_server(DATA), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        with (folder / "log").open("ab") as log:
            self.running = subprocess.Popen([*command, *kept, *leader], stdout=log, stderr=log)
        self.client = cast("Any", redis).Redis(port=self.port)
        self._wait(self.client.ping)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def follows_closely(self, leader: "RedisProcess") -> None:
        """Wait until everything that the leader has is here."""
        self._wait(lambda: self.client.info("replication").get("master_link_status") == "up")
        leader.client.wait(1, 10_000)

    def promote(self) -> None:
        """Go on alone, as after a failover."""
        self.client.replicaof("NO", "ONE")

    def snapshot(self) -> None:
        """Write everything to dump.rdb now."""
        self._wait(lambda: not self.client.info("persistence")["rdb_bgsave_in_progress"])
        self.client.save()

    def files(self, pattern: str) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.rglob(pattern) if path.is_file()]

    def stop(self) -> None:
        self.client.close()
        self.running.kill()
        self.running.wait(10)

    def _wait(self, predicate: Any) -> None:
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            assert self.running.poll() is None, (self.folder / "log").read_text()
            try:
                if predicate():
                    return
            except redis.ConnectionError:
                pass
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

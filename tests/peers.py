"""
Real peers: other people's servers and clients, in `.peers`, an interpreter of their own that `make peers-ready` fills.

Their dependencies contradict ours, and nothing of Lethe may come to lean on them.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from broker.prctl import die_with_parent
from providers.calls import trust

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".peers" / "bin" / "python"
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 10.0


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers: where, and the file that its output goes to."""

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """Kill -9 of the whole group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOPPED_WITHIN_S)


def free_port() -> int:
    """Name a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_200(reply: httpx.Response) -> bool:
    """Whether a health answer says yes by its status."""
    return reply.status_code == 200


@contextmanager
def running_peer(
    arguments: list[str],
    *,
    port: int,
    health: str,
    folder: Path,
    is_ready: Callable[[httpx.Response], bool] = is_200,
    environment: Mapping[str, str] | None = None,
) -> Generator[Peer]:
    """
    Start `python ARGUMENTS` in a folder, wait until its health path satisfies `is_ready`, lend it, and stop its group.

    The server has to listen on 127.0.0.1:`port`, however it is told to. It gets a plain environment.
    """
    assert PEERS_PYTHON.exists(), "run `make peers-ready`"
    log = folder / f"peer-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PEERS_PYTHON, *arguments],
            cwd=folder,
            env=_environment(folder, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
        )
    peer = Peer(url=f"http://127.0.0.1:{port}", log=log, process=process)
    try:
        _wait_until_ready(peer, health, is_ready)
        yield peer
    finally:
        _stop(process)


def _environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    path = f"{PEERS_PYTHON.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), **extra}


def _wait_until_ready(peer: Peer, health: str, is_ready: Callable[[httpx.Response], bool]) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    with httpx.Client(base_url=peer.url, verify=trust(), trust_env=False, timeout=5.0) as client:
        while not _is_up(client, health, is_ready):
            text = peer.log.read_text(errors="replace")
            assert peer.process.poll() is None, f"the peer ended:\n{text}"
            assert time.monotonic() < deadline_s, f"the peer is not ready:\n{text}"
            time.sleep(0.05)


def _is_up(client: httpx.Client, health: str, is_ready: Callable[[httpx.Response], bool]) -> bool:
    try:
        return is_ready(client.get(health))
    except httpx.HTTPError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPPED_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOPPED_WITHIN_S)

"""Who wrote a file, and whether it may be written: what the watch over a whole test run decides by."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.filewatch.fanotify import Fanotify
from tests.filewatch.recorder import Weak
from tests.filewatch.rules import Rules, allowed, is_upload
from tests.filewatch.writers import Look, Role, Writers, role_of
from tests.stack import upload_bytes

TESTS = "/basetemp"
CANARY = (
    b"canary" + 12 * b"0a"
)  # as tests/checks.py draws one for each process: a test's name has to be the same in all
JPEG = b"\xff\xd8\xff\xe0"
needs_fanotify = pytest.mark.skipif(os.geteuid() != 0, reason="only root may watch whole file systems")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("python -m broker", Role.BROKER),
        ("python -m workers gpu", Role.WORKER),
        ("python -m tests.crash.process relay", Role.WORKER),
        ("python -m tests.crash.process keyholder", Role.KEYHOLDER),
        ("python -m workers.images.nursery 3 77", Role.NURSERY),
        ("python -m broker.keyholder --socket k.sock", Role.KEYHOLDER),
        ("python -m broker.guard python -m broker", Role.GUARD),
        ("python -m broker.cli up", Role.COMMAND),
        ("python -m broker.migrate", Role.COMMAND),
        ("/usr/bin/python /usr/bin/lethe submit a.jpg", Role.COMMAND),
        ("/data/bin/postgres -D data", Role.POSTGRES),
        ("postgres: checkpointer", Role.POSTGRES),
        ("redis-server unixsocket:/run/redis.sock", Role.REDIS),
        ("python -m pytest -q", Role.PYTEST),
        ("python -u -c import\x1fsys;exec(eval(sys.stdin.readline()))", Role.PYTEST),
        ("python -m mlserver start", Role.OTHER),
        ("pip install", Role.OTHER),
        ("", Role.UNKNOWN),
    ],
)
def test_a_command_tells_what_a_process_is(command: str, role: Role) -> None:
    """Lethe's own by their modules, servers by their program or title, the rest is somebody else's."""
    assert role_of([word.replace("\x1f", " ") for word in command.split(" ") if word]) is role


@pytest.mark.parametrize(
    ("role", "path", "head", "expected"),
    [
        (Role.BROKER, f"{TESTS}/t0/blobs/00ff", b"ciphertext", True),
        (Role.BROKER, f"{TESTS}/t0/blobs/00ff (deleted)", b"ciphertext", True),
        (Role.BROKER, f"{TESTS}/t0/blobs/00ff", JPEG, False),
        (Role.WORKER, f"{TESTS}/t0/blobs/00ff", CANARY, False),
        (Role.BROKER, f"{TESTS}/t0/receipt.key.0a1b2c3d (deleted)", b"", True),
        (Role.BROKER, f"{TESTS}/t0/spool", b"", False),
        (Role.BROKER, "/tmp/#1234 (deleted)", b"", False),
        (Role.WORKER, "/dev/shm/pixels", b"", False),
        (Role.WORKER, "/srv/core", b"", False),
        (Role.POSTGRES, f"{TESTS}/t0/lethe.dump.part", b"", True),
        (Role.POSTGRES, f"{TESTS}/t0/lethe.dump", b"", True),  # renamed before it was looked at
        (Role.POSTGRES, "/tmp/lethe.dump", b"", False),
        (Role.NURSERY, f"{TESTS}/t0/blobs/00ff", b"", False),
        (Role.KEYHOLDER, f"{TESTS}/t0/k.sock.lock", b"", True),
        (Role.KEYHOLDER, f"{TESTS}/t0/keys", b"", False),
        (Role.GUARD, f"{TESTS}/t0/broker-1.log", b"", True),
        (Role.COMMAND, f"{TESTS}/t0/large.jpg", JPEG, True),
        (Role.COMMAND, "/tmp/tmp0a1b2c3d", b"", False),
        (Role.POSTGRES, f"{TESTS}/servers0/stack/postgres/base/1/2", b"", True),
        (Role.POSTGRES, "/tmp/pgsql_tmp1.0", b"", False),
        (Role.REDIS, f"{TESTS}/servers0/stack/run/dump.rdb", b"", True),
        (Role.REDIS, "/tmp/temp-1.rdb", b"", False),
        (Role.PYTEST, f"{TESTS}/t0/photo.jpg", JPEG, True),
        (Role.PYTEST, f"{TESTS}/t0/blobs/00ff", JPEG, False),
        (Role.PYTEST, "/tmp/#1234 (deleted)", b"captured", True),
        (Role.PYTEST, "/tmp/#1234 (deleted)", JPEG, False),
        (Role.PYTEST, "/tmp/#1234 (deleted)", b"--b\r\n\r\n" + CANARY, False),
        (Role.PYTEST, "/tmp/spool-of-uploads", b"", False),
        (Role.PYTEST, "/checkout/.hypothesis/x", b"", True),
        (Role.OTHER, "/tmp/anything", JPEG, True),
        (Role.UNKNOWN, "/tmp/anything", b"", True),
        (Role.UNKNOWN, "/tmp/#1234 (deleted)", JPEG, False),
        (Role.UNKNOWN, f"{TESTS}/t0/photo.jpg", JPEG, True),
    ],
)
def test_a_path_and_a_role_are_judged(role: Role, path: str, head: bytes, *, expected: bool) -> None:
    """Lethe's processes and its servers write what is listed; a process of tests leaves nothing in /tmp by accident."""
    assert Rules(TESTS).is_allowed(role, path, head) is expected


def test_the_canary_of_every_test_is_known() -> None:
    """What tests/checks.py draws looks like what is searched for."""
    assert is_upload(upload_bytes()[len(JPEG) :])


def test_everything_that_is_allowed_has_a_reason() -> None:
    """And some process whom it is for."""
    assert all(rule.reason and rule.roles and rule.paths for rule in allowed())


class Machine:
    """Processes as /proc would show them."""

    def __init__(self, **processes: Look) -> None:
        self.processes = {int(name[1:]): look for name, look in processes.items()}

    def look(self, pid: int) -> Look | None:
        return self.processes.get(pid)

    def began(self, pid: int) -> str:
        look = self.processes.get(pid)
        return look.began if look else ""

    def writers(self, **roots: str) -> Writers:
        return Writers({int(name[1:]): run for name, run in roots.items()}, self.look, self.began)


def test_who_has_ended_is_known_still() -> None:
    """A process that was seen when its program began, and is gone when its file is closed."""
    machine = Machine(p9=Look("1", 1, ["pytest"], ""), p20=Look("2", 9, ["python", "-c", "x"], ""))
    writers = machine.writers(p9="run")
    writers.begins(20)
    machine.processes[20] = Look("2", 9, ["python", "-m", "workers", "gpu"], "")
    writers.look_again()
    del machine.processes[20]
    assert writers.of(20)[:2] == (Role.WORKER, "python -m workers gpu")
    assert writers.of(20).runs == "run"
    assert writers.of(21).role is Role.UNKNOWN


def test_a_number_that_is_used_again_is_another_process() -> None:
    """What was remembered of a process number goes when another process has it."""
    machine = Machine(p20=Look("2", 1, ["python", "-m", "broker"], "run"))
    writers = machine.writers()
    assert writers.of(20).role is Role.BROKER
    machine.processes[20] = Look("3", 1, ["editor"], "")
    assert writers.of(20) == (Role.OTHER, "editor", "")


def test_who_ended_long_ago_has_written_nothing() -> None:
    """Its number is given out again: to a process that lives too shortly to be seen, and is not the one that ended."""
    machine = Machine(p20=Look("2", 1, ["python", "-m", "broker.keyholder"], "run"))
    writers = machine.writers()
    writers.begins(20)
    writers.forget_ended()
    assert writers.of(20).role is Role.KEYHOLDER
    del machine.processes[20]
    writers.forget_ended()
    assert writers.of(20).role is Role.KEYHOLDER  # it may have written a moment ago
    writers.forget_ended()
    assert writers.of(20).role is Role.UNKNOWN
    assert writers.is_settled


def test_children_belong_to_their_parent_s_run() -> None:
    """A nursery starts without any environment; a fork that ends has no command any more."""
    machine = Machine(p20=Look("2", 1, ["python", "-m", "workers", "gpu"], "run"))
    machine.processes[21] = Look("3", 20, ["python", "-m", "workers.images.nursery"], "")
    machine.processes[22] = Look("4", 21, [], "")
    writers = machine.writers()
    assert writers.of(21)[::2] == (Role.NURSERY, "run")
    assert writers.of(22)[::2] == (Role.NURSERY, "run")


def test_a_run_within_a_run_is_its_own_affair() -> None:
    """The outer one, which passed its name on, does not answer for the inner one's processes."""
    machine = Machine(p20=Look("2", 1, ["python", "-m", "broker"], "outer:inner"))
    assert machine.writers(p9="outer").of(20).runs != "outer"


@needs_fanotify
def test_the_kernel_tells_of_files_with_and_without_a_name(tmp_path: Path) -> None:
    """Path, process and content of what was closed after writing; files that were only read are not told of."""
    watch = Fanotify()
    (tmp_path / "named").write_bytes(b"1")
    (tmp_path / "named").read_bytes()
    with tempfile.TemporaryFile(dir=tmp_path) as nameless:
        nameless.write(b"2")
    here = [
        Path(event.path).name[0]
        for event in watch.events(within_ms=1000)
        if event.pid == os.getpid() and not event.is_program and event.path.startswith(str(tmp_path))
    ]
    watch.close()
    assert here == ["n", "#"]


def test_names_alone_are_told_of_without_rights(tmp_path: Path) -> None:
    """What `tempfile` makes in a directory for all, an upload under any name, and anything in Lethe's own directory."""
    rules, own = Rules(TESTS), tmp_path / "own"
    rules.temporary = [str(tmp_path)]
    own.mkdir()
    watch = Weak(str(own), rules)
    (tmp_path / "harmless").write_bytes(b"captured")
    (tmp_path / "upload").write_bytes(JPEG)
    with tempfile.NamedTemporaryFile(dir=tmp_path) as named, tempfile.TemporaryFile(dir=tmp_path):
        pass
    with tempfile.TemporaryFile(dir=own) as nameless:
        nameless.write(b"spooled")
    watch.look()
    told = {violation.rpartition("/")[2] for violation in watch.seen.violations}
    assert {"upload", Path(named.name).name} < told
    assert {name[0] for name in told - {"upload", Path(named.name).name}} == {"#"}
    assert len([v for v in watch.seen.violations if "#" in v]) == 1

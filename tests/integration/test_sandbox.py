"""Hostile code in a decoder reaches nothing."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from broker.prctl import FORGETFUL_HEAP
from broker.sniff import ImageKind
from providers.base import Pixels, Upload
from tests.attacks import ATTACKS, SECRET_NAME
from tests.evil_nursery import BREACHED_WIDTH, HARMLESS_WIDTH, LIES, hostile_picture
from workers.images.errors import ImageFault, InvalidImage, SandboxUnavailable
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
EVIL = "tests.evil_nursery"
LIMITS = ImageLimits(max_pixels=1_000_000, timeout_s=10.0)
USERS = [os.geteuid(), 65_534] if os.geteuid() == 0 else [os.geteuid()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evil() -> AsyncIterator[Zygote]:
    os.environ[SECRET_NAME] = "a secret of the worker"
    zygote = await Zygote.start(LIMITS, program=EVIL)
    yield zygote
    await zygote.aclose()
    del os.environ[SECRET_NAME]


async def decode(zygote: Zygote, data: bytes, limits: ImageLimits = LIMITS) -> Pixels:
    fd = os.memfd_create("test-upload")
    try:
        os.write(fd, data)
        pixels = await zygote.decode(Upload(fd=fd, size_bytes=len(data)), limits=limits)
        os.close(pixels.fd)
        return pixels
    finally:
        os.close(fd)


def outcomes(mode: str, uid: int) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks", mode, str(uid)],
        cwd=ROOT,
        env={**FORGETFUL_HEAP, SECRET_NAME: "a secret", "PATH": "/bin"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stderr)


def children_of(pid: int) -> list[int]:
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _parent(stat) == pid]


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


T = TypeVar("T")


async def until(look: Callable[[], T]) -> T:
    for _ in range(2000):
        if found := look():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("it never came")


async def the_child_of(zygote: Zygote) -> int:
    return (await until(lambda: children_of(zygote.pid) if zygote.pid is not None else []))[0]


async def test_each_attack_works_outside_the_fence() -> None:
    """An attack that would fail anyway proves nothing."""
    assert outcomes("open", os.geteuid()) == dict.fromkeys(ATTACKS, "breached")


@pytest.mark.parametrize("mode", ["fenced", "threads"])
@pytest.mark.parametrize("uid", USERS)
async def test_no_attack_gets_through_the_fence(mode: str, uid: int) -> None:
    """headpix-8: inside the fence every attack is refused or ends the process, as root and as an ordinary user."""
    found = outcomes(mode, uid)
    assert found.keys() == ATTACKS.keys()
    assert set(found.values()) <= {"refused", "killed"}
    assert found["fork"] == found["exec"] == found["socket_inet"] == "killed"


@pytest.mark.parametrize("attack", [*ATTACKS, "overwrite"])
async def test_no_attack_gets_out_of_a_zygote_child(evil: Zygote, attack: str) -> None:
    """A hostile codec in a real child gets nothing: no file, socket, process, variable, descriptor."""
    try:
        width = (await decode(evil, hostile_picture(attack))).width
    except InvalidImage as refused:
        width = {ImageFault.DECODER_KILLED: 0, ImageFault.DECODER_FAILED: 0}[refused.code]
    assert width in (0, HARMLESS_WIDTH)
    assert width != BREACHED_WIDTH


async def test_the_hostile_codec_runs(evil: Zygote) -> None:
    """The codec of these tests does take pictures, so that refusals are the sandbox's doing."""
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH


async def test_a_crash_kills_the_child_alone(evil: Zygote) -> None:
    """A codec that crashes fails its picture; the zygote stays and takes the next one."""
    before = evil.pid
    with pytest.raises(InvalidImage) as failed:
        await decode(evil, hostile_picture("crash"))
    assert failed.value.code == ImageFault.DECODER_KILLED
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH
    assert evil.pid == before


@pytest.mark.parametrize("lie", LIES)
async def test_a_child_is_not_believed(evil: Zygote, lie: str) -> None:
    """A child that was taken over brings no size about that cannot be, speaks for no other, and ends no zygote."""
    before = evil.pid
    with pytest.raises(InvalidImage) as refused:
        await decode(evil, hostile_picture(lie))
    assert refused.value.code in (ImageFault.DECODER_FAILED, ImageFault.DECODER_KILLED)
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH
    assert evil.pid == before


async def test_a_child_that_hangs_is_killed(evil: Zygote) -> None:
    """A codec that never ends is killed at its timeout, and gone before the answer."""
    task = asyncio.create_task(decode(evil, hostile_picture("hang"), ImageLimits(max_pixels=100, timeout_s=0.3)))
    child = await the_child_of(evil)
    with pytest.raises(InvalidImage) as failed:
        await task
    assert failed.value.code == ImageFault.TIMEOUT
    assert not is_alive(child)


async def test_a_cancelled_child_is_gone(evil: Zygote) -> None:
    """Cancellation goes on only once the child is killed and reaped: at once, and not when its own limits end it."""
    task = asyncio.create_task(decode(evil, hostile_picture("hang")))
    child = await the_child_of(evil)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
    assert not Path(f"/proc/{child}").exists()
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH


async def test_a_dead_zygote_takes_its_children_along_and_is_replaced(evil: Zygote) -> None:
    """Kill the zygote at work: its child dies, a fresh zygote takes the order over, and the next one."""
    task = asyncio.create_task(decode(evil, hostile_picture("hang")))
    child, before = await the_child_of(evil), evil.pid
    assert before is not None
    os.kill(before, 9)
    await until(lambda: evil.pid not in (None, before))
    assert not is_alive(child)
    await the_child_of(evil)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH


async def test_a_stopped_zygote_does_not_hold_a_cancelled_job(evil: Zygote) -> None:
    """A zygote that does not answer a cancellation is killed, and its child with it."""
    task = asyncio.create_task(decode(evil, hostile_picture("hang")))
    child, before = await the_child_of(evil), evil.pid
    assert before is not None
    os.kill(before, 19)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(before)
    await until(lambda: not is_alive(child))
    assert (await decode(evil, hostile_picture("harmless"))).width == HARMLESS_WIDTH


async def test_the_zygote_is_in_the_workers_group(evil: Zygote) -> None:
    """A guard that kills the worker's process group reaches the zygote and its children."""
    await decode(evil, hostile_picture("harmless"))
    assert evil.pid is not None
    assert os.getpgid(evil.pid) == os.getpgrp()


async def test_all_die_with_the_worker() -> None:
    """A worker that is killed takes zygote and child along, although nobody tells them."""
    script = (
        "import asyncio, os\n"
        "from tests.integration.test_sandbox import EVIL, LIMITS, Zygote, decode, hostile_picture, the_child_of\n"
        "async def main():\n"
        "    zygote = await Zygote.start(LIMITS, program=EVIL)\n"
        "    task = asyncio.create_task(decode(zygote, hostile_picture('hang')))\n"
        "    print(zygote.pid, await the_child_of(zygote), flush=True)\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as worker:  # noqa: ASYNC220 - one line is all that is waited for
        assert worker.stdout is not None
        pids = [int(word) for word in worker.stdout.readline().split()]
        assert len(pids) == 2
        worker.kill()
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_nothing_starts_after_the_end() -> None:
    """Closing fails what is open, and starts no further process for it."""
    zygote = await Zygote.start(LIMITS, program=EVIL)
    task = asyncio.create_task(decode(zygote, hostile_picture("hang")))
    child = await the_child_of(zygote)
    await zygote.aclose()
    with pytest.raises(SandboxUnavailable):
        await task
    await until(lambda: not is_alive(child))
    assert zygote.pid is None


async def test_a_zygote_that_cannot_start_is_refused() -> None:
    """Without its zygote a worker does not start; it never decodes by itself."""
    with pytest.raises(SandboxUnavailable):
        await Zygote.start(LIMITS, program="tests.images_corpus")


async def test_what_a_stopped_child_has_written_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was half made when its job was stopped is not given back to the kernel as it is."""
    made: list[int] = []
    create = os.memfd_create

    def seen(name: str, flags: int) -> int:
        descriptor = create(name, flags)
        made.append(os.dup(descriptor))
        return descriptor

    side_px = 3000
    rows_fd = create("rows")
    os.write(rows_fd, os.urandom(side_px * side_px * 3))
    zygote = await Zygote.start(ImageLimits(), children=1)
    monkeypatch.setattr("os.memfd_create", seen)
    pixels = Pixels(fd=rows_fd, width=side_px, height=side_px, channels=3)
    encoding = asyncio.create_task(zygote.encode(pixels, kind=ImageKind.PNG))
    async with asyncio.timeout(10):
        while not made or not _has_content(made[0]):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.01)

    encoding.cancel()
    await asyncio.wait({encoding})

    assert encoding.cancelled()
    assert os.lseek(made[0], 0, os.SEEK_DATA) == 0
    assert not _has_content(made[0])
    await zygote.aclose()
    for descriptor in (rows_fd, *made):
        os.close(descriptor)


def _has_content(descriptor: int) -> bool:
    size_bytes = os.fstat(descriptor).st_size
    return size_bytes > 0 and any(os.pread(descriptor, size_bytes, 0).lstrip(b"\0"))

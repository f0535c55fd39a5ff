"""lethe.toml is read again while Lethe runs: soon, whole or not at all."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from broker.log import capture_log
from broker.reload import LiveConfig
from broker.routes import Config
from policies.toml_file import ConfigInvalid
from tests.configs import GOOD, acme
from tests.lifecycle import eventually

SOON_S = 3.0
OTHER = GOOD.replace("deadline_s = 180", "deadline_s = 60")
BAD = GOOD.replace("acme = 1", "akme = 1")
BAD_LINE = 48


@pytest.fixture(autouse=True)
def known_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    acme(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lethe.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def lines() -> Generator[list[str]]:
    with capture_log() as lines:
        yield lines


@asynccontextmanager
async def watching(file: Path) -> AsyncGenerator[LiveConfig]:
    live = LiveConfig(file)
    running = asyncio.create_task(live.run())
    await asyncio.sleep(0)
    try:
        yield live
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def deadline_of(live: LiveConfig) -> float | None:
    return live.current.routes["upscale"].deadline_s


async def becomes(live: LiveConfig, deadline_s: float) -> None:
    async def is_so() -> bool:
        return deadline_of(live) == deadline_s

    await eventually(is_so, within_s=SOON_S)


async def logged(lines: list[str], event: str, *, times: int = 1) -> list[dict[str, object]]:
    def found() -> list[dict[str, object]]:
        return [line for line in map(json.loads, list(lines)) if line["event"] == event]

    async def are_there() -> bool:
        return len(found()) >= times

    await eventually(are_there, within_s=SOON_S)
    return found()


async def test_a_file_that_changes_takes_effect_soon(file: Path, lines: list[str]) -> None:
    """Written in place, it holds within two seconds or so, and the log says so."""
    async with watching(file) as live:
        assert deadline_of(live) == 180
        file.write_text(OTHER)
        await becomes(live, 60)
        (line,) = await logged(lines, "config_reloaded")
    assert (line["level"], line["count"]) == ("info", 5)


async def test_a_file_that_is_replaced_takes_effect_soon(file: Path) -> None:
    """Editors and configuration tools write beside it and rename; size and time may even be the same."""
    other = file.with_suffix(".new")
    other.write_text(GOOD.replace("deadline_s = 180", "deadline_s = 181"))
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    async with watching(file) as live:
        other.replace(file)
        await becomes(live, 181)


async def test_a_link_that_is_turned_takes_effect_soon(file: Path, tmp_path: Path) -> None:
    """A mounted ConfigMap is a link to a folder that is swapped."""
    link = tmp_path / "mounted.toml"
    link.symlink_to(file)
    async with watching(link) as live:
        other = tmp_path / "other.toml"
        other.write_text(OTHER)
        turned = tmp_path / "turned"
        turned.symlink_to(other)
        turned.replace(link)
        await becomes(live, 60)


async def test_sighup_reads_the_file_at_once(file: Path) -> None:
    """A change that no watcher could see takes effect with the signal."""
    async with watching(file) as live:
        times = file.stat()
        file.write_text(GOOD.replace("deadline_s = 180", "deadline_s = 181"))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.kill(os.getpid(), signal.SIGHUP)
        await becomes(live, 181)


async def test_a_wrong_file_changes_nothing(file: Path, lines: list[str]) -> None:
    """The old configuration holds, the log names the line once, and a file that is mended is taken."""
    async with watching(file) as live:
        before = live.current
        file.write_text(BAD)
        (line,) = await logged(lines, "config_refused")
        assert (line["level"], line["count"]) == ("error", BAD_LINE)
        assert live.current is before
        os.kill(os.getpid(), signal.SIGHUP)
        await logged(lines, "config_refused", times=2)
        assert live.current is before
        file.write_text(OTHER)
        await becomes(live, 60)
        assert len(await logged(lines, "config_refused")) == 2


@pytest.mark.parametrize("text", ["", "[provider", "\0", GOOD[: len(GOOD) // 2]])
async def test_half_a_file_changes_nothing(file: Path, lines: list[str], text: str) -> None:
    """Whoever writes in place may be seen halfway."""
    async with watching(file) as live:
        before = live.current
        file.write_text(text)
        await logged(lines, "config_refused")
        assert live.current is before
        file.write_text(OTHER)
        await becomes(live, 60)


async def test_a_deleted_file_changes_nothing(file: Path, lines: list[str]) -> None:
    """The old configuration holds until there is a file again."""
    async with watching(file) as live:
        file.unlink()
        (line,) = await logged(lines, "config_refused")
        assert (line["count"], deadline_of(live)) == (0, 180)
        file.write_text(OTHER)
        await becomes(live, 60)


async def test_a_wrong_file_at_start_is_an_error(file: Path) -> None:
    """There is no old one to keep: the start is refused with file, line and reason."""
    file.write_text(BAD)
    with pytest.raises(ConfigInvalid) as caught:
        LiveConfig(file)
    assert (caught.value.file, caught.value.line) == (str(file), BAD_LINE)


async def test_listeners_hear_the_new_one(file: Path) -> None:
    """Each is called with the configuration that holds from now on, and with none that was refused."""
    heard: list[Config] = []
    async with watching(file) as live:
        live.listen(heard.append)
        file.write_text(BAD)
        assert not await live.reload()
        assert heard == []
        file.write_text(OTHER)
        assert await live.reload()
        assert heard == [live.current]


async def test_whoever_works_with_one_keeps_it(file: Path) -> None:
    """A configuration is never changed in place: a job that runs is undisturbed."""
    async with watching(file) as live:
        mine = live.current
        file.write_text(OTHER)
        await becomes(live, 60)
        assert mine.routes["upscale"].deadline_s == 180


@pytest.mark.parametrize("fault", [ConfigInvalid(file="lethe.toml", line=15, reason="no secret"), ValueError("sk-1")])
async def test_a_check_may_refuse(file: Path, lines: list[str], fault: Exception) -> None:
    """A worker refuses a file whose secrets it does not have; a check that breaks refuses as well, and ends nothing."""

    async def check(config: Config) -> None:
        if config.routes["upscale"].deadline_s == 60:
            raise fault

    async with watching(file) as live:
        live.check = check
        file.write_text(OTHER)
        (line,) = await logged(lines, "config_refused")
        assert line.get("count", 15) == 15
        assert deadline_of(live) == 180
        file.write_text(GOOD.replace("deadline_s = 180", "deadline_s = 90"))
        await becomes(live, 90)
    assert "sk-1" not in "".join(lines)

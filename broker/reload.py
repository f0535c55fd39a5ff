"""lethe.toml while it is in use: read again on SIGHUP or when the file changes; a wrong file changes nothing."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from broker.config import DEFAULT_FILE, load_config
from broker.routes import Config
from policies.toml_file import ConfigInvalid

log = structlog.get_logger()

LOOK_EVERY_S = 1.0

Stamp = tuple[int, int, int]


def stamp_of(path: Path) -> Stamp:
    """Return what differs when a file was written again; a file that is not there has a stamp as well."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size


class LiveConfig:
    """
    The configuration that holds at this moment; whoever works with one keeps it, so that running jobs are undisturbed.

    `agree` refuses a file that contradicts the profile, and `check`, where it is set, one for reasons of its own (a
    secret that is missing), by ConfigInvalid.
    """

    def __init__(self, path: Path | None = None, *, agree: Callable[[Config], None] = lambda _: None) -> None:
        self._path = path or DEFAULT_FILE
        self._agree = agree
        self.check: Callable[[Config], Awaitable[None]] | None = None
        self._stamp = stamp_of(self._path)
        self._asked = asyncio.Event()
        self._listeners: list[Callable[[Config], None]] = []
        self.current = self._load()

    def listen(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` with every new configuration."""
        self._listeners.append(listener)

    async def reload(self) -> bool:
        """Read the file again; False, and the old configuration stays, where it is wrong."""
        self._stamp = stamp_of(self._path)
        try:
            config = self._load()
            if self.check is not None:
                await self.check(config)
        except ConfigInvalid as exc:
            # The reason may quote a value of the file; `lethe config check` says it to whoever asks.
            log.error("config_refused", count=exc.line)  # noqa: TRY400 - no traceback says more than the line
            return False
        except Exception:
            # Whatever is wrong with the file or its check, jobs go on as before.
            log.exception("config_refused")
            return False
        self.current = config
        for listener in self._listeners:
            listener(config)
        log.info("config_reloaded", count=len(config.providers))
        return True

    def _load(self) -> Config:
        config = load_config(self._path)
        self._agree(config)
        return config

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # no signals outside the main thread
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            if self._asked.is_set() or stamp_of(self._path) != self._stamp:
                self._asked.clear()
                await self.reload()

"""The notices of this deployment: announced when its settings change, and found again as facts."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
import structlog

from broker.notices.facts import NoticeFacts, facts_of
from broker.notifications import Channel
from broker.reload import LiveConfig
from broker.store.notices import NoticeStore, StoredNotice
from policies.registry import Policies

log = structlog.get_logger()

AGAIN_S = 2.0
VERSION = re.compile(r"[!-~]{1,64}")
"""Whatever else is asked for, Postgres may refuse to look at."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the notice, and from when on it holds."""

    version: str
    digest: bytes
    facts: NoticeFacts
    effective_at: datetime


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What users are shown: the notice in force, and the next one where it is announced."""

    current: Notice
    next: Notice | None

    def find(self, version: str) -> Notice | None:
        """Return one of the two."""
        return next((one for one in (self.current, self.next) if one is not None and one.version == version), None)


class Noticeboard:
    """Keeps the announced notices in step with the running settings."""

    def __init__(
        self,
        notices: NoticeStore,
        policies: Policies,
        config: LiveConfig,
        *,
        blobs_url: str,
        channels: Sequence[Channel] = (),
        has_sign_in: bool = False,
    ) -> None:
        self._notices = notices
        self._policies = policies
        self._config = config
        self._blobs_url = blobs_url
        self._has_sign_in = has_sign_in
        self._channels = channels
        self._changed = asyncio.Event()

    @property
    def facts(self) -> NoticeFacts:
        """What is so at this moment."""
        return facts_of(
            self._policies,
            self._config.current,
            blobs_url=self._blobs_url,
            channels=self._channels,
            has_sign_in=self._has_sign_in,
        )

    async def publish(self, *, though_in_force: bool = False) -> Notice | None:
        """Announce what is so at this moment, where nobody has yet; the new notice, or None."""
        facts = self.facts
        made = await self._notices.announce(
            facts.digest, facts, days=facts.announce_days, though_in_force=though_in_force
        )
        if made is not None:
            log.info("notice_announced", count=facts.announce_days)
        shown = await self.shown()
        if shown.current.digest != facts.digest:
            # What was promised until then is no longer what is done: the operator should have announced it first.
            log.warning("notice_ahead", count=facts.announce_days)
        return None if made is None else _notice(made)

    async def shown(self) -> Shown:
        """Return the notice in force and the next one."""
        found = [_notice(stored) for stored in await self._notices.shown()]
        return Shown(current=found[0], next=found[1] if len(found) > 1 else None)

    async def find(self, version: str) -> Notice | None:
        """Return any version that there ever was."""
        stored = await self._notices.find(version) if VERSION.fullmatch(version) else None
        return None if stored is None else _notice(stored)

    async def run(self) -> None:
        """Announce again whenever lethe.toml has changed, until cancelled."""
        self._config.listen(lambda _: self._changed.set())
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.publish()
            except Exception:
                # Jobs go on, whatever is wrong with the notice; it is tried again.
                log.exception("notice_unpublished")
                await asyncio.sleep(AGAIN_S)
                self._changed.set()


def _notice(stored: StoredNotice) -> Notice:
    facts = msgspec.convert(stored.facts, NoticeFacts)
    return Notice(version=stored.version, digest=stored.digest, facts=facts, effective_at=stored.effective_at)

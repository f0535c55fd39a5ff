"""Examines what users are told: whether the notice in force is that of the settings, and what it leaves unnamed."""

from collections.abc import AsyncGenerator, Iterator

from asyncpg import PostgresError

from broker.config import load_config
from broker.doctor.findings import Finding, note, ok, warning
from broker.errors import BrokerError
from broker.notices.facts import NoticeFacts, facts_of
from broker.notify.senders import channels_of
from broker.settings import Settings
from broker.store.database import Database
from broker.store.notices import NoticeStore, StoredNotice
from policies.registry import Policies, load_profile
from policies.toml_file import ConfigInvalid


async def notices(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Compare the settings with what was announced; what does not answer, or is wrong, is said elsewhere."""
    try:
        policies = Policies(load_profile(settings.profile))
        config, has_sign_in = load_config(settings.config_path), bool(settings.subject_key_file)
        channels = channels_of(settings)
        facts = facts_of(policies, config, blobs_url=settings.blobs_url, channels=channels, has_sign_in=has_sign_in)
    except ConfigInvalid:
        return
    for finding in unnamed(facts):
        yield finding
    shown = await _shown(settings)
    if shown:
        yield in_step(facts, shown)


def unnamed(facts: NoticeFacts) -> Iterator[Finding]:
    """What a notice should name, and nobody told Lethe."""
    if not facts.publisher.name or not facts.publisher.email:
        yield note("the privacy notice does not say who answers, or how", "fill in [publisher] of the profile")
    for one in facts.recipients:
        if not one.region:
            yield note(f"the privacy notice cannot say where {one.name} is", "give it a `region` in lethe.toml")


def in_step(facts: NoticeFacts, shown: list[StoredNotice]) -> Finding:
    """What runs is what users are told."""
    if shown[0].digest == facts.digest:
        return ok("the privacy notice in force is that of these settings")
    mend = "announce a change with `lethe notice --announce`, and use the new settings from its day on"
    if shown[-1].digest == facts.digest:
        day = f"{shown[-1].effective_at:%Y-%m-%d}"
        return warning(f"these settings are ahead of the privacy notice: users were told of them for {day}", mend)
    return warning("the privacy notice in force is not that of these settings", mend)


async def _shown(settings: Settings) -> list[StoredNotice]:
    database = Database(settings.postgres_dsn, connections=1)
    try:
        await database.open()
        return await NoticeStore(database).shown()
    except (BrokerError, PostgresError, ValueError, TimeoutError):
        return []
    finally:
        await database.aclose()

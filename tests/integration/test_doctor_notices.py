"""`lethe doctor` on what users are told."""

from pathlib import Path

import msgspec

from broker.doctor.findings import Level
from broker.doctor.notices import notices, unnamed
from broker.settings import Settings
from tests.notices import facts_in_house, facts_outside
from tests.profiles import settings_under
from tests.stack import running_services

ANNOUNCING = "[consent]\nannounce_days = 14"
PUBLISHED = '[publisher]\nname = "Studio"\nemail = "privacy@studio.example"'


async def found(settings: Settings) -> list[tuple[Level, str]]:
    return [(finding.level, finding.what) async for finding in notices(settings)]


async def test_a_notice_that_is_not_that_of_the_settings_is_found(settings: Settings, tmp_path: Path) -> None:
    """In force it is well; settings that run ahead of their day, and those that nobody announced, are not."""
    before = settings_under(settings, tmp_path, ANNOUNCING, PUBLISHED)
    assert await found(before) == []  # there is none yet
    async with running_services(before):
        pass
    assert await found(before) == [(Level.OK, "the privacy notice in force is that of these settings")]

    after = settings_under(settings, tmp_path, ANNOUNCING, PUBLISHED, outputs_for_s="7_200")
    ((level, what),) = await found(after)
    assert (level, what) == (Level.WARNING, "the privacy notice in force is not that of these settings")
    async with running_services(after):
        pass
    ((level, what),) = await found(after)
    assert level is Level.WARNING
    assert "ahead of the privacy notice" in what


async def test_what_does_not_answer_is_said_elsewhere(settings: Settings, tmp_path: Path) -> None:
    """No Postgres, no such profile: nothing is added, and nothing is raised."""
    asking = settings_under(settings, tmp_path, PUBLISHED)
    away = msgspec.structs.replace(asking, postgres_dsn=f"postgresql://lethe@/lethe?host={tmp_path}")
    assert await found(away) == []
    assert await found(msgspec.structs.replace(asking, profile="nobody")) == []


def test_what_is_not_named_is_found() -> None:
    """Who answers, and where providers are."""
    assert [finding.mend for finding in unnamed(facts_in_house())] == ["fill in [publisher] of the profile"]
    assert ["cloud" in finding.what for finding in unnamed(facts_outside(PUBLISHED))] == [True]

"""The notice over HTTP: versions, languages, ETags, and changes that are announced before they hold."""

from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import broker_with
from tests.lifecycle import eventually
from tests.notices import announced, facts_in_house, let_its_day_come, old_and_new
from tests.profiles import settings_under

NOTICE = "/v1/privacy/notice"
ANNOUNCING = "[consent]\nannounce_days = 14"


def words(view: dict[str, Any]) -> str:
    return str(view["sections"])


async def test_the_notice_is_made_of_the_running_settings(api: Api) -> None:
    """core-7: a version made of its date and its facts, in force at once; every section has words."""
    answer = await api.http.get(NOTICE)
    assert answer.status_code == 200
    shown = answer.json()
    facts = api.services.noticeboard.facts
    assert shown["current"]["version"].partition(".")[2] == facts.digest.hex()[:8]
    assert shown["current"]["version"].startswith(shown["current"]["effective_at"][:10])
    assert shown["languages"] == ["en", "tr"]
    assert "next" not in shown
    assert "When you remove the app" in words(shown["current"])
    assert "purposes" not in shown["current"]
    assert "1 hour after they were made" in words(shown["current"])


async def test_it_is_not_sent_twice(api: Api) -> None:
    """The same notice has the same ETag, in each language another; who has it is told so."""
    first = await api.http.get(NOTICE)
    again = await api.http.get(NOTICE, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    turkish = await api.http.get(NOTICE, headers={"Accept-Language": "tr", "If-None-Match": first.headers["etag"]})
    assert turkish.status_code == 200
    assert turkish.headers["etag"] != first.headers["etag"]
    assert "public" in first.headers["cache-control"]


@pytest.mark.parametrize(
    ("query", "header", "language"),
    [
        ("", "", "en"),
        ("", "tr-TR,tr;q=0.9,en;q=0.8", "tr"),
        ("", "de, fr;q=0.5", "en"),
        ("?lang=tr", "en", "tr"),
        ("?lang=EN-gb", "tr", "en"),
    ],
)
async def test_it_is_read_in_a_language_of_the_reader(api: Api, query: str, header: str, language: str) -> None:
    """`lang` counts before Accept-Language; where none of ours is wanted it is English, and says so."""
    answer = await api.http.get(NOTICE + query, headers={"Accept-Language": header})
    assert answer.headers["content-language"] == answer.json()["language"] == language
    assert "Accept-Language" in answer.headers["vary"]
    title = {"en": "Privacy notice", "tr": "Aydınlatma Metni"}[language]
    assert answer.json()["current"]["title"] == title


@pytest.mark.parametrize("language", ["de", "", "english", "%00", "tr_TR"])
async def test_a_language_that_is_not_there_is_refused(api: Api, language: str) -> None:
    """422 with a pointer, naming those that there are."""
    answer = await api.http.get(f"{NOTICE}?lang={language}")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "unknown_language")
    assert problem["errors"][0]["pointer"] == "#/parameters/lang"
    assert "en, tr" in problem["detail"]


async def test_a_version_can_be_read_again(api: Api, settings: Settings) -> None:
    """What somebody agreed to stays readable when it no longer holds; a version that never was is refused."""
    old = facts_in_house(records_for_s="86_400")
    await announced(settings, old, version="2020-01-01.abcdef01", since_s=9e7, effective_s=-9e7)
    assert "1 day after the job" in words(
        (await api.http.get(f"{NOTICE}?version=2020-01-01.abcdef01")).json()["current"]
    )
    for unknown in ("2020-01-01.other", "", "x" * 500, "\0"):
        answer = await api.http.get(NOTICE, params={"version": unknown})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_notice")
        assert answer.json()["errors"][0]["pointer"] == "#/parameters/version"


async def pair(http: httpx.AsyncClient) -> dict[str, Any]:
    return (await http.get(NOTICE)).json()


async def test_a_change_is_announced_first(settings: Settings, tmp_path: Path) -> None:
    """
    headpix-7, xpictures-14, core-7: what changed is shown with its date, 14 days ahead, and the old text holds till
    then.
    """
    async with broker_with(settings_under(settings, tmp_path, ANNOUNCING)) as api:
        first = await pair(api.http)
    changed = settings_under(settings, tmp_path, ANNOUNCING, outputs_for_s="7_200")
    async with broker_with(changed) as api:
        shown = await pair(api.http)
    async with broker_with(changed) as api:
        again = await pair(api.http)
    assert "next" not in first
    assert shown["current"] == first["current"]
    assert shown["next"]["version"] != shown["current"]["version"]
    assert "2 hours after" in words(shown["next"])
    assert "1 hour after" in words(shown["current"])
    ahead = datetime.fromisoformat(shown["next"]["effective_at"]) - datetime.fromisoformat(
        first["current"]["effective_at"]
    )
    assert 14 <= ahead.total_seconds() / 86_400 < 14.1
    assert again == shown


async def test_it_holds_from_its_day_on(settings: Settings, tmp_path: Path) -> None:
    """Nobody has to do anything when the time has come."""
    await old_and_new(settings, ANNOUNCING)
    async with broker_with(settings_under(settings, tmp_path, ANNOUNCING)) as api:
        shown = await pair(api.http)
        assert [shown[which]["version"] for which in ("current", "next")] == ["old", "new"]
        await let_its_day_come(settings, "new")
        shown = await pair(api.http)
        assert shown["current"]["version"] == "new"
        assert "next" not in shown


async def test_what_was_announced_can_be_replaced(settings: Settings, tmp_path: Path) -> None:
    """A later announcement takes the place of one that has not taken effect; taking it back holds at once."""
    async with broker_with(settings_under(settings, tmp_path, ANNOUNCING)) as api:
        first = (await pair(api.http))["current"]
    for outputs_for_s in ("7_200", "10_800"):
        async with broker_with(settings_under(settings, tmp_path, ANNOUNCING, outputs_for_s=outputs_for_s)) as api:
            replaced = await pair(api.http)
    assert "3 hours after" in words(replaced["next"])
    async with broker_with(settings_under(settings, tmp_path, ANNOUNCING)) as api:
        await api.services.noticeboard.publish(though_in_force=True)
        back = await pair(api.http)
    assert "next" not in back
    assert back["current"]["sections"] == first["sections"]


async def test_without_days_a_change_holds_at_once(settings: Settings, tmp_path: Path) -> None:
    """imaginex-7: published is in force; and the same settings again are the same notice."""
    async with broker_with(settings) as api:
        first = (await pair(api.http))["current"]
    async with broker_with(settings_under(settings, tmp_path, outputs_for_s="7_200")) as api:
        second = await pair(api.http)
    assert "next" not in second
    assert second["current"]["version"] != first["version"]


async def test_a_changed_route_is_announced_while_brokers_run(settings: Settings, tmp_path: Path) -> None:
    """A reload of lethe.toml that changes who does what changes the notice, without a restart."""
    file = tmp_path / "lethe.toml"
    text = Path(settings.config_file).read_text()
    file.write_text(text)
    async with broker_with(msgspec.structs.replace(settings, config_file=str(file))) as api:
        assert "another style" in words((await pair(api.http))["current"])
        file.write_text(text.replace('[[route]]\noperation = "restyle"\ntiers = [{ pencil = 1 }]\n', ""))

        async def is_told() -> bool:
            return "another style" not in words((await pair(api.http))["current"])

        await eventually(is_told)

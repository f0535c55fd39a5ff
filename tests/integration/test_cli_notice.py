"""`lethe notice` as an operator runs it."""

import asyncio
import plistlib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.notices.documents import Format
from broker.settings import Settings
from tests.brokers import broker_with
from tests.notices import facts_under
from tests.profiles import profile_text, settings_under

ANNOUNCING = "[consent]\nannounce_days = 14"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No LETHE_* variable of whoever runs the tests."""
    for field in msgspec.structs.fields(Settings):
        monkeypatch.delenv(field.encode_name, raising=False)


def notice(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["notice", *arguments], catch_exceptions=False)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "studio.toml"
    path.write_text(profile_text(outputs_for_s="7_200"))
    return str(path)


@pytest.mark.parametrize("form", list(Format))
def test_each_format_is_printed(form: Format, profile: str) -> None:
    """One document, and nothing else, goes to the terminal; another profile makes another."""
    said = notice("--format", str(form))
    assert said.exit_code == 0
    assert said.stdout
    if form not in {Format.APPLE, Format.GOOGLE}:
        assert "1 hour" in said.stdout
        assert "2 hours" in notice("--format", str(form), "--profile", profile).stdout


def test_a_language_is_chosen() -> None:
    """Turkish, and none that there is not."""
    assert "Aydınlatma Metni" in notice("--format", "md", "--language", "tr").stdout
    refused = notice("--format", "md", "--language", "de")
    assert refused.exit_code == 2
    assert "'en', 'tr'" in refused.output


def test_a_folder_gets_everything(tmp_path: Path) -> None:
    """Under the names that stores and people expect; the notice in every language."""
    folder = tmp_path / "papers" / "new"
    said = notice("--out", str(folder))
    assert said.exit_code == 0
    assert {path.name for path in folder.iterdir()} == {
        *("privacy-notice.en.md", "privacy-notice.tr.md", "privacy-notice.en.html", "privacy-notice.tr.html"),
        *("PrivacyInfo.xcprivacy", "app-store-privacy.md", "data-safety.csv", "article-30.md", "retention-schedule.md"),
    }
    assert plistlib.loads((folder / "PrivacyInfo.xcprivacy").read_bytes())
    assert len(said.output.splitlines()) == 9


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Neither format nor folder, a wrong profile, and --announce without a database: one sentence each."""
    for arguments, words in (
        ((), "name a --format"),
        (("--announce",), "--announce needs --dsn"),
        (("--format", "md", "--profile", "nobody"), "no such profile"),
    ):
        said = notice(*arguments)
        assert said.exit_code != 0
        assert words in said.output


async def test_a_notice_is_announced_before_anything_runs_by_it(settings: Settings, tmp_path: Path) -> None:
    """headpix-7: brokers go on under the old settings and show the new notice; under the new ones it is the same."""
    now = settings_under(settings, tmp_path, ANNOUNCING)
    new = tmp_path / "new.toml"
    new.write_text(profile_text(ANNOUNCING, outputs_for_s="7_200"))
    arguments = ("--announce", "--profile", str(new), "--config", settings.config_file, "--dsn", settings.postgres_dsn)
    async with broker_with(now) as api:
        said = await asyncio.to_thread(notice, *arguments, "--blobs-url", settings.blobs_url)
        again = await asyncio.to_thread(notice, *arguments, "--blobs-url", settings.blobs_url)
        shown = (await api.http.get("/v1/privacy/notice")).json()
    assert shown["next"]["version"] in said.output
    assert "takes effect at" in said.output
    assert "Nothing to announce" in again.output
    digest = facts_under(settings, ANNOUNCING, outputs_for_s="7_200").digest.hex()
    assert shown["next"]["version"].endswith(f".{digest[:8]}")
    async with broker_with(settings_under(settings, tmp_path, ANNOUNCING, outputs_for_s="7_200")) as api:
        assert (await api.http.get("/v1/privacy/notice")).json() == shown

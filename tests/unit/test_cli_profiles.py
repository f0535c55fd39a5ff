"""`lethe profile`: what a profile sets, in what two differ, and whether one fits lethe.toml."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.commands.profiles import settings_of
from broker.reload import LiveConfig
from broker.services import live_config
from broker.settings import Settings
from policies.registry import PROFILES, load_profile
from policies.toml_file import ConfigInvalid
from tests.profiles import MINIMAL, profile_file

OUTSIDE = """
[provider.box]
adapter = "cog"
base_url = "https://example.org"
exposure = "logged"

[provider.box.operation.upscale]
input = { image = "$image" }

[[route]]
operation = "upscale"
tiers = [{ box = 1 }]
"""
ROUTE_LINE = 10
DELETING = """
[provider.box]
adapter = "http"
base_url = "https://example.org"
exposure = "logged"
retention_s = 60
contract = "2026-7"

[provider.box.operation.upscale]
input = { image = "$image" }
output = "/output"
options = { path = "/upscale" }

[[route]]
operation = "upscale"
tiers = [{ box = 1 }]
"""


def lethe(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_every_setting_is_shown() -> None:
    """Those that the file leaves out as well; without a name, the profiles that ship."""
    shown = lethe("profile", "show", "minimal").output
    assert all(setting in shown for setting in settings_of(load_profile("minimal")))
    assert lethe("profile", "show").output.split() == sorted(path.stem for path in PROFILES.glob("*.toml"))


def test_what_differs_is_shown(tmp_path: Path) -> None:
    """One line per setting, with both values; nothing where both set the same."""
    other = profile_file(tmp_path, outputs_for_s="60")
    shown = lethe("profile", "diff", "minimal", other).output.splitlines()
    assert [line.split() for line in shown[1:]] == [["retention.outputs_for_s", "3600", "60"]]
    assert "set the same" in lethe("profile", "diff", "minimal", "minimal").output


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("[deadlines]", "[dead_lines]", "dead_lines"),
        ("outputs_for_s = 3_600", "outputs_for_s = 3_600\nkeep_uploads = true", "keep_uploads"),
        ("finish_within_s = 600", "finish_within_s = 6", "is longer than finish_within_s"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_line(tmp_path: Path, was: str, becomes: str, says: str) -> None:
    """An unknown table or key, or a contradiction: file, line and reason; 1 is the exit code."""
    file = tmp_path / "ours.toml"
    file.write_text(MINIMAL.replace(was, becomes))
    done = lethe("profile", "check", str(file))
    assert done.exit_code == 1
    assert says in done.output
    line = done.output.split(f"{file}:")[1].split(":")[0]
    assert 0 < int(line) <= len(file.read_text().splitlines())


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    """A name that nothing has is answered with the names that something has."""
    done = lethe("profile", "check", "maximal")
    assert done.exit_code == 1
    assert "no such profile; there is" in done.output
    assert "minimal" in done.output


def test_a_route_that_the_profile_forbids_is_refused_with_its_line(settings_of_file: Settings) -> None:
    """An operation whose only route is above the exposure allowed: at the check, at a start, at a reload."""
    file = Path(settings_of_file.config_file)
    where = f"{file}:{ROUTE_LINE}: route of upscale: the profile minimal allows none of its providers"
    assert where in lethe("profile", "check", "minimal", "--config", str(file)).output
    with pytest.raises(ConfigInvalid, match="the provider's exposure is logged, this server allows local") as caught:
        live_config(settings_of_file)
    assert caught.value.line == ROUTE_LINE


def test_what_is_deleted_when_told_to_counts_as_kept(tmp_path: Path) -> None:
    """An adapter that can delete may have been given no address for it: only the stated stay counts."""
    file, profile = tmp_path / "lethe.toml", tmp_path / "ours.toml"
    file.write_text(DELETING)
    profile.write_text(MINIMAL.replace('exposure = "local"', 'exposure = "logged"'))
    done = lethe("profile", "check", str(profile), "--config", str(file))
    assert done.exit_code == 1
    assert "the provider keeps pictures for 60 s, this server allows 0 s" in done.output


async def test_a_reload_that_the_profile_forbids_changes_nothing(settings_of_file: Settings) -> None:
    """What holds goes on to hold."""
    file = Path(settings_of_file.config_file)
    file.write_text(OUTSIDE.replace("logged", "local"))
    live: LiveConfig = live_config(settings_of_file)
    before = live.current
    file.write_text(OUTSIDE)
    assert not await live.reload()
    assert live.current is before


@pytest.fixture
def settings_of_file(tmp_path: Path) -> Settings:
    """Settings that name a lethe.toml with one route, to a provider outside."""
    file = tmp_path / "lethe.toml"
    file.write_text(OUTSIDE)
    return Settings(
        postgres_dsn="", redis_url="", blobs_url="", keyholder_socket="", receipt_key_file="", config_file=str(file)
    )

"""`lethe config`: a wrong file is refused with line and reason, and a route is explained before a job runs by it."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.settings import Settings
from tests.profiles import open_profile
from tests.relay import SECRET_VARIABLE, replicate, route

URL = "http://127.0.0.1:9"
ONE = replicate(URL, name="one") + route("upscale", "[{ one = 1 }]")
TWO_TIERS = (
    replicate(URL, name="one")
    + replicate(URL, name="two")
    + replicate(URL, name="three")
    + route("upscale", "[{ one = 1, two = 5 }, { three = 1 }]")
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No LETHE_* variable of whoever runs the tests, and no secret."""
    for field in msgspec.structs.fields(Settings):
        monkeypatch.delenv(field.encode_name, raising=False)
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """A profile that lets pictures go to providers."""
    return open_profile(tmp_path)


def say(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def saved(folder: Path, text: str) -> str:
    file = folder / "lethe.toml"
    file.write_text(text)
    return str(file)


def explained(folder: Path, text: str, *arguments: str) -> Result:
    return say("config", "explain", *arguments, "--config", saved(folder, text))


def test_the_file_that_ships_is_valid() -> None:
    """Without a file it is the one that Lethe itself uses."""
    said = say("config", "check", "--secrets")
    assert said.exit_code == 0, said.output
    assert "lethe.toml is valid" in said.output


def test_a_valid_file_is_said_to_be(tmp_path: Path) -> None:
    """Without its secret too: what can be judged is judged."""
    said = say("config", "check", saved(tmp_path, ONE))
    assert said.exit_code == 0, said.output
    assert "1 providers, 1 routes" in said.output


def test_a_wrong_word_is_named_with_its_line(tmp_path: Path) -> None:
    """One sentence, no traceback."""
    said = say("config", "check", saved(tmp_path, ONE.replace("exposure", "exposed")))
    assert said.exit_code == 1
    assert "lethe.toml:" in said.output
    assert "exposed" in said.output


def test_a_secret_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line, for every provider, and never its value; nothing is wrong once it is there."""
    text = replicate(URL, name="one") + replicate(URL, name="two") + route("upscale", "[{ one = 1, two = 1 }]")
    file = saved(tmp_path, text)
    said = say("config", "check", file, "--secrets")
    assert said.exit_code == 1
    lines = [n for n, line in enumerate(text.splitlines(), start=1) if line.startswith("secret")]
    assert [f"lethe.toml:{n}: provider." in said.output for n in lines] == [True, True]
    assert said.output.count(f"env:{SECRET_VARIABLE}") == 2
    monkeypatch.setenv(SECRET_VARIABLE, "r8_verysecretvalue")
    said = say("config", "check", file, "--secrets")
    assert said.exit_code == 0, said.output
    assert "every secret is there" in said.output
    assert "r8_verysecretvalue" not in said.output


def test_a_secret_in_a_file_is_looked_for(tmp_path: Path) -> None:
    """An empty one is none."""
    secret = tmp_path / "secret"
    file = saved(tmp_path, ONE.replace(f"env:{SECRET_VARIABLE}", f"file:{secret}"))
    assert say("config", "check", file, "--secrets").exit_code == 1
    secret.write_text("\n")
    assert say("config", "check", file, "--secrets").exit_code == 1
    secret.write_text("r8_something\n")
    assert say("config", "check", file, "--secrets").exit_code == 0


def test_what_only_the_adapter_knows_is_found(tmp_path: Path) -> None:
    """An option that it does not have is named with its line, though its secret is not there."""
    text = ONE.replace('adapter = "replicate"', 'adapter = "fal"\noptions = { colour = 3 }')
    text = text.replace('exposure = "ephemeral"', 'exposure = "logged"')
    said = say("config", "check", saved(tmp_path, text))
    assert said.exit_code == 1
    (line,) = [n for n, line in enumerate(text.splitlines(), start=1) if line.startswith("options")]
    assert f"lethe.toml:{line}: provider.one.options" in said.output


def test_a_provider_without_a_route_is_mentioned(tmp_path: Path) -> None:
    """It is no fault, and rarely meant."""
    said = say("config", "check", saved(tmp_path, ONE + replicate(URL, name="spare")))
    assert said.exit_code == 0, said.output
    assert "No route names spare" in said.output


def test_a_route_is_explained_in_its_order(tmp_path: Path, profile: str) -> None:
    """Tier after tier, the heavier first."""
    said = explained(tmp_path, TWO_TIERS, "upscale", "-p", "scale=4", "--profile", profile)
    assert said.exit_code == 0, said.output
    numbered = [line for line in said.output.splitlines() if line[0].isdigit()]
    assert numbered == ["1. two (tier 1, weight 5)", "2. one (tier 1, weight 1)", "3. three (tier 2, weight 1)"]
    assert "LETHE_REDIS_URL is not set" in said.output


def test_who_is_left_out_is_told_why(tmp_path: Path, profile: str) -> None:
    """Too large a picture for one, a parameter that another does not take."""
    small = replicate(URL, name="small").replace("cost_usd", "max_pixels = 1_000_000\ncost_usd")
    deaf = replicate(URL, name="deaf").replace(', scale = "$scale:2"', "")
    text = small + deaf + replicate(URL, name="able") + route("upscale", "[{ small = 1, deaf = 1 }, { able = 1 }]")
    said = explained(tmp_path, text, "upscale", "-p", "scale=4", "--megapixels", "12", "--profile", profile)
    assert said.exit_code == 0, said.output
    assert "1. able (tier 2, weight 1)" in said.output
    assert "-  small: it takes 1000000 pixels at most" in said.output
    assert "-  deaf: it does not take the parameter scale" in said.output


def test_what_a_profile_forbids_is_told(tmp_path: Path) -> None:
    """Under the profile that ships no picture leaves: nobody can run it, and the exit code says so."""
    said = explained(tmp_path, ONE, "upscale")
    assert said.exit_code == 1
    assert "-  one: " in said.output
    assert "nobody can run upscale like this" in said.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["upscale", "-p", "scale=9"], "scale is out of range"),
        (["upscale", "-p", "colour=red"], "colour is not a parameter of this operation"),
        (["upscale", "--pictures", "3"], "upscale takes one picture"),
        (["generate"], "generate has no route"),
        (["fly"], "'fly' is not one of"),
        (["upscale", "-p", "scale"], "a parameter is NAME=VALUE"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path, arguments: list[str], reason: str) -> None:
    """A job like this would not be taken in either."""
    said = explained(tmp_path, ONE, *arguments)
    assert said.exit_code in {1, 2}
    assert reason in said.output


def test_words_are_read_as_words(tmp_path: Path, profile: str) -> None:
    """A prompt may stand on the command line, and need not: it is known to be required."""
    edit = ONE.replace("upscale", "edit").replace('scale = "$scale:2"', 'prompt = "$prompt"')
    for words in (["-p", "prompt=two boats"], []):
        said = explained(tmp_path, edit, "edit", *words, "--profile", profile)
        assert said.exit_code == 0, said.output

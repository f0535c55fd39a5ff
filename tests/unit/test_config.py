"""lethe.toml: what is accepted, and where a wrong file is said to be wrong."""

from pathlib import Path

import pytest

from broker.config import DEFAULT_FILE, Config, load_config, read_config
from policies.base import ProviderTerms
from policies.toml_file import ConfigInvalid, TomlFile
from providers.base import Exposure

GOOD = """\
[provider.idle]
adapter = "inhouse"
pool = "gpu"
model = "noop"
exposure = "local"

[provider.big]
adapter = "inhouse"
pool = "gpu2"
model = "realesrgan"
exposure = "local"

[[route]]
operation = "noop"
tiers = [{ idle = 1 }]

[[route]]
operation = "upscale"
tiers = [
  { big = 3 },
]
"""


def read(text: str) -> Config:
    return read_config(TomlFile(text, name="lethe.toml"))


def test_the_file_that_ships_runs_the_in_house_models_and_no_noop() -> None:
    """Upscale and restyle wait for the gpu pool; what has no route has no pool."""
    config = load_config()
    assert config.operations == ("upscale", "restyle")
    assert (config.pool_of("upscale"), config.pool_of("restyle")) == ("gpu", "gpu")
    assert [config.pool_of(name) for name in ("noop", "edit", "animate", "")] == [None] * 4
    assert load_config(DEFAULT_FILE) == config


def test_a_route_leads_to_its_provider_and_pool() -> None:
    """Routes, providers and terms are read as written."""
    config = read(GOOD)
    route = config.route("upscale")
    assert route is not None
    assert route.providers == ("big",)
    assert (config.pool_of("noop"), config.pool_of("upscale")) == ("gpu", "gpu2")
    provider = config.provider_of("upscale")
    assert provider is not None
    assert provider.model == "realesrgan"
    assert provider.terms == ProviderTerms(exposure=Exposure.LOCAL, retention_s=0)
    assert config.route("edit") is None
    assert config.provider_of("edit") is None


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    """An operator's file is used instead of the one that ships."""
    path = tmp_path / "studio.toml"
    path.write_text(GOOD)
    assert load_config(path).operations == ("noop", "upscale")
    with pytest.raises(ConfigInvalid) as caught:
        load_config(tmp_path / "absent.toml")
    assert caught.value.file.endswith("absent.toml")


@pytest.mark.parametrize(
    ("was", "now", "line", "reason"),
    [
        ('model = "noop"', 'model = "nope"', 4, "provider.idle.model: no in-house model has this name"),
        ('model = "noop"', "model = 7", 4, "provider.idle.model: Expected `str`, got `int`"),
        ('pool = "gpu"\n', 'pool = "gpu 1"\n', 3, "provider.idle.pool: Expected `str` matching regex"),
        ('pool = "gpu2"\n', "", 7, "provider.big: Object missing required field `pool`"),
        ('pool = "gpu2"', 'pool = "gpu2"\nbatch = 4', 10, "provider.big.batch: Object contains unknown field `batch`"),
        ('exposure = "local"\n\n[[', 'exposure = "lokal"\n\n[[', 11, "Invalid enum value 'lokal'"),
        ('adapter = "inhouse"', 'adapter = "magic"', 2, "Invalid value 'magic'"),
        ("[provider.big]", "[provider.Big]", 1, "Expected `str` matching regex"),
        ('operation = "noop"', 'operation = "nothing"', 14, "route.0.operation: no operation has this name"),
        ('operation = "upscale"', 'operation = "noop"', 20, "route.1.tiers.0.big: this provider does not run noop"),
        ("{ big = 3 }", "{ small = 3 }", 20, "route.1.tiers.0.small: no [provider] has this name"),
        ("{ big = 3 }", "{ idle = 3 }", 20, "route.1.tiers.0.idle: this provider does not run upscale"),
        ("{ big = 3 }", "{ big = 0 }", 19, "Expected `int` >= 1"),
        ("{ big = 3 }", "{ big = 3, idle = 1 }", 19, "more than one provider"),
        ("  { big = 3 },\n", "", 19, "route.1.tiers: Expected `array` of length >= 1"),
        ("{ big = 3 }", "{}", 19, "Expected `object` of length >= 1"),
        ("tiers = [{ idle = 1 }]", "tiers = [{ idle = 1 }]\nmax_usd = 1", 16, "unknown field `max_usd`"),
        ('[[route]]\noperation = "noop"', '[[rout]]\noperation = "noop"', 13, "unknown field `rout`"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_reason(was: str, now: str, line: int, reason: str) -> None:
    """The whole file is checked at start; the error names file, line and reason."""
    assert was in GOOD
    with pytest.raises(ConfigInvalid) as caught:
        read(GOOD.replace(was, now))
    assert reason in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("lethe.toml", line)


def test_an_operation_has_one_route() -> None:
    """A second route for the same operation is refused where it stands."""
    with pytest.raises(ConfigInvalid, match=r"lethe.toml:24: route\.2\.operation: noop has a route already"):
        read(GOOD + '\n[[route]]\noperation = "noop"\ntiers = [{ idle = 1 }]\n')


@pytest.mark.parametrize("text", ["", "[provider]\n", "route = []\n", 'provider = "gpu"\nroute = []\n'])
def test_a_file_without_its_parts_is_refused(text: str) -> None:
    """Providers and routes both have to be written down."""
    with pytest.raises(ConfigInvalid):
        read(text)


def test_a_configuration_may_route_nothing() -> None:
    """A broker that refuses every operation is odd and not wrong."""
    assert read("route = []\n[provider]\n").operations == ()

"""lethe.toml: what is accepted, and what it means."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import DEFAULT_FILE, load_config, read_config
from broker.routes import After, Config, InhouseProvider, OutsideProvider
from policies.base import ProviderTerms
from policies.toml_file import ConfigInvalid, TomlFile
from providers.base import Deletes, Exposure, Model
from providers.download import DownloadRules
from tests.configs import ACME, GOOD, acme, read


@pytest.fixture(autouse=True)
def known_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    acme(monkeypatch)


def outside(config: Config, name: str = "acme") -> OutsideProvider:
    provider = config.providers[name]
    assert isinstance(provider, OutsideProvider)
    return provider


def with_acme(**changed: object) -> OutsideProvider:
    """Read the file with other fields of [provider.acme]; None takes one away."""
    return outside(read(GOOD, changed))


def test_the_file_that_ships_runs_the_in_house_models_alone() -> None:
    """Upscale and restyle wait for the gpu pool; nothing leaves, and what is not named has no route."""
    config = load_config()
    assert config.operations == ("upscale", "restyle")
    assert sorted(config.of_pool("gpu")) == ["pencil", "realesrgan"]
    assert {provider.exposure for provider in config.providers.values()} == {Exposure.LOCAL}
    assert [config.route(name) for name in ("noop", "edit", "animate", "")] == [None] * 4
    assert load_config(DEFAULT_FILE) == config


def test_in_house_and_third_party_stand_in_one_route() -> None:
    """Tiers, weights, caps and the rest of a route are read as written."""
    config = read(GOOD)
    route = config.route("upscale")
    assert route is not None
    assert route.tiers == ({"gpu": 9, "acme": 1}, {"mirror": 1})
    assert route.providers == ("gpu", "acme", "mirror")
    assert (route.tries, route.deadline_s, route.max_usd, route.overflow_after_s) == (5, 180.0, 0.02, 5.0)
    assert (route.on_reject, route.on_uncertain) == (After.NEXT, After.STOP)
    assert [provider.adapter for provider in config.routed("upscale")] == ["inhouse", "acme", "acme"]


def test_a_route_stops_and_tries_four_times_unless_it_says_otherwise() -> None:
    """Nobody is paid twice, and no picture shopped around, by default; there is no cap and no overflow."""
    route = read(GOOD).route("noop")
    assert route is not None
    assert (route.on_reject, route.on_uncertain, route.tries) == (After.STOP, After.STOP, 4)
    assert (route.deadline_s, route.max_usd, route.overflow_after_s) == (None, None, None)


def test_a_provider_of_ours_is_read_as_written() -> None:
    """An in-house model keeps nothing and can do what its model can."""
    provider = read(GOOD).providers["gpu"]
    assert isinstance(provider, InhouseProvider)
    assert (provider.pool, provider.model, provider.operations) == ("gpu", "realesrgan", {"upscale"})
    assert provider.terms == ProviderTerms(exposure=Exposure.LOCAL, retention_s=0)
    assert provider.deletes is Deletes.NONE


def test_a_provider_outside_is_read_as_written() -> None:
    """Its operations, terms and limits; what is not given is what the adapter documents."""
    provider = outside(read(GOOD))
    assert provider.models["upscale"] == Model(
        model="up-2", input={"image": "$image", "scale": "$scale:2"}, output="/result/0", cost_usd=0.004
    )
    assert provider.terms == ProviderTerms(exposure=Exposure.LOGGED, retention_s=ACME.retention_s, region="")
    assert (provider.pool, provider.concurrency, provider.timeout_s) == ("relay", 8, 30.0)
    assert (provider.deletes, provider.hosts) == (Deletes.API, ("*.acme.example",))


def test_providers_without_a_route_are_run_by_no_worker() -> None:
    """A worker makes adapters for what is routed in its pool, and needs no other secret."""
    config = read(GOOD)
    assert sorted(config.of_pool("relay")) == ["acme", "mirror"]
    assert sorted(config.of_pool("gpu")) == ["gpu", "idle"]
    assert "spare" in config.providers
    assert config.of_pool("tpu") == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"exposure": "ephemeral", "contract": "zero retention, 2026-05"},
        {"exposure": "local", "contract": "their machine in our rack"},
        {"retention_s": 0, "contract": "zero retention, 2026-05"},
        {"exposure": "local", "retention_s": 0, "contract": "zero retention, 2026-05"},
        {"exposure": "public"},
        {"retention_s": ACME.retention_s},
        {"retention_s": 10 * ACME.retention_s},
    ],
)
def test_terms_may_be_stricter_or_by_contract(changed: dict[str, object]) -> None:
    """Exposure and retention may be wider than documented; narrower only where an agreement is named."""
    provider = with_acme(**changed)
    assert provider.terms.exposure == changed.get("exposure", "logged")
    assert provider.terms.retention_s == changed.get("retention_s", ACME.retention_s)


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("https://api.acme.example", {}),
        ("https://api.acme.example:8443/v2/", {}),
        ("http://localhost:8000", {}),
        ("http://127.0.0.1:8000", {}),
        ("http://127.9.8.7", {}),
        ("http://[::1]:8000", {}),
        ("http://gpu-1:5000", {"exposure": "local", "contract": "in our rack"}),
        ("http://10.0.0.7:5000/api", {"exposure": "local", "contract": "in our rack"}),
    ],
)
def test_plain_http_is_for_what_is_local(url: str, more: dict[str, object]) -> None:
    """This machine, or a provider whose exposure is local; a slash at the end makes no difference."""
    assert with_acme(base_url=url, **more).base_url == url.rstrip("/")


@pytest.mark.parametrize("secret", ["env:ACME_KEY", "env:_k1", "file:/run/secrets/acme", "file:/a b/c"])
def test_secrets_are_references(secret: str) -> None:
    """The file names where a secret is; reading the file does not need it."""
    assert with_acme(secret=secret).secret == secret


@given(host=st.text(alphabet="ab.*-_:/A\N{LATIN SMALL LETTER E WITH ACUTE} ", max_size=9))
def test_hosts_that_are_accepted_can_be_downloaded_from(host: str) -> None:
    """What configuration takes as a host is what the downloader takes, and nothing else."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        acme(monkeypatch)
        assert is_accepted(lambda: read(GOOD, {"hosts": [host]})) == is_accepted(
            lambda: DownloadRules(base_url="https://api.acme.example", hosts=(host,))
        )


def is_accepted(make: Callable[[], object]) -> bool:
    try:
        make()
    except (ConfigInvalid, ValueError):
        return False
    return True


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    """An operator's file is used instead of the one that ships; errors name it."""
    path = tmp_path / "studio.toml"
    path.write_text(GOOD)
    assert load_config(path).operations == ("upscale", "noop")
    path.write_text(GOOD.replace("acme = 1", "akme = 1"))
    with pytest.raises(ConfigInvalid) as caught:
        load_config(path)
    assert caught.value.file == str(path)
    with pytest.raises(ConfigInvalid, match="cannot be read") as caught:
        load_config(tmp_path / "absent.toml")
    assert caught.value.file.endswith("absent.toml")


def test_a_configuration_may_route_nothing() -> None:
    """A broker that refuses every operation is odd and not wrong."""
    assert read("route = []\n[provider]\n").operations == ()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)


@given(where=st.sampled_from(["adapter", "operation", "upscale", "input", "hosts", "tiers", "0"]), tree=TREES)
def test_whatever_stands_anywhere_the_file_is_read_or_refused(where: str, tree: object) -> None:
    """No value at any place breaks the reader: it answers with a configuration or with ConfigInvalid."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        acme(monkeypatch)
        file = TomlFile(GOOD, name="lethe.toml")
        provider, route = file.tree["provider"]["acme"], file.tree["route"][0]
        places = {
            "adapter": (provider, "adapter"),
            "operation": (provider, "operation"),
            "upscale": (provider["operation"], "upscale"),
            "input": (provider["operation"]["upscale"], "input"),
            "hosts": (provider, "hosts"),
            "tiers": (route, "tiers"),
            "0": (route["tiers"], 0),
        }
        table, key = places[where]
        table[key] = tree
        try:
            read_config(file)
        except ConfigInvalid as exc:
            assert exc.reason  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("field", "where", "line"),
    [
        ("secret", "provider.acme.secret", 'secret = "env:ACME_KEY"'),
        ("options", "provider.acme.options", "[provider.acme]"),
        ("operation.upscale", "provider.acme.operation.upscale", "[provider.acme.operation.upscale]"),
        ("", "provider.acme", "[provider.acme]"),
    ],
)
def test_what_a_worker_finds_wrong_has_a_line_too(field: str, where: str, line: str) -> None:
    """A missing secret, or an option that an adapter does not take, is found later and named where it stands."""
    lines: list[str] = [*GOOD.splitlines()]
    error = read(GOOD).invalid("acme", field, "is empty")
    assert str(error) == f"lethe.toml:{lines.index(line) + 1}: {where}: is empty"

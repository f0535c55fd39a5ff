"""What the doctor concludes about providers: who may run what, where workers and secrets are, how hints arrive."""

from pathlib import Path
from uuid import uuid4

import pytest

from broker.config import load_config
from broker.doctor.findings import Finding, Level
from broker.doctor.providers import hints, pools_here, routes, secret_files, workers
from broker.routes import Config
from broker.store.processes import Facts, Process
from policies.registry import Profile, load_profile
from tests.profiles import open_profile
from tests.relay import SECRET_VARIABLE, replicate, route

OURS = '[provider.ours]\nadapter = "inhouse"\npool = "gpu"\nmodel = "realesrgan"\nexposure = "local"\n'
URL = "http://127.0.0.1:9"
NOBODY: frozenset[str] = frozenset()


def configured(folder: Path, text: str) -> Config:
    (folder / "lethe.toml").write_text(text)
    return load_config(folder / "lethe.toml")


@pytest.fixture
def outside(tmp_path: Path) -> Config:
    """All is done at a provider outside."""
    return configured(tmp_path, replicate(URL) + route("upscale", "[{ replicate = 1 }]"))


@pytest.fixture
def both(tmp_path: Path) -> Config:
    """A model of ours, then a provider outside."""
    return configured(tmp_path, replicate(URL) + OURS + route("upscale", "[{ ours = 1 }, { replicate = 1 }]"))


def minimal() -> Profile:
    return load_profile("minimal")


def wider(folder: Path) -> Profile:
    return load_profile(open_profile(folder, "ephemeral", max_provider_retention_s="3_600"))


def levels(findings: list[Finding]) -> list[Level]:
    assert all(finding.mend for finding in findings if finding.level in {Level.WARNING, Level.PROBLEM})
    return [finding.level for finding in findings]


def worker(pool: str, *names: str) -> Process:
    return Process(id=uuid4(), role="worker", facts=Facts(pool=pool, providers=names))


def test_a_route_that_the_profile_shuts_is_a_problem(outside: Config, tmp_path: Path) -> None:
    """It is said which provider it refuses and why, and what the profile would have to say; allowed, all is well."""
    (found,) = routes(outside, minimal())
    assert found.level is Level.PROBLEM
    assert "replicate: the provider's exposure is ephemeral" in found.what
    assert 'exposure = "ephemeral", max_provider_retention_s = 3600' in found.mend
    assert levels(list(routes(outside, wider(tmp_path)))) == [Level.OK]


def test_a_provider_that_is_never_reached_is_noted(both: Config) -> None:
    """While somebody else runs the operation nothing is broken; that one of the route never will is good to know."""
    assert levels(list(routes(both, minimal()))) == [Level.OK, Level.NOTE]


def test_each_pool_needs_a_worker(both: Config) -> None:
    """A pool without a worker is a problem; so is a worker that does not run a provider of its pool."""
    assert levels(list(workers(both, []))) == [Level.PROBLEM] * 2
    assert levels(list(workers(both, [worker("gpu", "ours")]))) == [Level.OK, Level.PROBLEM]
    assert levels(list(workers(both, [worker("gpu", "ours"), worker("relay", "replicate")]))) == [Level.OK] * 2
    there = list(workers(both, [worker("gpu", "ours"), worker("relay")]))
    assert levels(there) == [Level.OK, Level.OK, Level.PROBLEM]
    assert "no worker of the pool relay runs replicate" in there[-1].what


def test_a_secret_is_needed_where_its_worker_runs(outside: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there: a problem beside its worker, worth a look anywhere else, and fine while a live worker has it."""
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    live = frozenset({"replicate"})
    assert levels(list(secret_files(outside, here=frozenset({"relay"}), live=NOBODY))) == [Level.PROBLEM]
    assert levels(list(secret_files(outside, here=NOBODY, live=NOBODY))) == [Level.WARNING]
    assert levels(list(secret_files(outside, here=NOBODY, live=live))) == [Level.NOTE]
    monkeypatch.setenv(SECRET_VARIABLE, "canary")
    (found,) = secret_files(outside, here=NOBODY, live=NOBODY)
    assert found.level is Level.OK
    assert "canary" not in found.what


def test_a_secret_that_others_can_read_is_a_problem(tmp_path: Path) -> None:
    """A key file is for its owner alone."""
    file = tmp_path / "key"
    file.write_text("canary")
    text = replicate(URL).replace(f"env:{SECRET_VARIABLE}", f"file:{file}") + route("upscale", "[{ replicate = 1 }]")
    config = configured(tmp_path, text)
    for mode, level in ((0o644, Level.PROBLEM), (0o600, Level.OK)):
        file.chmod(mode)
        assert levels(list(secret_files(config, here=NOBODY, live=NOBODY))) == [level]


@pytest.mark.parametrize(
    ("public_url", "level"),
    [("", Level.NOTE), ("http://lethe.example.org", Level.PROBLEM), ("http://127.0.0.1:9", Level.PROBLEM)],
)
async def test_hints_need_an_address(outside: Config, public_url: str, level: Level) -> None:
    """Without one providers are asked instead; an open or a dead address is a problem."""
    assert levels([finding async for finding in hints(outside, public_url)]) == [level]


async def test_a_name_that_begins_like_this_machine_is_another(outside: Config) -> None:
    """It is told that hints travel in the open, and nothing is sent there."""
    [finding] = [finding async for finding in hints(outside, "http://127.0.0.1.example.org")]
    assert "not https" in finding.what


async def test_nobody_sends_hints_to_models_of_ours(tmp_path: Path) -> None:
    """Without a provider that could send one there is nothing to say."""
    config = configured(tmp_path, replicate(URL) + OURS + route("upscale", "[{ ours = 1 }]"))
    assert [finding async for finding in hints(config, "")] == []


def test_workers_are_known_by_their_commands(tmp_path: Path) -> None:
    """Whatever else runs, a worker's command names its pool."""
    for pid, command in enumerate(("python\0-m\0workers\0relay\0", "vi\0workers\0gpu\0", "python\0-m\0workers\0", "")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text(command)
    (tmp_path / "77").mkdir()
    assert pools_here(tmp_path) == {"relay"}

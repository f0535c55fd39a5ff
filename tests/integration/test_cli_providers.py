"""`lethe providers`: what is configured beside what all processes know, read without a secret."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from broker.breaker import Breaker
from broker.cli import main
from broker.queue import connect
from broker.slots import Slots
from providers.failures import FailureKind
from tests.profiles import open_profile
from tests.relay import SECRET_VARIABLE, replicate, route
from tests.stack import Servers

CONFIG = (
    replicate("http://127.0.0.1:9", name="one", concurrency=3)
    + replicate("http://127.0.0.1:9", name="two")
    + '[provider.pencil]\nadapter = "inhouse"\npool = "gpu"\nmodel = "pencil"\nexposure = "local"\n'
    + route("upscale", "[{ one = 1 }, { two = 1 }]")
)


@pytest.fixture(autouse=True)
def _no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    monkeypatch.delenv("LETHE_REDIS_URL", raising=False)
    monkeypatch.delenv("LETHE_CONFIG_FILE", raising=False)


@pytest.fixture
async def redis(servers: Servers) -> AsyncGenerator[Any]:
    """A worker's: one provider's account is empty, and two attempts run there."""
    client = connect(servers.embedded.redis_url)
    await Breaker(client).report("one", FailureKind.PAYMENT)
    for _ in range(2):
        await Slots(client).acquire("one", uuid4(), limit=3)
    yield client
    await client.aclose(close_connection_pool=True)


async def say(folder: Path, *arguments: str) -> Result:
    """Run a command as a shell would: in a thread, as it has a loop of its own."""
    file = folder / "lethe.toml"
    file.write_text(CONFIG)
    whole = [*arguments, "--config", str(file)]
    return await asyncio.to_thread(CliRunner().invoke, main, whole, catch_exceptions=False)


async def test_providers_are_shown_as_they_stand(redis: Any, servers: Servers, tmp_path: Path) -> None:
    """State with its reason and end, what runs of how much may, exposure, retention, deletion, operations."""
    said = await say(tmp_path, "providers", "--json", "--redis-url", servers.embedded.redis_url)
    assert said.exit_code == 0, said.output
    one, two, pencil = json.loads(said.stdout)
    assert 890 < one.pop("retry_in_s") <= 900
    assert one == {
        "provider": "one",
        "adapter": "replicate",
        "pool": "relay",
        "exposure": "ephemeral",
        "retention_s": 3600,
        "deletes": "ttl",
        "operations": ["upscale"],
        "slots": 3,
        "in_use": 2,
        "state": "open",
        "reason": "payment",
    }
    assert (two["state"], two["in_use"], two["slots"]) == ("closed", 0, 100)
    assert "reason" not in two
    assert {"state", "slots", "in_use"}.isdisjoint(pencil)


async def test_the_table_says_the_same(redis: Any, servers: Servers, tmp_path: Path) -> None:
    """In words, one line for each provider."""
    said = await say(tmp_path, "providers", "--redis-url", servers.embedded.redis_url)
    assert said.exit_code == 0, said.output
    header, one, two, pencil = said.stdout.rstrip().splitlines()
    assert header.split()[:4] == ["provider", "adapter", "pool", "state"]
    assert "open: payment, again in 15 min" in one
    assert "2/3" in one
    assert ("closed" in two, "0/100" in two) == (True, True)
    assert pencil.split()[:5] == ["pencil", "inhouse", "gpu", "-", "-"]


@pytest.mark.parametrize("url", ["", "unix:///nobody/is/here.sock", "redis://127.0.0.1:1"])
async def test_without_redis_the_rest_is_shown(tmp_path: Path, url: str) -> None:
    """What is configured is known all the same; what is not known is absent, and never called healthy."""
    arguments = ["--redis-url", url] if url else []
    said = await say(tmp_path, "providers", *arguments)
    assert said.exit_code == 0, said.output
    assert "is not known" in said.stdout
    assert "unknown" in said.stdout.splitlines()[1]
    assert "closed" not in said.stdout
    said = await say(tmp_path, "providers", "--json", *arguments)
    assert all("state" not in row and "in_use" not in row for row in json.loads(said.stdout))


async def test_a_wrong_address_is_one_sentence(tmp_path: Path) -> None:
    """What is no URL is refused as one."""
    said = await say(tmp_path, "providers", "--redis-url", "localhost")
    assert said.exit_code == 2
    assert "no URL of a Redis server" in said.output


async def test_an_explanation_knows_who_is_left_alone(redis: Any, servers: Servers, tmp_path: Path) -> None:
    """Unhealthy last, and never nobody: with its reason beside it."""
    url = servers.embedded.redis_url
    said = await say(tmp_path, "config", "explain", "upscale", "--redis-url", url, "--profile", open_profile(tmp_path))
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [
        "1. two (tier 2, weight 1)",
        "2. one (tier 1, weight 1) - open: payment, again in 15 min",
    ]

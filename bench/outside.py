"""Providers outside as the measured stack meets them: emulators that come and go, and a lethe.toml with them in it."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from bench.emulated import SECRETS, Moment, Standing
from bench.stack import HERE, Stack, answers, free_port

ANSWER_WITHIN_S = 30.0

NOOP = """
[provider.noop]
adapter = "inhouse"
pool = "noop"
model = "noop"
exposure = "local"

[[route]]
operation = "noop"
tiers = [{ noop = 1 }]
"""
IMAGES = """
[provider.{name}]
adapter = "openai_images"
base_url = "{url}/v1"
secret = "file:{secret}"
exposure = "logged"
concurrency = 10000

[provider.{name}.operation.edit]
model = "gpt-image-2"
input = {{ prompt = "$prompt", output_format = "jpeg" }}

[provider.{name}.operation.generate]
model = "gpt-image-2"
input = {{ prompt = "$prompt", output_format = "jpeg" }}
"""
PREDICTIONS = """
[provider.{name}]
adapter = "replicate"
base_url = "{url}"
secret = "file:{secret}"
exposure = "ephemeral"
hosts = ["replicate.delivery"]
concurrency = 10000

[provider.{name}.operation.upscale]
model = "someone/upscaler:f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
input = {{ image = "$image", scale = "$scale:2" }}
output = "/output"
"""
TABLES = {"images": IMAGES, "predictions": PREDICTIONS}


class Emulated:
    """One emulated provider that runs."""

    def __init__(self, kind: str, url: str, pid: int) -> None:
        self.kind = kind
        self.url = url
        self.pid = pid
        self.port = int(url.rpartition(":")[2])
        self.http = httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_S, trust_env=False)

    async def moments(self, ending: str = "") -> list[Moment]:
        """Take the moments of all requests since it was asked last; of those whose path ends like this."""
        told = msgspec.json.decode((await self.http.get("/bench/moments")).content, type=list[Moment])
        return [moment for moment in told if moment.path.endswith(ending)]

    async def standing(self) -> Standing:
        """Count predictions."""
        return msgspec.json.decode((await self.http.get("/bench/standing")).content, type=Standing)

    async def release(self) -> None:
        """Let held predictions end."""
        (await self.http.post("/bench/release")).raise_for_status()

    def table(self, name: str, folder: Path) -> str:
        """Write its table for lethe.toml; its secret lies in the folder."""
        secret = folder / f"{self.kind}.secret"
        secret.write_text(SECRETS[self.kind])
        return TABLES[self.kind].format(name=name, url=self.url, secret=secret)


@asynccontextmanager
async def emulated(stack: Stack, kind: str, *options: str) -> AsyncGenerator[Emulated]:
    """Run an emulated provider."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.emulated", kind, "--port", str(port), *options]
    async with stack.program(f"emulated-{port}", command) as running:
        await running.until(lambda: answers(f"{url}/bench/moments"))
        made = Emulated(kind, url, running.pid)
        async with made.http:
            yield made


def route(operation: str, tiers: str) -> str:
    """Write a route."""
    return f'\n[[route]]\noperation = "{operation}"\ntiers = {tiers}\n'


def relaying(stack: Stack, config: str) -> dict[str, object]:
    """Write lethe.toml and a profile that lets pictures go to providers for 40 days; return the settings to change."""
    profile, file = stack.folder / "relay.toml", stack.folder / "lethe.toml"
    text = (HERE / "profile.toml").read_text().replace('exposure = "local"', 'exposure = "logged"')
    profile.write_text(text.replace("max_provider_retention_s = 0", "max_provider_retention_s = 3_456_000"))
    file.write_text(config)
    return {"profile": str(profile), "config_file": str(file)}

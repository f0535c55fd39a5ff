"""Providers that the demo reaches without a key: which there are, how each is configured, its emulator's process."""

import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import msgspec

from broker.children import StackError, spawn
from broker.config import load_config
from broker.demo.wire import Request, Sent
from broker.routes import OutsideProvider
from broker.settings import inherited_environment
from policies.base import Refuse
from policies.registry import PROFILES, Policies, load_profile
from providers.calls import trust

CHECKOUT: Final = Path(__file__).parents[2]
STRICTEST: Final = "minimal"
KEY_NAME: Final = "api-key"
_URL: Final = re.compile(r"^http://127\.0\.0\.1:\d+$", re.MULTILINE)
_NEEDS: Final = ("PATH", "LANG", "LC_ALL", "HOME")
_WORK_S: Final = 0.3
_START_WITHIN_S: Final = 20.0


class EmulatorMissing(StackError):
    """Emulators are part of a checkout, not of what is installed."""


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """
    One provider that there is an emulator of: what is ordered there, and its tables in lethe.toml.

    `$URL` stands for the emulator's address. `factor` is how many times wider and higher its answer is.
    """

    adapter: str
    api_key: str
    exposure: str
    more: str = ""
    operation: str
    model: str
    parameters: dict[str, str] = {}
    texts: dict[str, str] = {}
    factor: float
    base_url: str = "$URL"

    def config(self, url: str, key_file: Path) -> str:
        """Write its lethe.toml."""
        text = f"""\
[provider.{self.adapter}]
adapter = "{self.adapter}"
base_url = "{self.base_url}"
secret = "file:{key_file}"
exposure = "{self.exposure}"
{self.more}
[provider.{self.adapter}.operation.{self.operation}]
{self.model}
[[route]]
operation = "{self.operation}"
tiers = [{{ {self.adapter} = 1 }}]
"""
        return text.replace("$URL", url)


PROVIDERS: Final = {
    "replicate": Emulated(
        adapter="replicate",
        api_key="r8_canary5f0ekingfisher",
        exposure="ephemeral",
        more='hosts = ["replicate.delivery", "*.replicate.delivery"]\n',
        operation="upscale",
        model="""\
model = "someone/upscaler:f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
input = { image = "$image", scale = "$scale:2" }
output = "/output"
usd_per_s = 0.001
""",
        parameters={"scale": "2"},
        factor=2,
    ),
    "fal": Emulated(
        adapter="fal",
        api_key="canary5f0e:kingfisher-93ab17",
        exposure="logged",
        more='hosts = ["*.fal.media"]\noptions = { platform_url = "$URL/platform/v1", cdn_host = "127.0.0.1" }\n',
        operation="upscale",
        model="""\
model = "fal-ai/upscaler/creative"
input = { image_url = "$image", scale = "$scale:2" }
output = "/images"
usd_per_s = 0.001
""",
        parameters={"scale": "2"},
        factor=2,
    ),
    "openai": Emulated(
        adapter="openai_images",
        api_key="sk-emulated-4c21e07f",
        exposure="logged",
        operation="edit",
        base_url="$URL/v1",
        model="""\
model = "gpt-image-2"
input = { prompt = "$prompt", n = "$count:1", output_format = "jpeg" }
usd_per_million_tokens = 30.0
""",
        texts={"prompt": "Give the cat a yellow raincoat"},
        factor=0.5,
    ),
}
"""What `lethe demo --provider` takes; each has its emulator in tests/emulators."""

ZERO_RETENTION: Final = """\
[provider.openai]
adapter = "openai_images"
base_url = "$openai_images_url/v1"
secret = "file:$openai_images_key"
exposure = "ephemeral"
retention_s = 0
contract = "zero data retention, as agreed"
"""
"""The provider of journeys whose profile lets pictures go only where nothing is kept."""


class Outside:
    """A provider's emulator that runs."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    async def sent(self) -> Sent:
        """Ask for every request that it has had."""
        return Sent(requests=msgspec.json.decode(await self._get("seen"), type=tuple[Request, ...]))

    async def account(self) -> str:
        """Ask for the file that lets somebody in."""
        return (await self._get("account")).decode()

    async def _get(self, what: str) -> bytes:
        async with httpx.AsyncClient(verify=trust(), trust_env=False) as client:
            return (await client.get(f"{self.url}/-/{what}")).raise_for_status().content


class Emulator(Outside):
    """One of PROVIDERS, and the two files with which a stack goes to it; `name` is its name in lethe.toml."""

    def __init__(self, emulated: Emulated, url: str, directory: Path) -> None:
        super().__init__(emulated.adapter, url)
        self.emulated = emulated
        self.key_file = secret_file(directory, KEY_NAME, emulated.api_key)
        self.config_file = directory / "lethe.toml"
        self.profile_file = directory / "profile.toml"
        self.config_file.write_text(emulated.config(url, self.key_file))
        provider = load_config(self.config_file).providers[emulated.adapter]
        assert isinstance(provider, OutsideProvider)
        self.provider = provider
        self.profile_file.write_text(_allowing(provider))

    @property
    def settings(self) -> Mapping[str, str]:
        """The variables with which a stack goes to it."""
        return {"LETHE_CONFIG_FILE": str(self.config_file), "LETHE_PROFILE": str(self.profile_file)}

    def refused_by(self, profile: str) -> Refuse | None:
        """Ask a profile whether a clean picture may go there."""
        return Policies(load_profile(profile)).disclose_clean(self.provider.terms)


@asynccontextmanager
async def emulator(name: str, directory: Path, *, checkout: Path = CHECKOUT) -> AsyncGenerator[Emulator]:
    """Start the emulator of a provider; after the block it is gone."""
    folder = directory.absolute() / "provider"
    async with running_emulator(PROVIDERS[name].adapter, folder, checkout=checkout) as outside:
        yield Emulator(PROVIDERS[name], outside.url, folder)


@asynccontextmanager
async def running_emulator(adapter: str, folder: Path, *, checkout: Path = CHECKOUT) -> AsyncGenerator[Outside]:
    """Start the process of an emulator, which keeps its log in a folder."""
    program = checkout / "tests" / "emulators" / f"{adapter}.py"
    if not program.exists():
        raise EmulatorMissing(f"{program} is not there: this demo runs in a checkout of Lethe, where its emulators are")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = folder / f"{adapter}.log"
    log_file.unlink(missing_ok=True)
    environment = {key: value for key, value in inherited_environment().items() if key in _NEEDS}
    argv = (sys.executable, "-m", f"tests.emulators.{adapter}", "--seconds", str(_WORK_S))
    child = spawn(argv, name=f"the emulator of {adapter}", env=environment, log=log_file, cwd=checkout)
    try:
        await child.wait_ready(lambda: bool(_URL.search(log_file.read_text())), timeout_s=_START_WITHIN_S)
        found = _URL.search(log_file.read_text())
        assert found
        yield Outside(adapter, found[0])
    finally:
        await child.stop()


def secret_file(folder: Path, name: str, content: str) -> Path:
    """Write a key into a folder, which is made where it is missing, for their owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / name
    file.touch(mode=0o600)
    file.write_text(content)
    return file


def _allowing(provider: OutsideProvider) -> str:
    """Write a profile that differs from the strictest in what it lets this provider see and keep, and in its name."""
    text = (PROFILES / f"{STRICTEST}.toml").read_text()
    changes = {
        r"^name = .*$": 'name = "demo"',
        r"^exposure = \S+": f'exposure = "{provider.exposure}"',
        r"^max_provider_retention_s = \S+": f"max_provider_retention_s = {provider.retention_s}",
    }
    for pattern, line in changes.items():
        text = re.sub(pattern, line, text, flags=re.MULTILINE)
    return text

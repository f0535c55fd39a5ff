"""What a journey is played on: a stack under one profile, its providers emulated, and phones of its user."""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any, Final

import msgspec

from broker.client import Client
from broker.demo.emulated import KEY_NAME, Outside, running_emulator, secret_file
from broker.demo.evidence import Evidence, of_upload
from broker.demo.report import Report
from broker.jobs import Job
from broker.operators import new_key
from broker.up import Stack

PHOTO: Final = Path(__file__).with_name("photo.jpg")
FIREBASE: Final = "fcm"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A running stack and what stands around it."""

    stack: Stack
    evidence: Evidence
    report: Report
    providers: Mapping[str, Outside]
    """Emulators by name: of providers, and of who tells the phone."""
    operator_key: str
    """Of the app's own server."""
    output: Path
    """Where a journey leaves the picture that it was about."""

    async def operator(self, path: str, given: object) -> Any:
        """Do what the app's own server does: a call to the operator's listener, with an operator key."""
        async with Client(self.stack.operator_url, token=self.operator_key) as client:
            return await client.ask("POST", path, given)

    async def check_uploads(self, job: Job) -> None:
        """Look whether every copy of a job's uploads is closed, and gone from its store."""
        uploads = of_upload(await self.evidence.copies(job))
        still = [copy for copy in uploads if copy.is_open or await self.evidence.is_there(copy)]
        self.report.check(f"all {len(uploads)} copies of what was sent are gone, and closed in custody", not still)


class Journey(msgspec.Struct, frozen=True, kw_only=True):
    """What the user of one app does, under the profile of its name."""

    profile: str
    story: str
    """What happens, in a sentence."""
    play: Callable[[Stage], Awaitable[None]]
    providers: Mapping[str, str] = {}
    """The emulators that stand for providers, each with its API key."""
    is_pushing: bool = False
    """Whether its phone is told by push; Firebase is emulated then."""
    config: str = ""
    """Its lethe.toml, with `$NAME_url` and `$NAME_key`; the one that ships if empty."""


@contextlib.asynccontextmanager
async def stage(journey: Journey, directory: Path, output: Path, report: Report) -> AsyncGenerator[Stage]:
    """Start everything that a journey needs; after the block nothing of it runs."""
    async with contextlib.AsyncExitStack() as exits:
        folder = directory.absolute()
        folders = {name: folder / "provider" / name for name in journey.providers}
        running = [running_emulator(name, folder) for name, folder in folders.items()]
        providers = {one.name: one for one in [await exits.enter_async_context(one) for one in running]}
        report.step(f"Starting everything under the profile {journey.profile}")
        key, line = new_key("shop")
        given = {
            **_settings(journey, providers, folders),
            "LETHE_OPERATOR_KEYS_FILE": str(secret_file(folder, "operators", line)),
            "LETHE_SUBJECT_KEY_FILE": str(secret_file(folder, "subject.key", secrets.token_hex(32))),
        }
        if journey.is_pushing:
            push = providers[FIREBASE] = await exits.enter_async_context(running_emulator(FIREBASE, folder / "push"))
            account = secret_file(folder, "push-account.json", await push.account())
            given |= {"LETHE_FCM_URL": push.url, "LETHE_FCM_ACCOUNT_FILE": str(account)}
        stack = await exits.enter_async_context(Stack(directory, report=report.say, given=given))
        evidence = await exits.enter_async_context(Evidence(stack.settings))
        yield Stage(stack=stack, evidence=evidence, report=report, providers=providers, operator_key=key, output=output)


def _settings(journey: Journey, providers: Mapping[str, Outside], folders: Mapping[str, Path]) -> dict[str, str]:
    given = {"LETHE_PROFILE": journey.profile}
    if not journey.config:
        return given
    words = {f"{name}_url": outside.url for name, outside in providers.items()}
    words |= {f"{name}_key": str(secret_file(folders[name], KEY_NAME, key)) for name, key in journey.providers.items()}
    file = next(iter(folders.values())).parent / "lethe.toml"
    file.write_text(Template(journey.config).substitute(words))
    return {**given, "LETHE_CONFIG_FILE": str(file)}

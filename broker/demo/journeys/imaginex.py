"""Imaginex: pictures from words and a changed photo, at a provider that learns nobody's name and keeps nothing."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from broker.client import JobView
from broker.config import load_config
from broker.custody import Evidence
from broker.demo.emulated import PROVIDERS, ZERO_RETENTION
from broker.demo.evidence import theirs
from broker.demo.outside import ids_of, show_key, show_what_left
from broker.demo.phone import Phone
from broker.demo.stage import PHOTO, Journey, Stage
from broker.routes import OutsideProvider
from broker.sniff import sniff
from policies.registry import Policies, load_profile

_NAME: Final = "openai_images"
_API_KEY: Final = PROVIDERS["openai"].api_key
_WORDS: Final = "A lighthouse of brass at dawn, from a dream of mine"
_CHANGE: Final = "Give the cat a yellow raincoat"
_CONFIG: Final = f"""\
{ZERO_RETENTION}
[provider.openai.operation.generate]
model = "gpt-image-2"
input = {{ prompt = "$$prompt", n = "$$count:1", output_format = "jpeg" }}
max_outputs = 2
cost_usd = 0.04

[provider.openai.operation.edit]
model = "gpt-image-2"
input = {{ prompt = "$$prompt", n = "$$count:1", output_format = "jpeg" }}
cost_usd = 0.04

[[route]]
operation = "generate"
tiers = [{{ openai = 1 }}]

[[route]]
operation = "edit"
tiers = [{{ openai = 1 }}]
"""


async def play(stage: Stage) -> None:
    """Play it."""
    report = stage.report
    _introduce(stage)
    async with Phone.at(stage.stack.url, report) as phone:
        report.step("A user opens the app: an id is made, and the provider that the notice names is agreed to")
        await phone.begin()
        await phone.agree()
        report.step(f"Words alone: “{_WORDS}”")
        made = await phone.order("generate", {"prompt": _WORDS, "count": 2})
        pictures = [await phone.client.output(made.id, n) for n in range(2)]
        report.check("two pictures come back", all(map(sniff, pictures)))
        report.step(f"A photo and a wish: “{_CHANGE}”")
        edited = await phone.order("edit", {"prompt": _CHANGE}, [PHOTO.read_bytes()])
        stage.output.write_bytes(await phone.client.output(edited.id, 0))
        report.say(f"saved as {stage.output}")
        await _look(stage, phone, edited)
        await _forget(stage, phone, [made, edited])


def _introduce(stage: Stage) -> None:
    report = stage.report
    report.step("The provider, and what the profile allows")
    provider = load_config(stage.stack.settings.config_path).providers["openai"]
    assert isinstance(provider, OutsideProvider)
    policies = Policies(load_profile("imaginex"))
    report.say(f"openai is emulated; by contract it keeps nothing: {provider.contract}")
    report.check("the profile allows it", policies.disclose_clean(provider.terms) is None)
    refused = policies.disclose_clean(msgspec.structs.replace(provider.terms, retention_s=2_592_000))
    report.check(f"without that contract it would be refused: {refused and refused.reason}", refused is not None)


async def _look(stage: Stage, phone: Phone, edited: JobView) -> None:
    report, job = stage.report, await stage.evidence.job(phone.user.user_id, edited.id)
    sent = await stage.providers[_NAME].sent()
    show_what_left(sent, PHOTO.read_bytes(), ids_of(phone.user, [job.id, job.public_id]), name="openai", report=report)
    show_key(sent, _API_KEY, report=report)
    report.step("What is known of what it had")
    copies, now = theirs(await stage.evidence.copies(job)), datetime.now(UTC)
    report.theirs(copies)
    gone = [copy for copy in copies if copy.evidence is Evidence.EXPIRES_BY and copy.until and copy.until <= now]
    report.check("nothing of it is kept there", bool(copies) and gone == copies)
    await stage.check_uploads(job)


async def _forget(stage: Stage, phone: Phone, jobs: list[JobView]) -> None:
    report = stage.report
    report.step("The app has saved the pictures, and deletes them")
    for job in jobs:
        await phone.client.delete(job.id)
    report.check("nothing can be fetched any more", await phone.gallery() == [])


JOURNEY: Final = Journey(
    profile="imaginex",
    story="makes pictures from words and edits a photo at a provider that gets nothing identifying and keeps nothing",
    play=play,
    providers={_NAME: _API_KEY},
    config=_CONFIG,
)

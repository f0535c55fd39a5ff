"""Headpix: twelve photos and a wish become portraits, sealed to the phone; the originals are gone."""

from typing import Final

from broker.demo.emulated import PROVIDERS
from broker.demo.outside import ids_of
from broker.demo.phone import Phone
from broker.demo.stage import PHOTO, Journey, Stage
from broker.sniff import sniff

_NAME: Final = "openai_images"
_PHOTOS: Final = 12
_PORTRAITS: Final = 4
_WISHES: Final = "A woman in her forties, in the light of a studio, earnest"
_CONFIG: Final = """\
[provider.studio]
adapter = "openai_images"
base_url = "$openai_images_url/v1"
secret = "file:$openai_images_key"
exposure = "ephemeral"
retention_s = 0
contract = "zero data retention, as agreed"

[provider.studio.operation.photoshoot]
model = "gpt-image-2"
input = { prompt = "$$prompt", n = "$$count:4", output_format = "jpeg" }
max_outputs = 8
max_pictures = 16
cost_usd = 0.04

[[route]]
operation = "photoshoot"
tiers = [{ studio = 1 }]
"""


async def play(stage: Stage) -> None:
    """Play it."""
    report = stage.report
    async with Phone.at(stage.stack.url, report) as phone:
        report.step("A user opens the app: an anonymous id, what is agreed to, a key pair")
        await phone.begin()
        await phone.agree()
        await phone.register()
        job_id = await _shoot(stage, phone)
        await _look(stage, phone, job_id)
        await _forget(stage, phone)


async def _shoot(stage: Stage, phone: Phone) -> str:
    report = stage.report
    report.step(f"{_PHOTOS} photos and a wish: “{_WISHES}”")
    wishes: dict[str, object] = {"prompt": _WISHES, "count": _PORTRAITS}
    job = await phone.order("photoshoot", wishes, [PHOTO.read_bytes()] * _PHOTOS)
    portraits = [await phone.open(job.id, n) for n in range(_PORTRAITS)]
    report.check(f"{_PORTRAITS} portraits come back, which the phone opens", all(map(sniff, portraits)))
    stage.output.write_bytes(portraits[0])
    report.say(f"the first is saved as {stage.output}")
    return job.id


async def _look(stage: Stage, phone: Phone, job_id: str) -> None:
    report, job = stage.report, await stage.evidence.job(phone.user.user_id, job_id)
    report.step("The originals")
    await stage.check_uploads(job)
    sent = await stage.providers[_NAME].sent()
    orders = [request for request in sent.requests if request.route == "edit"]
    parts = orders[0].body.count(b'name="image[]"')
    report.check(f"one order went to the provider, with {parts} photos", len(orders) == 1 and parts == _PHOTOS)
    report.check("nothing in it says whose they are", not sent.found(ids_of(phone.user, [job.id, job.public_id])))


async def _forget(stage: Stage, phone: Phone) -> None:
    report = stage.report
    report.step("The user has what was wanted, and deletes the account")
    erased = await phone.client.ask("DELETE", "/v1/me")
    report.check("everything is erased at once", erased["request"]["status"] == "completed")


JOURNEY: Final = Journey(
    profile="headpix",
    story="a photo shoot of twelve photos; the originals go with it, the portraits stay until they are deleted",
    play=play,
    providers={_NAME: PROVIDERS["openai"].api_key},
    config=_CONFIG,
)

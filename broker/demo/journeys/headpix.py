"""Headpix: twelve photos and a wish become portraits, seen on the phone and in a browser; the originals are gone."""

import hashlib
from collections.abc import Awaitable
from typing import Final

from broker.client import ServerRefused
from broker.demo.emulated import PROVIDERS, ZERO_RETENTION
from broker.demo.outside import ids_of
from broker.demo.phone import Phone
from broker.demo.stage import PHOTO, Journey, Stage
from broker.sniff import sniff

_NAME: Final = "openai_images"
_PHOTOS: Final = 12
_PORTRAITS: Final = 4
_ACCOUNT: Final = b"account-4711 of the app"
_WISHES: Final = "A woman in her forties, in the light of a studio, earnest"
_CONFIG: Final = f"""\
{ZERO_RETENTION}
[provider.openai.operation.photoshoot]
model = "gpt-image-2"
input = {{ prompt = "$$prompt", n = "$$count:4", output_format = "jpeg" }}
max_outputs = 8
max_pictures = 16
cost_usd = 0.04

[[route]]
operation = "photoshoot"
tiers = [{{ openai = 1 }}]
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
        await _sign_in(stage, phone, job_id)


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


async def _sign_in(stage: Stage, phone: Phone, job_id: str) -> None:
    report, url = stage.report, stage.stack.url
    report.step("The user signs in, in a browser; the app's own server knows who that is, and Lethe does not")
    subject = hashlib.sha256(_ACCOUNT).hexdigest()
    await stage.operator("/links", {"subject": subject, "token": phone.user.token})
    token = (await stage.operator("/links/token", {"subject": subject}))["token"]
    async with Phone.in_browser(url, report, token=token) as browser:
        await browser.register()
        handed = await phone.hand_on_to(browser)
        same = [await browser.open(job_id, n) == await phone.open(job_id, n) for n in range(_PORTRAITS)]
        report.check(f"the phone hands on {handed} keys; the browser shows the same portraits", all(same))
        await _from_elsewhere(stage, token)
        await _forget(stage, phone, browser)


async def _from_elsewhere(stage: Stage, token: str) -> None:
    report = stage.report
    async with Phone.in_browser(stage.stack.url, report, token=token, site="cross-site") as page:
        code = await _refusal(page.client.ask("DELETE", "/v1/me"))
        report.check(f"with the same cookie another site's page deletes nothing ({code})", code == "cross_site")


async def _forget(stage: Stage, phone: Phone, browser: Phone) -> None:
    report = stage.report
    report.step("The user has what was wanted, and deletes the account")
    erased = await phone.client.ask("DELETE", "/v1/me")
    report.check("everything is erased at once", erased["request"]["status"] == "completed")
    code = await _refusal(browser.gallery())
    report.check(f"the browser is nobody any more ({code})", code == "unauthenticated")


async def _refusal(work: Awaitable[object]) -> str:
    try:
        await work
    except ServerRefused as exc:
        return exc.code
    return ""


JOURNEY: Final = Journey(
    profile="headpix",
    story="a photo shoot of twelve photos; the originals are gone, the portraits are there in a browser too",
    play=play,
    providers={_NAME: PROVIDERS["openai"].api_key},
    config=_CONFIG,
)

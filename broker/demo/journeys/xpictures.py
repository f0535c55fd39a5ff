"""X pictures: a face begins to move, at a provider that its user agreed to, for credits that are taken once."""

import asyncio
import json
from typing import Any, Final

from broker.client import ServerRefused
from broker.custody import Evidence
from broker.demo.emulated import PROVIDERS
from broker.demo.evidence import theirs
from broker.demo.outside import ids_of, show_what_left
from broker.demo.phone import Phone
from broker.demo.stage import FIREBASE, PHOTO, Journey, Stage
from broker.demo.wire import Sent

_NAME: Final = "replicate"
_PHONE: Final = "dQw4w9WgXcQ:APA91bH-demo"
_LOOKS: Final = 100
_LOOK_AGAIN_S: Final = 0.2
_BOUGHT: Final = 20
_PRICE: Final = 5
_CONFIG: Final = """\
[provider.replicate]
adapter = "replicate"
base_url = "$replicate_url"
secret = "file:$replicate_key"
exposure = "ephemeral"
region = "United States"
hosts = ["replicate.delivery", "*.replicate.delivery"]

[provider.replicate.operation.animate]
model = "someone/films"
input = { image = "$$image", prompt = "$$prompt", seconds = "$$duration_s" }
output = "/output"
usd_per_s = 0.01

[[route]]
operation = "animate"
tiers = [{ replicate = 1 }]
"""
_ANIMATE: Final[dict[str, object]] = {"prompt": "She turns her head and smiles", "duration_s": 5}


async def play(stage: Stage) -> None:
    """Play it."""
    report = stage.report
    async with Phone.at(stage.stack.url, report) as phone:
        report.step("A user opens the app, and asks for a film before anything else")
        await phone.begin()
        await _refused(stage, phone, "consent_required", "without consent nothing is taken in")
        await phone.agree("push")
        await _refused(stage, phone, "credits_required", f"a film costs {_PRICE} credits, and there are none yet")
        await _buy(stage, phone)
        job_id = await _animate(stage, phone)
        await _look(stage, phone, job_id)
        await _be_told(stage, phone, job_id)


async def _refused(stage: Stage, phone: Phone, code: str, words: str) -> None:
    try:
        await phone.client.post({"operation": "animate", "parameters": _ANIMATE}, [PHOTO.read_bytes()])
    except ServerRefused as exc:
        stage.report.check(f"{words} ({exc.status} {exc.code})", exc.code == code)
    else:
        stage.report.check(words, is_true=False)


async def _buy(stage: Stage, phone: Phone) -> None:
    report = stage.report
    report.step("The user buys credits; the app's own server says so")
    order: dict[str, Any] = {"user_id": phone.user.user_id, "credits": _BOUGHT, "reference": "order-4711"}
    first, again = await stage.operator("/credits", order), await stage.operator("/credits", order)
    report.check(f"{_BOUGHT} credits are granted, no payment data is stored", first["credits"] == _BOUGHT)
    report.check("the same order again grants nothing", again == {**first, "is_new": False})


async def _animate(stage: Stage, phone: Phone) -> str:
    report = stage.report
    report.step("The face begins to move")
    job = await phone.order("animate", _ANIMATE, [PHOTO.read_bytes()], notify_push=f"fcm:{_PHONE}")
    film = await phone.client.output(job.id, 0)
    stage.output.with_suffix(".mp4").write_bytes(film)
    report.check(f"a film comes back, {len(film):,} bytes of MP4", film[4:8] == b"ftyp")
    report.say(f"saved as {stage.output.with_suffix('.mp4')}")
    account = await phone.client.ask("GET", "/v1/me/credits")
    kinds = [entry["kind"] for entry in account["items"]]
    is_once = account["credits"] == _BOUGHT - _PRICE and not account["held"] and kinds.count("captured") == 1
    report.check(f"{_PRICE} credits are taken, once", is_once)
    return job.id


async def _look(stage: Stage, phone: Phone, job_id: str) -> None:
    report, job = stage.report, await stage.evidence.job(phone.user.user_id, job_id)
    sent = await stage.providers[_NAME].sent()
    ids = ids_of(phone.user, [job.id, job.public_id])
    show_what_left(sent, PHOTO.read_bytes(), ids, name=_NAME, report=report)
    report.step("What is known of what it had")
    copies = theirs(await stage.evidence.copies(job))
    report.theirs(copies)
    words = [copy.evidence for copy in copies]
    is_known = bool(words) and not {None, Evidence.UNKNOWN, Evidence.PURGE_PENDING} & set(words)
    report.check("each copy there has a word, and none is unknown", is_known)
    await stage.check_uploads(job)


async def _be_told(stage: Stage, phone: Phone, job_id: str) -> None:
    report, sent, held = stage.report, Sent(requests=()), 1
    report.step("The phone was asleep meanwhile, and is told by push")
    for _ in range(_LOOKS):
        sent = await stage.providers[FIREBASE].sent()
        held = (await phone.client.ask("GET", "/v1/me"))["held"]["notifications"]
        if _messages(sent) and not held:
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    told = [(message["token"], message["data"]) for message in _messages(sent)]
    is_one = told == [(_PHONE, {"job": job_id, "type": "job.succeeded"})]
    is_bare = not sent.found([phone.user.user_id.encode()]) and not sent.pictures
    report.check("one message came: which job, and how it ended; no picture, no words, no user", is_one and is_bare)
    report.check("where to tell the phone is forgotten", not held)


def _messages(sent: Sent) -> list[Any]:
    return [json.loads(request.body)["message"] for request in sent.requests if request.route == "send"]


JOURNEY: Final = Journey(
    profile="xpictures",
    story="animates a face at a provider, with consent, for credits, and is told by push",
    play=play,
    providers={_NAME: PROVIDERS[_NAME].api_key},
    is_pushing=True,
    config=_CONFIG,
)

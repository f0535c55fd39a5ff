"""
Replicate, emulated: predictions, files, webhooks and output files, as its HTTP API reference has them.

`python -m tests.emulators.replicate --port N` serves one; its models make pictures larger, or films of them.
"""

import asyncio
import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from providers.base import Exposure, Model, Setup
from providers.replicate import Replicate
from tests.emulators import serving
from tests.emulators.base import (
    LOST_AFTER_WORK,
    MALFORMED,
    Answer,
    Emulator,
    Json,
    Scripted,
    Seen,
    answer_json,
    broken,
    limited,
)
from tests.emulators.case import Case
from tests.emulators.drawing import NotAPicture, draw, film, picture_in
from tests.emulators.forms import files_in
from tests.emulators.hooks import Ring, forged, ring
from tests.emulators.replicate_records import Prediction, file_of, seconds, shown

SECRET = "r8_canary5f0ekingfisher"
PROMPT = "canary: a kingfisher over water"
VERSION = "f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
TOLD = f"{PROMPT} at https://api.replicate.com/v1/files/canary for {SECRET}"
"""What an error text of a model may hold, and ours may not."""


class ReplicateEmulator(Emulator):
    """The provider. With `run_s` time drives a prediction; without, every GET takes it one state further."""

    def __init__(self, *, run_s: float = 0.0) -> None:
        super().__init__()
        self.states = ["starting", "processing"]
        self.ending: Json = {}
        """What the next predictions go through, and end with."""
        self.run_s = run_s
        self.rings: tuple[Ring, ...] = (Ring.DONE,)
        self.makes_films = False
        """What is asked for in seconds is a film."""
        self.is_keeping_files = False
        """Deletes are answered with success, and the file is served all the same."""
        self.ends_at_cancel = False
        """What is to be cancelled ends in this moment, with its result."""
        self.webhook_secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        self.predictions: dict[str, Prediction] = {}
        self.files: dict[str, tuple[Json, bytes]] = {}
        self.outputs: dict[str, bytes] = {}
        self.routes = {
            "POST /v1/predictions": ("order", self.create),
            "POST /v1/models/{owner}/{name}/predictions": ("order", self.create),
            "POST /v1/deployments/{owner}/{name}/predictions": ("order", self.create),
            "GET /v1/predictions": ("list", self.list),
            "GET /v1/predictions/{id}": ("poll", self.get),
            "POST /v1/predictions/{id}/cancel": ("cancel", self.cancel),
            "POST /v1/files": ("upload", self.upload),
            "GET /v1/files": ("files", self.list_files),
            "GET /v1/files/{id}": ("file", self.file),
            "DELETE /v1/files/{id}": ("delete", self.delete),
            "GET /v1/account": ("account", self.account),
            "GET /v1/webhooks/default/secret": ("secret", self.secret),
            "GET /pbxt/{id}/{name}": ("output", self.output),
        }

    async def create(self, seen: Seen, owner: str = "", name: str = "") -> Answer:
        """Take an order."""
        if refusal := _unauthenticated(seen):
            return refusal
        body: Json = seen.json()
        version = str(body.get("version", "")).rpartition(":")[2]
        is_version = len(version) == len(VERSION) and set(version) <= set("0123456789abcdef")
        if not isinstance(body.get("input"), dict) or (not owner and not is_version):
            return _problem(422, "Input validation failed", "- input: required, with a version")
        prediction = Prediction(
            id=secrets.token_hex(13),
            body=body,
            model=f"{owner}/{name}" if owner else "someone/something",
            version=version if is_version else "hidden",
            states=list(self.states),
            deadline_s=seconds(seen.headers.get("cancel-after", "")),
        )
        self.predictions[prediction.id] = prediction
        await self._hook(prediction, {Ring.EARLY, Ring.FORGED})
        if self.run_s:
            self._running = asyncio.create_task(self._run(prediction))
        return answer_json(shown(prediction, self.url), 201)

    async def get(self, seen: Seen, id: str) -> Answer:  # noqa: A002  the name stands in the path
        """Show a prediction, one step further."""
        if refusal := _unauthenticated(seen):
            return refusal
        prediction = self.predictions.get(id)
        if prediction is None:
            return _problem(404, "Not found", f"{id} {TOLD}")
        if not self.run_s:
            await self._step(prediction)
        return answer_json(shown(prediction, self.url))

    async def list(self, seen: Seen) -> Answer:
        """Show all predictions."""
        found = [shown(prediction, self.url) for prediction in self.predictions.values()]
        return _unauthenticated(seen) or answer_json({"next": None, "previous": None, "results": found})

    async def cancel(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Stop a prediction; one that ended stays as it is."""
        if refusal := _unauthenticated(seen):
            return refusal
        prediction = self.predictions.get(id)
        if prediction is None:
            return _problem(404, "Not found", id)
        if self.ends_at_cancel:
            await self._end(prediction, self._outcome(prediction))
        await self._end(prediction, {"status": "canceled"})
        return answer_json(shown(prediction, self.url))

    async def upload(self, seen: Seen) -> Answer:
        """Keep a file, from a multipart form with a part `content`."""
        if refusal := _unauthenticated(seen):
            return refusal
        sent = next(part for part in files_in(seen) if part.name == "content")
        made = file_of(sent.content, self.url, name=sent.file_name or "file", media_type=sent.media_type)
        self.files[made["id"]] = (made, sent.content)
        return answer_json(made, 201)

    async def file(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Show a file."""
        if refusal := _unauthenticated(seen):
            return refusal
        return answer_json(self.files[id][0]) if id in self.files else _problem(404, "Not found", id)

    async def list_files(self, seen: Seen) -> Answer:
        """Show all files."""
        shown = [made for made, _ in self.files.values()]
        return _unauthenticated(seen) or answer_json({"next": None, "previous": None, "results": shown})

    async def delete(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Delete a file, or say so."""
        if refusal := _unauthenticated(seen):
            return refusal
        if id not in self.files:
            return _problem(404, "Not found", id)
        if not self.is_keeping_files:
            del self.files[id]
        return Answer(status=204)

    async def account(self, seen: Seen) -> Answer:
        """Say who asks."""
        who = {"type": "organization", "username": "acme", "name": "Acme", "github_url": None}
        return _unauthenticated(seen) or answer_json(who)

    async def secret(self, seen: Seen) -> Answer:
        """Tell what hooks are signed with."""
        return _unauthenticated(seen) or answer_json({"key": self.webhook_secret})

    async def output(self, seen: Seen, id: str, name: str) -> Answer:  # noqa: A002
        """Serve an output to whoever has its address."""
        content = self.outputs.get(id)
        media_type = "video/mp4" if name.endswith(".mp4") else "image/png"
        return Answer(status=404) if content is None else Answer(body=content, headers={"content-type": media_type})

    async def _run(self, prediction: Prediction) -> None:
        await asyncio.sleep(self.run_s)
        await self._end(prediction, self._outcome(prediction))

    async def _step(self, prediction: Prediction) -> None:
        if prediction.status in TERMINAL:
            return
        if prediction.states:
            prediction.status = prediction.states.pop(0)
        else:
            await self._end(prediction, self._outcome(prediction))

    async def _end(self, prediction: Prediction, ended: Json) -> None:
        if prediction.status in TERMINAL:
            return
        prediction.status, prediction.completed, prediction.ended = ended["status"], time.time(), ended
        await self._hook(prediction, {Ring.DONE, Ring.TWICE})
        await self._hook(prediction, {Ring.TWICE})

    def _outcome(self, prediction: Prediction) -> Json:
        inputs = prediction.body["input"]
        uploaded = {made["urls"]["get"]: content for made, content in self.files.values()}
        is_film = "seconds" in inputs and self.makes_films
        try:
            picture = picture_in(inputs, uploaded)
            self.outputs[prediction.id] = film() if is_film else draw(picture, inputs)
        except NotAPicture:
            return {"status": "failed", "error": f"cannot identify image file: {TOLD} (E1000)"}
        return {
            "status": "succeeded",
            "output": f"{self.url}/pbxt/{prediction.id}/out-0.{'mp4' if is_film else 'png'}",
            "metrics": {"predict_time": 1.25},
            **self.ending,
        }

    async def _hook(self, prediction: Prediction, when: set[Ring]) -> None:
        url = str(prediction.body.get("webhook", ""))
        for wanted in when & set(self.rings) if url else set[Ring]():
            body = json.dumps(shown(prediction, self.url)).encode()
            await ring(forged(url) if wanted is Ring.FORGED else url, body, self._signed)
            return

    def _signed(self, body: bytes) -> Mapping[str, str]:
        ident, now = f"msg_{secrets.token_hex(8)}", str(int(time.time()))
        key = base64.b64decode(self.webhook_secret.partition("_")[2])
        digest = hmac.digest(key, f"{ident}.{now}.".encode() + body, "sha256")
        return {
            "webhook-id": ident,
            "webhook-timestamp": now,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }


def _problem(status: int, title: str, detail: str) -> Answer:
    return answer_json({"title": title, "detail": detail, "status": status}, status)


def _unauthenticated(seen: Seen) -> Answer | None:
    kind, _, token = seen.headers.get("authorization", "").partition(" ")
    if kind in {"Bearer", "Token"} and token == SECRET:
        return None
    return _problem(401, "Unauthenticated", "You did not pass an authentication token")


ANSWERS = {
    "rate_limited": limited(),
    "overloaded": broken(503),
    "server_error": broken(500),
    "auth": Scripted(answer=_problem(401, "Unauthenticated", TOLD)),
    "payment": Scripted(answer=_problem(402, "Insufficient credit", TOLD)),
    "invalid": Scripted(answer=_problem(422, "Input validation failed", f"- input.scale: {TOLD}")),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": broken(524),
    "no_such_model": Scripted(answer=_problem(404, "Not found", TOLD)),
}
"""Faults that answer the order."""
POLLS = {"malformed_poll": MALFORMED, "forgotten": Scripted(answer=_problem(404, "Not found", TOLD))}
ENDINGS: dict[str, Json] = {
    "moderated": {"status": "failed", "error": f"NSFW content detected. {TOLD}", "output": None},
    "failed": {"status": "failed", "error": f"Prediction failed for {TOLD} (E1000)", "output": None},
    "canceled_there": {"status": "canceled", "output": None},
    "no_output": {"output": None},
}


def script(emulator: ReplicateEmulator, fault: str) -> bool:
    """Let a fault happen to the next attempt."""
    if fault in ANSWERS:
        emulator.next("order", ANSWERS[fault])
    elif fault in POLLS:
        emulator.next("poll", POLLS[fault])
    elif fault in ENDINGS:
        emulator.ending = ENDINGS[fault]
    elif fault == "unknown_state":
        emulator.states = ["starting", "pondering"]
    else:
        return False
    return True


def make(url: str, **changes: Any) -> Replicate:
    """Make an adapter to an emulator."""
    model = Model(
        model=f"someone/upscaler:{VERSION}",
        input={"image": "$image", "scale": "$scale:2", "prompt": "$prompt"},
        output="/output",
        usd_per_s=0.001,
    )
    setup: dict[str, Any] = {"base_url": url, "models": {"upscale": model}, "secret": SECRET, **changes}
    return Replicate(Setup(**setup))


CASE = Case(
    name="replicate",
    emulator=ReplicateEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2, "prompt": PROMPT},
    script=script,
    secret=SECRET,
    exposure=Exposure.EPHEMERAL,
)

if __name__ == "__main__":
    given = serving.arguments("Replicate, emulated")
    emulator = ReplicateEmulator(run_s=given.seconds)
    emulator.makes_films = True
    serving.serve(emulator, given)

"""
A provider nobody heard of: jobs to order, poll, cancel and delete, and two calls that answer at once.

`python -m tests.emulators.http --port N` serves one.
"""

import base64
import itertools
from typing import cast

import msgspec

from providers.base import Exposure, Model, Setup
from providers.http import Http
from tests.emulators import serving
from tests.emulators.base import LOST_AFTER_WORK, MALFORMED, Answer, Emulator, Json, Scripted, Seen, answer_json
from tests.emulators.case import Case
from tests.emulators.forms import fields_of, files_in
from tests.emulators.openai_images import picture

SECRET = "acme-emulated-77d1"
KEY = "x-api-key"
SCRIPTED_STATES = {
    "unknown_state": "defrosting",
    "failed": "error",
    "canceled_there": "stopped",
}


class AcmeEmulator(Emulator):
    """
    Works for two polls, then has a result.

    `ends` is what the next attempt comes to instead; `is_sticky` answers "deleted" where others answer 404, and
    `is_lying` deletes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Json] = {}
        self.ends = ""
        self.prefix = "job-"
        self.is_sticky = False
        self.is_lying = False
        self.is_hosting = False
        """Results are addresses of files."""
        self.ends_at_cancel = False
        """What is to be cancelled ends in this moment, with its result."""
        self.polls_needed = 2
        self._numbers = itertools.count(1)
        self.routes = {
            "POST /api/v1/jobs": ("order", self._order),
            "GET /api/v1/jobs/{job}": ("poll", self._poll),
            "GET /api/v1/jobs/{job}/result": ("result", self._result),
            "GET /api/v1/files/{job}": ("file", self._file),
            "POST /api/v1/jobs/{job}/cancel": ("cancel", self._cancel),
            "DELETE /api/v1/jobs/{job}": ("delete", self._delete),
            "POST /api/v1/now": ("now", self._now),
            "POST /api/v1/form": ("form", self._form),
            "GET /api/status": ("status", self._status),
        }

    async def _status(self, seen: Seen) -> Answer:
        return _unauthorized(seen) or answer_json({"up": True})

    async def _order(self, seen: Seen) -> Answer:
        if refused := _unauthorized(seen):
            return refused
        given = _pictures(seen.json())
        name = f"{self.prefix}{next(self._numbers)}"
        self.jobs[name] = {"state": "waiting", "polls": 0, "picture": picture(given, "JPEG"), "ends": self.ends}
        self.ends = ""
        return answer_json({"job": {"id": name, "state": "waiting"}}, 201)

    async def _poll(self, seen: Seen, job: str) -> Answer:
        if refused := _unauthorized(seen) or self._absent(job):
            return refused
        held = self.jobs[job]
        held["polls"] += 1
        if held["state"] == "waiting" and held["polls"] > 1:
            held["state"] = "working"
        if held["state"] == "working" and held["polls"] > self.polls_needed:
            held["state"] = held["ends"] or "finished"
            held["ends"] = ""
            # A state that nobody knows passes.
            if held["state"] == SCRIPTED_STATES["unknown_state"]:
                state, held["state"] = held["state"], "working"
                return answer_json(self._document(job) | {"job": {"id": job, "state": state}})
        return answer_json(self._document(job))

    def _document(self, job: str) -> Json:
        held = self.jobs[job]
        document: Json = {"job": {"id": job, "state": held["state"]}, "result": None, "error": None}
        if held["state"] == "error":
            document["error"] = {"message": "it broke over a canary"}
        if held["state"] == "finished":
            at = f"{self.url}/api/v1/files/{job}"
            document["result"] = {"images": [at if self.is_hosting else base64.b64encode(held["picture"]).decode()]}
        return document

    async def _file(self, seen: Seen, job: str) -> Answer:
        del seen
        return self._absent(job) or Answer(body=self.jobs[job]["picture"], headers={"content-type": "image/jpeg"})

    async def _result(self, seen: Seen, job: str) -> Answer:
        if refused := _unauthorized(seen) or self._absent(job):
            return refused
        held = self.jobs[job]
        held["polls"] += 1
        if held["polls"] <= self.polls_needed:
            return answer_json({"id": job}, 202)
        return Answer(body=held["picture"], headers={"content-type": "image/jpeg"})

    async def _cancel(self, seen: Seen, job: str) -> Answer:
        if refused := _unauthorized(seen) or self._absent(job):
            return refused
        if self.ends_at_cancel:
            self.jobs[job]["state"] = "finished"
        if self.jobs[job]["state"] not in {"waiting", "working"}:
            return answer_json({"error": {"message": "too late"}}, 409)
        self.jobs[job]["state"] = "stopped"
        return answer_json({}, 202)

    async def _delete(self, seen: Seen, job: str) -> Answer:
        if refused := _unauthorized(seen) or self._absent(job):
            return refused
        if self.is_sticky:
            self.jobs[job] = {"state": "deleted", "polls": 0, "ends": ""}
        elif not self.is_lying:
            del self.jobs[job]
        return Answer(status=204)

    async def _now(self, seen: Seen) -> Answer:
        if refused := _unauthorized(seen):
            return refused
        made = picture(_pictures(seen.json()), "JPEG")
        return answer_json({"images": [base64.b64encode(made).decode()]})

    async def _form(self, seen: Seen) -> Answer:
        if refused := _unauthorized(seen):
            return refused
        assert set(fields_of(seen)) <= {"scale", "face", "prompt"}
        made = picture([file.content for file in files_in(seen)], "PNG")
        return Answer(body=made, headers={"content-type": "image/png"})

    def _absent(self, job: str) -> Answer | None:
        return None if job in self.jobs else answer_json({"error": {"message": "no such job"}}, 404)


def refusal(status: int, message: str, **headers: str) -> Answer:
    """Refuse in words."""
    return answer_json({"error": {"message": message}}, status, **headers)


def _unauthorized(seen: Seen) -> Answer | None:
    return None if seen.headers.get(KEY) == SECRET else refusal(401, "who are you?")


def _pictures(fields: Json) -> list[bytes]:
    image = fields.get("image", [])
    many = cast("list[str]", image) if isinstance(image, list) else [image]
    return [base64.b64decode(one.partition(",")[2] or one, validate=True) for one in many]


_FAULTS: dict[str, Scripted] = {
    "rate_limited": Scripted(answer=refusal(429, "slow down", Retry_After="1")),
    "overloaded": Scripted(answer=refusal(503, "full")),
    "server_error": Scripted(answer=refusal(500, "broken")),
    "auth": Scripted(answer=refusal(401, "who are you?")),
    "payment": Scripted(answer=refusal(400, "You have no Credits left")),
    "moderated": Scripted(answer=refusal(400, "looks like NSFW content")),
    "invalid": Scripted(answer=refusal(422, "scale: too large")),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": Scripted(answer=Answer(status=524, body=b"<html>")),
    "no_such_model": Scripted(answer=refusal(404, "no such upscaler")),
}
_POLL_FAULTS: dict[str, Scripted] = {
    "malformed_poll": MALFORMED,
    "forgotten": Scripted(answer=refusal(404, "no such job")),
    "no_output": Scripted(answer=answer_json({"job": {"state": "finished"}, "result": {"images": []}})),
}


def script(emulator: AcmeEmulator, fault: str) -> bool:
    """Let a fault happen to the next attempt."""
    if fault in _FAULTS:
        emulator.next("order", _FAULTS[fault])
    elif fault in _POLL_FAULTS:
        emulator.next("poll", _POLL_FAULTS[fault])
    elif fault in SCRIPTED_STATES:
        emulator.ends = SCRIPTED_STATES[fault]
    else:
        return False
    return True


JOBS = Model(
    input={"image": "$image", "scale": "$scale:2"},
    output="/result/images",
    options={
        "path": "/v1/jobs",
        "id": "/job/id",
        "state": "/job/state",
        "queued": ["waiting"],
        "done": ["finished"],
        "failed": ["error"],
        "canceled": ["stopped"],
        "gone": ["deleted"],
        "poll_path": "/v1/jobs/{id}",
        "poll_after_s": 0.01,
        "cancel_path": "/v1/jobs/{id}/cancel",
        "delete_path": "/v1/jobs/{id}",
        "deleted": ["upload", "output", "record"],
        "errors": {"pointer": "/error/message", "rejected": ["nsfw"], "payment": ["credits"]},
    },
)
FORM = Model(
    input={"image": "$image", "scale": "$scale:2", "face": False},
    options={"path": "/v1/form", "content": "multipart", "headers": {"Accept": "image/*"}},
)
NOW = Model(
    input={"image": "$images", "prompt": "$prompt"},
    output="/images",
    options={"path": "/v1/now", "pictures": "base64"},
)
RESULT = Model(
    input={"image": "$image"},
    options={"path": "/v1/jobs", "id": "/job/id", "poll_path": "/v1/jobs/{id}/result", "poll_after_s": 0.01},
)


def make(url: str, *, auth: str = f"header:{KEY}", secret: str = SECRET, **models: Model) -> Http:
    """Make the adapter as a worker does."""
    given = {"upscale": JOBS, "restyle": FORM, "photoshoot": NOW, "edit": RESULT, **models}
    options = {"auth": auth, "health_path": "/status"}
    return Http(Setup(base_url=f"{url}/api", models=given, secret=secret, options=options))


def changed(model: Model, **options: object) -> Model:
    """Return a model with other options."""
    return msgspec.structs.replace(model, options={**model.options, **options})


CASE = Case(
    name="http",
    emulator=AcmeEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2},
    script=script,
    secret=SECRET,
    exposure=Exposure.LOGGED,
)

if __name__ == "__main__":
    given = serving.arguments("A provider nobody heard of, emulated")
    emulator = AcmeEmulator()
    emulator.latency_s = given.seconds
    serving.serve(emulator, given)

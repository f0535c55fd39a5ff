"""
fal, emulated: the queue, the platform API and the CDN on one address, as its documentation and its client have them.

`python -m tests.emulators.fal --port N` serves one; its models make pictures larger.
"""

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.base import Exposure, Model, Setup
from providers.fal import Fal
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
from tests.emulators.drawing import NotAPicture, draw, picture_in
from tests.emulators.hooks import Ring, forged, ring

SECRET = "canary5f0e:kingfisher-93ab17"
PROMPT = "canary: a heron at dusk"
TOLD = f"{PROMPT} at https://v3.fal.media/files/canary for {SECRET}"
"""What an error text of a model may hold, and ours may not."""
END = "COMPLETED"


@dataclass
class Request:
    """One request; `states` are those that it goes through before its end."""

    id: str
    path: str
    body: Json
    hook: str
    acl: str
    states: list[str]
    status: str = "IN_QUEUE"
    result: Answer | None = None
    files: list[str] = field(default_factory=list[str])


class FalEmulator(Emulator):
    """The provider. With `run_s` time drives a request; without, every look at its status takes it one state on."""

    def __init__(self, *, run_s: float = 0.0) -> None:
        super().__init__()
        self.states = ["IN_QUEUE", "IN_PROGRESS"]
        """What the next requests go through."""
        self.result: Answer | None = None
        """In place of the model's own."""
        self.status_extra: Json = {}
        """What a status says of an error."""
        self.urls: Json = {}
        """Addresses in place of those that belong to a request."""
        self.run_s = run_s
        self.rings: tuple[Ring, ...] = (Ring.DONE,)
        self.is_keeping_results = False
        self.is_keeping_files = False
        """Deletes are answered with success, and what they were for is served all the same."""
        self.delete_exception: str | None = None
        self.ends_at_cancel = False
        """What is to be cancelled ends in this moment, with its result."""
        self.store: dict[str, Request] = {}
        self.files: dict[str, bytes] = {}
        self.acls: dict[str, str] = {}
        self.signatures: set[str] = set()
        self.routes = {
            "PUT /{app:path}/requests/{id}/cancel": ("cancel", self.cancel),
            "GET /{app:path}/requests/{id}/status": ("status", self.status),
            "DELETE /platform/v1/models/requests/{id}/payloads": ("delete", self.delete),
            "POST /platform/v1/storage/files/sign": ("sign", self.sign),
            "GET /files/{name}": ("output", self.output),
            "GET /{app:path}/requests/{id}": ("result", self.get),
            "POST /{app:path}": ("order", self.submit),
        }

    async def submit(self, seen: Seen, app: str) -> Answer:
        """Put a request into the queue."""
        if refusal := _unauthenticated(seen):
            return refusal
        if "/" not in app:
            return answer_json({"detail": "Not Found"}, 404)
        request = Request(
            id=str(uuid.uuid4()),
            path="/".join(app.split("/")[:2]),
            body=seen.json(),
            hook=seen.query.get("fal_webhook", ""),
            acl=_acl(seen),
            states=list(self.states),
        )
        self.store[request.id] = request
        await self._hook(request, {Ring.EARLY, Ring.FORGED})
        if self.run_s:
            self._running = asyncio.create_task(self._run(request))
        own = f"{self.url}/{request.path}/requests/{request.id}"
        urls = {"response_url": own, "status_url": f"{own}/status", "cancel_url": f"{own}/cancel"}
        told = {"status": "IN_QUEUE", "request_id": request.id, "queue_position": 0}
        return answer_json({**told, **urls, **self.urls})

    async def status(self, seen: Seen, app: str, id: str) -> Answer:  # noqa: A002  the name stands in the path
        """Say where a request stands, one state further."""
        if refusal := _unauthenticated(seen):
            return refusal
        request = self.store.get(id)
        if request is None:
            return answer_json({"detail": f"Request {id} not found"}, 404)
        if not self.run_s and request.status != END:
            if request.states:
                request.status = request.states.pop(0)
            else:
                await self._end(request, self.result or self._drawn(request))
        if request.status == END:
            told = {"status": END, "request_id": id, "logs": None, "metrics": {"inference_time": 0.75}}
            return answer_json({**told, **self.status_extra})
        return answer_json({"status": request.status, "request_id": id, "queue_position": 0}, 202)

    async def get(self, seen: Seen, app: str, id: str) -> Answer:  # noqa: A002
        """Give the result, with the model's own status."""
        if refusal := _unauthenticated(seen):
            return refusal
        request = self.store.get(id)
        if request is None:
            return answer_json({"detail": f"Request {id} not found"}, 404)
        return request.result or answer_json({"detail": "Request is still in progress"}, 400)

    async def cancel(self, seen: Seen, app: str, id: str) -> Answer:  # noqa: A002
        """Take a request out of the queue, or ask the runner to stop."""
        if refusal := _unauthenticated(seen):
            return refusal
        request = self.store.get(id)
        if request is None:
            return answer_json({"status": "NOT_FOUND"}, 404)
        if self.ends_at_cancel:
            await self._end(request, self._drawn(request))
        if request.status == END:
            return answer_json({"status": "ALREADY_COMPLETED"}, 400)
        if request.status != "IN_QUEUE":
            return answer_json({"status": "CANCELLATION_REQUESTED"}, 202)
        await self._end(request, _error(499, "client_cancelled"))
        return answer_json({"status": "OK"})

    async def delete(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Delete a request's payloads and its files on the CDN, or say so."""
        if refusal := _unauthenticated(seen):
            return refusal
        request = self.store.get(id)
        if request is None:
            return answer_json({"error": {"type": "not_found", "message": "Request not found"}}, 404)
        for name in request.files if not self.is_keeping_files and self.delete_exception is None else ():
            self.files.pop(name, None)
        if not self.is_keeping_results:
            del self.store[id]
        links = [{"link": f"{self.url}/files/{name}", "exception": self.delete_exception} for name in request.files]
        return answer_json({"cdn_delete_results": links})

    async def sign(self, seen: Seen) -> Answer:
        """Sign a link to a file that is there."""
        if refusal := _unauthenticated(seen):
            return refusal
        name = seen.query["url"].rpartition("/")[2]
        if name not in self.files or not 1 <= seen.json()["expiration_seconds"] <= 604800:
            return answer_json({"error": {"type": "not_found", "message": "File not found"}}, 404)
        signature = secrets.token_hex(8)
        self.signatures.add(signature)
        return answer_json({"signed_url": f"{seen.query['url']}?identity={signature}"})

    async def output(self, seen: Seen, name: str) -> Answer:
        """Serve a file to whoever may read it; `hide` is as if there were none."""
        is_open = self.acls.get(name) == "allow" or seen.query.get("identity") in self.signatures
        if name not in self.files or not is_open:
            return Answer(status=403 if self.acls.get(name) == "forbid" else 404)
        return Answer(body=self.files[name], headers={"content-type": "image/png"})

    async def _run(self, request: Request) -> None:
        await asyncio.sleep(self.run_s / 2)
        request.status = "IN_PROGRESS" if request.status != END else END
        await asyncio.sleep(self.run_s / 2)
        await self._end(request, self.result or self._drawn(request))

    async def _end(self, request: Request, result: Answer) -> None:
        if request.status == END:
            return
        request.status, request.result = END, result
        await self._hook(request, {Ring.DONE, Ring.TWICE})
        await self._hook(request, {Ring.TWICE})

    def _drawn(self, request: Request) -> Answer:
        try:
            drawn = draw(picture_in(request.body, {}), request.body)
        except NotAPicture:
            return _complaint("image_load_error")
        name = f"{secrets.token_hex(8)}.png"
        request.files.append(name)
        self.files[name], self.acls[name] = drawn, request.acl
        file = {"url": f"{self.url}/files/{name}", "content_type": "image/png", "file_size": len(drawn)}
        return answer_json({"images": [file], "seed": 7, "has_nsfw_concepts": [False]})

    async def _hook(self, request: Request, when: set[Ring]) -> None:
        for wanted in when & set(self.rings) if request.hook else set[Ring]():
            told: Json = {"request_id": request.id, "status": "OK", "payload": None}
            url = forged(request.hook) if wanted is Ring.FORGED else request.hook
            await ring(url, json.dumps(told).encode(), _signed)
            return


def _signed(body: bytes) -> Mapping[str, str]:
    # Signed with Ed25519 there; nobody here believes a hook, signed or not.
    return {"X-Fal-Webhook-Timestamp": str(int(time.time())), "X-Fal-Webhook-Signature": "00" * 64}


def _unauthenticated(seen: Seen) -> Answer | None:
    if seen.headers.get("authorization") == f"Key {SECRET}":
        return None
    return answer_json({"detail": "Cannot access application. Authentication is required."}, 401)


def _acl(seen: Seen) -> str:
    lifecycle = seen.headers.get("x-fal-object-lifecycle-preference")
    return str(json.loads(lifecycle)["initial_acl"]["default"]) if lifecycle else "allow"


def _error(status: int, name: str) -> Answer:
    return answer_json({"detail": f"Failed on {TOLD}", "error_type": name}, status, X_Fal_Error_Type=name)


def _complaint(name: str, status: int = 422) -> Answer:
    detail = {"loc": ["body", "prompt"], "msg": TOLD, "type": name, "url": "https://docs.fal.ai/errors", "input": TOLD}
    return answer_json({"detail": [detail]}, status, X_Fal_Retryable="false")


ANSWERS = {
    "rate_limited": limited(),
    "overloaded": Scripted(answer=_error(503, "runner_scheduling_failure")),
    "server_error": broken(500),
    "auth": Scripted(answer=answer_json({"detail": f"Invalid key {TOLD}"}, 401)),
    "payment": Scripted(answer=answer_json({"detail": f"User is locked. Reason: Exhausted balance. {TOLD}"}, 403)),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": broken(504),
    "no_such_model": Scripted(answer=answer_json({"detail": f"Application not found: {TOLD}"}, 404)),
}
"""Faults that answer the order."""
POLLS = {"malformed_poll": MALFORMED, "forgotten": Scripted(answer=answer_json({"detail": TOLD}, 404))}
RESULTS = {
    "moderated": _complaint("content_policy_violation"),
    "invalid": _complaint("greater_than_equal"),
    "failed": _error(500, "runner_server_error"),
    "canceled_there": _error(499, "client_cancelled"),
    "no_output": answer_json({"images": []}),
}


def script(emulator: FalEmulator, fault: str) -> bool:
    """Let a fault happen to the next attempt."""
    if fault in ANSWERS:
        emulator.next("order", ANSWERS[fault])
    elif fault in POLLS:
        emulator.next("status", POLLS[fault])
    elif fault in RESULTS:
        emulator.result = RESULTS[fault]
    elif fault == "unknown_state":
        emulator.states = ["IN_QUEUE", "IN_LIMBO"]
    else:
        return False
    return True


def make(url: str, *, options: Mapping[str, str] | None = None, **changes: Any) -> Fal:
    """Make an adapter to an emulator."""
    model = Model(
        model="fal-ai/upscaler/creative",
        input={"image_url": "$image", "scale": "$scale:2", "prompt": "$prompt"},
        usd_per_s=0.001,
    )
    here = {"platform_url": f"{url}/platform/v1", "cdn_host": "127.0.0.1", **(options or {})}
    setup: dict[str, Any] = {
        "base_url": url,
        "models": {"upscale": model},
        "secret": SECRET,
        "options": here,
        **changes,
    }
    return Fal(Setup(**setup))


CASE = Case(
    name="fal",
    emulator=FalEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2, "prompt": PROMPT},
    script=script,
    secret=SECRET,
    exposure=Exposure.LOGGED,
)

if __name__ == "__main__":
    given = serving.arguments("fal, emulated")
    serving.serve(FalEmulator(run_s=given.seconds), given)

"""
The Images API: what OpenAI answers to images/generations and images/edits, refusals included.

`python -m tests.emulators.openai_images --port N` serves one.
"""

import base64
import io
from typing import Any

from PIL import Image

from providers.base import Exposure, Model, Setup
from providers.openai_images import OpenAIImages
from tests.emulators import serving
from tests.emulators.base import LOST_AFTER_WORK, MALFORMED, Answer, Emulator, Json, Scripted, Seen, answer_json
from tests.emulators.case import Case
from tests.emulators.forms import Part, fields_of, files_in

SECRET = "sk-emulated-4c21e07f"
MODEL = "gpt-image-2"
IDENTITY = frozenset({"user", "safety_identifier"})
SHAPE = frozenset({"size", "quality", "background", "output_format", "output_compression"})
FIELDS = frozenset({"model", "prompt", "n", "moderation"}) | SHAPE | IDENTITY
EDIT_FIELDS = FIELDS | {"input_fidelity"}
TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})
TOKENS = 1_400


class OpenAIEmulator(Emulator):
    """Serves one model; `is_hosting` answers with URLs, as servers do that are not OpenAI's."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hosting = False
        self.extra_fields: frozenset[str] = frozenset()
        self.routes = {
            "POST /v1/images/generations": ("generate", self._generate),
            "POST /v1/images/edits": ("edit", self._edit),
            "GET /v1/models": ("models", self._models),
            "GET /hosted/{name}": ("hosted", self._hosted),
        }

    async def _models(self, seen: Seen) -> Answer:
        return _unauthorized(seen) or answer_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _generate(self, seen: Seen) -> Answer:
        if refused := _unauthorized(seen):
            return refused
        if seen.headers["content-type"] != "application/json":
            return refusal(400, "unsupported_content_type")
        fields = seen.json()
        return _fault(fields, FIELDS | self.extra_fields) or self._made(fields, [])

    async def _edit(self, seen: Seen) -> Answer:
        if refused := _unauthorized(seen):
            return refused
        fields: Json = dict(fields_of(seen))
        files = files_in(seen)
        fields |= {"n": int(fields["n"])} if "n" in fields else {}
        return _fault(fields, EDIT_FIELDS | self.extra_fields) or _file_fault(files) or self._made(fields, files)

    async def _hosted(self, seen: Seen, name: str) -> Answer:
        del seen, name
        return Answer(body=picture([], "PNG"), headers={"content-type": "image/png"})

    def _made(self, fields: Json, files: list[Part]) -> Answer:
        form = fields.get("output_format", "png")
        body = base64.b64encode(picture([file.content for file in files], form)).decode()
        one = {"url": f"{self.url}/hosted/1.png"} if self.is_hosting else {"b64_json": body}
        return answer_json(
            {
                "created": 1_795_000_000,
                "background": "opaque",
                "data": [one] * int(fields.get("n", 1)),
                "output_format": form,
                "quality": "high",
                "size": "1024x1024",
                "usage": usage(),
            }
        )


def usage() -> Json:
    """What an order of ours costs."""
    return {
        "input_tokens": 400,
        "input_tokens_details": {"image_tokens": 380, "text_tokens": 20},
        "output_tokens": TOKENS - 400,
        "total_tokens": TOKENS,
    }


def picture(given: list[bytes], form: str) -> bytes:
    """Draw the answer: the pictures beside each other, halved; raises where one is no picture."""
    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in given] or [Image.new("RGB", (64, 64), (9, 99, 200))]
    drawn = Image.new("RGB", (sum(one.width for one in opened), max(one.height for one in opened)))
    at = 0
    for one in opened:
        drawn.paste(one, (at, 0))
        at += one.width
    held = io.BytesIO()
    drawn.resize((max(1, drawn.width // 2), max(1, drawn.height // 2))).save(held, form.upper())
    return held.getvalue()


def refusal(status: int, code: str | None, kind: str = "invalid_request_error", **more: Any) -> Answer:
    """Refuse as the API does; the message quotes what was asked, as some do."""
    headers = {name: more.pop(name) for name in list(more) if name.startswith(("retry", "x_should", "Retry"))}
    error = {"message": "Your request was refused: a canary in a yellow raincoat.", "type": kind, "param": None}
    return answer_json({"error": {**error, "code": code, **more}}, status, **headers)


def moderated(stage: str) -> Answer:
    """Refuse what is asked, or what was made."""
    details = {"moderation_stage": stage, "categories": ["sexual"]}
    return refusal(400, "moderation_blocked", "image_generation_user_error", moderation_details=details)


def _unauthorized(seen: Seen) -> Answer | None:
    return None if seen.headers.get("authorization") == f"Bearer {SECRET}" else refusal(401, "invalid_api_key")


def _fault(fields: Json, known: frozenset[str]) -> Answer | None:
    if unknown := set(fields) - known:
        return refusal(400, "unknown_parameter", param=min(unknown))
    if fields.get("model") != MODEL:
        return refusal(404, "model_not_found")
    if not fields.get("prompt"):
        return refusal(400, "missing_required_parameter", param="prompt")
    count = fields.get("n", 1)
    is_count = isinstance(count, int) and 1 <= count <= 10
    return None if is_count else refusal(400, "invalid_value", param="n")


def _file_fault(files: list[Part]) -> Answer | None:
    names = [file.name for file in files]
    if names != ["image"] and (set(names) != {"image[]"} or len(names) > 16):
        return refusal(400, "missing_required_parameter", param="image")
    return None if {file.media_type for file in files} <= TYPES else refusal(400, "unsupported_file_mimetype")


_FAULTS: dict[str, Scripted] = {
    "rate_limited": Scripted(answer=refusal(429, "rate_limit_exceeded", "requests", Retry_After="1")),
    "overloaded": Scripted(answer=refusal(503, None, "server_error")),
    "server_error": Scripted(answer=refusal(500, None, "server_error")),
    "auth": Scripted(answer=refusal(401, "invalid_api_key")),
    "payment": Scripted(answer=refusal(429, "insufficient_quota", "insufficient_quota")),
    "moderated": Scripted(answer=moderated("input")),
    "invalid": Scripted(answer=refusal(400, "invalid_value")),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": Scripted(answer=refusal(504, None, "server_error")),
    "no_such_model": Scripted(answer=refusal(404, "model_not_found")),
    "no_output": Scripted(answer=answer_json({"created": 1_795_000_000, "data": [], "usage": usage()})),
}


_NO_POLL = "an order is answered with its end, and nothing can be asked about it"
LACKS = {
    "malformed_poll": _NO_POLL,
    "unknown_state": _NO_POLL,
    "forgotten": _NO_POLL,
    "canceled_there": "the API cannot stop an order",
    "failed": "a run that fails is a 500 to its order: server_error",
}


def script(emulator: Emulator, fault: str) -> bool:
    """Let a fault happen to the next order."""
    if fault not in _FAULTS:
        return False
    emulator.next("edit", _FAULTS[fault])
    emulator.next("generate", _FAULTS[fault])
    return True


def make(url: str, *, options: dict[str, Any] | None = None, **models: Model) -> OpenAIImages:
    """Make the adapter as a worker does."""
    edit = Model(
        model=MODEL,
        input={"prompt": "$prompt", "n": "$count:1", "output_format": "jpeg"},
        max_outputs=4,
        usd_per_million_tokens=30.0,
    )
    given = {"edit": edit, "photoshoot": edit, "generate": edit, **models}
    return OpenAIImages(Setup(base_url=f"{url}/v1", models=given, secret=SECRET, options=options or {}))


CASE = Case(
    name="openai_images",
    emulator=OpenAIEmulator,
    make=make,
    operation="edit",
    parameters={"prompt": "a canary in a yellow raincoat"},
    script=script,
    lacks=LACKS,
    secret=SECRET,
    exposure=Exposure.LOGGED,
    is_inline=True,
)

if __name__ == "__main__":
    given = serving.arguments("OpenAI's Images API, emulated")
    emulator = OpenAIEmulator()
    emulator.latency_s = given.seconds
    serving.serve(emulator, given)

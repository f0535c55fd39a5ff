"""
A server of the Open Inference Protocol v2 with the binary extension, as strict about sizes and shapes as Triton.

`python -m tests.emulators.kserve --port N` serves one.
"""

import base64
import json
import math
import struct
from typing import Any, cast

from providers.base import Exposure, Model, Setup
from providers.kserve import KServe
from tests.emulators import serving
from tests.emulators.base import LOST_AFTER_WORK, MALFORMED, Answer, Emulator, Json, Scripted, Seen, answer_json
from tests.emulators.case import Case
from tests.emulators.openai_images import picture

LENGTH = "inference-header-content-length"
SHAPES = {"image": [1, 1], "scale": [1, 1]}
DATATYPES = {"image": "BYTES", "scale": "INT32"}


class KServeEmulator(Emulator):
    """One model, `upscaler`; it can be made to answer in JSON, or under another id."""

    def __init__(self) -> None:
        super().__init__()
        self.is_binary = True
        self.answers_id = ""
        self.is_ready = True
        self.routes = {
            "GET /v2": ("metadata", self._metadata),
            "GET /v2/health/ready": ("ready", self._ready),
            "GET /v2/models/{model}/ready": ("model_ready", self._ready),
            "GET /v2/models/{model}": ("model", self._model),
            "POST /v2/models/{model}/infer": ("infer", self._infer),
            "POST /v2/models/{model}/versions/{version}/infer": ("infer", self._infer),
        }

    async def _metadata(self, seen: Seen) -> Answer:
        del seen
        return answer_json({"name": "emulator", "version": "1", "extensions": ["binary_tensor_data"]})

    async def _ready(self, seen: Seen, model: str = "upscaler") -> Answer:
        del seen
        return Answer(status=200 if self.is_ready and model == "upscaler" else 400)

    async def _model(self, seen: Seen, model: str) -> Answer:
        del seen
        inputs = [{"name": name, "datatype": DATATYPES[name], "shape": SHAPES[name]} for name in SHAPES]
        outputs = [{"name": "picture", "datatype": "BYTES", "shape": [1, 1]}]
        return answer_json({"name": model, "versions": ["1"], "platform": "", "inputs": inputs, "outputs": outputs})

    async def _infer(self, seen: Seen, model: str, version: str = "1") -> Answer:
        if model != "upscaler" or version != "1":
            return refusal(404, f"Request for unknown model: '{model}' is not found")
        try:
            request, tensors = read_request(seen)
        except ValueError as exc:
            return refusal(400, str(exc))
        made = picture([cast("bytes", tensors["image"][0])], "PNG")
        wanted = request.get("parameters", {}).get("binary_data_output", False)
        for output in request.get("outputs", []):
            wanted = output.get("parameters", {}).get("binary_data", wanted)
        return answer(self.answers_id or request.get("id", ""), made, is_binary=wanted and self.is_binary)


def read_request(seen: Seen) -> tuple[Json, dict[str, list[Any]]]:
    """Take a request apart; raise ValueError where a size or a shape is not what it says."""
    length = int(seen.headers.get(LENGTH, len(seen.body)))
    request: Json = json.loads(seen.body[:length])
    rest = seen.body[length:]
    tensors: dict[str, list[Any]] = {}
    for given in request["inputs"]:
        name = given["name"]
        if name not in SHAPES:
            raise ValueError(f"unexpected inference input '{name}'")
        if given["shape"] != SHAPES[name] or given["datatype"] != DATATYPES[name]:
            raise ValueError(f"unexpected shape for input '{name}'")
        size = given.get("parameters", {}).get("binary_data_size")
        values = elements(rest[:size]) if size is not None else _in_json(given)
        rest = rest[size or 0 :]
        if len(values) != math.prod(given["shape"]):
            raise ValueError("unexpected number of elements")
        tensors[name] = values
    if rest:
        raise ValueError("unexpected additional input data")
    if set(tensors) != set(SHAPES):
        raise ValueError(f"expected {len(SHAPES)} inputs")
    return request, tensors


def _in_json(given: Json) -> list[Any]:
    data: list[Any] = given["data"]
    return [base64.b64decode(one, validate=True) for one in data] if given["datatype"] == "BYTES" else data


def elements(raw: bytes) -> list[bytes]:
    """Read BYTES elements."""
    found: list[bytes] = []
    while raw:
        (size,) = struct.unpack("<I", raw[:4])
        if size > len(raw) - 4:
            raise ValueError("incomplete element")
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return found


def answer(request_id: str, *made: bytes, is_binary: bool = True, **changes: Any) -> Answer:
    """Answer with pictures; `changes` are lies about the output: shape, datatype, size, length, tail."""
    raw = b"".join(struct.pack("<I", len(one)) + one for one in made) + changes.get("tail", b"")
    shape = changes.get("shape", [len(made), 1])
    output: Json = {"name": "picture", "datatype": changes.get("datatype", "BYTES"), "shape": shape}
    if is_binary:
        output["parameters"] = {"binary_data_size": changes.get("size", len(raw))}
    else:
        output["data"] = changes.get("data", [base64.b64encode(one).decode() for one in made])
    head = json.dumps({"id": request_id, "model_name": "upscaler", "model_version": "1", "outputs": [output]}).encode()
    if not is_binary:
        return Answer(body=head, headers={"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", LENGTH: str(changes.get("length", len(head)))}
    return Answer(body=head + raw, headers=headers)


def refusal(status: int, text: str, **headers: str) -> Answer:
    """Refuse as the protocol does."""
    return answer_json({"error": text}, status, **headers)


_FAULTS: dict[str, Scripted] = {
    "rate_limited": Scripted(answer=refusal(429, "too many requests", Retry_After="1")),
    "overloaded": Scripted(answer=refusal(503, "Exceeds maximum queue size")),
    "server_error": Scripted(answer=refusal(500, "model raised an exception over a canary")),
    "auth": Scripted(answer=refusal(401, "unauthorized")),
    "invalid": Scripted(answer=refusal(400, "image cannot be decoded")),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    # In the words of a gateway; in those of the server itself they would mean that its queue is full.
    "gateway_timeout": Scripted(answer=Answer(status=504, body=b"upstream request timeout")),
    "no_such_model": Scripted(answer=refusal(404, "Model with name upscaler does not exist.")),
    "no_output": Scripted(answer=answer_json({"model_name": "upscaler", "outputs": []})),
}


_NO_POLL = "a request is answered with its end, and nothing can be asked about it"
LACKS = {
    "payment": "a server of one's own bills nobody",
    "moderated": "the protocol has no word for it: a model that refuses a picture raises, and that is server_error",
    "malformed_poll": _NO_POLL,
    "unknown_state": _NO_POLL,
    "forgotten": _NO_POLL,
    "canceled_there": "the protocol cannot stop a request",
    "failed": "a run that fails is a 500 to its request: server_error",
}


def script(emulator: Emulator, fault: str) -> bool:
    """Let a fault happen to the next request."""
    if fault not in _FAULTS:
        return False
    emulator.next("infer", _FAULTS[fault])
    return True


SHAPED = {"image": {"shape": [1, -1]}, "scale": {"shape": [1, 1], "datatype": "INT32"}}
UPSCALE = Model(
    model="upscaler",
    input={"image": "$image", "scale": "$scale:2"},
    output="/picture",
    options={"inputs": SHAPED},
)


def make(url: str, *, options: dict[str, Any] | None = None, secret: str = "", **models: Model) -> KServe:
    """Make the adapter as a worker does."""
    return KServe(Setup(base_url=url, models={"upscale": UPSCALE, **models}, secret=secret, options=options or {}))


CASE = Case(
    name="kserve",
    emulator=KServeEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2},
    script=script,
    lacks=LACKS,
    exposure=Exposure.LOCAL,
    is_inline=True,
)

if __name__ == "__main__":
    given = serving.arguments("The Open Inference Protocol, emulated")
    emulator = KServeEmulator()
    emulator.latency_s = given.seconds
    serving.serve(emulator, given)

"""
A Cog container, emulated: one slot, predictions under the client's own ids, answers to the order and to nobody else.

`python -m tests.emulators.cog --port N` serves one; its model makes pictures larger. A closed connection does not stop
a prediction here; tests of that run against a real server.
"""

import asyncio
import base64
import json

from providers.base import Exposure, Model, Setup
from providers.cog import Cog
from providers.failures import FailureKind
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

PROMPT = "canary: a heron at dusk"
TOLD = f"{PROMPT} at http://10.0.0.9/canary"
"""What an error text of a model may hold, and ours may not."""
NO_ROOM = answer_json({"error": "At capacity - all prediction slots busy", "status": "failed"}, 409)
REFUSED = answer_json({"detail": [{"loc": ["body", "input", "scale"], "msg": TOLD, "type": "value_error"}]}, 422)


class CogEmulator(Emulator):
    """The server. `ending` is what the next predictions end with; each takes `run_s`."""

    def __init__(self, *, run_s: float = 0.0, streams: bool = False) -> None:
        super().__init__()
        self.run_s = run_s
        self.streams = streams
        self.ending: Json = {}
        self.status = "READY"
        self.started: list[str] = []
        self.is_stubborn = False
        """The model looks at no cancel."""
        self.ends_at_cancel = False
        """What is to be cancelled ends in this moment, with its result."""
        self._running: dict[str, tuple[Json, asyncio.Event, asyncio.Task[Json]]] = {}
        self.routes = {
            "PUT /predictions/{id}": ("order", self.order),
            "POST /predictions/{id}/cancel": ("cancel", self.cancel),
            "GET /health-check": ("health", self.health),
        }

    async def order(self, seen: Seen, id: str) -> Answer:  # noqa: A002  the name stands in the path
        """Run a prediction and answer at its end; show, or join, one that runs under this id already."""
        is_stream = seen.headers.get("accept") == "text/event-stream"
        if is_stream and not self.streams:
            return answer_json({"error": "This model does not support streaming responses."}, 406)
        inputs: Json = seen.json()["input"]
        if id in self._running and not is_stream:
            return answer_json({"id": id, "input": self._running[id][0], "logs": "", "status": "processing"}, 202)
        if id not in self._running and self._running:
            return NO_ROOM
        if id not in self._running:
            stop = asyncio.Event()
            self._running[id] = (inputs, stop, asyncio.create_task(self._run(id, inputs, stop)))
        prediction = await asyncio.shield(self._running[id][2])
        return _stream(prediction) if is_stream else answer_json(prediction)

    async def cancel(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Tell a prediction to stop."""
        if id not in self._running:
            return answer_json({}, 404)
        if not self.is_stubborn:
            self._running[id][1].set()
        return answer_json({})

    async def health(self, seen: Seen) -> Answer:
        """Say how the model is; always with 200."""
        return answer_json({"status": "BUSY" if self._running else self.status, "version": {"coglet": "0.23.1"}})

    async def _run(self, id: str, inputs: Json, stop: asyncio.Event) -> Json:  # noqa: A002
        self.started.append(id)
        try:
            if self.run_s:
                await asyncio.wait_for(stop.wait(), self.run_s)
                if not self.ends_at_cancel:
                    return {"id": id, "logs": "", "metrics": {"predict_time": self.run_s}, "status": "canceled"}
        except TimeoutError:
            pass
        finally:
            del self._running[id]
        return {"id": id, "logs": TOLD, "metrics": {"predict_time": 0.25}, **_outcome(inputs), **self.ending}


def _outcome(inputs: Json) -> Json:
    try:
        drawn = draw(picture_in(inputs, {}), inputs)
    except NotAPicture:
        return {"status": "failed", "error": f"Prediction failed: UnidentifiedImageError: {TOLD}"}
    return {"status": "succeeded", "output": f"data:image/png;base64,{base64.b64encode(drawn).decode()}"}


def _stream(prediction: Json) -> Answer:
    events = [("start", {"id": prediction["id"], "status": "processing"}), ("completed", prediction)]
    lines = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return Answer(body=f": keep-alive\n\n{lines}".encode(), headers={"content-type": "text/event-stream"})


ANSWERS = {
    "rate_limited": limited(),  # a proxy in front of it
    "overloaded": Scripted(answer=NO_ROOM),
    "server_error": broken(500),
    "auth": Scripted(answer=answer_json({"detail": "who are you"}, 401)),  # a proxy in front of it
    "invalid": Scripted(answer=REFUSED),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": broken(504),  # a proxy in front of it
    "no_such_model": Scripted(answer=answer_json({"detail": "Not Found"}, 404)),  # no Cog answers there
}
"""Faults that answer the order."""
ENDINGS: dict[str, Json] = {
    "moderated": {"status": "failed", "error": f"Prediction failed: NSFW content detected. {TOLD}", "output": None},
    "failed": {"status": "failed", "error": f"Prediction failed: RuntimeError: {TOLD}", "output": None},
    "canceled_there": {"status": "canceled", "output": None},
    "no_output": {"output": None},
    "unknown_state": {"status": "pondering", "output": None},
}
_NO_POLL = "there is no poll: the order is answered with its end"
LACKS = {
    "payment": "a container of one's own bills nobody",
    "malformed_poll": _NO_POLL,
    "forgotten": _NO_POLL,
}


def script(emulator: CogEmulator, fault: str) -> bool:
    """Let a fault happen to the next attempt."""
    if fault in ANSWERS:
        emulator.next("order", ANSWERS[fault])
    elif fault in ENDINGS:
        emulator.ending = ENDINGS[fault]
    else:
        return False
    return True


def make(url: str, *, streams: bool = False) -> Cog:
    """Make an adapter to an emulator."""
    model = Model(
        input={"image": "$image", "scale": "$scale:2", "prompt": "$prompt"},
        options={"streams": True} if streams else {},
    )
    return Cog(Setup(base_url=url, models={"upscale": model}))


CASE = Case(
    name="cog",
    emulator=CogEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2, "prompt": PROMPT},
    script=script,
    lacks=LACKS,
    kinds={"unknown_state": FailureKind.UNCERTAIN},  # no poll follows that could tell more
    exposure=Exposure.LOCAL,
    is_inline=True,
)

if __name__ == "__main__":
    given = serving.arguments("Cog, emulated")
    serving.serve(CogEmulator(run_s=given.seconds), given)

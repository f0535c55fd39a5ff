"""Emulated providers as processes of their own, with a clock: when each request came, and when its answer had gone."""

import argparse
import asyncio
import base64
import io
import random
import time
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from tests.emulators import serving
from tests.emulators.base import Answer, Emulator, Json, Seen, Work, answer_json
from tests.emulators.forms import Part
from tests.emulators.openai_images import SECRET as IMAGES_SECRET
from tests.emulators.openai_images import OpenAIEmulator, refusal
from tests.emulators.replicate import SECRET as PREDICTIONS_SECRET
from tests.emulators.replicate import TERMINAL, ReplicateEmulator
from tests.emulators.replicate_records import Prediction

PHOTO = Path(__file__).parents[1] / "broker" / "demo" / "photo.jpg"
SIDE_PX = 800
QUALITY = 92
FOR_EVER_S = 1e9
SECRETS = {"images": IMAGES_SECRET, "predictions": PREDICTIONS_SECRET}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How many predictions run, and how many there ever were."""

    running: int
    ordered: int


class Moment(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request on the machine's monotonic clock: when its head came, when its answer had gone."""

    path: str
    came_ns: int
    went_ns: int


class Clocked(Emulator):
    """Writes down when every request came and went; `GET /bench/moments` tells, and begins anew."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        """Serve one request; what it held is forgotten, so that memory does not grow with a measurement."""
        came_ns = time.monotonic_ns()
        await super().__call__(scope, receive, send)
        self.seen.clear()
        if scope["type"] == "http":
            self.moments.append(Moment(path=scope["path"], came_ns=came_ns, went_ns=time.monotonic_ns()))

    async def tell(self, seen: Seen) -> Answer:
        """Tell what was written down."""
        del seen
        told, self.moments = self.moments, []
        return Answer(body=msgspec.json.encode(told), headers={"content-type": "application/json"})


class Images(OpenAIEmulator, Clocked):
    """The Images API: every order is checked as ever, and answered with the same photo after the same time."""

    def __init__(self, *, answer_s: float, refuses: bool) -> None:
        super().__init__()
        self._answer_s = answer_s
        self._refuses = refuses
        self._answered = _answer_with(photo(SIDE_PX))
        self.routes["GET /bench/moments"] = ("moments", self.tell)

    async def _answer(self, seen: Seen, work: Work, found: dict[str, str]) -> Answer:
        if not seen.path.startswith("/v1/images/"):
            return await work(seen, **found)
        if self._refuses:
            return refusal(404, "model_not_found")
        await asyncio.sleep(self._answer_s)
        return await work(seen, **found)

    def _made(self, fields: Json, files: list[Part]) -> Answer:
        del fields, files
        return self._answered


class Predictions(ReplicateEmulator, Clocked):
    """Predictions that end after a time, or, where that is 0, within `spread_s` once `POST /bench/release` came."""

    def __init__(self, *, answer_s: float, spread_s: float) -> None:
        super().__init__(run_s=answer_s or FOR_EVER_S)
        self._released = asyncio.Event()
        self._is_held = not answer_s
        self._spread_s = spread_s
        self._picture = photo(SIDE_PX // 2)
        self.routes["GET /bench/moments"] = ("moments", self.tell)
        self.routes["GET /bench/standing"] = ("standing", self.stand)
        self.routes["POST /bench/release"] = ("release", self.release)
        self.routes["GET /pbxt/{id}/{name}"] = ("output", self.output)

    async def stand(self, seen: Seen) -> Answer:
        """Count the predictions that run, and all there were."""
        del seen
        running = sum(prediction.status not in TERMINAL for prediction in self.predictions.values())
        return Answer(body=msgspec.json.encode(Standing(running=running, ordered=len(self.predictions))))

    async def release(self, seen: Seen) -> Answer:
        """Let everything end, at times drawn evenly."""
        del seen
        self._released.set()
        return Answer(status=204)

    async def output(self, seen: Seen, id: str, name: str) -> Answer:  # noqa: A002 - the name stands in the path
        """Serve the picture to whoever has an address."""
        del seen, name
        found = self.outputs.get(id)
        return Answer(status=404) if found is None else Answer(body=found, headers={"content-type": "image/jpeg"})

    async def _run(self, prediction: Prediction) -> None:
        if self._is_held:
            await self._released.wait()
            await asyncio.sleep(random.uniform(0, self._spread_s))
        else:
            await asyncio.sleep(self.run_s)
        await self._end(prediction, self._outcome(prediction))

    def _outcome(self, prediction: Prediction) -> Json:
        self.outputs[prediction.id] = self._picture
        output = f"{self.url}/pbxt/{prediction.id}/out-0.jpg"
        return {"status": "succeeded", "output": output, "metrics": {"predict_time": 1.25}}


def photo(side_px: int) -> bytes:
    """The demonstration's photo, enlarged, as a JPEG; about 100 KB at 800 pixels."""
    drawn = io.BytesIO()
    Image.open(PHOTO).convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC).save(
        drawn, "JPEG", quality=QUALITY
    )
    return drawn.getvalue()


def _answer_with(picture: bytes) -> Answer:
    shown = {
        "created": 1_795_000_000,
        "data": [{"b64_json": base64.b64encode(picture).decode()}],
        "output_format": "jpeg",
        "usage": {"input_tokens": 20, "output_tokens": 1_000, "total_tokens": 1_020},
    }
    return answer_json(shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(SECRETS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer-s", type=float, default=0.0, help="how long an order takes; predictions: 0 waits")
    parser.add_argument("--spread-s", type=float, default=20.0, help="how far apart released predictions end")
    parser.add_argument("--refuses", action="store_true", help="know no model")
    given = parser.parse_args()
    serving.serve(
        Images(answer_s=given.answer_s, refuses=given.refuses)
        if given.kind == "images"
        else Predictions(answer_s=given.answer_s, spread_s=given.spread_s),
        given,
    )

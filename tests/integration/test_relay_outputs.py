"""Outputs of providers on their way in: fetched from where they may be, cleaned like uploads, or refused."""

import base64
from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from broker.sniff import ImageKind
from providers import calls
from providers.base import Pixels, Upload
from providers.download import DownloadRules
from tests.contract.cases import CASES
from tests.emulators import kserve
from tests.emulators.base import LOST, Answer, Scripted, answer_json
from tests.emulators.case import Case
from tests.emulators.replicate import ReplicateEmulator
from tests.images_corpus import marked
from tests.lifecycle import blobs
from tests.relay import (
    attempts,
    emulated_replicate,
    ended,
    photo_bytes,
    relaying,
    replicate,
    route,
    sent,
)
from tests.stage import End, rows, theatre
from tests.videos_corpus import marked_mp4
from workers import adapters, outside
from workers.images.errors import ImageFault, InvalidImage
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote

MAX_BYTES = 1_000_000
MAX_REPLY_BYTES = 2_000_000
TOO_SLOW_S = 2.0
ALWAYS = 9
"""More often than a file or an order is asked for."""
PICTURE = photo_bytes(128, 96)
CUT_PICTURE = PICTURE[: len(PICTURE) // 2]
HTML = b"<html>not here</html>"


def served(body: bytes, status: int = 200, **headers: str) -> Scripted:
    """What one download gets."""
    return Scripted(answer=Answer(status=status, body=body, headers=headers))


FILES = {
    "slow": [Scripted(answer=Answer(body=PICTURE, slow_s=0.3))],
    "too slow": [Scripted(answer=Answer(body=PICTURE, slow_s=TOO_SLOW_S * 1.5))],
    "broken off": [LOST, Scripted(answer=Answer(body=PICTURE, is_cut=True))],
    "expired": [served(b"", 404)],
    "expired for good": [served(b"", 404)] * ALWAYS,
    "server error": [served(b"", 500)],
    "abroad": [served(b"", 302, location="https://evil.example/out.png")] * ALWAYS,
    "to our own network": [served(b"", 302, location="http://169.254.169.254/latest")] * ALWAYS,
    "oversized": [served(bytes(MAX_BYTES + 1))] * ALWAYS,
    "without end": [served(bytes(MAX_REPLY_BYTES + 1))] * ALWAYS,
    "no picture": [served(HTML)] * ALWAYS,
    "cut picture": [served(CUT_PICTURE)] * ALWAYS,
    "video": [served(marked_mp4())] * ALWAYS,
    "packed": [Scripted(answer=Answer(body=PICTURE, headers={"content-encoding": "gzip"}))] * ALWAYS,
}
"""What the next downloads get; then the file itself."""
CONTENTS = {
    "oversized": bytes(MAX_BYTES + 1),
    "without end": bytes(MAX_REPLY_BYTES + 1),
    "no picture": HTML,
    "cut picture": CUT_PICTURE,
    "video": marked_mp4(),
    "empty": b"",
}
"""What stands in an answer, in base64 or as a tensor."""

LOGGED = "deleted_by_api deleted_by_api expires_by"
EXPIRES, DELETED, KEPT = rows("expires_by"), rows("deleted_by_api"), rows("kept_by_terms")
DONE = {
    "replicate": End("succeeded", True, 1, EXPIRES, "expires"),
    "fal": End("succeeded", True, 1, rows(LOGGED), "expires"),
    "openai_images": End("succeeded", True, 1, KEPT, "kept"),
    "http": End("succeeded", True, 1, DELETED, "deleted"),
    "comfyui": End("succeeded", True, 1, DELETED, "deleted"),
}
"""The file was asked for again, and the order was not."""
DONE_AGAIN = {
    "openai_images": End("succeeded", True, 2, KEPT + KEPT, "kept"),
    "comfyui": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
}
"""There is nobody to ask for a fresh address, or for the file once more: a second order made another."""
REFUSED = {
    "replicate": End("bad_output", False, 2, EXPIRES + EXPIRES, "expires"),
    "fal": End("bad_output", False, 2, rows(LOGGED, LOGGED), "expires"),
    "openai_images": End("bad_output", False, 2, KEPT + KEPT, "kept"),
    "http": End("bad_output", False, 2, DELETED + DELETED, "deleted"),
    "cog": End("bad_output", False, 2, EXPIRES + EXPIRES, "expires"),
    "comfyui": End("bad_output", False, 2, DELETED + DELETED, "deleted"),
    "kserve": End("bad_output", False, 2, EXPIRES + EXPIRES, "expires"),
}
"""No success without a clean output: tried twice, not charged, and what the provider has is stated all the same."""
PASSING = {"slow", "too slow", "broken off", "server error", "expired"}
LOOKED_UP_AGAIN = {
    "replicate": PASSING,
    "fal": PASSING,
    "openai_images": PASSING - {"expired"},
    "http": PASSING,
    "comfyui": {"slow", "broken off"},
}
ROUTES = {"openai_images": "hosted", "http": "file", "comfyui": "view"}
"""What emulators call the route of an output's file; the others, `output`."""
NOT_THERE = {"comfyui": {"too slow", "packed"}}
"""Its files come over the connection of the polls, and with their limits: what is slow there is a poll that is slow."""

BY_FILE = [case for case in CASES if case.name in DONE]
INLINE = [case for case in CASES if case.name in {"openai_images", "http", "cog", "kserve"}]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less may come than usually, and sooner."""
    rules = partial(DownloadRules, max_bytes=MAX_BYTES, timeout_s=TOO_SLOW_S)
    monkeypatch.setattr(adapters, "DownloadRules", rules)
    monkeypatch.setattr(calls, "MAX_REPLY_BYTES", MAX_REPLY_BYTES)


def expected(name: str, fault: str) -> End:
    """How a job ends whose output's file has this fault."""
    if fault in LOOKED_UP_AGAIN[name]:
        return DONE[name]
    return DONE_AGAIN[name] if fault in PASSING else REFUSED[name]


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("case", BY_FILE, ids=lambda case: case.name)
async def test_a_file_that_does_not_come_as_it_should(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes by itself is asked for again and costs no second order; what may not come in fails the attempt."""
    faults = FILES.keys() - NOT_THERE.get(case.name, set())
    found: dict[str, End] = {}
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        for fault in faults:
            emulator = at.stage.renew()
            emulator.is_hosting = True  # where it has a choice
            emulator.next(ROUTES.get(case.name, "output"), *FILES[fault])
            found[fault] = await at.end(await sent(at.services))
            assert bool(blobs(settings)) is found[fault].is_charged, fault
            await forget_outputs(at.services)

    assert found == {fault: expected(case.name, fault) for fault in faults}


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("case", INLINE, ids=lambda case: case.name)
async def test_an_answer_that_holds_no_clean_picture(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures inside answers are believed no more than files are."""
    found: dict[str, End] = {}
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        for fault, content in CONTENTS.items():
            answer_with(case.name, at.stage.renew(), content)
            found[fault] = await at.end(await sent(at.services))
            assert not blobs(settings), fault

    assert found == dict.fromkeys(CONTENTS, REFUSED[case.name])


async def test_more_outputs_than_there_may_be_are_not_fetched(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them would lie in memory before somebody counted."""
    case = next(case for case in CASES if case.name == "replicate")
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        emulator = at.stage.renew()
        emulator.ending = {"output": [f"{emulator.url}/pbxt/any/out-0.png"] * (outside.MAX_OUTPUTS + 1)}
        assert await at.end(await sent(at.services)) == REFUSED["replicate"]
        assert emulator.requests("output") == []


@pytest.mark.parametrize("name", ["replicate", "openai_images"])
async def test_a_decoder_that_is_killed_orders_nothing_twice(
    name: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever killed our own process, the output is there and paid for: it is cleaned again, and then given up."""
    monkeypatch.setattr(outside, "FETCH_AGAIN_S", (0.01, 0.01))
    deaths, case = Deaths(monkeypatch), next(case for case in CASES if case.name == name)
    found: list[End] = []
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        for faults in ([ImageFault.DECODER_KILLED, ImageFault.TIMEOUT], [ImageFault.DECODER_KILLED] * ALWAYS):
            at.stage.renew()
            deaths.coming = list(faults)
            found.append(await at.end(await sent(at.services)))
            await forget_outputs(at.services)

    assert found == [DONE[name], REFUSED[name]]


class Deaths:
    """What comes of the next outputs that are decoded, instead of rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.coming: list[ImageFault] = []
        real = Zygote.decode

        async def decode(zygote: Zygote, upload: Upload, *, limits: ImageLimits | None = None) -> Pixels:
            if limits is not None and self.coming:  # what a provider made has limits of its own
                raise InvalidImage(self.coming.pop())
            return await real(zygote, upload, limits=limits)

        monkeypatch.setattr(Zygote, "decode", decode)


def answer_with(name: str, emulator: Any, content: bytes) -> None:
    """Let every attempt end with this."""
    encoded = base64.b64encode(content).decode()
    finished = {"job": {"state": "finished"}, "result": {"images": [encoded]}}
    match name:
        case "cog":
            emulator.ending = {"output": f"data:image/png;base64,{encoded}"}
        case "kserve":
            emulator.next("infer", *[Scripted(answer=kserve.answer("", content))] * ALWAYS)
        case "openai_images":
            emulator.next("edit", *[Scripted(answer=answer_json({"data": [{"b64_json": encoded}]}))] * ALWAYS)
        case _:
            # Once for each attempt: a purge looks there too, and finds what is there.
            emulator.next("poll", *[Scripted(answer=answer_json(finished))] * 2)


async def forget_outputs(services: Services) -> None:
    """Destroy what the jobs so far have made."""
    rows = await services.stores.database.rows("SELECT id FROM jobs")
    for row in rows:
        await services.settler.destroy_outputs(row["id"])


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate."""
    with emulated_replicate(monkeypatch) as made:
        yield made


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> AsyncGenerator[Services]:
    """A broker and a relay worker."""
    config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]", tries=1)
    async with relaying(settings, tmp_path, config) as services:
        yield services


async def test_an_output_is_cleaned_like_an_upload(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """Metadata that a provider writes into a picture does not reach the phone."""
    dirty = marked(ImageKind.PNG)
    assert b"LETHE-MARKER" in dirty
    provider.next("output", served(dirty))

    job = await ended(services, await sent(services))

    assert job.state is JobState.SUCCEEDED
    (output,) = await services.stores.custody.outputs(job.id)
    assert output.media_type == "image/jpeg"
    assert output.size_bytes != len(dirty)


async def test_a_provider_s_success_without_an_output_costs_what_it_says(
    services: Services, provider: ReplicateEmulator
) -> None:
    """The provider is paid, the user is not charged, and the job object shows what it cost."""
    provider.ending = {"output": None}

    job = await ended(services, await sent(services))

    assert (job.state, job.code, job.charged) == (JobState.FAILED, "bad_output", False)
    assert job.cost_usd > 0
    assert [attempt.kind for attempt in await attempts(services, job)] == ["bad_output"]

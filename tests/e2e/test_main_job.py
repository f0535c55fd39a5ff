"""The main job from outside: a broker and a worker in processes of their own, spoken to over HTTP alone."""

import asyncio
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from PIL import Image

from broker.posture import Posture
from broker.receipts import signed_text, verify
from broker.settings import Settings
from broker.sniff import ImageKind
from providers.calls import trust
from tests.images_corpus import huge_png, marked, marker, not_pictures, saved, two_halves
from tests.processes import LetheProcess, lethe_process
from tests.profiles import settings_under
from tests.stack import DATA, Servers, environment_of, own_database, settings_for

REFUSED_AT_THE_DOOR = {"nothing", "text", "svg", "long_gif", "huge_png"}


class Running:
    """One broker and one worker, and a user of theirs."""

    def __init__(self, url: str, settings: Settings, worker: LetheProcess) -> None:
        self.settings = settings
        self.worker = worker
        self.http = httpx.Client(base_url=url, timeout=40, verify=trust())
        self.http.headers["Authorization"] = f"Bearer {self.http.post('/v1/users').json()['token']}"

    def put(self, body: bytes, *, headers: dict[str, str] | None = None, **query: str | int) -> httpx.Response:
        return self.http.put(f"/v1/jobs/{uuid4()}", content=body, headers=headers or {}, params=query)

    def final(self, answer: httpx.Response) -> dict[str, object]:
        """Wait for the end of a job as a phone does."""
        assert answer.status_code == 202, answer.text
        job = answer.json()
        while "finalized_at" not in job:
            path = f"/v1/jobs/{job['id']}"
            job = self.http.get(path, headers={"Prefer": "wait=20", "If-None-Match": answer.headers["etag"]}).json()
        return job

    def blobs(self) -> set[str]:
        return {path.name for path in Path(self.settings.blobs_url.removeprefix("file://")).rglob("*")}


@pytest.fixture(scope="module")
def running(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    folder = tmp_path_factory.mktemp("running")
    loop = asyncio.new_event_loop()
    database = own_database(servers)
    dsn = loop.run_until_complete(database.__aenter__())
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    plain = msgspec.structs.replace(settings_for(servers, dsn, folder), listen=listen, lease_s=10.0)
    settings = settings_under(plain, folder, jobs_per_minute="6_000")  # for a user in a hurry
    with ExitStack() as processes:
        broker = processes.enter_context(lethe_process(["broker"], settings, folder))
        worker = processes.enter_context(lethe_process(["workers", "gpu"], settings, folder))
        url = f"http://{listen}"
        wait_for_operations(url, broker, worker)
        started = Running(url, settings, worker)
        processes.callback(started.http.close)
        yield started
    loop.run_until_complete(database.__aexit__(None, None, None))
    loop.close()


def wait_for_operations(url: str, *processes: LetheProcess) -> None:
    deadline_s = time.monotonic() + 40
    while True:
        assert time.monotonic() < deadline_s, [process.log for process in processes]
        try:
            if "upscale" in httpx.get(f"{url}/v1/operations").text:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def test_a_photo_comes_out_upscaled_and_its_upload_is_gone(running: Running) -> None:
    """
    m2r-2, minimal-2: receipt verified, output clean and twice as large, nothing of the upload left, DELETE takes the
    output along.
    """
    before = running.blobs()
    photo = marked(ImageKind.JPEG)

    job = running.final(running.put(photo, operation="upscale", scale=2))

    assert job["status"] == "succeeded"
    path = f"/v1/jobs/{job['id']}"
    output = running.http.get(f"{path}/outputs/0")
    assert output.headers["content-type"] == "image/jpeg"
    assert marker("COM") in photo
    assert b"LETHE-MARKER" not in output.content
    with Image.open(io.BytesIO(photo)) as given, Image.open(io.BytesIO(output.content)) as made:
        assert sorted(made.size) == sorted((given.width * 2, given.height * 2))
    keys = [key["vkey"] for key in running.http.get("/v1/privacy/keys").json()["items"]]
    receipt = verify(running.http.get(f"{path}/receipt").text, keys)
    assert {copy.evidence for copy in receipt.copies} == {"shredded", "absent", "overwritten"}
    assert len(running.blobs() - before) == 1, "the output alone"
    verdict = running.http.delete(path).json()
    assert (verdict["canceled"], verdict["charged"], verdict["outputs"]) == (False, True, "destroyed")
    assert running.blobs() == before
    assert running.http.get(f"{path}/outputs/0").status_code == 410


def test_processes_that_lethe_starts_are_what_the_minimal_profile_demands(running: Running) -> None:
    """Broker, worker and keyholder see it of themselves; the page that says so is signed by the receipts' key."""
    keys = [key["vkey"] for key in running.http.get("/v1/privacy/keys").json()["items"]]
    posture = msgspec.json.decode(signed_text(running.http.get("/v1/privacy/posture").text, keys), type=Posture)
    assert posture.is_met
    assert {(line.part, line.name) for line in posture.facts if line.is_demanded} >= {
        (part, name) for part in ("broker", "worker") for name in ("undumpable", "guarded", "freed_heap_overwritten")
    }


@pytest.mark.parametrize("kind", list(ImageKind))
def test_every_format_is_taken(running: Running, kind: ImageKind) -> None:
    """JPEG, PNG, WebP and HEIC go in; a picture of a format that Lethe makes comes out, without any marker."""
    job = running.final(running.put(marked(kind), operation="restyle", strength=30))

    assert job["status"] == "succeeded"
    output = running.http.get(f"/v1/jobs/{job['id']}/outputs/0")
    expected = ImageKind.JPEG if kind is ImageKind.HEIC else kind
    assert output.headers["content-type"] == expected.media_type
    assert b"LETHE-MARKER" not in output.content


@pytest.mark.parametrize("name", sorted(not_pictures()))
def test_what_is_no_picture_is_refused_or_fails(running: Running, name: str) -> None:
    """415 at the door where the header tells, else `invalid_image` with a receipt; nothing of it is left."""
    before = running.blobs()

    answer = running.put(not_pictures()[name], operation="upscale", scale=2)

    if name in REFUSED_AT_THE_DOOR:
        assert answer.status_code == 415, answer.text
        assert answer.json()["code"] == "unsupported_image"
    else:
        job = running.final(answer)
        assert (job["status"], job.get("error_code")) == ("failed", "invalid_image")
        assert running.http.get(f"/v1/jobs/{job['id']}/receipt").status_code == 200
    wait_until_blobs(running, before)
    assert running.worker.running.poll() is None


def test_an_output_that_is_too_large_is_refused_with_the_numbers(running: Running) -> None:
    """The door reads the size from the header: 4,000 × 3,000 at ×4 would be 192 megapixels."""
    picture = huge_png(4_000, 3_000)

    answer = running.put(picture, operation="upscale", scale=4)

    assert (answer.status_code, answer.json()["code"]) == (422, "output_too_large")
    assert "192000000" in answer.json()["detail"]
    assert "64000000" in answer.json()["detail"]


def test_work_that_cannot_end_in_time_is_refused_with_the_numbers(running: Running) -> None:
    """The worker's own measured rate against the client's deadline."""
    picture = huge_png(4_000, 3_000)

    answer = running.put(picture, operation="upscale", scale=2, headers={"Lethe-Finish-Within": "3"})

    assert (answer.status_code, answer.json()["code"]) == (422, "deadline_too_short")
    assert "within 3 s" in answer.json()["detail"]


def test_a_worker_with_truncated_weights_does_not_start(running: Running, tmp_path: Path) -> None:
    """It ends with a message that names the file and what to do."""
    models = tmp_path / "models"
    shutil.copytree(DATA / "models", models)
    damaged = models / "realesr-animevideov3-x2.bin"
    os.truncate(damaged, damaged.stat().st_size // 2)
    settings = msgspec.structs.replace(running.settings, data_dir=str(tmp_path))

    ended = subprocess.run(
        [sys.executable, "-m", "broker.guard", sys.executable, "-m", "workers", "gpu"],
        env={**os.environ, **environment_of(settings)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert ended.returncode != 0
    assert "realesr-animevideov3-x2.bin" in ended.stderr
    assert "make data" in ended.stderr


def test_the_picture_is_the_right_way_up(running: Running) -> None:
    """Left stays left: the whole chain neither turns nor mirrors."""
    job = running.final(running.put(saved(two_halves(), "PNG"), operation="upscale", scale=2))

    with Image.open(io.BytesIO(running.http.get(f"/v1/jobs/{job['id']}/outputs/0").content)) as made:
        left, right = made.convert("RGB").getpixel((10, 32)), made.convert("RGB").getpixel((118, 32))
    with two_halves() as given:
        assert close(left, given.getpixel((5, 16)))
        assert close(right, given.getpixel((59, 16)))


def close(one: object, other: object) -> bool:
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    return all(abs(int(a) - int(b)) < 30 for a, b in zip(one, other, strict=True))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def wait_until_blobs(running: Running, expected: set[str]) -> None:
    deadline_s = time.monotonic() + 10
    while running.blobs() != expected:
        assert time.monotonic() < deadline_s, running.blobs() - expected
        time.sleep(0.05)

"""The main job under a sealing profile, with a broker and a worker in processes of their own."""

import asyncio
import io
import os
import socket
import subprocess
from base64 import b64decode
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from broker.demo.stage import PHOTO
from broker.devices import Kem
from broker.receipts import verify
from broker.sniff import ImageKind, sniff
from tests.e2e.test_main_job import Running, wait_for_operations
from tests.images_corpus import marked, two_halves
from tests.processes import LetheProcess, lethe_process
from tests.profiles import GALLERY, with_profile
from tests.residue import files_with, memory_with
from tests.sealed import KeyPair, new_pair, opened_by_typescript, python_opener
from tests.stack import Servers, own_database, settings_for
from tests.up_process import lethe, plain_environment

OPENER = python_opener()


class Sealing(Running):
    """A broker and a worker that seal, and two devices of one user."""

    processes: tuple[LetheProcess, LetheProcess]

    def add(self, kem: Kem) -> tuple[str, KeyPair]:
        pair = new_pair(kem)
        answer = self.http.post("/v1/me/devices", json=pair.asked)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], pair


@pytest.fixture(scope="module")
def sealing(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Generator[Sealing]:
    folder = tmp_path_factory.mktemp("sealing")
    loop = asyncio.new_event_loop()
    database = own_database(servers)
    dsn = loop.run_until_complete(database.__aenter__())
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    plain = msgspec.structs.replace(settings_for(servers, dsn, folder), listen=listen, lease_s=10.0)
    settings = with_profile(plain, folder, GALLERY)
    with ExitStack() as processes:
        broker = processes.enter_context(lethe_process(["broker"], settings, folder))
        worker = processes.enter_context(lethe_process(["workers", "gpu"], settings, folder))
        url = f"http://{listen}"
        wait_for_operations(url, broker, worker)
        started = Sealing(url, settings, worker)
        started.processes = (broker, worker)
        processes.callback(started.http.close)
        yield started
    loop.run_until_complete(database.__aexit__(None, None, None))
    loop.close()


class Opened:
    """A sealed output as devices see it."""

    def __init__(self, sealing: Sealing, job: dict[str, object]) -> None:
        self.job_id = str(job["id"])
        self.path = f"/v1/jobs/{self.job_id}/outputs/0"
        self.ciphertext = sealing.http.get(self.path).content
        self.small = sealing.http.get(f"{self.path}/thumbnail").content
        items = sealing.http.get(f"{self.path}/keys").json()["items"]
        self.keys = {key["device_id"]: b64decode(key["wrapped_key"]) for key in items}
        self.context = OPENER.output_context(self.job_id, 0)

    def key(self, device_id: str, pair: KeyPair) -> bytes:
        return OPENER.open_key(pair.kem.value, pair.private_key, self.keys[device_id], self.info(device_id, pair))

    def info(self, device_id: str, pair: KeyPair) -> bytes:
        return OPENER.key_info(self.job_id, 0, device_id, pair.kem.value)

    def thumbnail(self, key: bytes) -> Image.Image:
        return Image.open(io.BytesIO(OPENER.open_sealed(key, self.small, OPENER.thumbnail_context(self.job_id, 0))))


def test_a_photo_comes_out_sealed(sealing: Sealing) -> None:
    """m2r-5: devices of every KEM open picture and thumbnail, with either reference; the receipt is as ever."""
    devices = [sealing.add(Kem.P256), sealing.add(Kem.X25519), sealing.add(Kem.XWING)]
    job = sealing.final(sealing.put(marked(ImageKind.JPEG), operation="upscale", scale=2))
    assert job["status"] == "succeeded", job
    opened = Opened(sealing, job)
    [key] = {opened.key(*device) for device in devices}
    picture = OPENER.open_sealed(key, opened.ciphertext, opened.context)
    for device_id, pair in devices:
        arguments = (pair, opened.keys[device_id], opened.info(device_id, pair), opened.ciphertext, opened.context)
        assert opened_by_typescript(*arguments) == picture
    with Image.open(io.BytesIO(picture)) as made, opened.thumbnail(key) as thumbnail:
        assert (made.format, thumbnail.format) == ("JPEG", "JPEG")
        assert max(thumbnail.size) == min(256, max(made.size))
    assert b"LETHE-MARKER" not in picture
    vkeys = [key["vkey"] for key in sealing.http.get("/v1/privacy/keys").json()["items"]]
    assert verify(sealing.http.get(f"/v1/jobs/{opened.job_id}/receipt").text, vkeys).outcome == "succeeded"


def test_nothing_of_ours_has_picture_or_key(sealing: Sealing, servers: Servers) -> None:
    """Neither is in a file of any store or log, nor in the memory of keyholder, broker or worker (as root sees it)."""
    device = sealing.add(Kem.X25519)
    opened = Opened(sealing, sealing.final(sealing.put(marked(ImageKind.JPEG), operation="upscale", scale=2)))
    key = opened.key(*device)
    picture = OPENER.open_sealed(key, opened.ciphertext, opened.context)
    middle = len(picture) // 2
    needles = [picture[middle : middle + 32], key]
    folder = sealing.processes[0].log_path.parent
    for n, needle in enumerate(needles):
        (folder / f"control-{n}").write_bytes(b"around" + needle + b"it")
    assert sorted(files_with(needles, folder)) == ["control-0", "control-1"], "it finds what is there, and nothing else"
    assert files_with(needles, servers.databases.folder) == []
    ours = [servers.keyholder.running.pid, *(process.child_pid for process in sealing.processes)]
    assert memory_with(needles, ours) == []
    assert bool(memory_with(needles, [os.getpid()])) == (os.geteuid() == 0), "where it is, it is found"


def test_a_thumbnail_is_small_and_the_right_way_up(sealing: Sealing) -> None:
    """256 pixels at most on its longer side, without metadata; left stays left."""
    device = sealing.add(Kem.X25519)
    photo = io.BytesIO()
    with two_halves() as given:
        given.resize((900, 600)).save(photo, "PNG")
    opened = Opened(sealing, sealing.final(sealing.put(photo.getvalue(), operation="restyle", strength=30)))
    with opened.thumbnail(opened.key(*device)) as thumbnail:
        assert thumbnail.size == (256, 171)
        assert not thumbnail.getexif()


def test_without_a_device_left_the_job_fails(sealing: Sealing) -> None:
    """Deleted while the job waits: `device_key_required`, nothing is charged, nothing of it is left."""
    sealing.http.headers["Authorization"] = f"Bearer {sealing.http.post('/v1/users').json()['token']}"
    device_id, _ = sealing.add(Kem.X25519)
    before = sealing.blobs()
    answer = sealing.put(marked(ImageKind.JPEG), operation="upscale", scale=4, quality="best")
    assert sealing.http.delete(f"/v1/me/devices/{device_id}").status_code == 204
    job = sealing.final(answer)
    assert (job["status"], job["error_code"], job["charged"]) == ("failed", "device_key_required", False)
    assert sealing.blobs() == before


def test_a_shell_opens_what_is_sealed(sealing: Sealing, tmp_path: Path) -> None:
    """`lethe submit --device`: a key is made once, for its owner alone, and the picture comes out open."""
    key, result, token = tmp_path / "device.key", tmp_path / "drawing.jpg", _new_token(sealing)
    for _ in range(2):
        said = _submit(sealing, token, "--device", str(key), "--output", str(result))
        assert said.returncode == 0, said.stdout + said.stderr
        assert sniff(result.read_bytes()) is ImageKind.JPEG
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert len(sealing.http.get("/v1/me/devices").json()["items"]) == 1, "the same key is the same device"


def test_a_shell_without_a_device_is_told_why(sealing: Sealing, tmp_path: Path) -> None:
    """One sentence with the code, and a file that is no key is named; nothing is written."""
    token = _new_token(sealing)
    said = _submit(sealing, token, "--output", str(tmp_path / "x.jpg"))
    assert said.returncode == 1
    assert "device_key_required" in said.stderr
    key = tmp_path / "no.key"
    key.write_text("short")
    said = _submit(sealing, token, "--device", str(key), "--output", str(tmp_path / "x.jpg"))
    assert said.returncode == 1
    assert f"{key} is no key of a device: it has 5 bytes, not 32" in said.stderr
    assert not (tmp_path / "x.jpg").exists()


def _new_token(sealing: Sealing) -> str:
    token: str = sealing.http.post("/v1/users").json()["token"]
    sealing.http.headers["Authorization"] = f"Bearer {token}"
    return token


def _submit(sealing: Sealing, token: str, *more: str) -> subprocess.CompletedProcess[str]:
    order = lethe("submit", str(PHOTO), "--operation", "restyle", "--url", str(sealing.http.base_url), *more)
    environment = plain_environment(LETHE_TOKEN=token)
    return subprocess.run(order, env=environment, capture_output=True, text=True, timeout=60, check=False)

"""Forms as clients send them, and a configuration in which somebody is said to do what they ask for."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from broker.form import Form
from broker.incoming import Delivery
from broker.jobs import Job
from broker.operations import OPERATIONS, Pictures, parted
from broker.services import Services
from broker.settings import Settings
from broker.store.processes import Facts, Process
from broker.submission import Submission
from tests.checks import plant
from tests.relay import route, settings_with
from tests.stack import body_of, hardened_facts, submission

BOUNDARY = "lethe-test"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
PROMPT = "a kite over a red roof, as in my dream of 1999"
SECRET_NAME = "IMG_from_my_bedroom.jpg"


STUDIO = """
[provider.studio]
adapter = "replicate"
base_url = "http://127.0.0.1:9"
secret = "env:LETHE_TEST_SECRET"
exposure = "ephemeral"
hosts = ["studio.example"]
"""
MODEL = """
[provider.studio.operation.{operation}]
model = "someone/studio:f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
input = {{ {pictures} prompt = "$prompt", n = "$count" }}
output = "/output"
cost_usd = 0.003
max_outputs = 4
max_pictures = 20
"""
PICTURES = {"edit": 'images = "$images",', "photoshoot": 'images = "$images",', "generate": ""}


def studio_settings(settings: Settings, folder: Path) -> Settings:
    """Settings with a provider that is said to do what takes several pictures, or none."""
    models = "".join(MODEL.format(operation=name, pictures=pictures) for name, pictures in PICTURES.items())
    routes = "".join(route(name, "[{ studio = 1 }]") for name in PICTURES)
    return settings_with(settings, folder, STUDIO + models + routes)


async def open_studio(services: Services) -> None:
    """A row that says that a worker lives which speaks to it."""
    facts = Facts(pool="relay", providers=("studio",), posture=hardened_facts())
    process = Process(id=uuid4(), role="worker", facts=facts)
    await services.stores.processes.register(process, lease_s=3600)


def needing(monkeypatch: pytest.MonkeyPatch, pictures: Pictures) -> None:
    """Let `edit` take another number of pictures."""
    monkeypatch.setitem(OPERATIONS, "edit", msgspec.structs.replace(OPERATIONS["edit"], pictures=pictures))


def job_part(operation: str = "edit", **fields: object) -> bytes:
    head = b'Content-Disposition: form-data; name="job"\r\nContent-Type: application/json\r\n\r\n'
    return head + json.dumps({"operation": operation, "parameters": {"prompt": PROMPT}, **fields}).encode()


def picture_part(data: bytes, name: str = "picture") -> bytes:
    return (
        f'Content-Disposition: form-data; name="{name}"; filename="{SECRET_NAME}"\r\nContent-Type: image/jpeg\r\n\r\n'
    ).encode() + data


def form_of(*parts: bytes) -> bytes:
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"


async def delivered(services: Services, chunks: AsyncIterator[bytes]) -> Delivery:
    """What the HTTP side makes of a form, its job read already."""
    body = services.intake.bounded(chunks, factor=4)
    form = Form(body.chunks(), BOUNDARY)
    await form.job()
    return Delivery(body, form.pictures())


async def typed_submission(services: Services, prompt: str = PROMPT, **changed: object) -> Submission:
    plain, texts = parted("edit", {"prompt": plant(prompt), "count": 1})
    asked: dict[str, object] = {"operation": "edit", "parameters": plain, "texts": texts}
    return await submission(services, **{**asked, **changed})


def again(made: Submission, prompt: str = PROMPT) -> Submission:
    """The same submission in another request: the first one's buffer was overwritten."""
    return msgspec.structs.replace(made, texts=parted("edit", {"prompt": prompt})[1])


async def send(services: Services, made: Submission, *pictures: bytes) -> tuple[Job, bool]:
    body = form_of(job_part(), *(picture_part(picture) for picture in pictures))
    chunks = body_of(*(body[at : at + 50_000] for at in range(0, len(body), 50_000)))
    return await services.intake.deliver(made, await delivered(services, chunks))


def open_files() -> set[str]:
    """Regular files that this process has open, by descriptor, deleted ones too; not the library files it maps."""
    found: set[str] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            path = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if path.startswith("/") and not path.startswith(("/dev/", "/proc/")):
            found.add(path)
    return found

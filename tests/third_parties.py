"""Emulated providers of every way of ordering, and a lethe.toml that sends each operation down one of them."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

from tests.emulators.base import Seen, running
from tests.emulators.cog import CogEmulator
from tests.emulators.forms import files_in
from tests.emulators.openai_images import MODEL as OPENAI_MODEL
from tests.emulators.openai_images import SECRET as OPENAI_SECRET
from tests.emulators.openai_images import OpenAIEmulator
from tests.emulators.replicate import SECRET as REPLICATE_SECRET
from tests.emulators.replicate import ReplicateEmulator
from tests.relay import SECRET_VARIABLE, replicate, route

OPENAI_VARIABLE = "LETHE_TEST_OPENAI"
SECRETS = {SECRET_VARIABLE: REPLICATE_SECRET, OPENAI_VARIABLE: OPENAI_SECRET}
OTHERS = """
[provider.noop]
adapter = "inhouse"
pool = "gpu"
model = "noop"
exposure = "local"

[provider.pencil]
adapter = "inhouse"
pool = "gpu"
model = "pencil"
exposure = "local"

[provider.openai]
adapter = "openai_images"
base_url = "{openai}/v1"
secret = "env:{variable}"
exposure = "logged"

[provider.openai.operation.edit]
model = "{model}"
input = {{ prompt = "$prompt", n = "$count:1", output_format = "jpeg" }}
max_outputs = 4
max_pictures = 16
cost_usd = 0.04

[provider.cog]
adapter = "cog"
base_url = "{cog}"
exposure = "local"
concurrency = 1

[provider.cog.operation.remove_background]
input = {{ image = "$image" }}
cost_usd = 0.001
"""
ROUTES = {
    "noop": "noop",
    "restyle": "pencil",
    "upscale": "replicate",
    "edit": "openai",
    "remove_background": "cog",
}


class ThirdParties:
    """An asynchronous provider, one that answers with the result, and one that takes ids of ours."""

    def __init__(self) -> None:
        self.replicate = ReplicateEmulator(run_s=0.3)
        self.openai = OpenAIEmulator()
        self.cog = CogEmulator(run_s=0.3)
        self._ordered: dict[tuple[str, bytes], list[str]] = {}

    @property
    def config(self) -> str:
        """A lethe.toml that leads to them."""
        others = OTHERS.format(openai=self.openai.url, cog=self.cog.url, variable=OPENAI_VARIABLE, model=OPENAI_MODEL)
        routes = "".join(route(operation, f"[{{ {provider} = 1 }}]") for operation, provider in ROUTES.items())
        return replicate(self.replicate.url) + others + routes

    def forget(self) -> None:
        """Begin a new count of what was ordered."""
        for emulator in (self.replicate, self.openai, self.cog):
            emulator.seen.clear()
        self.cog.started.clear()

    @property
    def orders(self) -> int:
        """How many jobs were ordered; under one id of ours it is one order, however often it came."""
        inline = len(self.openai.requests("edit"))
        return len(self.replicate.requests("order")) + inline + len(set(self.cog.started))

    def tally(self) -> None:
        """Note for which picture each order was, and forget the requests: in an hour there are many."""
        for name, emulator, picture_of in (
            ("replicate", self.replicate, _picture_in_json),
            ("openai", self.openai, _picture_in_form),
            ("cog", self.cog, _picture_in_json),
        ):
            seen = list(emulator.seen)
            del emulator.seen[: len(seen)]  # others may have come meanwhile
            for one in seen:
                if one.route in {"order", "edit"}:
                    digest = hashlib.sha256(picture_of(one)).digest()
                    self._ordered.setdefault((name, digest), []).append(one.path)

    def doubles(self) -> list[str]:
        """Name the orders for a picture that was ordered before; under the same id of ours it is the same order."""
        self.tally()
        counts = [(name, self._paid(name, paths)) for (name, _), paths in self._ordered.items()]
        return [f"ordered {count} times at {name}" for name, count in counts if count > 1]

    def _paid(self, name: str, paths: list[str]) -> int:
        if name != "cog":
            return len(paths)
        # One that found no room there was turned away, and is ordered anew under another id.
        return len({path for path in paths if path.rpartition("/")[2] in self.cog.started})


def _picture_in_json(seen: Seen) -> bytes:
    return str(seen.json()["input"]["image"]).encode()


def _picture_in_form(seen: Seen) -> bytes:
    return b"".join(file.content for file in files_in(seen))


@contextmanager
def running_third_parties() -> Generator[ThirdParties]:
    """Serve them on loopback."""
    made = ThirdParties()
    with running(made.replicate), running(made.openai), running(made.cog):
        yield made

"""A lethe.toml for tests of configuration and routing, with a third party whose adapter is nothing but its terms."""

import json
import re
from collections.abc import Mapping
from typing import cast

import pytest

from broker.config import read_config
from broker.routes import Config
from policies.toml_file import TomlFile
from providers.base import Deletes, Exposure, Takes, Terms
from providers.registry import ADAPTERS, Adapter

ACME = Terms(
    takes=Takes.FILE,
    operations=frozenset({"upscale", "edit", "photoshoot", "generate"}),
    exposure=Exposure.LOGGED,
    retention_s=3600,
    deletes=Deletes.API,
    max_pictures=8,
    needs_secret=True,
    gives_urls=True,
)
"""What the third party documents; it has no usual place."""

GOOD = """\
[provider.gpu]
adapter = "inhouse"
pool = "gpu"
model = "realesrgan"
exposure = "local"

[provider.idle]
adapter = "inhouse"
pool = "gpu"
model = "noop"
exposure = "local"

[provider.acme]
adapter = "acme"
base_url = "https://api.acme.example"
secret = "env:ACME_KEY"
exposure = "logged"
hosts = ["*.acme.example"]

[provider.acme.operation.upscale]
model = "up-2"
input = { image = "$image", scale = "$scale:2" }
output = "/result/0"
cost_usd = 0.004

[provider.mirror]
adapter = "acme"
base_url = "https://mirror.example"
secret = "file:/run/secrets/mirror"
exposure = "public"
hosts = ["mirror.example"]
operation.upscale.input = { image = "$image" }

[provider.spare]
adapter = "replicate"
secret = "env:REPLICATE_API_TOKEN"
exposure = "ephemeral"
hosts = ["replicate.delivery"]

[provider.spare.operation.edit]
model = "someone/editor"
input = { prompt = "$prompt", pictures = "$images" }
output = "/output"

[[route]]
operation = "upscale"
tiers = [
  { gpu = 9, acme = 1 },
  { mirror = 1 },
]
tries = 5
deadline_s = 180
max_usd = 0.02
on_reject = "next"
overflow_after_s = 5

[[route]]
operation = "noop"
tiers = [{ idle = 1 }]
"""


def acme(monkeypatch: pytest.MonkeyPatch, terms: Terms = ACME) -> None:
    """Let lethe.toml know the third party; no test here orders anything from it."""

    class Acme:
        def __init__(self) -> None:
            self.terms = terms

    monkeypatch.setitem(ADAPTERS, "acme", cast("Adapter", Acme()))


def read(text: str, changed: Mapping[str, object] | None = None) -> Config:
    """Read a configuration; `changed` are other fields of [provider.acme], where None takes one away."""
    return read_config(TomlFile(edited(text, changed or {}), name="lethe.toml"))


def edited(text: str, changed: Mapping[str, object]) -> str:
    """Change fields of [provider.acme]: in their own line where there is one, so that no other line moves."""
    head, table, rest = text.partition("[provider.acme]\n")
    table, blank, tail = (table + rest).partition("\n\n")
    for name, value in changed.items():
        line = "" if value is None else f"{name} = {json.dumps(value)}"
        pattern = re.compile(rf"^{name} = .*$", re.MULTILINE)
        table = pattern.sub(lambda _, line=line: line, table) if pattern.search(table) else f"{table}\n{line}"
    return head + table + blank + tail

"""docs/configuration.md and docs/routing.md say what the code does."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.config import DEFAULT_FILE, read_config
from broker.routes import InhouseProvider, OutsideProvider, Route
from broker.routing import BACK_OFF_S, LONG_WAIT_S, RETRY, Needs, cannot
from policies.toml_file import TomlFile
from providers.base import Model
from providers.failures import FailureKind
from workers.outside import FULL_AGAIN_S
from workers.seats import WAIT_S

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text()
ROUTING = (DOCS / "routing.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([a-z_]+)` \|([^|]*)\|([^|]*)\| .+ \|$", re.MULTILINE)
AGAIN = {"no": 0, "once": 1, "twice": 2}


def section(title: str, page: str = PAGE) -> str:
    """The part of a page under one heading."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_valid(block: str) -> None:
    """Whoever copies one gets a file that is accepted."""
    config = read_config(TomlFile(block, name="configuration.md"))
    assert config.operations
    assert len(BLOCKS) >= 2


def test_the_first_example_does_what_is_said_of_it() -> None:
    """In house and third party in one route; who takes no `quality` is no candidate for the best one."""
    config = read_config(TomlFile(BLOCKS[0], name="configuration.md"))
    route = config.routes["upscale"]
    assert route.tiers == ({"gpu": 9, "replicate": 1}, {"fal": 1})
    assert route.overflow_after_s == 20
    best = Needs(operation="upscale", parameters={"scale": 2, "quality": "best"})
    assert [name for name in route.providers if not cannot(config.providers[name], best)] == ["gpu"]


def shown(field: Any) -> str:
    """A default as the tables write it."""
    return "required" if field.required else str(field.default)


@pytest.mark.parametrize(
    ("title", "struct", "words"),
    [
        ("`[provider.NAME]`", OutsideProvider, {"base_url": "the adapter's", "retention_s": "the adapter's"}),
        (
            "`[provider.NAME.operation.OPERATION]`",
            Model,
            {
                "input": "empty",
                "values": "all",
                "max_pictures": "the adapter's",
                "media_types": "the adapter's",
            },
        ),
        ("`[[route]]`", Route, {"deadline_s": "the profile's", "overflow_after_s": "never"}),
    ],
)
def test_every_field_is_described_with_its_default(title: str, struct: Any, words: dict[str, str]) -> None:
    """The tables name every field that may be written, and no other; `none` is nothing at all."""
    rows = {name: default.strip("` ") for name, _, default in ROW.findall(section(title))}
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert set(rows) == set(fields)
    for name, default in rows.items():
        written = str(shown(fields[name]))
        if name in words:
            assert default == words[name]
        elif default == "none":
            assert fields[name].default_factory is not msgspec.NODEFAULT or written in {"", "None", "()"}, name
        else:
            assert default in {written, written.removesuffix(".0")}, name


@pytest.mark.parametrize("name", ["adapter", *InhouseProvider.__struct_fields__])
def test_the_fields_of_a_model_of_ours_are_named(name: str) -> None:
    """Four of them."""
    assert f"`{name}`" in section("`[provider.NAME]`").partition("| field |")[0]


def test_the_table_of_failures_is_the_rule() -> None:
    """docs/routing.md says of every kind how often the same provider is asked again, and whether another is."""
    rows = re.findall(r"^\| (`.+`) \| (\w+) \| (.+) \|$", section("What follows a failure", ROUTING), re.MULTILINE)
    told = {
        FailureKind(kind): (AGAIN[again], then.startswith("the next provider"))
        for kinds, again, then in rows
        for kind in re.findall(r"`(\w+)`", kinds)
    }
    assert told == {kind: (rule.same, rule.other) for kind, rule in RETRY.items()}


def test_the_times_in_the_text_are_the_times() -> None:
    """Waits that an operator reckons with."""
    assert (BACK_OFF_S, LONG_WAIT_S, WAIT_S, FULL_AGAIN_S) == ((0.5, 2.0), 10.0, 5.0, 2.0)
    text = " ".join(ROUTING.split())
    assert "half a second passes, then two" in text
    assert "for more than 10 s" in text
    assert "waits 5 s for a place; then its job goes back to its queue for two seconds" in text


def test_the_example_in_the_file_that_ships_is_valid() -> None:
    """Its comments can be taken out as they stand, and its route put in place of the one that is there."""
    text = DEFAULT_FILE.read_text()
    example = "\n".join(line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   "))
    match = re.search(r"in the route of upscale: (tiers = \[.+\]), (overflow_after_s = \d+)$", text, re.MULTILINE)
    assert match is not None
    whole = text.replace("tiers = [{ realesrgan = 1 }]", f"{match[1]}\n{match[2]}") + example
    config = read_config(TomlFile(whole, name="lethe.toml"))
    assert config.routes["upscale"].providers == ("realesrgan", "replicate")
    assert config.routes["upscale"].overflow_after_s == 20

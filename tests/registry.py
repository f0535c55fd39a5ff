"""The retention registry, broker/retention.toml: what stands in it, what it says of a name, and the page made of it."""

import fnmatch
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from broker.notices.records import STORES
from broker.notices.registry import Kept, registry

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "retention.md"

HEAD = """# What is kept, and for how long

Every column, key, blob, log field and label that Lethe has, by category (the words are those of
[fideslang](https://ethyca.github.io/fideslang/)), purpose, greatest age and the test that shows it. `python -m
tests.registry` makes this page of `broker/retention.toml`. Tests compare the file with what really exists; while they
run, Redis refuses every key that is not in it. `records_for_s`, `idle_user_for_s` and `outputs_for_s` are settings of
the profile. Keys of uploads are in no store: they live in the keyholder's memory ([privacy.md](privacy.md)).
"""


def names(store: str) -> list[str]:
    """Every name that is listed of one store."""
    return [name for kept in registry() if kept.store == store for name in kept.names]


def key_kept(key: str) -> Kept | None:
    """What is said of a key of Redis; of several patterns the longest counts."""
    found = [
        (len(name), kept)
        for kept in registry()
        if kept.store == "redis"
        for name in kept.names
        if fnmatch.fnmatchcase(key, name)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def is_blob_name(name: str) -> bool:
    return any(re.fullmatch(form, name) for form in names("blob"))


def rendered() -> str:
    """The page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    for store, title in STORES.items():
        yield f"## {title}\n"
        yield "| what | category | purpose | greatest age | shown by |"
        yield "|---|---|---|---|---|"
        for kept in registry():
            if kept.store == store:
                listed = ", ".join(f"`{name}`" for name in kept.names)
                yield f"| {listed} | `{kept.category}` | {kept.purpose} | {kept.age} | `{kept.verified_by}` |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(rendered())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is written\n")

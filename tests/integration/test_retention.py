"""The retention registry lists what exists, all of it and nothing else; what it says can be looked up."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest
from arq.constants import (
    abort_jobs_ss,
    health_check_key_suffix,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)
from prometheus_client.metrics import MetricWrapperBase

from broker.doctor.stores import stores
from broker.log import ALLOWED_KEYS
from broker.metrics import Metrics
from broker.notices.records import STORES
from broker.notices.registry import Kept, registry
from broker.queue import queue_name
from broker.settings import Settings
from broker.store.blobs import BlobStore, new_name
from policies.retention import Retention
from tests.lifecycle import rows_of
from tests.registry import PAGE, ROOT, is_blob_name, names, rendered

COLUMNS = (
    "SELECT table_name || '.' || column_name AS name FROM information_schema.columns WHERE table_schema = 'public'"
)
ARQ = {f"{prefix}*" for prefix in (in_progress_key_prefix, job_key_prefix, result_key_prefix, retry_key_prefix)}
# The words of fideslang's taxonomy that fit anything here.
CATEGORIES = {
    "system.authentication",
    "system.operations",
    "user.authorization.credentials",
    "user.behavior",
    "user.content.self_image",
    "user.device.ip_address",
    "user.payment",
    "user.privacy_preferences",
    "user.unique_id",
}


async def test_every_column_is_listed(settings: Settings) -> None:
    """
    core-4, imaginex-1, minimal-3: what the migrations have made, column by column; a new one says what it is for and
    when it goes.
    """
    assert sorted(names("postgres")) == sorted(row["name"] for row in await rows_of(settings, COLUMNS))


def test_every_redis_key_and_channel_of_the_code_is_listed() -> None:
    """Those that stand in our code, and arq's; Redis itself refuses others while the tests run."""
    ours = {name for package in ("broker", "workers") for name in said_names(package)}
    expected = ours | ARQ | {abort_jobs_ss, queue_name("*") + health_check_key_suffix}
    assert sorted([*names("redis"), *names("channel")]) == sorted(expected)


def test_every_log_field_is_listed() -> None:
    """The allow-list of the log, and nothing else."""
    assert sorted(names("log")) == sorted(ALLOWED_KEYS)


def test_every_label_is_listed() -> None:
    """minimal-4: the labels of every figure, and the one that histograms add."""
    figures = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    labels: set[str] = {label for figure in figures for label in vars(figure)["_labelnames"]}
    assert sorted(names("metric")) == sorted(labels | {"le"})


def test_a_blobs_name_has_a_form_that_is_listed() -> None:
    """Also while it is being written."""
    assert is_blob_name(new_name())
    assert is_blob_name(f"{new_name()}#1")
    assert not is_blob_name("IMG_1234.jpg")


async def test_what_tries_the_store_leaves_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names by which a broker and `lethe doctor` try a store are listed, and nothing stays under them."""
    written, put = list[str](), obstore.put_async

    async def noted(store: Any, path: str, file: Any, **options: Any) -> Any:
        written.append(path)
        return await put(store, path, file, **options)

    monkeypatch.setattr(obstore, "put_async", noted)
    bucket = BlobStore("memory:///")
    await bucket.keeps_versions()
    async for _ in stores(msgspec.structs.replace(settings, blobs_url=f"file://{tmp_path}/blobs")):
        pass
    assert [name.partition("-")[0] for name in written] == ["posture", "doctor"]
    assert all(is_blob_name(name) for name in written)
    assert await bucket.marks("") == {}
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("kept", registry(), ids=lambda kept: kept.names[0])
def test_what_is_listed_is_said_in_full(kept: Kept) -> None:
    """minimal-5: a known category, a purpose, an age, whose settings exist, and a test that exists."""
    assert kept.store in STORES
    assert kept.category in CATEGORIES
    assert kept.purpose
    assert bool(kept.max_age) != (kept.max_age_s is not None)
    settings = {field.name for field in msgspec.structs.fields(Retention)}
    assert set(re.findall(r"\b\w+_s\b", kept.max_age)) <= settings
    path, _, name = kept.verified_by.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_nothing_is_listed_twice() -> None:
    """Each name has one purpose and one age."""
    listed = [(kept.store, name) for kept in registry() for name in kept.names]
    assert len(set(listed)) == len(listed)


def test_the_page_is_made_of_the_file() -> None:
    """docs/retention.md is current; `python -m tests.registry` writes it."""
    assert PAGE.read_text() == rendered()


def said_names(package: str) -> Iterator[str]:
    """Every literal in the code that begins as our keys and channels do, with * for what varies."""
    for path in Path(ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = _text(node)
            if text.startswith("lethe:"):
                yield text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    is_whole = isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.endswith(":")
    return str(node.value) if is_whole and isinstance(node, ast.Constant) else ""

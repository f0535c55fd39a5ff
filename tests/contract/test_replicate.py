"""What Replicate alone asks of its adapter; what it shares with all stands in test_adapters.py."""

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from PIL import Image

from providers.base import Handle, Model, Part, Progress, Purge
from providers.failures import FailureKind, ProviderFailure
from providers.replicate import INLINE_BYTES, Replicate
from tests.contract.orders import failure_of, finish, large_picture, picture, run, task, until
from tests.emulators.base import (
    LOST,
    LOST_AFTER_WORK,
    MALFORMED,
    Answer,
    Emulator,
    Scripted,
    Seen,
    answer_json,
    broken,
    limited,
    running,
)
from tests.emulators.hooks import Ring
from tests.emulators.replicate import CASE, SECRET, VERSION, ReplicateEmulator, make
from tests.reporters import Heard

SEVERAL = {"upscale": Model(model="a/b", input={"images": "$images"})}
"""A model that takes all pictures."""


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    """Run Replicate."""
    made = ReplicateEmulator()
    with running(made):
        yield made


@pytest.fixture
async def replicate(emulator: ReplicateEmulator) -> AsyncIterator[Replicate]:
    """Lend an adapter to it."""
    made = make(emulator.url)
    yield made
    await made.aclose()


async def outcome(emulator: ReplicateEmulator, **ending: object) -> ProviderFailure:
    """Let an attempt end like this, and return its failure."""
    emulator.ending = ending
    async with aclosing(make(emulator.url)) as adapter:
        failure = await failure_of(adapter, task(CASE))
    assert failure is not None
    return failure


def test_its_terms_need_no_package() -> None:
    """A process that reads terms loads neither the official package nor what that needs."""
    check = "import sys, providers.replicate as r; r.Replicate.terms; print('replicate' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", check], text=True).strip() == "False"


async def test_the_output_is_the_picture_larger(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """The emulated model works on the very picture that was sent; seconds become money."""
    snapshot = await run(replicate, task(CASE))
    (drawn,) = emulator.outputs.values()
    assert Image.open(io.BytesIO(drawn)).size == (128, 96)
    assert snapshot.outputs[0].url.startswith(emulator.url)
    assert (snapshot.model_s, snapshot.cost_usd) == (1.25, 0.00125)


async def test_an_order_says_until_when(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """Cancel-After is the deadline in seconds, five at least; nobody waits inside the order."""
    await replicate.submit(task(CASE, deadline_s=90.7), Heard())
    await replicate.submit(task(CASE, deadline_s=1), Heard())
    orders = emulator.requests("order")
    assert [seen.headers["cancel-after"] for seen in orders] == ["90s", "5s"]
    assert not any("prefer" in seen.headers for seen in orders)


@pytest.mark.parametrize(
    ("model", "path", "version"),
    [
        ("acme/flux", "/v1/models/acme/flux/predictions", None),
        ("deployment:acme/flux", "/v1/deployments/acme/flux/predictions", None),
        (f"acme/flux:{VERSION}", "/v1/predictions", VERSION),
        (VERSION, "/v1/predictions", VERSION),
    ],
)
async def test_a_model_has_its_address(model: str, path: str, version: str | None, emulator: ReplicateEmulator) -> None:
    """Official models, deployments and versions are ordered where they live."""
    async with aclosing(
        make(emulator.url, models={"upscale": Model(model=model, input={"image": "$image"})})
    ) as adapter:
        await adapter.warm()
        await run(adapter, task(CASE))
        (order,) = emulator.requests("order")
        assert (order.path, order.json().get("version")) == (path, version)


async def test_a_wrong_model_is_named_by_its_operation() -> None:
    """warm() says which operation to mend."""
    for model in (Model(model="flux"), Model(model="acme/flux", input={"a": "$b:{"})):
        async with aclosing(make("http://127.0.0.1:9", models={"edit": model})) as adapter:
            with pytest.raises(ProviderFailure, match="edit"):
                await adapter.warm()


async def test_an_upload_is_known_before_the_order(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A large picture is uploaded under a neutral name, and its id is stored before anything is ordered."""
    orders_at_report: list[int] = []

    class Watching(Heard):
        async def accepted(self, handle: Handle) -> None:
            await super().accepted(handle)
            orders_at_report.append(len(emulator.requests("order")))

    heard = Watching()
    await finish(replicate, await replicate.submit(task(CASE, (large_picture(),)), heard), heard)
    assert orders_at_report == [0, 1]
    assert [bool(handle.id) for handle in heard.handles] == [False, True]
    assert heard.handles[0].uploads == heard.handle.uploads == tuple(emulator.files)
    assert [made["name"] for made, _ in emulator.files.values()] == ["image.png"]
    assert emulator.requests("order")[0].json()["input"]["image"].startswith(emulator.url)


async def test_purge_deletes_uploads_and_looks(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """Deleted and seen absent is deleted; gone already is fine; predictions are never said to be deleted."""
    heard = Heard()
    await replicate.submit(task(CASE, (large_picture(),)), heard)
    assert await replicate.purge(heard.handle) == Purge(deleted=frozenset({Part.UPLOAD}))
    assert not emulator.files
    assert await replicate.purge(heard.handle) == Purge(deleted=frozenset({Part.UPLOAD}))
    assert await replicate.purge(Handle(id="p", operation="upscale")) == Purge()


async def test_a_file_that_outlives_its_delete_is_told(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A delete that answers 204 while the file is served closes nothing."""
    heard = Heard()
    await replicate.submit(task(CASE, (large_picture(),)), heard)
    emulator.is_keeping_files = True
    assert await replicate.purge(heard.handle) == Purge(still_served=frozenset({Part.UPLOAD}))


async def test_pictures_go_all_inside_or_all_as_files(emulator: ReplicateEmulator) -> None:
    """What is inside a prediction cannot be deleted: beside a file that will be, no picture travels there."""
    heard = Heard()
    async with aclosing(make(emulator.url, models=SEVERAL)) as adapter:
        await adapter.submit(task(CASE, (picture(), large_picture())), heard)
        await adapter.submit(task(CASE, (picture(seed=1), picture(seed=2))), Heard())
        mixed, small = (seen.json()["input"]["images"] for seen in emulator.requests("order"))
        assert [given.partition(":")[0] for given in (*mixed, *small)] == ["http", "http", "data", "data"]
        assert len(set(heard.handle.uploads)) == 2
        assert await adapter.purge(heard.handle) == Purge(deleted=frozenset({Part.UPLOAD}))
        assert not emulator.files


async def test_one_stubborn_file_keeps_no_other(emulator: ReplicateEmulator) -> None:
    """Every upload is tried, whatever the first answers; the failure comes back so that purge is repeated."""
    heard = Heard()
    async with aclosing(make(emulator.url, models=SEVERAL)) as adapter:
        await adapter.submit(task(CASE, (large_picture(), large_picture())), heard)
        assert len(heard.handle.uploads) == 2
        emulator.next("delete", broken(500))
        with pytest.raises(ProviderFailure):
            await adapter.purge(heard.handle)
        assert len(set(emulator.files) & set(heard.handle.uploads)) == 1


async def test_a_picture_that_the_model_does_not_take_stays_here(
    replicate: Replicate, emulator: ReplicateEmulator
) -> None:
    """What the template does not mention is neither uploaded nor sent."""
    await run(replicate, task(CASE, (picture(seed=1), large_picture())))
    assert not emulator.files
    assert list(emulator.requests("order")[0].json()["input"]) == ["image", "scale", "prompt"]


async def test_a_worker_that_died_after_the_upload_can_purge_it(emulator: ReplicateEmulator) -> None:
    """The handle of an upload alone deletes it; whether an order followed is UNCERTAIN."""
    heard = Heard()
    async with aclosing(make(emulator.url)) as adapter:
        emulator.next("order", broken(500))
        with pytest.raises(ProviderFailure):
            await adapter.submit(task(CASE, (large_picture(),)), heard)
        with pytest.raises(ProviderFailure) as caught:
            await adapter.poll(heard.handle)
        assert caught.value.kind is FailureKind.UNCERTAIN
        assert not await adapter.cancel(heard.handle)
        await adapter.purge(heard.handle)
        assert not emulator.files


@pytest.mark.parametrize(
    "scripted",
    [
        LOST_AFTER_WORK,
        Scripted(answer=Answer(status=500), is_done_first=True),
        Scripted(answer=MALFORMED.answer, is_done_first=True),
    ],
    ids=["lost", "server error", "unreadable"],
)
async def test_an_upload_without_an_answer_is_never_said_to_be_gone(
    scripted: Scripted, replicate: Replicate, emulator: ReplicateEmulator
) -> None:
    """It has left us and may lie there for a day, under an id that nobody has: nothing is ordered, nothing deleted."""
    emulator.next("upload", scripted)
    heard = Heard()
    with pytest.raises(ProviderFailure) as caught:
        await replicate.submit(task(CASE, (large_picture(),)), heard)
    assert (caught.value.kind in {FailureKind.NETWORK, FailureKind.PROVIDER_ERROR}, caught.value.is_unsent) == (
        True,
        False,
    )
    assert len(emulator.files) == 1
    assert not emulator.requests("order")
    assert heard.handle == Handle(id="", operation="upscale", uploads=("",))
    assert await replicate.purge(heard.handle) == Purge(still_served=frozenset({Part.UPLOAD}))
    assert not emulator.requests("delete")


async def test_an_upload_that_was_refused_leaves_nothing(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A refusal is an answer: no file is there to be told of."""
    emulator.next("upload", limited(1))
    heard = Heard()
    with pytest.raises(ProviderFailure):
        await replicate.submit(task(CASE, (large_picture(),)), heard)
    assert not heard.handles


@pytest.mark.parametrize(("scripted", "is_known"), [(LOST_AFTER_WORK, False), (limited(1), True)])
async def test_a_second_upload_is_told_of_before_it_is_sent(
    scripted: Scripted, is_known: bool, emulator: ReplicateEmulator
) -> None:
    """Whatever is stored when it fails, the delete of the first is never taken for one of both."""

    class Failing(Heard):
        async def accepted(self, handle: Handle) -> None:
            await super().accepted(handle)
            if len(self.handles) == 1:
                emulator.next("upload", scripted)

    heard = Failing()
    async with aclosing(make(emulator.url, models=SEVERAL)) as adapter:
        with pytest.raises(ProviderFailure):
            await adapter.submit(task(CASE, (large_picture(), large_picture())), heard)
        (first,) = heard.handles[0].uploads
        assert heard.handles[1].uploads == (first, "")
        assert heard.handle.uploads == ((first,) if is_known else (first, ""))
        parts = frozenset({Part.UPLOAD})
        assert await adapter.purge(heard.handle) == (Purge(deleted=parts) if is_known else Purge(still_served=parts))
        assert first not in emulator.files


async def test_a_provider_that_goes_after_an_upload_has_a_copy() -> None:
    """A refused connection says that nothing has left us only where nothing was uploaded before."""
    emulator = ReplicateEmulator()
    server = running(emulator)

    class Stopping(Heard):
        async def accepted(self, handle: Handle) -> None:
            await asyncio.to_thread(server.__exit__, None, None, None)

    async with aclosing(make(server.__enter__())) as adapter:
        with pytest.raises(ProviderFailure) as caught:
            await adapter.submit(task(CASE, (large_picture(),)), Stopping())
        assert (caught.value.kind, caught.value.is_unsent) == (FailureKind.NETWORK, False)


async def test_a_poll_survives_a_hiccup_and_an_order_does_not(
    replicate: Replicate, emulator: ReplicateEmulator
) -> None:
    """The package's transport asks again after a 503; a POST it never repeats, neither order nor cancel."""
    heard = Heard()
    snapshot = await replicate.submit(task(CASE), heard)
    emulator.next("poll", broken(503), broken(504))
    await finish(replicate, snapshot, heard)
    for route in ("order", "cancel"):
        emulator.seen.clear()
        emulator.next(route, broken(503))
        with pytest.raises(ProviderFailure) as caught:
            await (replicate.submit(task(CASE), heard) if route == "order" else replicate.cancel(heard.handle))
        assert caught.value.kind is FailureKind.OVERLOADED
        assert len(emulator.requests(route)) == 1


async def test_a_wait_that_is_asked_for_goes_to_the_loop(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A poll is not slept through: 429 comes back at once with its Retry-After, however long."""
    heard = Heard()
    await replicate.submit(task(CASE), heard)
    emulator.next("poll", limited(600))
    async with asyncio.timeout(5):
        with pytest.raises(ProviderFailure) as caught:
            await replicate.poll(heard.handle)
    assert (caught.value.kind, caught.value.after_s) == (FailureKind.RATE_LIMITED, 600)


async def test_deadlines_are_timeouts(emulator: ReplicateEmulator) -> None:
    """`aborted`, and `canceled` when the deadline had passed, are TIMEOUT; `canceled` before it is CANCELED."""
    at = {"completed_at": "2026-01-01T00:00:10Z"}
    assert (await outcome(emulator, status="aborted")).kind is FailureKind.TIMEOUT
    for deadline, kind in (("2026-01-01T00:00:09.5Z", "timeout"), ("2026-01-01T00:01:00Z", "canceled")):
        failure = await outcome(emulator, status="canceled", deadline=deadline, **at)
        assert failure.kind == kind


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        ("Prediction failed (E1001)", FailureKind.UNSUPPORTED, "E1001"),
        ("Timed out at start. (E6716)", FailureKind.TIMEOUT, "E6716"),
        ("The input was flagged as sensitive (E005)", FailureKind.CONTENT_REJECTED, "E005"),
        ("director died: E8765", FailureKind.PROVIDER_ERROR, "E8765"),
        (None, FailureKind.PROVIDER_ERROR, "failed"),
    ],
)
async def test_error_codes_have_kinds(
    error: str | None, kind: FailureKind, detail: str, emulator: ReplicateEmulator
) -> None:
    """The code of a failed prediction decides, and is all that is told; seconds that were used are paid."""
    failure = await outcome(emulator, status="failed", error=error, metrics={"predict_time": 2.0})
    assert (failure.kind, failure.detail, failure.cost_usd) == (kind, detail, 0.002)


async def test_removed_data_is_lost(emulator: ReplicateEmulator) -> None:
    """After an hour a prediction is there and its data is not."""
    assert (await outcome(emulator, data_removed=True, output=None)).kind is FailureKind.LOST


async def test_an_output_may_come_in_any_form(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A list of URLs and a data URI are outputs too; their hosts are not believed here, nor asked with the token."""
    emulator.ending = {"output": ["https://replicate.delivery/a.png", "data:image/png;base64,iVBORw0KGgo="]}
    url, data = (await run(replicate, task(CASE))).outputs
    assert url.url == "https://replicate.delivery/a.png"
    assert data.data == b"\x89PNG\r\n\x1a\n"


async def test_progress_is_read_from_logs(replicate: Replicate) -> None:
    """A percentage in the logs is the share that is done."""
    heard = Heard()
    await replicate.submit(task(CASE), heard)
    snapshots = [await replicate.poll(heard.handle) for _ in range(2)]
    assert [snapshot.progress for snapshot in snapshots] == [Progress.QUEUED, Progress.RUNNING]
    assert snapshots[1].share == 0.4


async def test_a_missing_model_is_no_lost_attempt(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """404 to an order means that the model is not there: another provider may do it."""
    emulator.next("order", Scripted(answer=answer_json({"detail": "no such model"}, 404)))
    failure = await failure_of(replicate, task(CASE))
    assert failure is not None
    assert failure.kind is FailureKind.UNSUPPORTED


async def test_a_gateway_that_gives_up_on_an_order_is_uncertain(
    replicate: Replicate, emulator: ReplicateEmulator
) -> None:
    """502, 504 and 520 to an order, or a cut answer, may follow an order that arrived; 303 says that it did."""
    cut = Scripted(answer=Answer(status=201, body=b'{"id": "abc"}', is_cut=True), is_done_first=True)
    for scripted in (*map(broken, (303, 502, 504, 520, 524)), LOST, cut):
        emulator.next("order", scripted)
        failure = await failure_of(replicate, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.UNCERTAIN


@pytest.mark.parametrize("rings", [(Ring.EARLY,), (Ring.DONE,), (Ring.TWICE,), (Ring.FORGED,)])
async def test_hooks_only_hint(rings: tuple[Ring, ...], replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """Early, twice or with a wrong token: a hook never carries the secret, and polls alone tell the outcome."""
    listener = Emulator()

    async def heard(_seen: Seen, token: str) -> Answer:
        return answer_json({})

    listener.routes = {"POST /hooks/{token}": ("hook", heard)}
    emulator.rings = rings
    with running(listener):
        snapshot = await run(replicate, task(CASE, hook_url=f"{listener.url}/hooks/tok3n"))
        await until(lambda: listener.seen)
    assert snapshot.outputs
    assert len(listener.seen) == (2 if Ring.TWICE in rings else 1)
    assert all((seen.path == "/hooks/tok3n") is (Ring.FORGED not in rings) for seen in listener.seen)
    assert SECRET.encode() not in listener.bytes_seen
    assert emulator.requests("order")[0].json()["webhook_events_filter"] == ["completed"]


async def test_health_is_the_account(replicate: Replicate, emulator: ReplicateEmulator) -> None:
    """A refused token is found without an order."""
    async with aclosing(make(emulator.url, secret="r8_wrong")) as stranger:
        with pytest.raises(ProviderFailure) as caught:
            await stranger.healthy()
        assert caught.value.kind is FailureKind.AUTH


async def test_a_token_in_the_environment_is_not_used(
    emulator: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package would take its token and address from the environment; ours come from configuration only."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", SECRET)
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://127.0.0.1:9")
    async with aclosing(make(emulator.url, secret="r8_ours_only")) as adapter:
        with pytest.raises(ProviderFailure):
            await adapter.healthy()
        assert emulator.seen
        assert SECRET.encode() not in emulator.bytes_seen


def test_pictures_that_fit_are_small() -> None:
    """The suite's own picture goes inside the order."""
    assert picture().size_bytes < INLINE_BYTES // 2

"""The adapter that configuration describes: what it sends, how it follows, what its words mean."""

import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from PIL import Image

from providers.base import File, Handle, Part, Progress, Purge, Setup, Snapshot, Task
from providers.failures import FailureKind, ProviderFailure
from providers.http import Http
from tests.contract.orders import FILE_NAME, failure_of, finish, order, picture, run
from tests.emulators.base import LOST, Answer, Scripted, answer_json, broken, limited, running
from tests.emulators.forms import fields_of, files_in
from tests.emulators.http import FORM, JOBS, KEY, NOW, SECRET, AcmeEmulator, changed, make, refusal
from tests.reporters import Heard

EVERYTHING = frozenset({Part.UPLOAD, Part.OUTPUT, Part.RECORD})


@pytest.fixture
def emulator() -> Iterator[AcmeEmulator]:
    """Run the provider."""
    made = AcmeEmulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: AcmeEmulator) -> AsyncIterator[Http]:
    """Lend the adapter."""
    made = make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def task(operation: str, pictures: tuple[File, ...] | None = None, **changes: object) -> Task:
    """Ask for something."""
    return order(operation, {"scale": 2, "prompt": "a canary"}, pictures, **changes)


def size_of(snapshot: Snapshot) -> tuple[int, int]:
    """Open the first output."""
    return Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).size


async def test_a_job_is_ordered_polled_and_deleted(provider: Http, emulator: AcmeEmulator) -> None:
    """Configuration alone leads from the order through its states to the output, and to its deletion."""
    heard = Heard()
    first = await provider.submit(task("upscale"), heard)
    assert (first.progress, first.poll_after_s) == (Progress.QUEUED, 0.01)
    assert heard.handle == Handle(id="job-1", operation="upscale")
    assert (await provider.poll(heard.handle)).progress is Progress.QUEUED
    assert (await provider.poll(heard.handle)).progress is Progress.RUNNING
    assert size_of(await finish(provider, first, heard)) == (32, 24)
    assert await provider.purge(heard.handle) == Purge(deleted=EVERYTHING)
    assert emulator.jobs == {}
    assert await provider.purge(heard.handle) == Purge(deleted=EVERYTHING)
    (seen,) = emulator.requests("order")
    assert seen.json()["scale"] == 2
    assert seen.json()["image"].startswith("data:image/jpeg;base64,")


async def test_a_deletion_that_did_nothing_is_told(provider: Http, emulator: AcmeEmulator) -> None:
    """What still answers after its deletion is still served, whatever the deletion answered."""
    emulator.is_lying = True
    heard = Heard()
    await run(provider, task("upscale"), heard)
    assert await provider.purge(heard.handle) == Purge(still_served=EVERYTHING)


async def test_an_attempt_may_stay_as_deleted(provider: Http, emulator: AcmeEmulator) -> None:
    """A state named `gone` is as good as 404: deleted to purge, LOST to a poll."""
    emulator.is_sticky = True
    heard = Heard()
    await run(provider, task("upscale"), heard)
    assert await provider.purge(heard.handle) == Purge(deleted=EVERYTHING)
    with pytest.raises(ProviderFailure) as caught:
        await provider.poll(heard.handle)
    assert caught.value.kind is FailureKind.LOST


async def test_an_id_stays_one_step_of_the_path(provider: Http, emulator: AcmeEmulator) -> None:
    """What an id holds never becomes a query or a path of its own."""
    emulator.prefix = "a?b=1&c#d%2e:"
    heard = Heard()
    await run(provider, task("upscale"), heard)
    assert heard.handle.id == "a?b=1&c#d%2e:1"
    assert (await provider.purge(heard.handle)).deleted == EVERYTHING
    assert {seen.route for seen in emulator.seen} == {"order", "poll", "delete"}
    assert not any(seen.query for seen in emulator.seen)


async def test_a_deletion_that_fails_is_raised(provider: Http, emulator: AcmeEmulator) -> None:
    """A provider that is down did not delete; whoever asked tries again."""
    heard = Heard()
    await run(provider, task("upscale"), heard)
    emulator.next("delete", Scripted(answer=refusal(503, "full")))
    with pytest.raises(ProviderFailure) as caught:
        await provider.purge(heard.handle)
    assert caught.value.kind is FailureKind.OVERLOADED


async def test_without_a_path_nothing_is_deleted_or_cancelled(emulator: AcmeEmulator) -> None:
    """A provider that has no such call gets none, and nothing is claimed."""
    bare = changed(JOBS, delete_path="", deleted=[], cancel_path="")
    async with aclosing(make(emulator.url, upscale=bare)) as provider:
        await provider.warm()
        heard = Heard()
        await run(provider, task("upscale"), heard)
        before = len(emulator.seen)
        assert await provider.purge(heard.handle) == Purge()
        assert await provider.cancel(heard.handle) is False
        assert len(emulator.seen) == before


async def test_cancel_believes_what_it_sees(provider: Http, emulator: AcmeEmulator) -> None:
    """True only where a look afterwards finds it stopped: not after its end, not where it goes on regardless."""
    heard = Heard()
    await provider.submit(task("upscale"), heard)
    emulator.next("cancel", Scripted(answer=answer_json({}, 202)))
    assert await provider.cancel(heard.handle) is False
    assert await provider.cancel(heard.handle) is True
    await run(provider, task("upscale"), heard)
    assert await provider.cancel(heard.handle) is False
    emulator.next("cancel", Scripted(answer=refusal(500, "broken")))
    with pytest.raises(ProviderFailure):
        await provider.cancel(heard.handle)


async def test_a_form_has_files_and_fields(provider: Http, emulator: AcmeEmulator) -> None:
    """In a form a picture is a file under the name of its field; an answer that is a picture is the output."""
    photo = picture("image/png")
    snapshot = await run(provider, task("restyle", (photo,)))
    (seen,) = emulator.requests("form")
    (part,) = files_in(seen)
    assert (part.name, part.file_name, part.media_type) == ("image", "image.png", "image/png")
    assert len(part.content) == photo.size_bytes
    assert fields_of(seen) == {"scale": "2", "face": "false"}
    assert seen.headers["accept"] == "image/*"
    assert snapshot.outputs[0].media_type == "image/png"
    assert size_of(snapshot) == (32, 24)
    assert FILE_NAME.encode() not in emulator.bytes_seen


async def test_a_form_may_have_no_picture_or_several(emulator: AcmeEmulator) -> None:
    """Without pictures a form is still a form; "$images" repeats its field, numbered by place."""
    several = msgspec.structs.replace(FORM, input={"prompt": "$prompt", "image": "$images"})
    none = msgspec.structs.replace(FORM, input={"prompt": "$prompt"})
    async with aclosing(make(emulator.url, photoshoot=several, generate=none)) as provider:
        await provider.warm()
        await run(provider, task("photoshoot", (picture(), picture("image/webp", seed=2))))
        await run(provider, task("generate", ()))
    first, second = emulator.requests("form")
    assert [(part.name, part.file_name) for part in files_in(first)] == [
        ("image", "image.jpg"),
        ("image", "image2.webp"),
    ]
    assert files_in(second) == []
    assert fields_of(second) == {"prompt": "a canary"}


async def test_pictures_go_as_plain_base64_where_that_is_wanted(provider: Http, emulator: AcmeEmulator) -> None:
    """`pictures = "base64"` leaves the data URI's head away, in lists too."""
    await run(provider, task("photoshoot", (picture(), picture(seed=2))))
    (seen,) = emulator.requests("now")
    assert [base64.b64decode(one)[:3] for one in seen.json()["image"]] == [b"\xff\xd8\xff"] * 2


async def test_a_result_may_say_by_its_status_that_it_is_not_there_yet(provider: Http, emulator: AcmeEmulator) -> None:
    """Without `state`, 202 goes on and 200 is the result."""
    heard = Heard()
    snapshot = await provider.submit(task("edit"), heard)
    assert snapshot.progress is Progress.QUEUED
    assert (await provider.poll(heard.handle)).progress is Progress.RUNNING
    assert size_of(await finish(provider, snapshot, heard)) == (32, 24)


async def test_a_result_may_lie_elsewhere(emulator: AcmeEmulator) -> None:
    """`result_path` is asked once the state says done."""
    elsewhere = msgspec.structs.replace(changed(JOBS, result_path="/v1/jobs/{id}/result"), output="")
    async with aclosing(make(emulator.url, upscale=elsewhere)) as provider:
        await provider.warm()
        assert size_of(await run(provider, task("upscale"))) == (32, 24)
    assert len(emulator.requests("result")) == 1


@pytest.mark.parametrize("fault", [LOST, limited(), broken(404), broken(503)])
async def test_no_result_is_asked_for_inside_an_order(emulator: AcmeEmulator, fault: Scripted) -> None:
    """An order that is answered as done stands whatever a question for its result comes to: polls ask it."""
    elsewhere = msgspec.structs.replace(changed(JOBS, result_path="/v1/jobs/{id}/result"), output="")
    emulator.polls_needed = 0
    done = Scripted(answer=answer_json({"job": {"id": "job-1", "state": "finished"}}, 201), is_done_first=True)
    emulator.next("order", done)
    emulator.next("result", fault)
    async with aclosing(make(emulator.url, upscale=elsewhere)) as provider:
        await provider.warm()
        heard = Heard()
        snapshot = await provider.submit(task("upscale"), heard)
        assert (snapshot.progress, snapshot.poll_after_s) == (Progress.RUNNING, 0.01)
        assert heard.handle == Handle(id="job-1", operation="upscale")
        assert not emulator.requests("result")
        with pytest.raises(ProviderFailure):
            await finish(provider, snapshot, heard)
        assert size_of(await finish(provider, snapshot, heard)) == (32, 24)


@pytest.mark.parametrize(
    ("route", "answer", "is_final"),
    [
        ("poll", refusal(503, "busy"), False),
        ("poll", refusal(429, "busy"), False),
        ("poll", refusal(400, "busy"), False),
        ("poll", Answer(status=409), False),
        ("poll", Answer(status=404), True),
        ("poll", refusal(500, "a nude"), True),
        ("poll", Answer(status=422), True),
        ("result", refusal(503, "busy"), False),
        ("result", Answer(status=404), False),
        ("result", refusal(400, "a nude"), True),
    ],
)
async def test_a_question_is_believed_only_where_it_speaks_of_the_job(
    route: str, answer: Answer, is_final: bool, emulator: AcmeEmulator
) -> None:
    """Whatever words are configured: a question that was turned away ends no order; a result may come late."""
    model = changed(JOBS, result_path="/v1/jobs/{id}/result", errors={"overloaded": ["busy"], "rejected": ["nude"]})
    async with aclosing(make(emulator.url, upscale=msgspec.structs.replace(model, output=""))) as provider:
        heard = Heard()
        snapshot = await provider.submit(task("upscale"), heard)
        emulator.next(route, Scripted(answer=answer))
        with pytest.raises(ProviderFailure) as caught:
            await finish(provider, snapshot, heard)
    assert caught.value.is_unanswered is not is_final


async def test_the_order_may_hold_the_end(provider: Http, emulator: AcmeEmulator) -> None:
    """An order that is answered with a final state needs no poll, and is reported all the same."""
    done = {"job": {"id": 7, "state": "finished"}, "result": {"images": ["https://cdn.acme.example/1.jpg"]}}
    emulator.next("order", Scripted(answer=answer_json(done, 201)))
    heard = Heard()
    snapshot = await provider.submit(task("upscale"), heard)
    assert snapshot.outputs[0].url == "https://cdn.acme.example/1.jpg"
    assert heard.handle.id == "7"
    emulator.next("order", Scripted(answer=answer_json({"job": {"id": "j", "state": "error"}})))
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task("upscale"), heard)
    assert caught.value.kind is FailureKind.PROVIDER_ERROR
    assert heard.handle.id == "j"


@pytest.mark.parametrize("found", [None, "", "..", "a\nb", True, {"x": 1}, "x" * 201])
async def test_an_order_without_a_usable_id_is_uncertain(provider: Http, emulator: AcmeEmulator, found: Any) -> None:
    """It was accepted, and cannot be followed."""
    emulator.next("order", Scripted(answer=answer_json({"job": {"id": found, "state": "waiting"}}, 201)))
    failure = await failure_of(provider, task("upscale"))
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ({"rejected": ["over a CANARY"]}, FailureKind.CONTENT_REJECTED),
        ({"invalid": ["broke"]}, FailureKind.INVALID_INPUT),
        ({"payment": ["broke"]}, FailureKind.PAYMENT),
        ({"overloaded": ["broke"]}, FailureKind.OVERLOADED),
        ({"rejected": ["broke"], "payment": ["broke"]}, FailureKind.CONTENT_REJECTED),
        ({"pointer": "/error/code", "rejected": ["broke"]}, FailureKind.PROVIDER_ERROR),
        ({"pointer": "/error/message", "invalid": ["broke"]}, FailureKind.INVALID_INPUT),
    ],
)
async def test_words_say_why_an_attempt_failed(
    emulator: AcmeEmulator, errors: dict[str, Any], kind: FailureKind
) -> None:
    """Configured words are sought where the pointer leads, else everywhere; none of them is repeated."""
    async with aclosing(make(emulator.url, upscale=changed(JOBS, errors=errors))) as provider:
        emulator.ends = "error"
        failure = await failure_of(provider, task("upscale"))
    assert failure is not None
    assert failure.kind is kind
    assert "canary" not in f"{failure!r}".lower()


@pytest.mark.parametrize(
    ("operation", "answer", "kind"),
    [
        ("photoshoot", Answer(status=404), FailureKind.UNSUPPORTED),
        ("photoshoot", Answer(status=504), FailureKind.UNCERTAIN),
        ("photoshoot", Answer(body=b"<html>"), FailureKind.UNCERTAIN),
        ("photoshoot", answer_json({"images": "data:image/png,raw"}), FailureKind.BAD_OUTPUT),
        ("photoshoot", answer_json({"other": 1}), FailureKind.BAD_OUTPUT),
        ("restyle", Answer(headers={"content-type": "image/png"}), FailureKind.BAD_OUTPUT),
        ("restyle", answer_json({"image": "no picture"}), FailureKind.BAD_OUTPUT),
        ("restyle", Answer(body=b"<html>", headers={"content-type": "text/html"}), FailureKind.UNCERTAIN),
    ],
)
async def test_an_answer_that_is_no_result(
    provider: Http, emulator: AcmeEmulator, operation: str, answer: Answer, kind: FailureKind
) -> None:
    """A call that answers at once: what cannot be read is uncertain, what holds no picture is bad output."""
    emulator.next({"photoshoot": "now", "restyle": "form"}[operation], Scripted(answer=answer))
    failure = await failure_of(provider, task(operation))
    assert failure is not None
    assert failure.kind is kind


async def test_a_synchronous_order_waits_until_the_deadline_and_no_longer(emulator: AcmeEmulator) -> None:
    """The call's own time is the attempt's, not that of a poll."""
    setup = Setup(
        base_url=f"{emulator.url}/api", models={"photoshoot": NOW}, secret=SECRET, options={"auth": f"header:{KEY}"}
    )
    async with aclosing(Http(msgspec.structs.replace(setup, timeout_s=0.1))) as provider:
        emulator.latency_s = 0.4
        assert (await run(provider, task("photoshoot"))).outputs
        failure = await failure_of(provider, task("photoshoot", deadline_s=0.2))
        assert failure is not None
        assert failure.kind is FailureKind.UNCERTAIN


async def test_a_lost_order_is_not_sent_again(provider: Http, emulator: AcmeEmulator) -> None:
    """Nothing but the route's loop repeats."""
    emulator.next("now", LOST)
    failure = await failure_of(provider, task("photoshoot"))
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN
    assert len(emulator.requests("now")) == 1

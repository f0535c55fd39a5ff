"""The Images adapter: which call, which fields, what its refusals mean, and what never leaves."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from PIL import Image

from providers.base import File, Model, Setup, Task
from providers.failures import FailureKind, ProviderFailure
from providers.openai_images import NEVER_SENT, OpenAIImages
from tests.contract.orders import FILE_NAME, failure_of, order, picture, run, until
from tests.emulators.base import LOST, Answer, Scripted, answer_json, running
from tests.emulators.forms import fields_of, files_in, parts_of
from tests.emulators.openai_images import MODEL, SECRET, TOKENS, OpenAIEmulator, make, moderated, refusal

PROMPT = "a canary in a yellow raincoat"


@pytest.fixture
def emulator() -> Iterator[OpenAIEmulator]:
    """Run the API."""
    made = OpenAIEmulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: OpenAIEmulator) -> AsyncIterator[OpenAIImages]:
    """Lend the adapter."""
    made = make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def task(operation: str, pictures: tuple[File, ...] = (), **changes: object) -> Task:
    """Ask for something."""
    return order(operation, {"prompt": PROMPT}, pictures, **changes)


async def test_no_picture_is_json_to_generations(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """What is made from words alone goes as JSON, with the model's input and nothing else."""
    snapshot = await run(provider, task("generate", parameters={"prompt": PROMPT, "count": 3}))
    (seen,) = emulator.requests("generate")
    assert seen.json() == {"model": MODEL, "prompt": PROMPT, "n": 3, "output_format": "jpeg"}
    assert len(snapshot.outputs) == 3
    assert Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).format == "JPEG"
    assert snapshot.outputs[0].media_type == "image/jpeg"


async def test_one_picture_is_a_part_named_image(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """A picture goes whole, under a name that says nothing, and the fields beside it."""
    photo = picture()
    snapshot = await run(provider, task("edit", (photo,)))
    (seen,) = emulator.requests("edit")
    (part,) = files_in(seen)
    assert (part.name, part.file_name, part.media_type) == ("image", "image.jpg", "image/jpeg")
    assert part.content[:3] == b"\xff\xd8\xff"
    assert len(part.content) == photo.size_bytes
    assert fields_of(seen) == {"model": MODEL, "prompt": PROMPT, "n": "1", "output_format": "jpeg"}
    assert Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).size == (32, 24)


async def test_several_pictures_keep_their_order(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """More than one picture is a list of parts `image[]`, in the order of the task."""
    pictures = (picture(seed=1), picture("image/png", seed=2), picture("image/webp", seed=3))
    await run(provider, task("photoshoot", pictures))
    (seen,) = emulator.requests("edit")
    parts = files_in(seen)
    assert [part.name for part in parts] == ["image[]"] * 3
    assert [part.file_name for part in parts] == ["image.jpg", "image2.png", "image3.webp"]
    assert [len(part.content) for part in parts] == [one.size_bytes for one in pictures]
    assert FILE_NAME.encode() not in emulator.bytes_seen


async def test_pictures_named_in_the_input_go_as_data_uris(emulator: OpenAIEmulator) -> None:
    """Where a server takes pictures in JSON, the template says where."""
    emulator.extra_fields = frozenset({"image_url", "response_format"})
    fields = {"prompt": "$prompt", "image_url": "$image", "response_format": "b64_json"}
    async with aclosing(make(emulator.url, edit=Model(model=MODEL, input=fields))) as provider:
        await run(provider, task("edit", (picture(),)))
    assert emulator.requests("edit") == []
    (seen,) = emulator.requests("generate")
    assert seen.json()["image_url"].startswith("data:image/jpeg;base64,/9j/")


async def test_response_format_is_sent_only_when_it_is_configured(
    provider: OpenAIImages, emulator: OpenAIEmulator
) -> None:
    """OpenAI refuses the field, so that no request has it unasked."""
    await run(provider, task("edit", (picture(),)))
    await run(provider, task("generate"))
    assert b"response_format" not in emulator.bytes_seen


async def test_a_url_is_passed_on(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """A server that hosts its outputs answers with a URL; fetching it is not the adapter's."""
    emulator.is_hosting = True
    snapshot = await run(provider, task("generate"))
    assert snapshot.outputs[0].url == f"{emulator.url}/hosted/1.png"
    assert emulator.requests("hosted") == []


async def test_the_cost_is_what_the_tokens_cost(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """Tokens that are told are paid by the million; without a price nothing is claimed."""
    snapshot = await run(provider, task("edit", (picture(),)))
    assert snapshot.cost_usd == pytest.approx(TOKENS * 30 / 1e6)
    async with aclosing(make(emulator.url, edit=Model(model=MODEL, input={"prompt": "$prompt"}))) as unpriced:
        assert (await run(unpriced, task("edit", (picture(),)))).cost_usd is None


async def test_success_without_a_picture_is_still_paid(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """BAD_OUTPUT carries what the order cost."""
    answer = answer_json({"data": [{"b64_json": "%%%"}], "usage": {"total_tokens": 1000}})
    emulator.next("generate", Scripted(answer=answer))
    failure = await failure_of(provider, task("generate"))
    assert failure is not None
    assert failure.kind is FailureKind.BAD_OUTPUT
    assert failure.cost_usd == pytest.approx(0.03)


@pytest.mark.parametrize("stage", ["input", "output"])
async def test_moderation_names_its_stage(provider: OpenAIImages, emulator: OpenAIEmulator, stage: str) -> None:
    """What is refused before and after the work are both CONTENT_REJECTED, told apart by the detail."""
    emulator.next("edit", Scripted(answer=moderated(stage)))
    failure = await failure_of(provider, task("edit", (picture(),)))
    assert failure is not None
    assert failure.kind is FailureKind.CONTENT_REJECTED
    assert failure.detail == f"moderation_blocked_{stage}"


@pytest.mark.parametrize(
    ("answer", "kind", "after_s"),
    [
        (refusal(429, "rate_limit_exceeded", "tokens", retry_after_ms="250"), FailureKind.RATE_LIMITED, 0.25),
        (refusal(429, None, "insufficient_quota", Retry_After="60"), FailureKind.PAYMENT, 60),
        (refusal(400, "billing_hard_limit_reached"), FailureKind.PAYMENT, None),
        (refusal(403, "unsupported_country_region_territory"), FailureKind.AUTH, None),
        (refusal(404, "model_not_found"), FailureKind.UNSUPPORTED, None),
        (refusal(400, "unknown_parameter"), FailureKind.UNSUPPORTED, None),
        (Answer(status=404), FailureKind.UNSUPPORTED, None),
        (refusal(408, None), FailureKind.TIMEOUT, None),
        (Answer(status=524, body=b"<html>"), FailureKind.UNCERTAIN, None),
        (answer_json({"error": "text alone"}, 500), FailureKind.PROVIDER_ERROR, None),
        (refusal(500, None, "server_error", x_should_retry="false"), FailureKind.UNSUPPORTED, None),
        (refusal(429, None, "requests", x_should_retry="false"), FailureKind.UNSUPPORTED, None),
        (refusal(400, None, x_should_retry="true", Retry_After="2"), FailureKind.OVERLOADED, 2),
        (refusal(400, "moderation_blocked", x_should_retry="true"), FailureKind.CONTENT_REJECTED, None),
    ],
)
async def test_a_refusal_has_its_kind(
    provider: OpenAIImages, emulator: OpenAIEmulator, answer: Answer, kind: FailureKind, after_s: float | None
) -> None:
    """A code that is known decides; else what the server says about repeating; else the status."""
    emulator.next("generate", Scripted(answer=answer))
    failure = await failure_of(provider, task("generate"))
    assert failure is not None
    assert (failure.kind, failure.after_s) == (kind, after_s)
    assert "canary" not in f"{failure!r} {failure.detail}"


async def test_a_dropped_connection_is_uncertain(provider: OpenAIImages, emulator: OpenAIEmulator) -> None:
    """Nobody knows whether an order without an answer was carried out and billed."""
    emulator.next("edit", LOST)
    failure = await failure_of(provider, task("edit", (picture(),)))
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN
    assert not failure.is_unsent
    assert len(emulator.requests("edit")) == 1


@pytest.mark.parametrize(("deadline_s", "order_s"), [(0.3, 180.0), (60, 0.3)])
async def test_an_order_waits_no_longer_than_its_deadline(
    emulator: OpenAIEmulator, deadline_s: float, order_s: float
) -> None:
    """The wait ends with the attempt's deadline, or with the provider's own time, whichever is first."""
    async with aclosing(make(emulator.url, options={"order_s": order_s})) as provider:
        emulator.latency_s = 1.0
        failure = await failure_of(provider, task("generate", deadline_s=deadline_s))
        assert failure is not None
        assert failure.kind is FailureKind.UNCERTAIN
        await until(lambda: emulator.requests("generate"))


async def test_an_order_may_outlast_the_time_of_a_request(emulator: OpenAIEmulator) -> None:
    """A synchronous order is not cut by the time that a poll may take."""
    setup = Setup(
        base_url=f"{emulator.url}/v1",
        models={"generate": Model(model=MODEL, input={"prompt": "$prompt"})},
        secret=SECRET,
        timeout_s=0.1,
    )
    async with aclosing(OpenAIImages(setup)) as provider:
        emulator.latency_s = 0.4
        assert (await run(provider, task("generate"))).outputs


@pytest.mark.parametrize("field", sorted(NEVER_SENT | {"mask", "stream", "partial_images"}))
async def test_inputs_that_identify_or_are_not_spoken_are_refused(emulator: OpenAIEmulator, field: str) -> None:
    """warm() names the operation and the field."""
    async with aclosing(
        make(emulator.url, edit=Model(model=MODEL, input={"prompt": "$prompt", field: "canary"}))
    ) as provider:
        with pytest.raises(ProviderFailure, match=f"edit: {field}") as caught:
            await provider.warm()
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("field", sorted(NEVER_SENT))
async def test_identity_never_leaves_even_unchecked(emulator: OpenAIEmulator, field: str) -> None:
    """An adapter that was never warm drops the field all the same."""
    async with aclosing(
        make(emulator.url, edit=Model(model=MODEL, input={"prompt": "$prompt", field: "canary-id"}))
    ) as provider:
        await run(provider, task("edit", (picture(),)))
        await run(provider, task("generate"))
    (seen,) = emulator.requests("edit")
    assert field not in {part.name for part in parts_of(seen)}
    assert b"canary-id" not in emulator.bytes_seen


async def test_organization_and_project_are_headers(emulator: OpenAIEmulator) -> None:
    """Whose account pays is an option of the provider; an unknown option is refused."""
    async with aclosing(make(emulator.url, options={"organization": "org-1", "project": "proj-2"})) as provider:
        await run(provider, task("generate"))
    (seen,) = emulator.requests("generate")
    assert (seen.headers["openai-organization"], seen.headers["openai-project"]) == ("org-1", "proj-2")
    with pytest.raises(ProviderFailure, match="organisation"):
        make(emulator.url, options={"organisation": "org-1"})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(401, "invalid_api_key"), FailureKind.AUTH),
        (refusal(503, None), FailureKind.OVERLOADED),
        (Answer(status=404), None),
    ],
)
async def test_health_is_the_list_of_models(
    provider: OpenAIImages, emulator: OpenAIEmulator, answer: Answer, kind: FailureKind | None
) -> None:
    """A refused key or a server that is down is no health; a server without the list is not blamed for it."""
    emulator.next("models", Scripted(answer=answer))
    found = None
    try:
        await provider.healthy()
    except ProviderFailure as failure:
        found = failure.kind
    assert found is kind

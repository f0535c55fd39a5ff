"""What fal alone asks of its adapter; what it shares with all stands in test_adapters.py."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import httpx
import msgspec
import pytest
from PIL import Image

from providers.base import Handle, Model, Part
from providers.calls import trust
from providers.failures import FailureKind, ProviderFailure
from providers.fal import KEPT_S, Fal
from tests.contract.orders import failure_of, finish, finished, picture, run, task, until
from tests.emulators.base import Answer, Emulator, Scripted, Seen, answer_json, broken, running
from tests.emulators.fal import CASE, SECRET, TOLD, FalEmulator, make
from tests.emulators.hooks import Ring
from tests.reporters import Heard

OUTPUT, UPLOAD = frozenset({Part.OUTPUT}), frozenset({Part.UPLOAD})


@pytest.fixture
def emulator() -> Iterator[FalEmulator]:
    """Run fal."""
    made = FalEmulator()
    with running(made):
        yield made


@pytest.fixture
async def fal(emulator: FalEmulator) -> AsyncIterator[Fal]:
    """Lend an adapter to it."""
    made = make(emulator.url)
    yield made
    await made.aclose()


async def test_an_order_asks_to_be_forgotten(fal: Fal, emulator: FalEmulator) -> None:
    """No payload is stored, outputs are hidden and end in an hour, nobody tries again; it has a deadline to start."""
    await fal.submit(task(CASE, deadline_s=90.5), Heard())
    (order,) = emulator.requests("order")
    assert order.path == "/fal-ai/upscaler/creative"
    assert order.headers["x-fal-store-io"] == "0"
    assert order.headers["x-fal-no-retry"] == "1"
    assert order.headers["x-fal-request-start-timeout"] == order.headers["x-fal-request-timeout"] == "90"
    assert json.loads(order.headers["x-fal-object-lifecycle-preference"]) == {
        "expiration_duration_seconds": KEPT_S,
        "initial_acl": {"default": "hide", "rules": []},
    }
    assert order.json()["image_url"].startswith("data:image/jpeg;base64,")


async def test_the_output_can_be_fetched_without_the_key(fal: Fal, emulator: FalEmulator) -> None:
    """A hidden output comes with a signed link; the link alone, as it lies at the CDN, opens nothing."""
    snapshot = await run(fal, task(CASE))
    (output,) = snapshot.outputs
    async with httpx.AsyncClient(verify=trust(), trust_env=False) as bare:
        answer = await bare.get(output.url)
        assert (await bare.get(output.url.partition("?")[0])).status_code == 404
    assert Image.open(io.BytesIO(answer.content)).size == (128, 96)
    assert output.media_type == "image/png"
    assert (snapshot.model_s, snapshot.cost_usd) == (0.75, 0.00075)


async def test_outputs_can_be_left_open(emulator: FalEmulator) -> None:
    """With acl = "allow" a key without the right to sign is enough."""
    async with aclosing(make(emulator.url, options={"acl": "allow"})) as adapter:
        (output,) = (await run(adapter, task(CASE))).outputs
        assert not emulator.requests("sign")
        async with httpx.AsyncClient(verify=trust(), trust_env=False) as bare:
            assert (await bare.get(output.url)).status_code == 200


async def test_a_key_that_may_not_sign_is_named(fal: Fal, emulator: FalEmulator) -> None:
    """A refused signature is AUTH and says so: the operator has to change the key or the acl."""
    emulator.next("sign", Scripted(answer=answer_json({"error": {"message": "scope"}}, 403)))
    failure = await failure_of(fal, task(CASE))
    assert failure is not None
    assert (failure.kind, failure.detail) == (FailureKind.AUTH, "sign_status_403")


async def test_a_handle_holds_no_link_to_a_picture(fal: Fal, emulator: FalEmulator) -> None:
    """What is stored are the request's own addresses."""
    handle = await finished(fal, task(CASE))
    assert emulator.files
    assert not any(name in msgspec.json.encode(handle).decode() for name in emulator.files)
    assert set(handle.data) == {"status", "result", "cancel"}


async def test_the_key_goes_to_the_queue_only(fal: Fal, emulator: FalEmulator) -> None:
    """Addresses that lead elsewhere are not used: the order was accepted, and goes on under addresses of our own."""
    stranger = Emulator()
    with running(stranger):
        own = f"{stranger.url}/fal-ai/upscaler/requests/x"
        emulator.urls = {"status_url": f"{own}/status", "response_url": own, "cancel_url": f"{own}/cancel"}
        handle = await finished(fal, task(CASE))
        await fal.cancel(handle)
        await fal.purge(handle)
        moved = Handle(id="x", operation="upscale", data={"status": own, "cancel": own, "result": own})
        for verb in (fal.poll, fal.cancel):
            with pytest.raises(ProviderFailure) as caught:
                await verb(moved)
            assert caught.value.kind is FailureKind.LOST
        assert stranger.seen == []


@pytest.mark.parametrize(
    ("model", "app"),
    [("acme/app", "acme/app"), ("acme/app/a/b", "acme/app"), ("workflows/acme/flow/x", "workflows/acme/flow")],
)
async def test_addresses_are_made_from_the_app(model: str, app: str, emulator: FalEmulator) -> None:
    """Without addresses in the answer, those of the application are used, its sub-path dropped."""
    emulator.urls = {"status_url": "", "response_url": "", "cancel_url": ""}
    heard = Heard()
    async with aclosing(make(emulator.url, models={"upscale": Model(model=model)})) as adapter:
        await adapter.warm()
        await adapter.submit(task(CASE), heard)
        assert heard.handle.data["status"] == f"{emulator.url}/{app}/requests/{heard.handle.id}/status"


async def test_cancel_believes_only_what_surely_stopped(fal: Fal, emulator: FalEmulator) -> None:
    """OK and ALREADY_COMPLETED stopped; CANCELLATION_REQUESTED and NOT_FOUND did not surely."""
    heard = Heard()
    await fal.submit(task(CASE), heard)
    assert await fal.cancel(heard.handle)
    assert await fal.cancel(heard.handle)
    await fal.submit(task(CASE), heard)
    for _ in range(2):
        await fal.poll(heard.handle)
    assert not await fal.cancel(heard.handle)
    emulator.store.clear()
    assert not await fal.cancel(heard.handle)
    emulator.next("cancel", broken(500))
    with pytest.raises(ProviderFailure):
        await fal.cancel(heard.handle)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answer_json({"detail": TOLD, "error_type": "startup_timeout"}, 504), FailureKind.TIMEOUT),
        (answer_json({"detail": TOLD, "error_type": "runner_disconnected"}, 503), FailureKind.OVERLOADED),
        (answer_json({"detail": TOLD}, 500, X_Fal_Error_Type="internal_error"), FailureKind.PROVIDER_ERROR),
        (answer_json({"detail": [{"type": "no_media_generated", "msg": TOLD}]}, 422), FailureKind.BAD_OUTPUT),
        (answer_json({"detail": [{"type": "image_too_large", "msg": TOLD}]}, 422), FailureKind.INVALID_INPUT),
        (answer_json({"detail": TOLD}, 404), FailureKind.LOST),
        (answer_json({"detail": TOLD}, 499), FailureKind.CANCELED),
        (answer_json({"images": [], "has_nsfw_concepts": [True]}), FailureKind.CONTENT_REJECTED),
    ],
)
async def test_results_of_failed_requests_have_kinds(
    answer: Answer, kind: FailureKind, fal: Fal, emulator: FalEmulator
) -> None:
    """COMPLETED also means failed: fal's name of an error decides, in either form, then the status."""
    emulator.result = answer
    failure = await failure_of(fal, task(CASE))
    assert failure is not None
    assert failure.kind is kind
    assert not failure.is_unanswered
    assert TOLD not in str(failure)


async def test_a_status_may_hold_the_error(fal: Fal, emulator: FalEmulator) -> None:
    """An error in the status fails the attempt, also where a result is served."""
    emulator.status_extra = {"error": TOLD, "error_type": "request_timeout"}
    failure = await failure_of(fal, task(CASE))
    assert failure is not None
    assert failure.kind is FailureKind.TIMEOUT


async def test_a_gateway_says_nothing_of_the_attempt(fal: Fal, emulator: FalEmulator) -> None:
    """A bare 502 to the question for the result leaves the attempt as it was: the next poll finds it."""
    heard = Heard()
    await fal.submit(task(CASE), heard)
    emulator.next("result", Scripted(answer=Answer(status=502, body=b"<html>")))
    await fal.poll(heard.handle)
    snapshot = await fal.poll(heard.handle)
    with pytest.raises(ProviderFailure) as caught:
        await finish(fal, snapshot, heard)
    assert caught.value.is_unanswered
    assert (await finish(fal, snapshot, heard)).outputs


@pytest.mark.parametrize(
    ("route", "answer"),
    [
        ("status", answer_json({"detail": TOLD}, 500, X_Fal_Error_Type="internal_error")),
        ("status", answer_json({"detail": TOLD, "error_type": "runner_disconnected"}, 503)),
        ("status", answer_json({"detail": TOLD}, 499)),
        ("status", Answer(status=408)),
        ("sign", answer_json({"error": {"type": "not_found"}}, 404)),
        ("sign", answer_json({"error": {"type": "bad_request"}}, 400)),
    ],
)
async def test_a_question_that_fails_leaves_the_attempt_as_it_was(
    route: str, answer: Answer, fal: Fal, emulator: FalEmulator
) -> None:
    """A named error at the status, or a link that is not signed yet, is about the question: the next one finds it."""
    heard = Heard()
    snapshot = await fal.submit(task(CASE), heard)
    emulator.next(route, Scripted(answer=answer))
    with pytest.raises(ProviderFailure) as caught:
        await finish(fal, snapshot, heard)
    assert caught.value.is_unanswered
    assert (await finish(fal, snapshot, heard)).outputs


async def test_a_status_is_believed_where_it_speaks_of_the_request(fal: Fal, emulator: FalEmulator) -> None:
    """A refused picture, and a request that fal does not know, end the attempt also at the status."""
    rejected = answer_json({"detail": [{"type": "content_policy_violation", "msg": TOLD}]}, 422)
    for answer in (rejected, answer_json({"detail": TOLD}, 404)):
        emulator.next("status", Scripted(answer=answer))
        failure = await failure_of(fal, task(CASE))
        assert failure is not None
        assert failure.kind in {FailureKind.CONTENT_REJECTED, FailureKind.LOST}
        assert not failure.is_unanswered


@pytest.mark.parametrize("rings", [(Ring.EARLY,), (Ring.DONE,), (Ring.TWICE,), (Ring.FORGED,)])
async def test_hooks_only_hint(rings: tuple[Ring, ...], fal: Fal, emulator: FalEmulator) -> None:
    """Early, twice or with a wrong token: a hook never carries the key, and polls alone tell the outcome."""
    listener = Emulator()

    async def heard(_seen: Seen, token: str) -> Answer:
        return answer_json({})

    listener.routes = {"POST /hooks/{token}": ("hook", heard)}
    emulator.rings = rings
    with running(listener):
        assert (await run(fal, task(CASE, hook_url=f"{listener.url}/hooks/tok3n"))).outputs
        await until(lambda: listener.seen)
    assert len(listener.seen) == (2 if Ring.TWICE in rings else 1)
    assert all((seen.path == "/hooks/tok3n") is (Ring.FORGED not in rings) for seen in listener.seen)
    assert SECRET.encode() not in listener.bytes_seen


async def test_a_picture_that_the_model_does_not_take_stays_here(fal: Fal, emulator: FalEmulator) -> None:
    """What the template does not mention is not sent."""
    await fal.submit(task(CASE, (picture(seed=1), picture(seed=2))), Heard())
    assert emulator.requests("order")[0].body.count(b"base64,") == 1


async def test_health_tells_a_wrong_key(emulator: FalEmulator) -> None:
    """A refused key is found without an order."""
    async with aclosing(make(emulator.url, secret="canary:wrong-key")) as stranger:
        with pytest.raises(ProviderFailure) as caught:
            await stranger.healthy()
        assert caught.value.kind is FailureKind.AUTH


async def test_what_is_configured_wrongly_is_named() -> None:
    """An unknown option is refused when the adapter is made, a wrong model by warm()."""
    with pytest.raises(msgspec.ValidationError, match="queue"):
        make("http://127.0.0.1:9", options={"queue": "x"})
    async with aclosing(make("http://127.0.0.1:9", models={"edit": Model(model="flux")})) as adapter:
        with pytest.raises(ProviderFailure, match="edit"):
            await adapter.warm()

"""What every adapter keeps, shown against an emulator of its provider; a new one joins in cases.py."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from providers.base import Deletes, Exposure, Handle, Part, Progress, Provider, Takes
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from tests.contract.cases import CASES
from tests.contract.orders import (
    FILE_NAME,
    descriptors,
    failure_of,
    finish,
    is_usable,
    run,
    secrets_seen,
    sent,
    stored,
    task,
    until,
)
from tests.emulators.base import Answer, Emulator, Scripted, running
from tests.emulators.case import FAULTS, Case
from tests.pictures import in_memory, photo
from tests.reporters import Heard

NOWHERE = "http://127.0.0.1:9"
TOKEN = "tok-canary-93ab17"
HOOK = "https://lethe.example/v1/hooks/"
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def known_faults() -> list[Any]:
    """Pair every case with every fault that its script knows."""
    pairs = ((case, fault) for case in CASES for fault in FAULTS if case.script(case.emulator(), fault))
    return [pytest.param(case, fault, id=f"{case.name}-{fault}") for case, fault in pairs]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each case in turn."""
    return request.param


@pytest.fixture
def emulator(case: Case) -> Iterator[Emulator]:
    """Run the case's provider."""
    made = case.emulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(case: Case, emulator: Emulator) -> AsyncIterator[Provider]:
    """Lend the case's adapter, warm."""
    made = case.make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def test_terms_are_readable_without_credentials(case: Case) -> None:
    """Exposure, retention, forms and operations stand on the class, within the protocol's choices."""
    terms = type(case.make(NOWHERE)).terms
    assert terms.takes is Takes.FILE
    assert case.operation in terms.operations
    assert terms.exposure is case.exposure
    assert terms.deletes in Deletes
    assert terms.retention_s >= 0
    assert terms.media_types <= {"image/jpeg", "image/png", "image/webp"}
    assert terms.max_pictures >= case.pictures
    assert terms.max_picture_bytes > 0


def test_what_is_not_ours_has_an_address_and_a_secret(case: Case) -> None:
    """A provider that others run is reached by https with a key; one without a usual place is ours, or not trusted."""
    terms = type(case.make(NOWHERE)).terms
    assert not terms.base_url or terms.base_url.startswith("https://")
    assert bool(terms.base_url) == terms.needs_secret
    assert terms.exposure is Exposure.LOCAL or terms.base_url or terms.retention_s


async def test_it_delivers(case: Case, provider: Provider) -> None:
    """An order goes from submit to its outputs; polls alone drive it."""
    snapshot = await run(provider, task(case))
    assert snapshot.outputs
    assert all(is_usable(output) for output in snapshot.outputs)
    assert bool(provider.terms.gives_urls) >= any(output.url for output in snapshot.outputs)
    assert snapshot.model_s >= 0


async def test_an_inline_adapter_ends_at_once_and_no_other_claims_to(case: Case, provider: Provider) -> None:
    """submit() of an inline adapter returns the result; any other has reported a handle with an id by then."""
    heard = Heard()
    snapshot = await provider.submit(task(case), heard)
    assert not case.is_inline or snapshot.progress is Progress.SUCCEEDED
    assert case.is_inline or heard.handle.id


async def test_the_handle_is_stored_before_submit_goes_on(case: Case, provider: Provider, emulator: Emulator) -> None:
    """A reporter that cannot store the handle ends submit: nothing more is sent."""

    class Full(Heard):
        async def accepted(self, handle: Handle) -> None:
            await super().accepted(handle)
            self.requests = len(emulator.seen)
            raise OSError("no room")

    heard = Full()
    if case.is_inline:
        return
    with pytest.raises(OSError, match="no room"):
        await provider.submit(task(case), heard)
    assert len(heard.handles) == 1
    assert len(emulator.seen) == heard.requests


async def test_a_stored_handle_is_enough(case: Case, provider: Provider, emulator: Emulator) -> None:
    """Another process polls, cancels and purges with the handle as a database gives it back, and nothing else."""
    heard = Heard()
    await provider.submit(task(case), heard)
    if not heard.handles:
        assert case.is_inline
        return
    other = case.make(emulator.url)
    try:
        if not case.is_inline:
            snapshot = await other.poll(stored(heard.handle))
            assert (await finish(other, snapshot, heard)).outputs
        await other.cancel(stored(heard.handle))
        await other.purge(stored(heard.handle))
    finally:
        await other.aclose()


@pytest.mark.parametrize(("case", "fault"), known_faults(), indirect=["case"])
async def test_a_fault_has_its_kind(case: Case, fault: str, provider: Provider, emulator: Emulator) -> None:
    """Every fault becomes what the route's loop expects, and quotes no prompt, address, secret or file name."""
    assert case.script(emulator, fault)
    failure = await failure_of(provider, task(case))
    assert (failure.kind if failure else None) is case.kinds.get(fault, FAULTS[fault])
    if failure is not None and fault == "rate_limited":
        assert failure.after_s == 1
    assert failure is None or not failure.is_unsent
    words = {value for value in case.parameters.values() if isinstance(value, str)} | secrets_seen(emulator)
    told = f"{failure!r} {getattr(failure, 'detail', '')} {failure and failure.__cause__!r}"
    assert not any(word in told for word in words)
    assert "http:" not in told
    assert "https:" not in told
    assert FILE_NAME not in told


@pytest.mark.parametrize(("case", "fault"), known_faults(), indirect=["case"])
async def test_an_order_is_sent_once(case: Case, fault: str, provider: Provider, emulator: Emulator) -> None:
    """Whatever happens, nothing that makes a provider work is sent more often than in a run without faults."""
    await run(provider, task(case))
    usual = sent(emulator)
    emulator.seen.clear()
    assert case.script(emulator, fault)
    await failure_of(provider, task(case))
    assert sent(emulator) <= usual


def test_a_case_knows_every_fault_or_says_why_not(case: Case) -> None:
    """Each fault of FAULTS is scripted, or this provider cannot have it for a reason that is stated; never both."""
    known = {fault for fault in FAULTS if case.script(case.emulator(), fault)}
    assert known | set(case.lacks) == set(FAULTS)
    assert not known & set(case.lacks)
    assert all(case.lacks.values())


async def test_a_cancelled_order_leaves_nothing_open(case: Case, emulator: Emulator) -> None:
    """CancelledError comes back at once; no descriptor and no task stays."""
    wanted = task(case)
    open_before, tasks_before = descriptors(), asyncio.all_tasks()
    provider = case.make(emulator.url)
    emulator.latency_s = 0.5
    order = asyncio.create_task(provider.submit(wanted, Heard()))
    await until(lambda: emulator.seen)
    order.cancel()
    with pytest.raises(asyncio.CancelledError):
        await order
    await provider.aclose()
    await until(lambda: descriptors() <= open_before)
    await until(lambda: asyncio.all_tasks() <= tasks_before)


async def test_a_provider_that_is_not_there_got_nothing(case: Case) -> None:
    """A refused connection is NETWORK, and is known to have sent nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    provider = case.make(f"http://127.0.0.1:{port}")
    try:
        with pytest.raises(ProviderFailure) as caught:
            await provider.submit(task(case), Heard())
        assert caught.value.kind is FailureKind.NETWORK
        assert caught.value.is_unsent
        if type(provider).healthy is not Inline.healthy:
            with pytest.raises(ProviderFailure) as unhealthy:
                await provider.healthy()
            assert unhealthy.value.kind is FailureKind.NETWORK
    finally:
        await provider.aclose()


async def test_purge_and_cancel_may_be_repeated(case: Case, provider: Provider) -> None:
    """Cancel twice, purge twice: nothing is raised, and what was deleted is not said to be served."""
    heard = Heard()
    snapshot = await provider.submit(task(case), heard)
    await finish(provider, snapshot, heard)
    handle = heard.handle if heard.handles else Handle(id="unknown", operation=case.operation)
    stopped = await provider.cancel(handle)
    assert await provider.cancel(handle) is stopped
    purge = await provider.purge(handle)
    again = await provider.purge(handle)
    # fal's second answer names no output that could be looked for.
    unseen = frozenset({Part.OUTPUT}) if case.name == "fal" else frozenset[Part]()
    assert again.deleted == purge.deleted - unseen
    assert not purge.deleted & (purge.still_served | again.still_served)
    await provider.cancel(handle)


async def test_a_running_attempt_can_be_cancelled(case: Case, provider: Provider) -> None:
    """Cancel answers while the attempt runs; where it says that it stopped, polls never end in success."""
    if case.is_inline:
        return
    heard = Heard()
    snapshot = await provider.submit(task(case), heard)
    if await provider.cancel(heard.handle):
        with pytest.raises(ProviderFailure) as caught:
            await finish(provider, snapshot, heard)
        assert caught.value.kind in {FailureKind.CANCELED, FailureKind.LOST}


async def test_a_cancel_that_comes_too_late_does_no_harm(case: Case, provider: Provider) -> None:
    """After the end, cancel takes no output away."""
    if case.is_inline:
        return
    heard = Heard()
    await finish(provider, await provider.submit(task(case), heard), heard)
    await provider.cancel(heard.handle)
    assert (await provider.poll(heard.handle)).outputs


async def test_the_provider_learns_nothing_but_the_attempt(case: Case, provider: Provider, emulator: Emulator) -> None:
    """No file name, no machine's name and no id but the attempt's own leave us; the hook's token stays in its URL."""
    heard = Heard()
    wanted = task(case, hook_url=HOOK + TOKEN)
    await run(provider, wanted, heard)
    everything = emulator.bytes_seen
    assert wanted.operation
    assert FILE_NAME.encode() not in everything
    machine = socket.gethostname().encode()
    # A short name stands in any picture by chance.
    assert len(machine) < 6 or machine not in everything
    theirs = msgspec.json.encode(heard.handles) + msgspec.json.encode(wanted.attempt)
    assert all(found in theirs for found in UUID.findall(everything))
    hook = (HOOK + TOKEN).encode()
    assert everything.count(TOKEN.encode()) == everything.count(hook)
    assert bool(everything.count(hook)) == provider.terms.takes_hooks


async def test_a_redirect_takes_nothing_along(case: Case, provider: Provider, emulator: Emulator) -> None:
    """Neither the picture nor the secret goes to where a provider redirects."""
    stranger = Emulator()
    with running(stranger):
        away = Scripted(answer=Answer(status=307, headers={"location": f"{stranger.url}/take"}))
        for route, _ in emulator.routes.values():
            emulator.next(route, away)
        failure = await failure_of(provider, task(case))
        assert failure is not None
        assert stranger.seen == []


async def test_pixels_are_refused_before_anything_is_sent(case: Case, provider: Provider, emulator: Emulator) -> None:
    """Only a clean file leaves: any other form of picture is INVALID_INPUT."""
    pixels = in_memory(photo(4, 4))
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, (pixels,)), Heard())
    os.close(pixels.fd)
    assert (caught.value.kind, caught.value.is_unsent) == (FailureKind.INVALID_INPUT, True)
    assert emulator.seen == []


async def test_an_operation_without_a_model_is_refused_before_anything_is_sent(
    case: Case, provider: Provider, emulator: Emulator
) -> None:
    """What is not configured is UNSUPPORTED, and no request is made."""
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, operation="fly"), Heard())
    assert (caught.value.kind, caught.value.is_unsent) == (FailureKind.UNSUPPORTED, True)
    assert emulator.seen == []


async def test_it_is_healthy(provider: Provider, emulator: Emulator) -> None:
    """A provider that answers is healthy, and asking orders nothing."""
    await provider.healthy()
    assert not sent(emulator)


async def test_closing_twice_is_closing(case: Case) -> None:
    """aclose may be repeated, also on an adapter that was never used."""
    provider = case.make(NOWHERE)
    await provider.aclose()
    await provider.aclose()

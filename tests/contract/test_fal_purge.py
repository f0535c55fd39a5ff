"""What fal's adapter says of a purge: only what was seen, and seen at fal's CDN, wherever an answer points."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from providers.base import Handle, Part, Purge
from providers.failures import FailureKind, ProviderFailure
from providers.fal import Fal
from tests.contract.orders import finished, task
from tests.emulators.base import Answer, Emulator, Scripted, Seen, answer_json, broken, running
from tests.emulators.fal import CASE, FalEmulator, make

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


def deleted(link: str) -> Scripted:
    """Answer a delete with one link to a file."""
    return Scripted(answer=answer_json({"cdn_delete_results": [{"link": link, "exception": None}]}))


def signed(url: str) -> Scripted:
    """Answer a wish for a signed link with this one."""
    return Scripted(answer=answer_json({"signed_url": url}))


async def unseen(adapter: Fal, handle: Handle) -> str:
    """Have a purge fail, and so stay to be done, and say why."""
    with pytest.raises(ProviderFailure) as caught:
        await adapter.purge(handle)
    return caught.value.detail


async def test_purge_deletes_and_looks(fal: Fal, emulator: FalEmulator) -> None:
    """
    Payloads and outputs are deleted and seen absent; records of the request are not claimed.

    Asked once more, fal names no outputs that could be looked for: nothing is claimed of them.
    """
    handle = await finished(fal, task(CASE))
    assert await fal.purge(handle) == Purge(deleted=UPLOAD | OUTPUT)
    assert not emulator.files
    assert await fal.purge(handle) == Purge(deleted=UPLOAD)


async def test_a_result_that_outlives_its_delete_is_told(fal: Fal, emulator: FalEmulator) -> None:
    """A delete that answers 200 while the result is served closes nothing."""
    handle = await finished(fal, task(CASE))
    emulator.is_keeping_results = True
    assert await fal.purge(handle) == Purge(still_served=OUTPUT)


async def test_a_file_that_outlives_its_delete_is_told(fal: Fal, emulator: FalEmulator) -> None:
    """The very file is looked for on the CDN, through a signed link, without the key."""
    handle = await finished(fal, task(CASE))
    emulator.is_keeping_files = True
    assert await fal.purge(handle) == Purge(still_served=OUTPUT)
    assert all("authorization" not in seen.headers for seen in emulator.requests("output"))
    assert emulator.requests("output")


async def test_a_file_that_could_not_be_deleted_is_not_claimed(fal: Fal, emulator: FalEmulator) -> None:
    """An exception beside one file means that the output is not deleted."""
    handle = await finished(fal, task(CASE))
    emulator.delete_exception = "permission denied"
    assert Part.OUTPUT not in (await fal.purge(handle)).deleted


async def test_a_link_to_anywhere_is_not_looked_at(fal: Fal, emulator: FalEmulator) -> None:
    """What fal names as an output is fetched from its CDN only: an answer cannot send us elsewhere."""
    handle = await finished(fal, task(CASE))
    stranger = Emulator()
    with running(stranger):
        link = {"link": stranger.url.replace("127.0.0.1", "localhost"), "exception": None}
        emulator.store.clear()
        emulator.next("delete", Scripted(answer=answer_json({"cdn_delete_results": [link]})))
        assert Part.OUTPUT not in (await fal.purge(handle)).deleted
        assert stranger.seen == []


@pytest.mark.parametrize("acl", ["hide", "allow"])
@pytest.mark.parametrize("status", [200, 404])
async def test_purge_asks_nobody_but_the_cdn(acl: str, status: int, emulator: FalEmulator) -> None:
    """Another port of the CDN's host is another server: it is not asked, and what was not seen gone is not claimed."""
    stranger = Emulator()

    async def found(_seen: Seen) -> Answer:
        return Answer(status=status)

    stranger.routes = {"GET /files/x": ("files", found)}
    async with aclosing(make(emulator.url, options={"acl": acl})) as fal:
        handle = await finished(fal, task(CASE))
        with running(stranger):
            url = f"{stranger.url}/files/x"
            if acl == "allow":
                emulator.store.clear()
                emulator.next("delete", deleted(url))
            else:
                emulator.is_keeping_files = True
                emulator.next("sign", signed(url))
            assert await unseen(fal, handle) == "output_host"
            assert stranger.seen == []


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://169.254.169.254/latest/meta-data", "output_host"),
        ("https://169.254.169.254/", "output_host"),
        ("http://127.0.0.1/", "output_host"),
        ("https://127.0.0.1:8443/", "output_host"),
        ("https://user@127.0.0.1/", "output_host"),
        ("file://127.0.0.1/etc/passwd", "output_host"),
        ("no url", "output_host"),
        ("https://127.0.0.1/x", "output_address"),
    ],
)
async def test_a_signed_link_is_not_believed(url: str, detail: str, fal: Fal, emulator: FalEmulator) -> None:
    """A link with another host, scheme or port, or at an address within, leaves the purge to be done again."""
    handle = await finished(fal, task(CASE))
    emulator.is_keeping_files = True
    emulator.next("sign", signed(url))
    assert await unseen(fal, handle) == detail


async def test_the_queue_is_not_the_cdn(emulator: FalEmulator) -> None:
    """A signed link to the queue's own host, where no outputs lie, is not looked at."""
    async with aclosing(make(emulator.url)) as maker:
        handle = await finished(maker, task(CASE))
    async with aclosing(make(emulator.url, options={"cdn_host": "localhost"})) as fal:
        request = emulator.store.pop(handle.id)
        emulator.next("delete", deleted(f"http://localhost/files/{request.files[0]}"))
        emulator.next("sign", signed(f"{emulator.url}/files/{request.files[0]}"))
        assert await unseen(fal, handle) == "output_host"
        assert not emulator.requests("output")


async def test_a_cdn_that_does_not_answer_the_question_hides_nothing(fal: Fal, emulator: FalEmulator) -> None:
    """An error of the CDN says nothing of the file."""
    handle = await finished(fal, task(CASE))
    emulator.is_keeping_files = True
    emulator.next("output", broken(500))
    assert await unseen(fal, handle) == "output_status_500"


async def test_a_key_that_may_not_delete_is_told(fal: Fal, emulator: FalEmulator) -> None:
    """Deletes need admin scope; without it purge fails, and is not taken for done."""
    handle = await finished(fal, task(CASE))
    emulator.next("delete", Scripted(answer=answer_json({"error": {"type": "authorization_error"}}, 403)))
    with pytest.raises(ProviderFailure) as caught:
        await fal.purge(handle)
    assert caught.value.kind is FailureKind.AUTH

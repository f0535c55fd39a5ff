"""Outputs come whole or not at all, into shared memory, and nothing of ours goes along with the question."""

import asyncio
import gzip
import mmap
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
import pytest

from providers.base import Output
from providers.download import Downloader, DownloadRules, Fetched
from providers.failures import FailureKind, ProviderFailure
from tests.delivery import PUBLIC, Delivery, Internet, Page, answers, output_memories
from tests.keyholder_process import wait_until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 800
MAX_BYTES = 300_000
RULES = DownloadRules(
    base_url="https://api.example.com/v1", hosts=("files.example.com",), max_bytes=MAX_BYTES, timeout_s=20.0
)
URL = "https://files.example.com/out.png"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever is fetched is closed, and whatever fails closes itself."""
    yield
    assert output_memories() == []


@pytest.fixture
async def delivery() -> AsyncGenerator[Delivery]:
    async with Delivery({"/out.png": Page(body=PNG)}).running() as server:
        yield server


@pytest.fixture
async def fetcher(delivery: Delivery) -> AsyncGenerator[Downloader]:
    yield (downloader := fetcher_of(delivery))
    await downloader.aclose()


def fetcher_of(delivery: Delivery, rules: DownloadRules = RULES) -> Downloader:
    return Downloader(rules, resolve=answers(PUBLIC)[0], transport=Internet({PUBLIC: delivery}))


def taken(fetched: Fetched) -> bytes:
    """Read the output, and close it."""
    data = os.pread(fetched.fd, fetched.size_bytes + 1, 0)
    os.close(fetched.fd)
    assert len(data) == fetched.size_bytes
    return data


async def failure_of(downloader: Downloader, output: Output | None = None) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await downloader.fetch(output or Output(url=URL))
    return caught.value


async def test_an_output_comes_whole(fetcher: Downloader) -> None:
    """The bytes of the file lie in shared memory; its kind is what they say, not what anybody claims."""
    fetched = await fetcher.fetch(Output(url=URL, media_type="image/jpeg"))
    assert fetched.media_type == "image/png"
    assert taken(fetched) == PNG


async def test_bytes_pass_the_same_checks(fetcher: Downloader) -> None:
    """An output that came with the answer is measured and looked at like one that is fetched."""
    assert taken(await fetcher.fetch(Output(data=PNG))) == PNG
    assert (await failure_of(fetcher, Output(data=PNG * 2))).detail == "output_too_large"
    assert (await failure_of(fetcher, Output(data=b"<html>"))).detail == "output_kind"
    assert (await failure_of(fetcher, Output(data=b""))).detail == "output_kind"
    assert (await failure_of(fetcher, Output())).detail == "no_output"


async def test_nothing_of_ours_goes_along(delivery: Delivery, fetcher: Downloader) -> None:
    """No credential, no cookie (not even one that the host has just set), no referrer: the same five headers."""
    delivery.pages["/start"] = Page(status=302, headers={"location": "/out.png"})
    taken(await fetcher.fetch(Output(url="https://files.example.com/start#fragment")))
    taken(await fetcher.fetch(Output(url=URL)))
    assert delivery.paths == ["/start", "/out.png", "/out.png"]
    for head in delivery.heads:
        headers = dict(line.lower().split(": ") for line in head.splitlines()[1:] if line)
        assert headers == {
            "host": "files.example.com",
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": "lethe",
        }


async def test_the_signature_in_a_url_arrives_as_it_was_given(delivery: Delivery, fetcher: Downloader) -> None:
    """Path and query reach the host byte by byte, else a signed URL would not be one any more."""
    target = "/a%20b/c%2Fd.png?X-Sig=a%2Bb%2F%3D&e=1~2"
    delivery.pages[target] = Page(body=PNG)
    taken(await fetcher.fetch(Output(url=f"https://files.example.com{target}")))
    assert delivery.paths == [target]


@pytest.mark.parametrize("declared", [-1, None, 10**12])
async def test_too_large_is_refused_while_it_comes(
    delivery: Delivery, fetcher: Downloader, declared: int | None
) -> None:
    """The limit holds for what is declared and for what comes, with a length, without, or with a wrong one."""
    body = PNG[:8] + bytes(MAX_BYTES - 7)
    delivery.pages["/out.png"] = Page(body=body, declared=declared, stops_after=len(body) if declared else None)
    failure = await failure_of(fetcher)
    assert (failure.kind, failure.detail) == (FailureKind.BAD_OUTPUT, "output_too_large")
    assert len(delivery.heads) == 1


@pytest.mark.parametrize("declared", [-1, None])
async def test_the_limit_is_exact(delivery: Delivery, fetcher: Downloader, declared: int | None) -> None:
    """As many bytes as allowed pass."""
    body = PNG[:8] + bytes(MAX_BYTES - 8)
    delivery.pages["/out.png"] = Page(body=body, declared=declared)
    assert taken(await fetcher.fetch(Output(url=URL))) == body


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x-unknown"])
async def test_nothing_is_unpacked(delivery: Delivery, fetcher: Downloader, encoding: str) -> None:
    """A body that would have to be unpacked is refused unread: no small answer becomes a large one."""
    bomb = gzip.compress(PNG + bytes(50 << 20))
    assert len(bomb) < MAX_BYTES
    delivery.pages["/out.png"] = Page(body=bomb, headers={"content-encoding": encoding})
    failure = await failure_of(fetcher)
    assert (failure.kind, failure.detail) == (FailureKind.BAD_OUTPUT, "output_encoding")


@pytest.mark.parametrize("body", [b"", b"<html>an error page</html>", b'{"error": "x"}', b"GIF89a" + bytes(99)])
async def test_only_pictures_and_videos_are_outputs(delivery: Delivery, fetcher: Downloader, body: bytes) -> None:
    """Whatever its media type claims: what does not start like a picture or a video is none."""
    delivery.pages["/out.png"] = Page(body=body, headers={"content-type": "image/png"})
    failure = await failure_of(fetcher)
    assert (failure.kind, failure.detail) == (FailureKind.BAD_OUTPUT, "output_kind")


@pytest.mark.parametrize(
    ("status", "kind", "detail"),
    [
        (403, FailureKind.BAD_OUTPUT, "output_expired"),
        (404, FailureKind.BAD_OUTPUT, "output_expired"),
        (410, FailureKind.BAD_OUTPUT, "output_expired"),
        (204, FailureKind.BAD_OUTPUT, "output_status_204"),
        (206, FailureKind.BAD_OUTPUT, "output_status_206"),
        (304, FailureKind.BAD_OUTPUT, "output_status_304"),
        (418, FailureKind.BAD_OUTPUT, "output_status_418"),
        (429, FailureKind.NETWORK, "output_status_429"),
        (500, FailureKind.NETWORK, "output_status_500"),
        (503, FailureKind.NETWORK, "output_status_503"),
    ],
)
async def test_what_a_status_means(
    delivery: Delivery, fetcher: Downloader, status: int, kind: FailureKind, detail: str
) -> None:
    """A file that is gone is a bad output at once; a server in trouble can be asked again: the network failed."""
    delivery.pages["/out.png"] = Page(status=status, declared=0)
    failure = await failure_of(fetcher)
    assert (failure.kind, failure.detail, len(delivery.heads)) == (kind, detail, 1)


async def test_a_file_that_breaks_off_is_none(delivery: Delivery, fetcher: Downloader) -> None:
    """Half a file is never taken for a whole one; it can be fetched again."""
    delivery.pages["/out.png"] = Page(body=PNG[:1000], declared=len(PNG))
    failure = await failure_of(fetcher)
    assert (failure.kind, failure.detail) == (FailureKind.NETWORK, "RemoteProtocolError")
    delivery.pages["/out.png"] = Page(body=PNG)
    assert taken(await fetcher.fetch(Output(url=URL))) == PNG


async def test_a_slow_output_ends_in_time_and_is_overwritten(delivery: Delivery) -> None:
    """The whole fetch has one time limit, however the bytes drip; what had come is zeros afterwards."""
    delivery.pages["/out.png"] = Page(body=PNG, stops_after=5000)
    downloader = fetcher_of(delivery, msgspec.structs.replace(RULES, timeout_s=1.0))
    fetching = asyncio.create_task(downloader.fetch(Output(url=URL)))
    kept = await kept_memory(5000)
    with pytest.raises(ProviderFailure) as caught:
        await fetching
    assert (caught.value.kind, caught.value.detail) == (FailureKind.TIMEOUT, "output_timeout")
    assert is_blank(kept)
    await downloader.aclose()


async def test_a_cancelled_fetch_leaves_nothing(delivery: Delivery, fetcher: Downloader) -> None:
    """Who cancels a fetch finds its memory overwritten."""
    delivery.pages["/out.png"] = Page(body=PNG, stops_after=5000)
    fetching = asyncio.create_task(fetcher.fetch(Output(url=URL)))
    kept = await kept_memory(5000)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert is_blank(kept)


async def kept_memory(size_bytes: int) -> mmap.mmap:
    """Map the memory of a fetch that is under way, once that much has come, so that it outlives its descriptor."""

    async def has_come() -> bool:
        return any(Path(path).stat().st_size == size_bytes for path in output_memories())

    await wait_until(has_come)
    fd = os.open(output_memories()[0], os.O_RDONLY)
    try:
        memory = mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    assert memory[:] == PNG[:size_bytes]
    return memory


def is_blank(memory: mmap.mmap) -> bool:
    with memory:
        return not any(memory[:])

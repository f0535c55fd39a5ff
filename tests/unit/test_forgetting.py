"""A failed upload leaves nothing in the frames that it has left."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Generator

import pytest

from broker.forgetting import forget_frames


class Chunk:
    """Stands for bytes, which cannot be referred to weakly."""


class Kept:
    failure: Exception | None = None


@pytest.fixture
def no_collector() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


async def body(seen: list[weakref.ref[Chunk]]) -> AsyncGenerator[Chunk, None]:
    chunk = Chunk()
    seen.append(weakref.ref(chunk))
    yield chunk
    raise ConnectionError


async def take_in(kept: Kept, seen: list[weakref.ref[Chunk]]) -> None:
    try:
        async for chunk in body(seen):
            held = chunk
            assert held
    except ConnectionError as exc:
        kept.failure = exc  # a cycle: the exception has the frame, and the frame has `kept`
        raise LookupError from exc


async def test_chunks_do_not_wait_for_the_collector(no_collector: None) -> None:
    """What the frames of an exception and of its causes held is free at once, without a collection."""
    seen: list[weakref.ref[Chunk]] = []
    with pytest.raises(LookupError) as caught:
        await take_in(Kept(), seen)
    await asyncio.sleep(0)
    assert seen[0]() is not None
    forget_frames(caught.value)
    assert seen[0]() is None
